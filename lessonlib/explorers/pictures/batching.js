// Batching: the same requests in a static batch, in a continuous one, and with their prompts in chunks.

import { explorer } from "../shared/frame.js";
import { h } from "../shared/dom.js";
import { button, choice, row, select, slider } from "../shared/controls.js";
import { legend } from "../shared/drawing.js";
import { bytesText, plural, whole } from "../shared/numbers.js";
import { blocksNeeded, percentile, simulate } from "../shared/batching_sim.js";
import { barOf, dragged, duration, durations, gantt, letter, POLICIES } from "../shared/batching_draw.js";

const MEANINGS = [
  ["fresh", "prompt is computed"],
  ["answer", "one token of the answer"],
  ["again", "computed again, after it was sent back"],
  ["cut", "idle: a slot without work in this step"],
  ["reused", "KV blocks in use"],
];

const share = (part) => `${Math.floor(part * 100 + 0.5)}%`;

/** The sentence above the picture: what these requests show. */
export function finding(runs, { chunk }, inSteps) {
  const time = (value) => duration(value, inSteps);
  const [fixed, continuous, chunked] = [runs.static, runs.continuous, runs.chunked].map((run) => run.facts);
  if (continuous.preemptions) {
    const often = continuous.preemptions === 1 ? "once" : `${continuous.preemptions} times`;
    return (
      `The KV cache is too small: ${often} a request is sent back, and ` +
      `${plural(runs.continuous.again, "token")} are computed again.`
    );
  }
  const faster = fixed.duration / continuous.duration;
  const shorter = continuous.pause / chunked.pause;
  if (shorter >= 1.5 && shorter > faster) {
    return (
      `A long prompt lets the others wait ${time(continuous.pause)} for a token; ` +
      `in chunks of ${whole(chunk)} tokens, ${time(chunked.pause)} at most.`
    );
  }
  if (faster < 1.02) {
    return (
      `Here static batching is as good: done after ${time(fixed.duration)}, ` +
      `and continuous batching after ${time(continuous.duration)}.`
    );
  }
  return (
    `Continuous batching is done after ${time(continuous.duration)}; ` +
    `static needs ${time(fixed.duration)}, and ${share(fixed.idleShare)} of its slot-steps are idle.`
  );
}

/** The picture in words. */
export function summaryText(runs, inSteps) {
  const words = Object.values(runs).map(({ facts }) => {
    return `${duration(percentile(facts.ttft, 50), inSteps)}, ${share(facts.idleShare)}`;
  });
  return (
    `Median wait for the first token, and idle slot-steps: static ${words[0]}; ` +
    `continuous ${words[1]}; with chunks ${words[2]}.`
  );
}

/** The figures of all policies side by side; the best of a column is bold. */
function figuresTable(runs, { inSteps, blocks, narrow }) {
  const rate = ({ throughput }) => (inSteps ? throughput.toFixed(2) : whole(throughput));
  const both = (key) => [
    (facts) => percentile(facts[key], 50),
    (facts) =>
      facts[key].length
        ? durations(
            [50, 99].map((q) => percentile(facts[key], q)),
            inSteps,
          )
        : "–",
  ];
  const columns = [
    ["first token (TTFT)", ...both("ttft")],
    ["each further token (TPOT)", ...both("tpot")],
    ["whole answer (latency)", ...both("latency")],
    ["longest pause", (facts) => facts.pause, (facts) => duration(facts.pause, inSteps)],
    [`tokens a ${inSteps ? "step" : "second"}`, (facts) => -facts.throughput, rate],
    [
      "idle slot-steps",
      (facts) => facts.idle,
      (facts) => `${whole(facts.idle)} (${Math.round(facts.idleShare * 100)}%)`,
    ],
    ["KV blocks, most", (facts) => facts.peak, (facts) => `${whole(facts.peak)} of ${whole(blocks)}`],
  ];
  const facts = Object.values(runs).map((run) => run.facts);
  const shown = columns.map(([, , words]) => facts.map(words));
  const best = columns.map(([, amount]) => facts.map(amount).indexOf(Math.min(...facts.map(amount))));
  const cell = (column, i) => {
    const value = shown[column][i];
    const isBest = value === shown[column][best[column]] && new Set(shown[column]).size > 1;
    return h("td", {}, isBest ? h("b", {}, value) : value);
  };
  const figures = columns.map(([name]) => name);
  const policies = Object.keys(runs).map((policy) => POLICIES[policy].name);
  const [across, down] = narrow ? [policies, figures] : [figures, policies];
  const at = (line, column) => (narrow ? cell(line, column) : cell(column, line));
  const head = (scope) => (name) => h("th", { scope }, name);
  return h(
    "table",
    { class: "lx-table lx-figures" },
    h(
      "caption",
      {},
      "The same requests, the same clock ",
      h("span", { class: "lx-plain" }, "of half the requests / of 99 in 100 (p50 / p99) at most; bold: best"),
    ),
    h("thead", {}, h("tr", {}, h("td"), across.map(head("col")))),
    h(
      "tbody",
      {},
      down.map((name, line) =>
        h(
          "tr",
          {},
          head("row")(name),
          across.map((_, column) => at(line, column)),
        ),
      ),
    ),
  );
}

function draw(ui, data, state, width) {
  const inSteps = state.clock === "steps";
  const cost = inSteps ? data.steps : data.devices[state.device].cost;
  const runs = simulate(state.requests, state, { ...data, cost });
  const blocks = Math.max(state.blocks, blocksNeeded(state.requests, data.blockSize));
  const bars = state.requests.map((request) => barOf(request)[2] * cost.fixed);
  const ends = Object.values(runs).flatMap((run) => run.steps.at(-1).end);
  ui.top = ui.drag ? ui.top : Math.max(...ends, ...bars) * 1.01;
  const chart = gantt(runs, { state, width, unit: cost.fixed, inSteps, blocks, top: ui.top });
  ui.stepWidth = chart.stepWidth;
  ui.title(finding(runs, state, inSteps));
  const clock = inSteps
    ? "Every step is drawn equally long, whatever runs in it."
    : `Time is modelled: ${data.model} on ${data.devices[state.device].name}, at the data sheet's peak ` +
      "(the slower of computing and reading memory).";
  ui.figure.replaceChildren(
    h("p", { class: "lx-lead" }, clock),
    ui.legend,
    chart,
    figuresTable(runs, { inSteps, blocks, narrow: width < 760 }),
  );
  ui.say(summaryText(runs, inSteps));
}

/** Drag with the pointer: a bar, the end of its prompt, the end of its answer. A press alone chooses a request. */
function listenForDrags(ui, edit, limits) {
  const { figure, state } = ui;
  figure.addEventListener("pointerdown", (event) => {
    const { place, part } = event.target.dataset ?? {};
    if (place === undefined || event.button !== 0) return;
    event.preventDefault();
    ui.set({ selected: Number(place) });
    if (part === "choose") return;
    ui.drag = { part, from: event.clientX, request: state.requests[place] };
    figure.setPointerCapture(event.pointerId);
  });
  figure.addEventListener("pointermove", (event) => {
    if (!ui.drag) return;
    const { part, from, request } = ui.drag;
    const by = (event.clientX - from) / ui.stepWidth;
    edit(dragged(request, part, by, limits));
  });
  const release = () => {
    if (!ui.drag) return;
    ui.drag = null;
    ui.redraw();
  };
  figure.addEventListener("pointerup", release);
  figure.addEventListener("pointercancel", release);
}

function render({ model, el }) {
  const data = model.get("data");
  const { defaults, limits, presets, devices } = data;
  const ui = explorer(
    { model, el },
    { label: "Batching", defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  ui.legend = legend(MEANINGS);
  const { state } = ui;
  const own = (requests, selected = state.selected) => ui.set({ preset: "own", requests, selected });
  const edit = (patch) =>
    own(state.requests.map((request, i) => (i === state.selected ? { ...request, ...patch } : request)));
  // The sliders of one request, whichever is chosen.
  const one = {
    onState: ui.onState,
    set: edit,
    get state() {
      return state.requests[state.selected];
    },
  };
  listenForDrags(ui, edit, limits);

  // Not `disabled`: a button that is loses the focus, and with it the keyboard.
  const add = button("Add a request", () => {
    const { selected, requests } = state;
    if (requests.length >= limits.requests) return;
    const arrival = Math.min(requests[selected].arrival + 2, limits.arrival[1]);
    own([...requests, { ...requests[selected], arrival }], requests.length);
  });
  const remove = button("Remove it", () => {
    const left = state.requests.filter((_, i) => i !== state.selected);
    if (left.length) own(left, Math.min(state.selected, left.length - 1));
  });
  const devicesMenu = select(ui, {
    key: "device",
    label: "on",
    options: Object.entries(devices).map(([key, device]) => [key, device.name]),
  });
  ui.onState(() => {
    devicesMenu.lastChild.disabled = state.clock === "steps";
    add.setAttribute("aria-disabled", state.requests.length >= limits.requests);
    remove.setAttribute("aria-disabled", state.requests.length <= 1);
  });
  const when = (steps) =>
    state.clock === "steps" ? `step ${steps}` : duration(steps * devices[state.device].cost.fixed, false);
  const names = Object.entries(presets).map(([key, preset]) => [key, preset.name]);
  ui.controls.append(
    row(
      select(ui, {
        key: "preset",
        label: "Situation",
        options: ({ preset }) => (preset === "own" ? [...names, ["own", "your own"]] : names),
        onInput: () => ui.set({ ...presets[state.preset]?.settings }),
      }),
      choice(ui, {
        key: "clock",
        legend: "Time",
        options: [
          ["ms", "milliseconds"],
          ["steps", "steps"],
        ],
      }),
      devicesMenu,
      h("div", { class: "lx-buttons" }, button("Reset", ui.reset)),
    ),
    row(
      slider(ui, { key: "slots", label: "Slots in a batch", min: 1, max: limits.slots[1] }),
      slider(ui, {
        key: "chunk",
        label: "Chunked: tokens a step",
        min: limits.chunk[0],
        max: limits.chunk[1],
        step: limits.chunk[0],
        format: whole,
      }),
      slider(ui, {
        key: "blocks",
        label: "KV cache",
        min: limits.blocks[0],
        max: limits.blocks[1],
        step: limits.blocks[0],
        format: (v, s) => {
          const blocks = Math.max(v, blocksNeeded(s.requests, data.blockSize));
          return `${plural(blocks, "block")}, ${bytesText(blocks * data.blockBytes)}`;
        },
      }),
    ),
    row(
      select(ui, {
        key: "selected",
        label: "Request",
        options: ({ requests }) => requests.map((_, place) => [place, letter(place)]),
      }),
      slider(one, { key: "arrival", label: "comes at", min: 0, max: limits.arrival[1], format: when }),
      slider(one, {
        key: "prompt",
        label: "Prompt",
        min: limits.prompt[0],
        max: limits.prompt[1],
        step: limits.prompt[0],
        format: (v) => plural(v, "token"),
      }),
      slider(one, {
        key: "output",
        label: "Answer",
        min: 1,
        max: limits.output[1],
        format: (v) => plural(v, "token"),
      }),
      h("div", { class: "lx-buttons" }, add, remove),
    ),
  );
  return ui.close;
}

export default { render };
