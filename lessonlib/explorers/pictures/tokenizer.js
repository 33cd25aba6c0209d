// Type, and see the text fall into tokens: the model's own byte-level BPE, run in the browser.

import { explorer } from "../shared/frame.js";
import { h, unique } from "../shared/dom.js";
import { button, row, slider } from "../shared/controls.js";
import { bpe } from "../shared/bpe.js";
import { chip, factRow } from "../shared/drawing.js";
import { plural, whole } from "../shared/numbers.js";
import { visible } from "../shared/text.js";

const MOST = 2000; // chips drawn at once

const hex = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** A token's text, or its bytes ⟨f0 9f⟩ when they are only part of a character. */
export function label({ bytes }) {
  try {
    return visible(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes)));
  } catch {
    return `⟨${hex(bytes)}⟩`;
  }
}

/** What a text costs: characters, UTF-8 bytes, tokens, bytes a token. */
export function measure(text, tokens) {
  const bytes = new TextEncoder().encode(text).length;
  return {
    characters: [...text].length,
    bytes,
    tokens: tokens.length,
    ratio: tokens.length ? bytes / tokens.length : 0,
  };
}

/** The sentence above the picture. */
export function titleText({ characters, bytes, tokens, ratio }) {
  if (!tokens) return "Type something, and see its tokens.";
  const verb = characters === 1 ? "becomes" : "become";
  const size = `${ratio.toFixed(1)} bytes a token`;
  return bytes === characters
    ? `${plural(characters, "character")} ${verb} ${plural(tokens, "token")}: ${size}.`
    : `${plural(characters, "character")} (${plural(bytes, "byte")}) ${verb} ${plural(tokens, "token")}: ${size}.`;
}

function chips(tokens) {
  const list = h("ol", { class: "lx-chips", "aria-label": "Tokens", tabindex: 0 });
  tokens.slice(0, MOST).forEach((token, i) => {
    const shown = label(token);
    const title = `id ${token.id}, ${plural(token.bytes.length, "byte")}: ${hex(token.bytes)}`;
    list.append(chip(shown, token.id, token.special ? "special" : i % 4, { title }));
    if (token.bytes.includes(10)) list.append(h("li", { class: "lx-break", "aria-hidden": "true" }));
  });
  return list;
}

function draw(ui, tokenizer, base, state) {
  const tokens = tokenizer.encode(state.text, state.merges);
  const size = measure(state.text, tokens);
  ui.title(titleText(size));
  const distinct = new Set(tokens.map((token) => token.id)).size;
  ui.figure.replaceChildren(
    factRow([
      ["characters", whole(size.characters)],
      ["bytes (UTF-8)", whole(size.bytes)],
      ["tokens", whole(size.tokens)],
      ["bytes a token", size.ratio.toFixed(2)],
      ["different tokens", whole(distinct)],
    ]),
    chips(tokens),
  );
  const first = tokens.slice(0, 6).map((token) => `“${label(token)}” ${token.id}`);
  const hidden = tokens.length > MOST ? ` Only the first ${whole(MOST)} are drawn.` : "";
  ui.say(
    tokens.length === 0
      ? "No tokens."
      : `${plural(tokens.length, "token")} from a vocabulary of ${whole(base + state.merges)}: ${first.join(", ")}${tokens.length > 6 ? " …" : "."}${hidden}`,
  );
}

function render({ model, el }) {
  const { definition, text } = model.get("data");
  const tokenizer = bpe(definition);
  const base = Object.keys(definition.model.vocab).length - tokenizer.merges; // bytes and special tokens
  const defaults = { text, merges: tokenizer.merges };
  const ui = explorer(
    { model, el },
    { label: "Tokenizer", defaults, draw: (state) => draw(ui, tokenizer, base, state) },
  );
  const id = unique("text");
  const area = h("textarea", {
    id,
    rows: 4,
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
  });
  area.addEventListener("input", () => ui.set({ text: area.value }));
  ui.onState(() => {
    if (area.value !== ui.state.text) area.value = ui.state.text;
  });
  ui.controls.append(
    h("div", { class: "lx-typing" }, h("label", { for: id }, "Type or paste here"), area),
    row(
      slider(ui, {
        key: "merges",
        label: "Vocabulary",
        min: 0,
        max: tokenizer.merges,
        wide: true,
        format: (v) =>
          `${plural(base + v, "token")}${v === 0 ? ": bytes only" : v === tokenizer.merges ? ": all of it" : ""}`,
      }),
      h("div", { class: "lx-buttons" }, button("Reset", ui.reset)),
    ),
  );
  ui.controls.append(
    h(
      "p",
      { class: "lx-key" },
      "· space   ↵ line end   → tab   ⟨f0 9f⟩ bytes that are only part of a character",
    ),
  );
  return ui.close;
}

export default { render };
