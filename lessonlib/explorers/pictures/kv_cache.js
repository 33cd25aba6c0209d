// The KV cache from two sides: which cells of the attention matrix need no second visit, and what the memory for it is.

import { explorer } from "../shared/frame.js";
import { h } from "../shared/dom.js";
import { button, choice, player, row, slider } from "../shared/controls.js";
import { factRow, legend } from "../shared/drawing.js";
import { cellsAt, divisors, gains, kvBytesPerToken, needs } from "../shared/kv.js";
import { cardBars, growth, headsDrawing, matricesDrawing } from "../shared/kv_drawing.js";
import { bytesText, plural, si, whole } from "../shared/numbers.js";

/** The model's shape as the sliders have it. */
export const shapeOf = (models, { model, layers, heads, kvHeads, headDim }) => ({
  ...models[model],
  layers,
  heads,
  kvHeads,
  headDim,
});

/** The sliders' values for a model, and 4,096 tokens a user if it can take them. */
export function fromModel({ models, contexts }, model) {
  const { layers, heads, kvHeads, headDim } = models[model];
  const context = contextsOf(contexts, models[model]).findLast((tokens) => tokens <= 4096);
  return { layers, heads, kvHeads, headDim, context };
}

/** Contexts that a model can take: round ones, and its own longest. */
export const contextsOf = (contexts, shape) => [
  ...contexts.filter((tokens) => tokens < shape.context),
  shape.context,
];

const gigabytes = (value) => si(value, "B");
const tokens = (count) => plural(count, "token");
const users = (count) => plural(count, "user");

/** Is this the shape the model really has? */
const changed = (models, state) =>
  ["layers", "heads", "kvHeads", "headDim"].some((key) => state[key] !== models[state.model][key]);

const nameOf = (models, state) => `${changed(models, state) ? "Changed " : ""}${state.model}`;

export function reuseTitle(data, state) {
  const { prompt, step } = state;
  const total = prompt + step - 1;
  const [without, withCache] = [false, true].map((cached) => cellsAt(prompt, step, cached));
  const held = bytesText(total * kvBytesPerToken(shapeOf(data.models, state), state.format));
  if (step === 1)
    return `Step 1 runs the whole prompt: ${whole(without)} cells either way, and ${held} of keys and values to keep.`;
  return (
    `Step ${step}: without a cache ${whole(without)} cells are computed, with a cache ${whole(withCache)}, ` +
    `for ${held} of memory.`
  );
}

export function costTitle(data, state) {
  const { perToken, fit } = needs(shapeOf(data.models, state), state, data.cards);
  const card = fit.findIndex((count) => count !== null);
  const start = `${nameOf(data.models, state)}: ${bytesText(perToken)} a token.`;
  if (card < 0) return `${start} Its weights are too large for each of these cards.`;
  const room = fit[card] === 0 ? "no user" : users(fit[card]);
  return `${start} A ${data.cards[card].name} card holds ${room} of ${tokens(state.context)}.`;
}

/** The picture in words. */
export function summaryText(data, state) {
  const shape = shapeOf(data.models, state);
  if (state.view === "reuse") {
    const { held, saved } = gains(shape, { ...state, steps: state.step });
    return (
      `${nameOf(data.models, state)} after step ${state.step}: the cache holds ${tokens(state.prompt + state.step - 1)}, ` +
      `${bytesText(held.at(-1))}, and has saved ${si(saved.at(-1), "FLOP")} so far.`
    );
  }
  const { perUser, all, weights, fit } = needs(shape, state, data.cards);
  const rooms = fit.map((count, i) => `${count ? whole(count) : "none"} on ${data.cards[i].name}`);
  return (
    `Weights ${gigabytes(weights)}, one user ${gigabytes(perUser)}, ${users(state.users)} ${gigabytes(all)}. ` +
    `Users that fit beside the weights: ${rooms.join(", ")}.`
  );
}

function drawReuse(ui, data, state, width) {
  const wide = width >= 820;
  const forMatrices = wide ? Math.min(640, Math.floor(width * 0.6)) : width;
  const side = Math.min(290, Math.floor((forMatrices - 18 - (wide ? 36 : 16)) / 2));
  const { held, saved } = gains(shapeOf(data.models, state), { ...state, steps: data.limits.steps });
  const beside = wide ? width - forMatrices - 32 : width;
  const height = wide ? Math.floor((side + 82 - 12) / 2) : 118;
  const common = { step: state.step, width: beside, height };
  return [
    h(
      "p",
      { class: "lx-lead" },
      "A cell is one token looking at another; for that it needs the other’s key and value (the strip above). Those never change once computed: a cache keeps them.",
    ),
    ui.legend,
    h(
      "div",
      { class: "lx-kv-sides" },
      matricesDrawing(state, data.limits.steps, forMatrices, side),
      h(
        "div",
        { class: "lx-kv-charts" },
        growth({
          ...common,
          title: "Memory held",
          values: held,
          format: bytesText,
          axis: bytesText,
          unit: 1024 ** Math.floor(Math.log2(Math.max(...held)) / 10),
          fill: "reused",
          tone: "lx-is-reused",
        }),
        growth({
          ...common,
          title: "FLOPs saved so far",
          values: saved,
          format: (value) => si(value),
          fill: "again",
          tone: "lx-is-again",
        }),
      ),
    ),
  ];
}

function formula(shape, state, perToken) {
  const perNumber = { float32: "4 bytes", float16: "2 bytes", int8: "1 byte", int4: "½ byte" }[state.format];
  const scaled = state.format.startsWith("int");
  const factors = [
    ["key and value", "2"],
    ["layers", whole(shape.layers)],
    ["KV heads", whole(shape.kvHeads)],
    scaled
      ? ["numbers a head, scale", `(${shape.headDim} × ${perNumber} + 4)`]
      : ["numbers a head", `${shape.headDim} × ${perNumber}`],
  ];
  const part = (sign, [name, amount], tone = null) =>
    h(
      "span",
      { class: "lx-kv-part" },
      h("i", {}, sign),
      h("span", { class: "lx-fact" }, h("span", {}, name), h("b", { class: tone }, amount)),
    );
  return h(
    "div",
    { class: "lx-kv-formula" },
    factors.map((factor, i) => part(i ? "×" : "", factor)),
    part("=", ["for each token", bytesText(perToken)], "lx-is-reused"),
  );
}

function drawCost(ui, data, state, width) {
  const shape = shapeOf(data.models, state);
  const need = needs(shape, state, data.cards);
  return [
    h(
      "p",
      { class: "lx-lead" },
      "Each layer keeps a key and a value of every token for each of its KV heads. Query heads look at them; several may share one.",
    ),
    formula(shape, state, need.perToken),
    headsDrawing(shape, width),
    factRow([
      ["one user", gigabytes(need.perUser)],
      [users(state.users), gigabytes(need.all)],
      ["weights, 16 bits each", gigabytes(need.weights)],
      ["saved at the next token", si(need.saved, "FLOP")],
      ["saved for each byte held", si(need.saved / need.perUser, "FLOP")],
    ]),
    ui.costLegend,
    cardBars(data.cards, state.users, need, width),
    h(
      "p",
      { class: "lx-key" },
      "1 KiB is 1,024 bytes, 1 GB is 1,000,000,000. A server needs some memory more, for the numbers it works with.",
    ),
  ];
}

function draw(ui, data, state, width) {
  const reuse = state.view === "reuse";
  ui.title((reuse ? reuseTitle : costTitle)(data, state));
  ui.figure.replaceChildren(...(reuse ? drawReuse : drawCost)(ui, data, state, width));
  ui.say(summaryText(data, state));
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    { label: "KV cache", defaults: data.defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  ui.legend = legend([
    ["fresh", "computed for the first time"],
    ["again", "computed again"],
    ["reused", "kept in the cache: not computed again"],
  ]);
  ui.costLegend = legend([
    ["cut", "weights"],
    ["reused", "keys and values of one user"],
    ["none", "free"],
    ["again", "too small for the weights"],
  ]);
  const { state } = ui;
  const last = data.limits.steps;
  const go = (step) => ui.set({ step: Math.min(Math.max(step, 1), last) });
  const play = player(ui, {
    advance: () => {
      go(state.step + 1);
      return state.step < last;
    },
    atEnd: () => state.step >= last,
    rewind: () => go(1),
    every: 600,
  });
  const move = (by) => () => {
    play.pause();
    go(state.step + by);
  };
  const reset = () => {
    play.pause();
    ui.reset();
  };
  const switches = (key, words, options, onInput = play.pause) =>
    choice(ui, { key, legend: words, options, onInput });
  const only = (view, ...rows) => {
    ui.onState(() => rows.forEach((part) => (part.hidden = state.view !== view)));
    return rows;
  };
  const heads = () => ui.set({ kvHeads: divisors(state.heads).findLast((count) => count <= state.kvHeads) });
  ui.controls.append(
    row(
      switches("view", "Show", [
        ["reuse", "what is reused"],
        ["cost", "what it costs"],
      ]),
      switches(
        "model",
        "Model",
        Object.keys(data.models).map((one) => [one, one]),
        () => ui.set(fromModel(data, state.model)),
      ),
      button("Reset", reset),
    ),
    ...only(
      "reuse",
      row(
        h(
          "div",
          { class: "lx-buttons" },
          play.toggle,
          button("◀", move(-1), { "aria-label": "One step back", title: "One step back" }),
          button("▶", move(+1), { "aria-label": "One step on", title: "One step on" }),
        ),
        slider(ui, {
          key: "step",
          label: "Step",
          min: 1,
          max: last,
          wide: true,
          format: (v) => `${v} of ${last}`,
          onInput: play.pause,
        }),
        slider(ui, { key: "prompt", label: "Prompt", min: 1, max: data.limits.prompt, format: tokens }),
      ),
    ),
    ...only(
      "cost",
      row(
        slider(ui, { key: "kvHeads", label: "KV heads", values: (s) => divisors(s.heads) }),
        slider(ui, { key: "heads", label: "Query heads", values: data.stops.heads, onInput: heads }),
        slider(ui, { key: "layers", label: "Layers", min: 1, max: data.limits.layers }),
        slider(ui, { key: "headDim", label: "Numbers a head", values: data.stops.headDim }),
      ),
      row(
        slider(ui, {
          key: "context",
          label: "Tokens a user",
          values: (s) => contextsOf(data.contexts, data.models[s.model]),
          format: whole,
        }),
        slider(ui, { key: "users", label: "Users at once", values: data.stops.users, format: whole }),
        switches(
          "format",
          "A number is stored as",
          data.formats.map((format) => [format, format]),
        ),
      ),
    ),
  );
  return ui.close;
}

export default { render };
