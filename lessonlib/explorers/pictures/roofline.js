// The roofline of generation: what a step waits for, memory or arithmetic, at every batch size.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, choice, row, select, slider } from "../shared/controls.js";
import { canvas, factRow, text } from "../shared/drawing.js";
import { logTicks, percent, plural, scale, short, times, whole } from "../shared/numbers.js";
import { table } from "../shared/table.js";
import { decodeStep, held, mostSequences, prefillStep, ridgeBatch } from "../shared/roofline.js";

const KEY =
  "Decode: the next token of every sequence. Prefill: a whole prompt at once. Each step reads all weights once, for all " +
  "its tokens together, and each sequence’s own keys and values; it computes two FLOPs (a multiplication and an " +
  "addition) for each weight and token, and attention. Both overlap: the longer one is the time of the step, and at " +
  "the ridge they are equal. These are the peaks of data sheets: real engines are slower. Weights in fewer bits are " +
  "unpacked before they are multiplied: they save bytes, not FLOPs. Keys and values stay in 16 bits.";

/** Three digits and a unit: 5.44 ms. */
export function duration(seconds) {
  const [unit, name] = [
    [1, "s"],
    [1e-3, "ms"],
    [1e-6, "µs"],
  ].find(([unit]) => seconds >= 0.9995 * unit) ?? [1e-6, "µs"];
  const value = seconds / unit;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${name}`;
}

/** The sentence above the picture. */
export function titleText(batch, { bound, read, compute, seconds }) {
  const [slow, fast] = bound === "memory" ? ["Reading", "computing"] : ["Computing", "reading"];
  const ratio = Math.max(read, compute) / Math.min(read, compute);
  return (
    `Batch ${whole(batch)}: ${bound}-bound. ${slow} takes ${times(ratio).slice(1)} times as long as ${fast}, ` +
    `${duration(seconds)} a step.`
  );
}

// Axes of a log-log chart: returns the canvas and the two scales.
function axes(width, height, { title, under, x: [left, right], y: [low, high], marks }) {
  const margin = { left: 44, right: 8, top: 40, bottom: 36 };
  const svg = canvas(width, height, title);
  const x = scale([left, right], [margin.left, width - margin.right], true);
  const y = scale([low, high], [height - margin.bottom, margin.top], true);
  svg.append(text(0, 12, title, { class: "lx-strong" }));
  for (const mark of logTicks(low, high, 5).filter((mark) => mark >= low && mark <= high * 1.001))
    svg.append(
      s("line", { x1: margin.left, x2: width - margin.right, y1: y(mark), y2: y(mark), class: "lx-axis" }),
      text(margin.left - 6, y(mark) + 4, marks(mark), { "text-anchor": "end", class: "lx-quiet lx-num" }),
    );
  for (const mark of logTicks(left, right, 5).filter((mark) => mark >= left && mark <= right))
    svg.append(
      s("path", { d: `M${x(mark)},${y(low)} v4`, class: "lx-ridge" }),
      text(x(mark), height - margin.bottom + 16, short(mark), {
        "text-anchor": "middle",
        class: "lx-quiet lx-num",
      }),
    );
  svg.append(
    text((x(left) + x(right)) / 2, height - 3, under, { "text-anchor": "middle", class: "lx-quiet" }),
  );
  return { svg, x, y, top: margin.top };
}

const path = (points, x, y) =>
  points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");

// A curve over the batch; pale where the card's memory is full.
function curve({ svg, x, y }, batches, value, most, looks) {
  const points = batches.map((batch) => [batch, value(batch)]);
  const room = Math.min(Math.max(most, 1), batches.at(-1));
  const fits = points.filter(([batch]) => batch <= room);
  if (most >= 1) svg.append(s("path", { d: path([...fits, [room, value(room)]], x, y), class: looks }));
  svg.append(
    s("path", {
      d: path([[room, value(room)], ...points.filter(([batch]) => batch > room)], x, y),
      class: `${looks} lx-full`,
    }),
  );
}

// What the lines are, written where there is room.
function lineKey(svg, left, top, entries) {
  entries.forEach(([looks, words], i) =>
    svg.append(
      s("path", { d: `M${left},${top + i * 16 - 4} h24`, class: looks }),
      text(left + 30, top + i * 16, words, { class: "lx-halo" }),
    ),
  );
}

function verticals({ svg, x, y, top }, [low], last, batch, ridge) {
  const at = Math.round(x(batch)) + 0.5;
  svg.append(s("line", { x1: at, x2: at, y1: top, y2: y(low), class: "lx-batch-now" }));
  if (ridge < 1 || ridge > last) return;
  const mark = x(ridge);
  svg.append(
    s("line", { x1: mark, x2: mark, y1: top, y2: y(low), class: "lx-ridge" }),
    text(Math.min(mark, x(last) - 30), top - 8, `ridge: ${whole(Math.ceil(ridge))}`, {
      "text-anchor": "middle",
      class: "lx-quiet",
    }),
  );
}

function timeChart(now, width, height) {
  const { data, step, batch, most, ridge } = now;
  const ends = [step(1), step(data.batches.at(-1))];
  const all = ends.flatMap(({ read, compute }) => [read * 1e3, compute * 1e3]);
  const y = [Math.min(...all) / 1.5, Math.max(...all) * 12];
  const chart = axes(width, height, {
    title: "Time of a decode step, milliseconds",
    under: "sequences at once (batch)",
    x: [1, data.batches.at(-1)],
    y,
    marks: shortTick,
  });
  verticals(chart, y, data.batches.at(-1), batch, ridge);
  const { bound } = step(batch);
  for (const [field, name] of [
    ["read", "memory"],
    ["compute", "compute"],
  ]) {
    const looks = `lx-curve lx-curve-${field} ${bound === name ? "lx-chosen" : ""}`;
    curve(chart, data.batches, (n) => 1e3 * step(n)[field], most, looks);
    chart.svg.append(
      s("circle", {
        cx: chart.x(batch),
        cy: chart.y(1e3 * step(batch)[field]),
        r: 4.5,
        class: `lx-spot lx-spot-${field}`,
      }),
    );
  }
  lineKey(chart.svg, 54, chart.top + 16, [
    ["lx-curve lx-curve-read", "reading"],
    ["lx-curve lx-curve-compute", "computing"],
    ...(most < data.batches.at(-1) ? [["lx-curve lx-curve-read lx-full", "pale: does not fit"]] : []),
  ]);
  return chart.svg;
}

const shortTick = (mark) => (mark >= 1 ? short(mark) : String(+mark.toPrecision(1)));

function speedChart(now, width, height) {
  const { data, model, chip, state, batch, ridge } = now;
  const speed = (weights) => (n) => n / decodeStep(model, weights, n, state.context, chip).seconds;
  const last = data.batches.at(-1);
  const y = [speed("bf16")(1) / 1.5, Math.max(...Object.keys(data.weights).map((w) => speed(w)(last))) * 2];
  const chart = axes(width, height, {
    title: "Tokens a second, all sequences together",
    under: "sequences at once (batch)",
    x: [1, last],
    y,
    marks: shortTick,
  });
  verticals(chart, y, last, batch, ridge);
  const looks = (weights) => `lx-curve lx-curve-${weights} ${weights === state.weights ? "lx-chosen" : ""}`;
  for (const weights of Object.keys(data.weights))
    curve(
      chart,
      data.batches,
      speed(weights),
      mostSequences(model, weights, state.context, chip),
      looks(weights),
    );
  chart.svg.append(
    s("circle", { cx: chart.x(batch), cy: chart.y(speed(state.weights)(batch)), r: 4.5, class: "lx-spot" }),
  );
  lineKey(
    chart.svg,
    width - 118,
    height - 82,
    Object.entries(data.weights).map(([weights, name]) => [looks(weights), name]),
  );
  return chart.svg;
}

function roofChart({ data, model, chip, state, step, batch, prompt }, width, height) {
  const [left, right] = [0.5, 20000];
  const reach = (intensity) => Math.min(intensity * chip.bandwidth, chip.flops);
  const chart = axes(width, height, {
    title: "FLOP/s that can be reached",
    under: "FLOPs for each byte read",
    x: [left, right],
    y: [3e10, 6e15],
    marks: short,
  });
  const { svg, x, y } = chart;
  const ridge = chip.flops / chip.bandwidth;
  const roof = [left, ridge, right].map((intensity) => [intensity, reach(intensity)]);
  svg.append(s("path", { d: path(roof, x, y), class: "lx-curve lx-curve-roof" }));
  const trail = data.batches.map(step).map(({ flops, bytes }) => flops / bytes);
  svg.append(
    s("path", {
      d: path(
        trail.map((intensity) => [intensity, reach(intensity)]),
        x,
        y,
      ),
      class: "lx-curve lx-curve-read lx-chosen",
    }),
    s("path", { d: `M${x(ridge)},${y(chip.flops) - 6} l6,6 l-6,6 l-6,-6 z`, class: "lx-spot" }),
    text(x(ridge) - 9, y(chip.flops) - 5, `ridge: ${whole(ridge)}`, {
      "text-anchor": "end",
      class: "lx-strong",
    }),
  );
  const spot = (name, { flops, bytes }, shape, field, drop) => {
    const at = Math.min(flops / bytes, right * 0.5);
    svg.append(
      shape(x(at), y(reach(at)), `lx-spot lx-spot-${field}`),
      text(x(at) + 4, y(reach(at)) + drop, name, { class: "lx-strong" }),
    );
  };
  spot("prefill", prefillStep(model, state.weights, prompt, chip), square, "compute", -11);
  spot("decode", step(batch), disc, "read", 19);
  return svg;
}

const disc = (cx, cy, looks) => s("circle", { cx, cy, r: 5.5, class: looks });
const square = (x, y, looks) => s("rect", { x: x - 5, y: y - 5, width: 10, height: 10, class: looks });

function speeds({ data, model, chip, state, batch, prompt }, wide) {
  const { context } = state;
  const cells = (of, weights) => {
    const step = of(weights);
    const waits = step.bound === "memory" ? "memory" : "arithmetic";
    return [duration(step.seconds), ...(wide ? [waits] : []), times(of("bf16").seconds / step.seconds)];
  };
  const waits = wide ? ["waits for"] : [];
  return table({
    caption: "Fewer bits a weight",
    note: "speed up what waits for memory",
    heads: [
      "weights in",
      ...["a decode step", ...waits, "gain"],
      ...[`a prompt of ${whole(prompt)}`, ...waits, "gain"],
      "sequences that fit",
    ],
    rows: Object.entries(data.weights).map(([weights, name]) => ({
      now: weights === state.weights,
      cells: [
        name,
        ...cells((stored) => decodeStep(model, stored, batch, context, chip), weights),
        ...cells((stored) => prefillStep(model, stored, prompt, chip), weights),
        whole(Math.max(0, mostSequences(model, weights, context, chip))),
      ],
    })),
  });
}

/** The picture in words. */
export function summaryText({ model, chip, state, batch, prompt }) {
  const { context, weights } = state;
  const step = decodeStep(model, weights, batch, context, chip);
  const gain = (of) => times(of("bf16").seconds / of("int4").seconds).slice(1);
  return (
    `${state.model} on ${state.chip}: ${whole(batch / step.seconds)} tokens a second for ${plural(batch, "sequence")} ` +
    `of ${plural(context, "token")}. INT4 weights make decoding ${gain((w) => decodeStep(model, w, batch, context, chip))} ` +
    `and prefill ${gain((w) => prefillStep(model, w, prompt, chip))} times as fast as 16 bits.`
  );
}

function draw(ui, data, state, width) {
  const model = data.models[state.model];
  const chip = data.chips[state.chip];
  const { batch, context, weights } = state;
  const step = (n) => decodeStep(model, weights, n, context, chip);
  const most = mostSequences(model, weights, context, chip);
  const ridge = ridgeBatch(model, weights, context, chip);
  const prompt = data.prompts[state.model];
  const now = { data, model, chip, state, batch, step, most, ridge, prompt };
  const current = step(batch);
  const need = held(model, weights, batch, context);
  ui.title(titleText(batch, current));
  const columns = width >= 1060 ? 3 : width > 600 ? 2 : 1;
  const each = Math.floor((width - 26 * (columns - 1)) / columns);
  const gigabytes = (bytes) => (bytes / 1e9).toFixed(bytes < 9.95e9 ? 1 : 0);
  ui.figure.replaceChildren(
    factRow([
      ["tokens a second, together", whole(batch / current.seconds)],
      [
        "FLOPs a byte (ridge)",
        `${short(current.flops / current.bytes)} (${whole(chip.flops / chip.bandwidth)})`,
      ],
      ["compute-bound from batch", ridge === Infinity ? "never" : whole(Math.ceil(ridge))],
      ["keys and values, of all bytes", percent(1 - model.weights[weights] / current.bytes)],
      [
        "memory needed, of what is there",
        `${need > chip.memory ? "✕ " : ""}${gigabytes(need)} of ${gigabytes(chip.memory)} GB`,
      ],
    ]),
    h(
      "div",
      { class: "lx-roof" },
      timeChart(now, each, 250),
      speedChart(now, each, 250),
      roofChart(now, each, 250),
      columns === 2 ? h("p", { class: "lx-explain" }, KEY) : null,
    ),
    speeds(now, columns > 1),
    ...(columns === 2 ? [] : [h("p", { class: "lx-explain" }, KEY)]),
  );
  ui.say(summaryText(now));
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    { label: "Roofline", defaults: data.defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  const stay = () => {
    const list = data.contexts[ui.state.model];
    if (!list.includes(ui.state.context)) ui.set({ context: list.at(-1) });
  };
  const menu = (names) => names.map((name) => [name, name]);
  ui.controls.append(
    row(
      slider(ui, {
        key: "batch",
        label: "Batch",
        values: data.batches,
        format: (v) => plural(v, "sequence"),
      }),
      slider(ui, {
        key: "context",
        label: "Context",
        values: (state) => data.contexts[state.model],
        format: (v) => plural(v, "token"),
      }),
      select(ui, { key: "chip", label: "Hardware", options: menu(Object.keys(data.chips)) }),
      select(ui, { key: "model", label: "Model", options: menu(Object.keys(data.models)), onInput: stay }),
      choice(ui, { key: "weights", legend: "Weights", options: Object.entries(data.weights) }),
      h("div", { class: "lx-buttons" }, button("Reset", ui.reset)),
    ),
  );
  return ui.close;
}

export default { render };
