// The autoregressive loop, step by step: what is computed, what is computed again, what a cache saves.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, choice, player, row, slider } from "../shared/controls.js";
import { between, canvas, legend, spread, staircase, text } from "../shared/drawing.js";
import {
  logTicks,
  plural,
  scale,
  short,
  si,
  stepTicks,
  ticks,
  times,
  timesInWords,
  whole,
} from "../shared/numbers.js";
import { allSteps, runningTotal, stepWork, sum } from "../shared/work.js";

/** The sentence above the picture, in parts: plain text, and [number, tone] where it is coloured. */
export function titleParts(step, without, withCache) {
  const verb = without.tokens === 1 ? "is" : "are";
  return [
    `Step ${step}: without a cache `,
    [plural(without.tokens, "token"), "again"],
    ` ${verb} processed, with a cache `,
    [whole(withCache.tokens), "fresh"],
    ".",
  ];
}

/** The picture in words. */
export function summaryText(costs, { prompt, newTokens, step, count }) {
  const lists = [false, true].map((cached) => allSteps(costs, prompt, newTokens, cached));
  const [without, withCache] = lists.map((steps) => sum(steps.slice(0, step)));
  const [all, allCached] = lists.map(sum);
  const amount = (work) => (count === "tokens" ? plural(work.tokens, "token") : si(work.flops, "FLOP"));
  return (
    `Prompt of ${plural(prompt, "token")}, ${plural(newTokens, "new token")}. Up to step ${step}: ${amount(without)} ` +
    `without a cache, ${amount(withCache)} with one. The whole run: ${amount(all)} against ${amount(allCached)}, ` +
    `${timesInWords(count === "tokens" ? all.tokens / allCached.tokens : all.flops / allCached.flops)} the work.`
  );
}

const FILL_MEANINGS = [
  ["fresh", "computed for the first time"],
  ["again", "computed again"],
  ["reused", "reused from the cache"],
  ["none", "not generated yet (the last token is never run: no box)"],
];

// Tokens before the current step's new ones, and the new ones: [first, last, fill] runs of one lane.
export function runs(prompt, step, cached) {
  const total = prompt + step - 1;
  const fresh = step === 1 ? total : 1;
  const known = total - fresh;
  return [
    [0, known, cached ? "reused" : "again"],
    [known, total, "fresh"],
  ].filter(([first, last]) => last > first);
}

function lane(svg, { y, width, state, cached, work }) {
  const height = 26;
  const slots = state.prompt + state.newTokens - 1;
  const cell = width / slots;
  const total = state.prompt + state.step - 1;
  svg.append(
    text(0, y + 12, cached ? "With a cache" : "Without a cache", { class: "lx-strong" }),
    text(width, y + 12, `${plural(work.tokens, "token")} processed`, {
      "text-anchor": "end",
      class: `lx-strong lx-num ${cached ? "lx-is-fresh" : "lx-is-again"}`,
    }),
  );
  const top = y + 20;
  const box = (first, last, fill) => {
    const paint = fill === "none" ? null : `fill:${svg.paint(fill)}`;
    const separate = cell >= 7 ? last - first : 1; // narrow tokens melt into one bar
    for (let i = 0; i < separate; i++) {
      const from = first + (i * (last - first)) / separate;
      const to = first + ((i + 1) * (last - first)) / separate;
      const gap = cell >= 7 ? 1.5 : 0;
      svg.append(
        s("rect", {
          x: from * cell + 0.5,
          y: top + 0.5,
          width: Math.max((to - from) * cell - gap - 1, 1.5),
          height: height - 1,
          rx: cell >= 7 ? 2.5 : 1,
          style: paint,
          class: `lx-box lx-box-${fill}`,
        }),
      );
    }
  };
  if (slots > total) box(total, slots, "none");
  for (const [first, last, fill] of runs(state.prompt, state.step, cached)) box(first, last, fill);
  return { cell, bottom: top + height };
}

function lanes(costs, state, width) {
  const svg = canvas(width, 130, "The tokens the model looks at in this step, without and with a cache");
  lane(svg, { y: 0, width, state, cached: false, work: stepWork(costs, state.prompt, state.step, false) });
  const work = stepWork(costs, state.prompt, state.step, true);
  const { cell, bottom } = lane(svg, { y: 56, width, state, cached: true, work });
  const edge = state.prompt * cell;
  const bracket = (from, to, words) => {
    if (to - from < 8) return;
    const y = bottom + 6;
    svg.append(s("path", { d: `M${from + 1},${y} v4 H${to - 2} v-4`, class: "lx-bracket" }));
    const half = words.length * 3.1;
    const middle = Math.min(Math.max((from + to) / 2, half), width - half);
    if (to - from > half * 1.2 || from > 0) {
      svg.append(text(middle, y + 18, words, { "text-anchor": "middle", class: "lx-quiet" }));
    }
  };
  bracket(0, edge, `prompt: ${state.prompt}`);
  const made = state.step - 1;
  bracket(edge, width, `generated so far: ${made} of ${state.newTokens}`);
  return svg;
}

const LINES = [
  { cached: false, field: "all", class: "lx-line-without", words: "without", tone: "lx-is-again" },
  { cached: true, field: "all", class: "lx-line-with", words: "with", tone: "lx-is-fresh" },
];
const ATTENTION = [
  {
    cached: false,
    field: "attention",
    class: "lx-line-without lx-thin",
    words: "attention, without",
    tone: "lx-is-again",
  },
  {
    cached: true,
    field: "attention",
    class: "lx-line-with lx-thin",
    words: "attention, with",
    tone: "lx-is-fresh",
  },
];

function chart({ title, series, state, width, height }) {
  const { step, newTokens, axis, count } = state;
  const log = axis === "log";
  const tokens = count === "tokens";
  const margin = { left: 46, right: tokens ? 62 : 110, top: 24, bottom: 20 };
  const svg = canvas(width, height, `${title}: ${tokens ? "tokens" : "FLOPs"}, steps 1 to ${newTokens}`);
  const everything = series.flatMap((line) => line.values);
  const top = Math.max(...everything);
  const marks = log ? logTicks(Math.max(Math.min(...everything), 1), top) : ticks(top);
  const floor = log ? marks[0] : 0;
  const x = (i) => margin.left + (i / newTokens) * (width - margin.left - margin.right);
  const y = scale([floor, marks.at(-1)], [height - margin.bottom, margin.top], log);

  svg.append(text(0, 12, title, { class: "lx-strong" }));
  for (const mark of marks) {
    svg.append(
      s("line", {
        x1: margin.left,
        x2: x(newTokens),
        y1: Math.round(y(mark)),
        y2: Math.round(y(mark)),
        class: "lx-axis",
      }),
      text(margin.left - 7, y(mark) + 4, short(mark), { "text-anchor": "end", class: "lx-quiet lx-num" }),
    );
  }
  for (const mark of stepTicks(newTokens, 5)) {
    svg.append(
      text((x(mark - 1) + x(mark)) / 2, height - margin.bottom + 15, mark, {
        "text-anchor": "middle",
        class: "lx-quiet lx-num",
      }),
    );
  }
  svg.append(
    text(margin.left - 7, height - margin.bottom + 15, "step", { "text-anchor": "end", class: "lx-quiet" }),
  );

  const [without, withCache] = series.map((line) => line.values);
  const ground = withCache.map(() => floor);
  const area = (upper, lower, fill) =>
    s("polygon", { points: between(upper, lower, x, y), style: `fill:${svg.paint(fill)}`, stroke: "none" });
  // What lies ahead is pale, the steps already taken are full. On a log axis an area would mean nothing.
  const upTo = (values) => values.slice(0, step);
  if (!log) {
    svg.append(
      s("g", { opacity: 0.22 }, area(without, withCache, "again"), area(withCache, ground, "fresh")),
      area(upTo(without), upTo(withCache), "again"),
      area(upTo(withCache), upTo(ground), "fresh"),
    );
  }
  const now = Math.round((x(step - 1) + x(step)) / 2);
  svg.append(s("line", { x1: now, x2: now, y1: margin.top, y2: height - margin.bottom, class: "lx-now" }));
  // The labels beside the chart are not the ends of the lines: they say of which step they speak.
  svg.append(text(x(newTokens) + 9, 12, `at step ${step}`, { class: "lx-quiet", "font-size": 11 }));
  const labels = [];
  for (const line of series) {
    svg.append(s("polyline", { points: staircase(line.values, x, y), class: line.class, fill: "none" }));
    const value = line.values[step - 1];
    svg.append(s("circle", { cx: now, cy: y(value), r: 3.5, class: `${line.class} lx-dot` }));
    const amount = tokens ? whole(value) : si(value);
    labels.push({ y: y(value) + 4, amount, words: line.words, tone: line.tone });
  }
  for (const label of spread(labels, 26, height - margin.bottom - 8)) {
    const left = x(newTokens) + 9;
    svg.append(
      text(left, label.y - 5, label.words, { class: "lx-quiet", "font-size": 11 }),
      text(left, label.y + 8, label.amount, { class: `lx-strong lx-num ${label.tone}` }),
    );
  }
  return svg;
}

function table(costs, state) {
  const total = (steps, cached) => sum(allSteps(costs, state.prompt, steps, cached));
  const columns = [
    ["tokens", "tokens processed", whole],
    ["linear", "FLOPs in linear layers", si],
    ["attention", "FLOPs in attention", si],
  ];
  const body = [false, true].map((cached) => {
    const [once, twice] = [total(state.newTokens, cached), total(2 * state.newTokens, cached)];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, cached ? "With a cache" : "Without a cache"),
      columns.map(([field, , format]) =>
        h(
          "td",
          {},
          h("span", { class: "lx-amount" }, format(once[field])),
          h("b", { class: cached ? "lx-is-fresh" : "lx-is-again" }, times(twice[field] / once[field])),
        ),
      ),
    );
  });
  return h(
    "table",
    { class: "lx-table lx-growth" },
    h(
      "caption",
      {},
      `The whole run of N = ${plural(state.newTokens, "token")}, `,
      h("span", { class: "lx-plain" }, `and what doubling N to ${2 * state.newTokens} multiplies it by`),
    ),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td"),
        columns.map(([, words]) => h("th", { scope: "col" }, words)),
      ),
    ),
    h("tbody", {}, body),
  );
}

function draw(ui, costs, state, width) {
  const without = allSteps(costs, state.prompt, state.newTokens, false);
  const withCache = allSteps(costs, state.prompt, state.newTokens, true);
  const now = [without[state.step - 1], withCache[state.step - 1]];
  const parts = titleParts(state.step, ...now);
  ui.title(
    ...parts.map((part) =>
      typeof part === "string" ? part : h("b", { class: `lx-is-${part[1]}` }, part[0]),
    ),
  );

  const tokens = state.count === "tokens";
  const pick = (line) => {
    const steps = line.cached ? withCache : without;
    return steps.map((work) => (tokens ? work.tokens : line.field === "all" ? work.flops : work.attention));
  };
  const lines = tokens ? LINES : [...LINES, ...ATTENTION];
  const perStep = lines.map((line) => ({ ...line, values: pick(line) }));
  const totals = perStep.map((line) => ({ ...line, values: runningTotal(line.values) }));
  const needed = without[state.step - 1].tokens;
  const unit = tokens ? "Tokens processed" : "FLOPs";
  const together = width >= 620;
  const each = together ? Math.floor((width - 20) / 2) : width;
  const height = together ? 196 : 150;
  ui.figure.replaceChildren(
    h(
      "p",
      { class: "lx-lead" },
      `New token ${state.step} depends on ${needed === 1 ? "the one token" : `all ${whole(needed)} tokens`} before it.`,
    ),
    ui.legend,
    lanes(costs, state, width),
    h(
      "div",
      { class: "lx-charts" },
      chart({ title: `${unit} at each step`, series: perStep, state, width: each, height }),
      chart({ title: `${unit} in total so far`, series: totals, state, width: each, height }),
    ),
    table(costs, state),
  );
  ui.say(summaryText(costs, state));
}

function render({ model, el }) {
  const { costs, limits, defaults } = model.get("data");
  const ui = explorer(
    { model, el },
    { label: "Autoregressive generation", defaults, draw: (state, width) => draw(ui, costs, state, width) },
  );
  ui.legend = legend(FILL_MEANINGS);
  const { state } = ui;
  const go = (step) => ui.set({ step: Math.min(Math.max(step, 1), state.newTokens) });
  const atEnd = () => state.step >= state.newTokens;
  const play = player(ui, {
    advance: () => {
      go(state.step + Math.ceil(state.newTokens / 80)); // a long run in some ten seconds
      return !atEnd();
    },
    atEnd,
    rewind: () => go(1),
  });
  const move = (by) => () => {
    play.pause();
    go(state.step + by);
  };
  const reset = () => {
    play.pause();
    ui.reset();
  };
  ui.controls.append(
    row(
      h(
        "div",
        { class: "lx-buttons" },
        play.toggle,
        button("◀", move(-1), { "aria-label": "One step back", title: "One step back" }),
        button("▶", move(+1), { "aria-label": "One step on", title: "One step on" }),
        button("Reset", reset),
      ),
      slider(ui, {
        key: "step",
        label: "Step",
        min: 1,
        max: (now) => now.newTokens,
        wide: true,
        format: (v, now) => `${v} of ${now.newTokens}`,
        onInput: play.pause,
      }),
    ),
    row(
      slider(ui, {
        key: "prompt",
        label: "Prompt length P",
        min: 1,
        max: limits.prompt,
        format: (v) => plural(v, "token"),
      }),
      slider(ui, {
        key: "newTokens",
        label: "New tokens N",
        min: 1,
        max: limits.newTokens,
        format: (v) => plural(v, "token"),
        onInput: () => go(state.step),
      }),
      choice(ui, {
        key: "count",
        legend: "Count",
        options: [
          ["tokens", "tokens"],
          ["flops", "FLOPs"],
        ],
      }),
      choice(ui, {
        key: "axis",
        legend: "Axis",
        options: [
          ["linear", "linear"],
          ["log", "log"],
        ],
      }),
    ),
  );
  return ui.close;
}

export default { render };
