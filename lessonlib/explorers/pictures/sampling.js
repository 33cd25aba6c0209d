// From a model's distribution to a token: temperature, top-k, top-p and min-p, on real logits.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, row, slider } from "../shared/controls.js";
import { canvas, factRow, legend, text } from "../shared/drawing.js";
import { percent, plural, ticks, whole } from "../shared/numbers.js";
import { brief, MARKS_KEY, quoted } from "../shared/text.js";

/** Why a token can no longer be drawn. The index is what `distribution` puts into `fate`. */
export const FATES = ["kept", "top-k", "top-p", "min-p", "greedy"];

/** Token ids, likeliest first; ties in the order of ids. Temperature does not change it. */
export const ranking = (logits) =>
  Uint32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);

function softmax(logits, keep, temperature, top) {
  let total = 0;
  const p = new Float64Array(logits.length);
  for (let i = 0; i < p.length; i++) {
    if (keep && keep[i] !== 0) continue;
    p[i] = Math.exp((logits[i] - top) / temperature);
    total += p[i];
  }
  for (let i = 0; i < p.length; i++) p[i] /= total;
  return p;
}

/**
 * The distribution a token is drawn from, in the engine's order: temperature, top-k, top-p, min-p.
 * Returns `tempered` (after temperature alone), `final`, and `fate` (index into FATES) for each token.
 */
export function distribution(logits, order, { temperature, topK, topP, minP }) {
  const fate = new Uint8Array(logits.length);
  const best = order[0];
  if (temperature === 0) {
    fate.fill(4);
    fate[best] = 0;
    const final = new Float64Array(logits.length);
    final[best] = 1;
    return { tempered: final, final, fate };
  }
  const tempered = softmax(logits, null, temperature, logits[best]);
  if (topK > 0 && topK < logits.length) {
    const kth = logits[order[topK - 1]];
    for (let i = 0; i < fate.length; i++) if (logits[i] < kth) fate[i] = 1;
  }
  if (topP < 1) {
    const p = softmax(logits, fate, temperature, logits[best]);
    let before = 0;
    for (const token of order) {
      if (fate[token] === 0 && before >= topP) fate[token] = 2;
      before += p[token];
    }
  }
  if (minP > 0) {
    const p = softmax(logits, fate, temperature, logits[best]);
    const least = minP * p[best];
    for (let i = 0; i < fate.length; i++) if (fate[i] === 0 && p[i] < least) fate[i] = 3;
  }
  return { tempered, final: softmax(logits, fate, temperature, logits[best]), fate };
}

/** Uncertainty in bits: 0 for one certain token, log2(n) for n equally likely ones. */
export const entropy = (p) =>
  p.reduce((bits, share) => (share > 0 ? bits - share * Math.log2(share) : bits), 0);

/** Uniform numbers in [0, 1) that are the same for the same seed (Mulberry32). */
export function uniform(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** How often each token comes up in `count` draws: Map from token to count. */
export function drawMany(final, order, count, seed) {
  const next = uniform(seed);
  const counts = new Map();
  for (let i = 0; i < count; i++) {
    let left = next();
    let token = order[0];
    for (const candidate of order) {
      if (final[candidate] === 0) continue;
      token = candidate;
      left -= final[candidate];
      if (left < 0) break;
    }
    counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  return counts;
}

/** What the picture comes down to: tokens kept, probability cut, entropy before and after. */
export function facts(logits, order, settings) {
  const { tempered, final, fate } = distribution(logits, order, settings);
  let kept = 0;
  let mass = 0;
  for (let i = 0; i < fate.length; i++) {
    if (fate[i] !== 0) continue;
    kept += 1;
    mass += tempered[i];
  }
  const own = softmax(logits, null, 1, logits[order[0]]);
  return {
    own,
    tempered,
    final,
    fate,
    kept,
    cut: Math.max(0, 1 - mass),
    bits: [entropy(own), entropy(final)],
  };
}

/** The sentence above the picture. */
export function titleText({ kept, cut, final }, order, piece, vocab, temperature) {
  const first = quoted(piece, 12);
  if (temperature === 0) return `Temperature 0 is greedy: ${first} is chosen every time.`;
  const most = kept === 1 ? `only ${first}` : `${first} most often (${percent(final[order[0]])})`;
  if (kept === vocab) return `Nothing is cut: any of ${whole(vocab)} tokens can be drawn, ${most}.`;
  return `${whole(kept)} of ${whole(vocab)} tokens can be drawn, ${most}; ${percent(cut)} of the probability is cut.`;
}

const ROW = 21;
const HEAD = 24;

function bars(data, shown, state, counts, width) {
  const { pieces, order, vocab } = data;
  const { own, tempered, final, fate } = shown;
  const narrow = width < 560;
  const drawn = state.draws > 0;
  const left = narrow ? 96 : 150;
  const right = (narrow ? 118 : 140) + (drawn ? (narrow ? 46 : 64) : 0);
  const svg = canvas(
    width,
    HEAD + ROW * (pieces.length + 1) + 22,
    "Probability of the likeliest next tokens",
  );
  const value = (token) => (fate[token] === 0 ? final[token] : tempered[token]);
  const shareDrawn = (token) => (drawn ? (counts.get(token) ?? 0) / state.draws : 0);
  const top = Math.max(
    ...pieces.flatMap((_, i) => [value, shareDrawn, (token) => own[token]].map((f) => f(order[i]))),
  );
  const marks = ticks(Math.min(top, 1), narrow ? 3 : 5).filter((mark) => mark <= 1.0001);
  const x = (share) => left + (share / marks.at(-1)) * (width - left - right);
  const bottom = HEAD + ROW * pieces.length;

  for (const mark of marks) {
    svg.append(
      s("line", {
        x1: Math.round(x(mark)),
        x2: Math.round(x(mark)),
        y1: HEAD - 4,
        y2: bottom,
        class: "lx-axis",
      }),
      text(x(mark), HEAD - 9, `${+(mark * 100).toPrecision(3)}%`, {
        "text-anchor": "middle",
        class: "lx-quiet lx-num",
      }),
    );
  }
  const column = { share: width - right + 70, sum: width - right + (narrow ? 118 : 136), drawn: width };
  const head = (at, words) =>
    svg.append(text(at, HEAD - 9, words, { "text-anchor": "end", class: "lx-quiet" }));
  head(column.share, "chance");
  head(column.sum, "sum");
  if (drawn) head(column.drawn, narrow ? "drawn" : `of ${state.draws}`);

  let sum = 0;
  pieces.forEach((piece, i) => {
    const token = order[i];
    const y = HEAD + i * ROW;
    const kept = fate[token] === 0;
    const share = value(token);
    sum += tempered[token];
    const number = (at, words, attributes = {}) =>
      svg.append(
        text(at, y + 14, words, {
          "text-anchor": "end",
          class: `lx-num ${kept ? "" : "lx-quiet"}`,
          ...attributes,
        }),
      );
    svg.append(
      text(left - 8, y + 14, brief(piece, narrow ? 11 : 18), {
        "text-anchor": "end",
        class: `lx-mono ${kept ? "" : "lx-quiet"}`,
      }),
      s("rect", {
        x: left,
        y: y + 3,
        width: Math.max(x(share) - left, 1),
        height: ROW - 7,
        rx: 2,
        style: `fill:${svg.paint(kept ? "fresh" : "cut")}`,
        class: `lx-box lx-box-${kept ? "fresh" : "cut"}`,
      }),
      s("line", { x1: x(own[token]), x2: x(own[token]), y1: y + 1, y2: y + ROW - 2, class: "lx-own" }),
    );
    number(
      column.share,
      kept ? percent(final[token]) : FATES[fate[token]] === "greedy" ? "–" : FATES[fate[token]],
    );
    number(column.sum, percent(Math.min(sum, 1)), { class: "lx-num lx-quiet" });
    if (drawn) {
      const count = counts.get(token) ?? 0;
      const at = x(shareDrawn(token));
      if (count)
        svg.append(
          s("path", { d: `M${at},${y + ROW / 2 - 6} l5,5.5 l-5,5.5 l-5,-5.5 z`, class: "lx-drawn" }),
        );
      number(column.drawn, count, { class: "lx-num lx-strong" });
    }
  });
  const others = vocab - pieces.length;
  if (others > 0) {
    const keptOutside = shown.kept - pieces.filter((_, i) => fate[order[i]] === 0).length;
    const share = Math.max(0, 1 - sum);
    svg.append(
      text(
        left,
        bottom + 17,
        `and ${whole(others)} more tokens, ${percent(share)} together; ${keptOutside === 0 ? "none" : whole(keptOutside)} can be drawn`,
        { class: "lx-quiet" },
      ),
    );
  }
  return svg;
}

function draw(ui, data, state, width) {
  const { logits, order, pieces, vocab } = data;
  const shown = facts(logits, order, state);
  const counts = state.draws ? drawMany(shown.final, order, state.draws, data.seed) : new Map();
  ui.title(titleText(shown, order, pieces[0], vocab, state.temperature));
  ui.figure.replaceChildren(
    h("p", { class: "lx-lead" }, "Next token after ", h("code", {}, brief(data.prompt, 60))),
    factRow([
      ["tokens kept", whole(shown.kept)],
      ["probability cut", percent(shown.cut)],
      ["uncertainty", `${shown.bits[1].toFixed(1)} bits`],
      ["the model's own", `${shown.bits[0].toFixed(1)} bits`],
    ]),
    ui.legend,
    bars(data, shown, state, counts, width),
  );
  const tried = state.draws
    ? ` In ${plural(state.draws, "draw")}, ${quoted(pieces[0])} came ${counts.get(order[0]) ?? 0} times.`
    : "";
  ui.say(
    `${plural(shown.kept, "token")} of ${whole(vocab)} kept, ${percent(shown.cut)} of the probability cut, ` +
      `uncertainty ${shown.bits[1].toFixed(1)} bits. Likeliest: ` +
      `${pieces
        .slice(0, 3)
        .map((piece, i) => `${quoted(piece)} ${percent(shown.final[order[i]])}`)
        .join(", ")}.${tried}`,
  );
}

function render({ model, el }) {
  const sent = model.get("data");
  const view = model.get("logits");
  const logits = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const data = { ...sent, logits, order: ranking(logits), vocab: logits.length };
  const ui = explorer(
    { model, el },
    { label: "Sampling", defaults: sent.defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  ui.legend = legend([
    ["fresh", "can be drawn"],
    ["cut", "cut"],
  ]);
  const mark = (shape, meaning) =>
    h("li", {}, s("svg", { width: 14, height: 14, "aria-hidden": "true", class: "lx-svg" }, shape), meaning);
  ui.legend.append(
    mark(s("line", { x1: 7, x2: 7, y1: 0, y2: 14, class: "lx-own" }), "the model's own probability"),
    mark(s("path", { d: "M7,1.5 l5,5.5 l-5,5.5 l-5,-5.5 z", class: "lx-drawn" }), "share of the draws"),
    h("li", { class: "lx-key" }, MARKS_KEY),
  );
  const clear = () => ui.set({ draws: 0 }); // counts belong to one distribution
  const off = (when, format) => (value) => (value === when ? "off" : format(value));
  const two = (value) => value.toFixed(2);
  ui.controls.append(
    row(
      slider(ui, {
        key: "temperature",
        label: "Temperature",
        min: 0,
        max: 2,
        step: 0.05,
        format: (v) => (v === 0 ? "0 (greedy)" : two(v)),
        onInput: clear,
      }),
      slider(ui, { key: "topK", label: "Top-k", min: 0, max: 50, format: off(0, String), onInput: clear }),
      slider(ui, {
        key: "topP",
        label: "Top-p",
        min: 0.05,
        max: 1,
        step: 0.01,
        format: off(1, two),
        onInput: clear,
      }),
      slider(ui, {
        key: "minP",
        label: "Min-p",
        min: 0,
        max: 0.5,
        step: 0.01,
        format: off(0, two),
        onInput: clear,
      }),
      h(
        "div",
        { class: "lx-buttons" },
        button("Draw 100", () => ui.set({ draws: ui.state.draws + 100 }), { class: "lx-button lx-primary" }),
        button("Reset", ui.reset),
      ),
    ),
  );
  return ui.close;
}

export default { render };
