// How batching is drawn: the requests as they come, a Gantt chart for each policy, the KV cache beneath.

import { s } from "./dom.js";
import { canvas, text } from "./drawing.js";
import { scale, ticks, whole } from "./numbers.js";

export const PROMPT_TOKENS_PER_STEP = 128; // in the editor: this much prompt is as wide as one token of the answer
const LEFT = 62;
const RIGHT = 12;
const HEAD = 20;
const EDITOR = 144;
const WAIT = 14;
const LANE = 78;
const KV = 26;
const BETWEEN = 12;
const AXIS = 18;

export const letter = (place) => String.fromCharCode(65 + place);

export const POLICIES = {
  static: { name: "Static batching", rule: () => "a batch starts together and waits for its slowest" },
  continuous: { name: "Continuous batching", rule: () => "a free slot is filled at the next step" },
  chunked: {
    name: "… with chunked prefill",
    rule: ({ chunk }) => `a step has room for ${whole(chunk)} tokens: long prompts come in chunks`,
  },
};

/** A time in words. `inSteps`: the clock counts steps, else seconds. Halves are rounded up. */
export function duration(value, inSteps) {
  const rounded = (amount, digits) => {
    const [before, rest] = (Math.floor(amount * 10 ** digits + 0.5) / 10 ** digits)
      .toFixed(digits)
      .split(".");
    return before.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? `.${rest}` : "");
  };
  if (inSteps) {
    const amount = rounded(value, Math.abs(value - Math.round(value)) < 0.05 ? 0 : 1);
    return `${amount} step${amount === "1" ? "" : "s"}`;
  }
  const ms = value * 1000;
  if (ms >= 999.5) return `${rounded(value, value < 9.995 ? 2 : 1)} s`;
  return `${rounded(ms, ms < 9.95 ? 1 : 0)} ms`;
}

/** Two of them, the unit once where it is the same: "4.5 / 12.0 ms". */
export function durations(pair, inSteps) {
  const [first, second] = pair.map((value) => duration(value, inSteps));
  const [amount, unit] = first.split(" ");
  return `${second.split(" ")[1].startsWith(unit) ? amount : first} / ${second}`;
}

/** Where a request lies in the editor, in shortest steps: its beginning, the end of its prompt, its end. */
export const barOf = ({ arrival, prompt, output }) => {
  const middle = arrival + prompt / PROMPT_TOKENS_PER_STEP;
  return [arrival, middle, middle + output];
};

/** What dragging `part` of a request by `by` shortest steps makes of it, within the limits. */
export function dragged(request, part, by, limits) {
  const change = { arrival: by, prompt: by * PROMPT_TOKENS_PER_STEP, output: by }[part];
  const [least, most] = limits[part];
  const grid = part === "prompt" ? least : 1;
  const wanted = Math.round((request[part] + change) / grid) * grid;
  return { ...request, [part]: Math.min(Math.max(wanted, least), most) };
}

/** Stays of requests in slots: [{place, slot, from, answer, to, lost}], times; lost: it ended by a preemption. */
export function staysOf({ steps, cells }) {
  const stays = [];
  const open = new Map();
  steps.forEach(({ start, end, preempted }, i) => {
    for (const place of preempted) {
      Object.assign(open.get(place), { lost: start });
      open.delete(place);
    }
    for (const { place, slot, kind } of cells[i]) {
      let stay = open.get(place);
      if (!stay || stay.slot !== slot) {
        stay = { place, slot, from: start, answer: null, to: end, lost: null };
        open.set(place, stay);
        stays.push(stay);
      }
      stay.to = end;
      if (kind === "answer") stay.answer ??= start;
    }
  });
  return stays;
}

/** Spans of time without a break between steps: [[start, end], …]. */
export function busySpans(steps) {
  const spans = [];
  for (const { start, end } of steps) {
    if (spans.length && spans.at(-1)[1] === start) spans.at(-1)[1] = end;
    else spans.push([start, end]);
  }
  return spans;
}

const box = (x1, y1, x2, y2) =>
  `M${x1.toFixed(1)},${y1.toFixed(1)}H${x2.toFixed(1)}V${y2.toFixed(1)}H${x1.toFixed(1)}z`;

function heading(svg, top, name, rest) {
  const rule = s("tspan", { dx: 10, class: "lx-quiet lx-plain" }, rest);
  const title = text(0, top + 12, name, { class: "lx-strong" });
  title.append(rule);
  svg.append(title);
}

function requestEditor(svg, view, top) {
  const { state, x, unit, width } = view;
  const row = Math.min(22, EDITOR / state.requests.length);
  heading(
    svg,
    top,
    "The requests",
    view.narrow
      ? "drag a bar, or an edge of it"
      : `drag a bar, or an edge of it; numbers: tokens of prompt + answer (${PROMPT_TOKENS_PER_STEP} of a prompt are as wide as one of an answer)`,
  );
  state.requests.forEach((request, place) => {
    const [from, middle, to] = barOf(request).map((steps) => x(steps * unit));
    const y = top + HEAD + place * row;
    const bar = (x1, x2, fill) =>
      s("rect", {
        x: x1,
        y: y + 1.5,
        width: Math.max(x2 - x1, 2),
        height: row - 3,
        style: `fill:${svg.paint(fill)}`,
        class: `lx-box lx-box-${fill}`,
      });
    const grip = (x1, x2, part) =>
      s("rect", {
        x: x1,
        y,
        width: x2 - x1,
        height: row,
        class: `lx-grip lx-grip-${part}`,
        "data-place": place,
        "data-part": part,
      });
    const chosen = place === state.selected;
    const words = `${whole(request.prompt)} + ${request.output}`;
    const room = to + 18 + words.length * 6.5 < width;
    svg.append(
      text(LEFT - 10, y + row / 2 + 4, letter(place), {
        "text-anchor": "end",
        class: chosen ? "lx-strong" : "lx-quiet",
        "font-size": 11,
      }),
      bar(from, middle, "fresh"),
      bar(middle, to, "answer"),
      text(room ? to + 10 : from - 8, y + row / 2 + 4, words, {
        "text-anchor": room ? "start" : "end",
        class: `lx-num ${chosen ? "lx-strong" : "lx-quiet"}`,
        "font-size": 11,
      }),
    );
    if (chosen) {
      svg.append(
        s("rect", {
          x: from - 1.5,
          y: y + 0.5,
          width: to - from + 3,
          height: row - 1,
          rx: 2,
          class: "lx-chosen",
        }),
        ...[middle, to].map((at) =>
          s("rect", { x: at - 2, y: y + row / 2 - 4, width: 4, height: 8, rx: 2, class: "lx-handle" }),
        ),
      );
    }
    svg.append(
      grip(Math.min(from, middle - 5) - 4, to + 8, "arrival"),
      grip(middle - 5, middle + Math.min(6, (to - middle) / 2), "prompt"),
      grip(Math.max(to - 5, (middle + to) / 2), to + 8, "output"),
    );
  });
}

function kvStrip(svg, view, run, y) {
  const { x, blocks } = view;
  const most = Math.max(blocks, run.facts.peak);
  const height = (count) => y + KV - (count / most) * KV;
  const area = run.steps
    .map(({ start, end, blocks: used }) => box(x(start), height(used), x(end), y + KV))
    .join("");
  const limit = Math.round(height(blocks)) + 0.5;
  svg.append(
    text(LEFT - 10, y + 10, `of ${whole(blocks)}`, {
      "text-anchor": "end",
      class: "lx-quiet lx-num",
      "font-size": 10.5,
    }),
    text(LEFT - 10, y + 22, "KV blocks", { "text-anchor": "end", class: "lx-quiet", "font-size": 10.5 }),
    s("path", { d: area, style: `fill:${svg.paint("reused")}` }),
    s("line", { x1: LEFT, x2: view.right, y1: limit, y2: limit, class: "lx-limit" }),
  );
  const note = (at, words) =>
    svg.append(
      text(Math.min(at, view.right - words.length * 6), y + 13, words, {
        class: "lx-halo lx-is-again",
        "font-size": 11,
      }),
    );
  if (run.facts.peak > blocks) {
    const worst = run.steps.find((step) => step.blocks === run.facts.peak);
    note(x(worst.start) + 4, `needs ${whole(run.facts.peak)} blocks: it would not fit`);
  }
  let free = -Infinity;
  for (const { start, preempted } of run.steps) {
    if (!preempted.length || x(start) < free) continue;
    const words = `▲ ${preempted.map(letter).join(", ")} sent back: no block left`;
    note(x(start), words);
    free = x(start) + words.length * 6 + 8;
  }
}

function lane(svg, view, policy, run, top) {
  const { state, x, inSteps } = view;
  const { name, rule } = POLICIES[policy];
  const y = top + HEAD + WAIT;
  const row = LANE / state.slots;
  heading(svg, top, name, view.narrow ? "" : rule(state));
  svg.append(
    text(view.right, top + 12, `all answered after ${duration(run.facts.duration, inSteps)}`, {
      "text-anchor": "end",
      class: "lx-strong lx-num",
    }),
  );
  for (let slot = 0; slot < state.slots; slot++) {
    const words = state.slots <= 6 || slot % 2 === 0 ? `slot ${slot + 1}` : "";
    svg.append(
      text(LEFT - 10, y + slot * row + row / 2 + 4, words, {
        "text-anchor": "end",
        class: "lx-quiet",
        "font-size": 10.5,
      }),
    );
  }
  const idle = busySpans(run.steps).map(([start, end]) => box(x(start), y, x(end), y + LANE));
  svg.append(s("path", { d: idle.join(""), style: `fill:${svg.paint("cut")}`, class: "lx-idle" }));
  const paths = { prompt: [], answer: [], again: [] };
  run.steps.forEach(({ start, end }, i) => {
    for (const { slot, kind } of run.cells[i])
      paths[kind].push(box(x(start), y + slot * row, x(end), y + (slot + 1) * row));
  });
  const separate = x(view.unit) - x(0) > 3 ? "lx-cells" : null; // narrow steps melt into one bar
  for (const [kind, boxes] of Object.entries(paths)) {
    const fill = kind === "prompt" ? "fresh" : kind;
    svg.append(s("path", { d: boxes.join(""), style: `fill:${svg.paint(fill)}`, class: separate }));
  }
  for (const stay of staysOf(run)) stayMarks(svg, view, stay, y + stay.slot * row, row);
  waitMark(svg, view, run, y);
  kvStrip(svg, view, run, y + LANE + 3);
}

function stayMarks(svg, { x, state }, { place, from, answer, to, lost }, y, row) {
  const chosen = place === state.selected;
  const size = Math.min(12, row - 2);
  if (chosen)
    svg.append(
      s("rect", { x: x(from), y: y + 0.5, width: x(to) - x(from), height: row - 1, class: "lx-chosen" }),
    );
  const at = x(answer ?? from);
  const name = {
    "font-size": size,
    class: `${answer == null ? "lx-on-fresh" : ""} ${chosen ? "lx-strong" : ""}`,
  };
  if (x(to) - at >= size) svg.append(text(at + 3, y + row / 2 + size * 0.36, letter(place), name));
  if (lost != null)
    svg.append(
      s("line", { x1: x(lost), x2: x(lost), y1: y, y2: y + row, class: "lx-lost" }),
      text(x(lost) + 3, y + row / 2 + 4, "✕", { class: "lx-halo lx-is-again lx-strong", "font-size": 11 }),
    );
  svg.append(
    s("rect", {
      x: x(from),
      y,
      width: Math.max(x(to) - x(from), 3),
      height: row,
      class: "lx-grip",
      "data-place": place,
      "data-part": "choose",
    }),
  );
}

/** Above the chart: how long the chosen request waits for its first token. */
function waitMark(svg, view, run, y) {
  const { x, state, inSteps } = view;
  const place = state.selected;
  const [arrival, first] = [run.trace[place].time, run.tokens[place][0]];
  const words = `${letter(place)}: first token after ${duration(first - arrival, inSteps)}`;
  const room = x(first) + 12 + words.length * 6 < view.right;
  const before = x(arrival) - 12 - words.length * 6 > 0; // else the words lie on the line
  svg.append(
    s("path", {
      d: `M${x(arrival)},${y - 10}v7M${x(arrival)},${y - 6.5}H${x(first)}m-4,-3.5l4,3.5l-4,3.5`,
      class: "lx-wait",
    }),
    text(room ? x(first) + 6 : x(arrival) + (before ? -6 : 8), y - 3, words, {
      "text-anchor": room || !before ? "start" : "end",
      class: "lx-halo lx-accent-ink lx-num",
      "font-size": 11,
    }),
  );
}

function timeAxis(svg, view, y, from) {
  const { x, inSteps, top } = view;
  const marks = ticks(inSteps ? top : top * 1000, view.narrow ? 5 : 9).filter(
    (mark) => mark <= (inSteps ? top : top * 1000),
  );
  for (const mark of marks) {
    const at = Math.round(x(inSteps ? mark : mark / 1000)) + 0.5;
    svg.prepend(s("line", { x1: at, x2: at, y1: from, y2: y + 3, class: "lx-axis" }));
    svg.append(
      text(at, y + 15, whole(mark), { "text-anchor": "middle", class: "lx-quiet lx-num", "font-size": 11 }),
    );
  }
  svg.append(
    text(LEFT - 10, y + 15, inSteps ? "step" : "ms", {
      "text-anchor": "end",
      class: "lx-quiet",
      "font-size": 11,
    }),
  );
}

/** The whole chart. `top`: the end of the time axis. The scale is kept on the drawing, for dragging. */
export function gantt(runs, { state, width, unit, inSteps, blocks, top }) {
  const laneHeight = HEAD + WAIT + LANE + 3 + KV + BETWEEN;
  const lanes = HEAD + EDITOR + BETWEEN + AXIS;
  const height = lanes + Object.keys(runs).length * laneHeight + AXIS;
  const svg = canvas(width, height, "Requests on the slots of a batch, step by step, under three policies");
  const right = width - RIGHT;
  const place = scale([0, top], [LEFT, right]);
  const x = (time) => Math.min(place(time), right);
  const view = { state, width, right, unit, inSteps, blocks, top, x, narrow: width < 700 };
  requestEditor(svg, view, 0);
  Object.entries(runs).forEach(([policy, run], i) => lane(svg, view, policy, run, lanes + i * laneHeight));
  timeAxis(svg, view, HEAD + EDITOR, HEAD);
  timeAxis(svg, view, height - AXIS, lanes + HEAD + WAIT);
  svg.stepWidth = x(unit) - x(0);
  return svg;
}
