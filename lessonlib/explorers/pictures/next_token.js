// One forward pass opened up: shapes through the model, and the likeliest next tokens after any token of the prompt.

import { explorer } from "../shared/frame.js";
import { h } from "../shared/dom.js";
import { button, row, slider } from "../shared/controls.js";
import { chip, legend, shareBars } from "../shared/drawing.js";
import { percent, whole } from "../shared/numbers.js";
import { brief, MARKS_KEY, quoted, visible } from "../shared/text.js";

/** A shape as Python writes it: (1, 7, 256), (4096,). */
export const shapeText = (shape) => (shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`);

/** The sentence above the picture. */
export function titleText(tokens, predictions, position) {
  const [piece, share] = predictions[position - 1][0];
  return `After token ${position}, ${quoted(tokens[position - 1][0], 14)}, the model's first guess is ${quoted(piece, 14)} (${percent(share)}).`;
}

/** The bars of one position: the top guesses, and the token that really follows in the prompt marked. */
export function guesses(tokens, predictions, position) {
  const actual = tokens[position]?.[1];
  return predictions[position - 1].map(([piece, share, id]) => ({
    piece: brief(piece, 14),
    share,
    fill: id === actual ? "reused" : "fresh",
    note: id === actual ? "the prompt goes on like this" : null,
    format: percent,
  }));
}

function stage(name, detail, shape, tone = "") {
  return h(
    "li",
    { class: `lx-stage ${tone}` },
    h("span", { class: "lx-stage-name" }, name),
    h("span", { class: "lx-stage-detail" }, detail),
    h("code", {}, shape),
  );
}

function diagram({ shapes, vocab, hidden, layers }, position) {
  return h(
    "ol",
    { class: "lx-stages", "aria-label": "Shapes through the model" },
    stage("Token ids", "one number a token", shapeText(shapes.ids)),
    stage(
      "Embeddings",
      `a row of the ${whole(vocab)} × ${hidden} table for each`,
      shapeText(shapes.embeddings),
    ),
    stage(`${layers} layers`, "attention looks back, the MLP digests", shapeText(shapes.layers)),
    stage("Logits", `a score for each of ${whole(vocab)} tokens`, shapeText(shapes.logits)),
    stage("Softmax", `row ${position} as probabilities that sum to 1`, shapeText([vocab]), "lx-stage-last"),
  );
}

function draw(ui, data, state, width) {
  const { tokens, predictions } = data;
  const at = state.position;
  ui.title(titleText(tokens, predictions, at));
  const bars = guesses(tokens, predictions, at);
  const shown = bars.reduce((sum, bar) => sum + bar.share, 0);
  ui.figure.replaceChildren(
    h(
      "ol",
      { class: "lx-prompt", "aria-label": "Tokens of the prompt" },
      tokens.map(([piece, id], i) =>
        chip(visible(piece), id, i % 4, { class: i + 1 === at ? "lx-here" : i + 1 > at ? "lx-later" : "" }),
      ),
    ),
    diagram(data, at),
    h(
      "div",
      { class: "lx-guesses" },
      h(
        "p",
        { class: "lx-lead" },
        h("b", {}, `The ${bars.length} likeliest next tokens`),
        ` hold ${percent(shown)} of the probability`,
      ),
      ui.legend,
      shareBars(bars, width, {
        top: Math.max(...bars.map((bar) => bar.share)),
        label: "Likeliest next tokens",
      }),
    ),
  );
  const next = tokens[at];
  const found = bars.findIndex((bar) => bar.fill === "reused");
  const truth = next
    ? ` The prompt goes on with ${quoted(next[0])}: ${found < 0 ? `not among the first ${bars.length}` : `guess number ${found + 1}`}.`
    : "";
  ui.say(
    `One pass gives a prediction after every token. After token ${at}, ${quoted(tokens[at - 1][0])}: ` +
      `${predictions[at - 1]
        .slice(0, 3)
        .map(([piece, share]) => `${quoted(piece)} ${percent(share)}`)
        .join(", ")}.${truth}`,
  );
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    {
      label: "One forward pass",
      defaults: { position: data.tokens.length },
      draw: (state, width) => draw(ui, data, state, width),
    },
  );
  ui.legend = legend([
    ["fresh", "the model's guess"],
    ["reused", "the guess that comes true in the prompt"],
  ]);
  ui.legend.append(h("li", { class: "lx-key" }, MARKS_KEY));
  ui.controls.append(
    row(
      slider(ui, {
        key: "position",
        label: "Read the prediction after token",
        min: 1,
        max: data.tokens.length,
        wide: true,
        format: (v) => `${v} of ${data.tokens.length}`,
      }),
      h("div", { class: "lx-buttons" }, button("Reset", ui.reset)),
    ),
  );
  return ui.close;
}

export default { render };
