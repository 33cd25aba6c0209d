// The whole way of one token: text, ids, logits, sampling, text again. The kernel runs the model, one token a click.

import { explorer } from "../shared/frame.js";
import { h } from "../shared/dom.js";
import { button, calm, row, slider } from "../shared/controls.js";
import { chip, shareBars } from "../shared/drawing.js";
import { percent, plural, whole } from "../shared/numbers.js";
import { brief, MARKS_KEY, quoted } from "../shared/text.js";

const RUN = 20;
const PAUSE_MS = 120;
const PATIENCE_MS = 20000;

/** Text after `count` new tokens, in two parts: before the last one, and what it added. */
export function textParts(steps, count) {
  const added = steps.slice(0, count).map((step) => step.added);
  return [added.slice(0, -1).join(""), added.at(-1) ?? ""];
}

/** The sentence above the picture. */
export function titleText(steps, at) {
  const [piece, , share] = steps[at - 1].chosen;
  return `New token ${at} is ${quoted(piece)}: the model gave it ${percent(share)}.`;
}

/** What the model had to read in this step. */
export function readingText({ processed, held }) {
  return held === 0
    ? `reads all ${plural(processed, "token")} of the prompt`
    : `reads ${plural(processed, "new token")}; ${whole(held)} are in the cache`;
}

/** What happens to the text after this step. */
export function outcome({ added, ends }) {
  if (ends) return "the model ends its text here";
  return added === "" ? "not a whole character yet" : "is appended, and round it goes";
}

function stage(number, name, detail, ...content) {
  return h(
    "li",
    { class: "lx-stage", style: `--lx-turn:${number}` },
    h("span", { class: "lx-stage-name" }, `${number}  ${name}`),
    h("span", { class: "lx-stage-detail lx-short" }, detail),
    h("div", { class: "lx-stage-body" }, content),
  );
}

function stages(data, step, before, width) {
  const { ids, pieces } = step.fed;
  const room = 4;
  const chosen = step.top.findIndex(([, id]) => id === step.chosen[1]);
  const candidates = chosen < 0 ? [...step.top.slice(0, -1), step.chosen] : step.top;
  const columns = width >= 860 ? 5 : width >= 600 ? 3 : 2;
  const inner = Math.floor((width - 20 * (columns - 1)) / columns) - 24;
  return [
    stage(
      1,
      "Prompt",
      "prompt and answer so far",
      h("code", { class: "lx-tail" }, brief(before.slice(-46), 46)),
    ),
    stage(
      2,
      "Token ids",
      step.held ? "only the token that is new" : `the prompt: ${plural(step.processed, "token")}`,
      h(
        "ol",
        { class: "lx-few" },
        pieces.slice(-room).map((piece, i) => chip(brief(piece, 8), ids.slice(-room)[i], i % 4)),
      ),
    ),
    stage(
      3,
      "Model → logits",
      readingText(step),
      h("code", {}, `(${step.shape.join(", ")})`),
      h(
        "p",
        { class: "lx-note" },
        `${whole(data.vocab)} scores, last position only; highest ${step.best.toFixed(1)}, lowest ${step.worst.toFixed(1)}`,
      ),
    ),
    stage(
      4,
      "Sampling",
      step.temperature === 0 ? "greedy: the likeliest wins" : `drawn at temperature ${step.temperature}`,
      shareBars(
        candidates.map(([piece, id, share]) => ({
          piece: brief(piece, 8),
          share,
          fill: id === step.chosen[1] ? "fresh" : "cut",
          format: percent,
        })),
        inner,
        {
          top: Math.max(...candidates.map(([, , share]) => share), 0.01),
          row: 18,
          left: 66,
          right: 46,
          label: "The five likeliest tokens",
        },
      ),
    ),
    stage(
      5,
      "Detokenize",
      "the chosen id as text",
      h("ol", { class: "lx-few" }, chip(brief(step.chosen[0], 14), step.chosen[1], 0)),
      h("p", { class: "lx-note" }, outcome(step)),
    ),
  ];
}

function draw(ui, data, state, width) {
  const { steps } = ui;
  const at = Math.min(state.step, steps.length);
  const step = steps[at - 1];
  const [before, added] = textParts(steps, at);
  const fresh = ui.newest === at;
  ui.newest = 0;
  ui.title(titleText(steps, at));
  ui.figure.replaceChildren(
    h(
      "ol",
      { class: `lx-stages lx-round ${fresh ? "lx-flow" : ""}`, "aria-label": "Stages" },
      stages(data, step, data.prompt + before, width),
    ),
    h(
      "pre",
      { class: "lx-story", role: "group", tabindex: 0, "aria-label": "Text so far" },
      h("span", { class: "lx-given" }, data.prompt),
      h("span", { class: "lx-made" }, before),
      h("mark", {}, added),
    ),
    h(
      "p",
      { class: "lx-key" },
      ui.notice || `Grey: the prompt. Blue: written by the model, the newest token marked.   ${MARKS_KEY}`,
    ),
  );
  const story = ui.figure.querySelector(".lx-story");
  story.scrollTop = story.scrollHeight;
  ui.say(
    `New token ${at}: ${readingText(step)}; likeliest ${step.top
      .slice(0, 3)
      .map(([piece, , share]) => `${quoted(piece)} ${percent(share)}`)
      .join(", ")}; chosen ${quoted(step.chosen[0])}.`,
  );
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    {
      label: "From prompt to token",
      defaults: { step: 1, temperature: data.temperature },
      draw: (state, width) => draw(ui, data, state, width),
    },
  );
  ui.steps = [...data.steps];
  ui.notice = "";
  let left = 0; // tokens still to come in this run
  let waiting = 0; // timer while the kernel works
  let next = 0;

  const refresh = () => {
    nextButton.disabled = waiting !== 0;
    runButton.textContent = left > 0 ? "❚❚ Pause" : `Run ${RUN}`;
    ui.set({});
  };
  const stop = () => {
    left = 0;
    clearTimeout(next);
  };
  const ask = (what) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      waiting = 0;
      stop();
      ui.notice = "No kernel answers: run this cell again, then press Next token.";
      refresh();
    }, PATIENCE_MS);
    ui.notice = "";
    model.send({ ...what, temperature: ui.state.temperature });
    refresh();
  };
  const answer = (message) => {
    clearTimeout(waiting);
    waiting = 0;
    if (message.error) {
      stop();
      ui.notice = message.error;
    } else if (message.steps) {
      ui.steps = message.steps;
    } else {
      ui.steps.push(message.step);
    }
    if (!message.error) {
      ui.newest = ui.steps.length;
      ui.set({ step: ui.steps.length });
    }
    if (left > 0 && --left > 0)
      next = setTimeout(() => ask({ do: "next" }), calm() ? 5 * PAUSE_MS : PAUSE_MS);
    refresh();
  };
  const nextButton = button("Next token", () => ask({ do: "next" }), { class: "lx-button lx-primary" });
  const runButton = button(`Run ${RUN}`, () => {
    if (left > 0) {
      stop();
      refresh();
    } else {
      left = RUN;
      ask({ do: "next" });
    }
  });
  runButton.classList.add("lx-play");
  const reset = () => {
    stop();
    ui.reset();
    ask({ do: "reset" });
  };
  model.on("msg:custom", answer);
  ui.onClose(() => {
    stop();
    clearTimeout(waiting);
    model.off("msg:custom", answer);
  });
  ui.controls.append(
    row(
      h("div", { class: "lx-buttons" }, nextButton, runButton, button("Reset", reset)),
      slider(ui, {
        key: "step",
        label: "Look back at token",
        min: 1,
        max: () => ui.steps.length,
        format: (v) => `${v} of ${ui.steps.length}`,
        onInput: () => {
          stop();
          refresh();
        },
      }),
      slider(ui, {
        key: "temperature",
        label: "Temperature",
        min: 0,
        max: 1.5,
        step: 0.1,
        format: (v) => (v === 0 ? "0 (greedy)" : v.toFixed(1)),
      }),
    ),
  );
  return ui.close;
}

export default { render };
