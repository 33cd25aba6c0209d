// Byte-level BPE as a tokenizer.json describes it (the kind GPT-2, Llama 3, Qwen and pico use). No document needed.

// GPT-2's split (Radford et al. 2019): contractions, words, numbers and the rest, each with the space before it.
const S = "\\p{White_Space}"; // JavaScript's \s is not quite Unicode's
const GPT2_SPLIT = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${S}\\p{L}\\p{N}]+|${S}+(?![^${S}])|${S}+`,
  "gu",
);

/** Byte → the printable character that stands for it in the vocabulary. */
export function byteAlphabet() {
  const letters = new Array(256);
  let borrowed = 256;
  for (let byte = 0; byte < 256; byte++) {
    const prints = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    letters[byte] = String.fromCharCode(prints ? byte : borrowed++);
  }
  return letters;
}

const unsupported = (what) => {
  throw new Error(
    `This playground cannot follow a tokenizer with ${what}; use tokenizer.encode() in a cell instead.`,
  );
};

// Each step of the pre-tokenizer maps one piece of text to several.
function splitter(step) {
  if (step === null || step === undefined) return (piece) => [piece];
  if (step.type === "Sequence") {
    const steps = step.pretokenizers.map(splitter);
    return (piece) => steps.reduce((pieces, split) => pieces.flatMap(split), [piece]);
  }
  if (step.type === "Digits") {
    const digits = step.individual_digits ? /\p{N}|\P{N}+/gu : /\p{N}+|\P{N}+/gu;
    return (piece) => piece.match(digits) ?? [];
  }
  if (step.type === "ByteLevel") {
    const split = step.use_regex === false ? (piece) => [piece] : (piece) => piece.match(GPT2_SPLIT) ?? [];
    return (piece) => split(step.add_prefix_space && !piece.startsWith(" ") ? ` ${piece}` : piece);
  }
  return unsupported(`the pre-tokenizer ${step.type}`);
}

const levels = (step) => (step?.type === "Sequence" ? step.pretokenizers.flatMap(levels) : [step?.type]);

/**
 * A tokenizer from the content of tokenizer.json. `split(text)` returns the words that no token crosses.
 * `encode(text, merges)` returns [{id, bytes}]; with `merges` only the
 * first so many merge rules are used, which is what a smaller vocabulary would have learned.
 * Throws an Error with one sentence when the file asks for something this code does not do.
 */
export function bpe(definition) {
  const { model, pre_tokenizer: pre, normalizer, added_tokens: added = [] } = definition;
  if ((model.type ?? "BPE") !== "BPE") unsupported(`the model ${model.type}`);
  if (!levels(pre).includes("ByteLevel")) unsupported("no byte-level alphabet");
  if (normalizer) unsupported(`the normalizer ${normalizer.type}`);
  if (model.dropout) unsupported("dropout");
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"]) {
    if (model[name]) unsupported(`the ${name.replaceAll("_", " ")} “${model[name]}”`);
  }
  if (added.some((token) => token.lstrip || token.rstrip || token.single_word))
    unsupported("added tokens that swallow spaces");

  const letters = byteAlphabet();
  const bytes = new Map(letters.map((letter, byte) => [letter, byte]));
  const { vocab } = model;
  const ranks = new Map(
    model.merges.map((merge, rank) => [Array.isArray(merge) ? merge.join(" ") : merge, rank]),
  );
  const split = splitter(pre);
  const special = new Map(added.map((token) => [token.content, token.id]));
  const escaped = [...special.keys()]
    .sort((a, b) => b.length - a.length)
    .map((t) => t.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  const specials = escaped.length ? new RegExp(`(${escaped.join("|")})`, "u") : null;
  const utf8 = new TextEncoder();
  const cache = new Map();

  function merge(word, limit) {
    if (model.ignore_merges && limit === Infinity && word in vocab) return [word];
    let parts = [...word];
    for (;;) {
      let best = limit;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank < best) best = rank;
      }
      if (best === limit) return parts;
      const joined = [];
      for (let i = 0; i < parts.length; i++) {
        const pair = i + 1 < parts.length && ranks.get(`${parts[i]} ${parts[i + 1]}`) === best;
        joined.push(pair ? parts[i] + parts[++i] : parts[i]);
      }
      parts = joined;
    }
  }

  function encodeWord(piece, limit) {
    const word = Array.from(utf8.encode(piece), (byte) => letters[byte]).join("");
    const key = `${limit} ${word}`;
    if (!cache.has(key)) {
      if (cache.size > 20000) cache.clear();
      const tokens = merge(word, limit).map((part) => ({
        id: vocab[part],
        bytes: Array.from(part, (c) => bytes.get(c)),
      }));
      cache.set(key, tokens);
    }
    return cache.get(key);
  }

  return {
    merges: ranks.size,
    split,
    encode(text, merges = Infinity) {
      const limit = merges >= ranks.size ? Infinity : merges;
      // A lone half of a surrogate pair is no character; Python could not send it either.
      const runs = specials ? text.toWellFormed().split(specials) : [text.toWellFormed()];
      return runs.flatMap((run, i) => {
        if (run === "") return [];
        if (i % 2 === 1) return [{ id: special.get(run), bytes: [...utf8.encode(run)], special: true }];
        return split(run).flatMap((piece) => encodeWord(piece, limit));
      });
    },
  };
}
