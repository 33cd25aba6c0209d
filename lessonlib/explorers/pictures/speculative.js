// Speculative decoding: the rounds of a real run, and how many drafts pay at which acceptance and cost.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, choice, player, row, slider } from "../shared/controls.js";
import { canvas, legend, text } from "../shared/drawing.js";
import { percent, plural, scale, ticks, whole } from "../shared/numbers.js";
import { draftRows, placeChart, story } from "../shared/rounds.js";
import {
  bestK,
  counted,
  expectedTokens,
  roundTitle,
  roundWords,
  speedTitle,
  speedup,
} from "../shared/speculation.js";

function roundsView(ui, data, state, width) {
  const run = data.runs[state.k - 1];
  const round = run.rounds[state.round - 1];
  ui.title(roundTitle(state.round, state.k, round.stood));
  const together = width >= 780;
  const each = together ? Math.floor((width - 32) / 2) : width;
  const high = together ? 27 : 23;
  ui.say(roundWords(round, state));
  return [
    story(round, width),
    ui.legends.rounds,
    h("div", { class: "lx-spec-pair" }, draftRows(round, each, high), placeChart(round, each, high)),
  ];
}

// ---------------------------------------------------------------- when it pays

function curve({ title, format, values, points, state, best, loss, width, height, most }) {
  const margin = { left: 44, right: 14, top: 26, bottom: 34 };
  const svg = canvas(width, height, `${title}, for 1 to ${most} drafts a round`);
  const top = ticks(Math.max(...values, ...points, loss ? 1.2 : 1), 4);
  const x = scale([0.6, most + 0.4], [margin.left, width - margin.right]);
  const y = scale([0, top.at(-1)], [height - margin.bottom, margin.top]);
  svg.append(text(0, 12, title, { class: "lx-strong" }));
  if (loss) {
    svg.append(
      s("rect", {
        x: margin.left,
        y: y(1),
        width: width - margin.left - margin.right,
        height: y(0) - y(1),
        style: `fill:${svg.paint("cut")}`,
      }),
    );
  }
  for (const mark of top) {
    const at = Math.round(y(mark));
    svg.append(
      s("line", { x1: margin.left, x2: width - margin.right, y1: at, y2: at, class: "lx-axis" }),
      text(margin.left - 7, y(mark) + 4, format(mark), { "text-anchor": "end", class: "lx-quiet lx-num" }),
    );
  }
  const now = x(state.k);
  svg.append(
    s("line", { x1: now, x2: now, y1: margin.top, y2: height - margin.bottom, class: "lx-spec-now" }),
  );
  for (let k = 1; k <= most; k++) {
    svg.append(
      text(x(k), height - margin.bottom + 15, k, {
        "text-anchor": "middle",
        class: `lx-num ${k === state.k ? "lx-strong" : "lx-quiet"}`,
      }),
    );
  }
  svg.append(
    text((margin.left + width - margin.right) / 2, height - 3, "drafts a round, k", {
      "text-anchor": "middle",
      class: "lx-quiet",
    }),
    s("polyline", {
      points: values.map((value, i) => `${x(i + 1).toFixed(1)},${y(value).toFixed(1)}`).join(" "),
      class: "lx-spec-curve",
      fill: "none",
    }),
  );
  const value = values[state.k - 1];
  svg.append(s("circle", { cx: now, cy: y(value), r: 4, class: "lx-spec-dot" }));
  points.forEach((point, i) =>
    svg.append(
      s("path", { d: `M${x(i + 1)},${y(point) - 5.5} l5,5.5 l-5,5.5 l-5,-5.5 z`, class: "lx-spec-luck" }),
    ),
  );
  if (loss) {
    const words = "slower than without drafts";
    const at = y(0) - 12;
    svg.append(
      s("rect", {
        x: width - margin.right - 168,
        y: at - 9,
        width: 162,
        height: 18,
        rx: 3,
        class: "lx-spec-plate",
      }),
      text(width - margin.right - 87, at + 4, words, { "text-anchor": "middle", class: "lx-quiet" }),
      s("line", { x1: margin.left, x2: width - margin.right, y1: y(1), y2: y(1), class: "lx-spec-even" }),
    );
  }
  if (best) {
    const at = { x: x(best), y: y(values[best - 1]) };
    svg.append(
      s("circle", { cx: at.x, cy: at.y, r: 9, class: "lx-spec-best" }),
      text(at.x, at.y - 13, "best", { "text-anchor": "middle", class: "lx-strong lx-is-fresh lx-spec-halo" }),
    );
  }
  return svg;
}

function countsTable(data, state, wide) {
  const columns = [
    ["drafts a round, k", (run) => run.k],
    ["drafts judged", (run) => whole(run.judged)],
    ["of them accepted", (run) => percent(counted(run, 0).acceptance)],
    ["tokens a pass, counted", (run) => counted(run, 0).tokens.toFixed(2)],
    ["tokens a pass, formula", (run) => expectedTokens(state.acceptance, run.k).toFixed(2)],
    ["speed, formula", (run) => `×${speedup(state.acceptance, run.k, state.cost).toFixed(2)}`],
  ];
  const mark = (run) => (run?.k === state.k ? "lx-spec-here" : null);
  const runs = [null, ...data.runs]; // null: where the names stand
  const cell = ([name, value], run) => (run === null ? name : value(run));
  const [outer, inner, at] = wide
    ? [columns, runs, (column, run) => [column, run]]
    : [runs, columns, (run, column) => [column, run]];
  const rows = outer.map((a, i) =>
    h(
      "tr",
      {},
      inner.map((b, j) => {
        const [column, run] = at(a, b);
        const scope = i === 0 ? "col" : j === 0 ? "row" : null;
        return h(scope ? "th" : "td", { scope, class: mark(run) }, cell(column, run));
      }),
    ),
  );
  return h(
    "table",
    { class: "lx-table" },
    h("caption", {}, "Counted in the runs, beside the formula"),
    h("thead", {}, rows[0]),
    h("tbody", {}, rows.slice(1)),
  );
}

function speedView(ui, data, state, width) {
  const { acceptance: a, cost: c, k } = state;
  const most = data.runs.length;
  const ks = data.runs.map((run) => run.k);
  const best = bestK(a, c, most);
  ui.title(speedTitle(a, k, c, most));
  const together = width >= 620;
  const each = together ? Math.floor((width - 24) / 2) : width;
  const shared = { state, width: each, height: together ? 206 : 176, most };
  const run = data.runs[k - 1];
  ui.say(
    `${plural(k, "draft")}, by the formula: ${expectedTokens(a, k).toFixed(2)} tokens a pass, ${speedup(a, k, c).toFixed(2)} ` +
      `times the speed. Counted: ${whole(run.tokens)} tokens from ${whole(run.passes)} passes; ` +
      `${whole(run.accepted)} of ${whole(run.judged)} judged drafts accepted.`,
  );
  return [
    ui.legends.speed,
    h(
      "div",
      { class: "lx-spec-pair" },
      curve({
        ...shared,
        title: "Tokens a pass of the large model",
        format: String,
        values: ks.map((n) => expectedTokens(a, n)),
        points: data.runs.map((r) => counted(r, 0).tokens),
      }),
      curve({
        ...shared,
        title: "Speed, against decoding without drafts",
        format: (mark) => `×${mark}`,
        values: ks.map((n) => speedup(a, n, c)),
        points: data.runs.map((r) => counted(r, c).speedup),
        best,
        loss: true,
      }),
    ),
    countsTable(data, state, together),
  ];
}

// ---------------------------------------------------------------- frame

function draw(ui, data, state, width) {
  const rounds = state.view === "rounds";
  const view = rounds ? roundsView : speedView;
  ui.figure.replaceChildren(h("div", { class: rounds && "lx-spec-rounds" }, view(ui, data, state, width)));
}

const mark = (shape, meaning) =>
  h("li", {}, s("svg", { width: 22, height: 14, "aria-hidden": "true", class: "lx-svg" }, shape), meaning);
const DIAMOND = "M11,0.5 l5.5,6.5 l-5.5,6.5 l-5.5,-6.5 z";

function legends({ prompts, temperature }) {
  const rounds = legend([
    ["reused", "common to p and q; in the rows: the chance to stand"],
    ["again", "q has more"],
    ["fresh", "p has more"],
  ]);
  rounds.prepend(
    h("li", {}, "A token's chance: p by the large model (the target), q by the small draft model."),
  );
  rounds.append(
    mark(s("path", { d: DIAMOND, class: "lx-spec-luck" }), "random number: inside the bar, the draft stands"),
  );
  const speed = h(
    "ul",
    { class: "lx-legend" },
    mark(
      s("line", { x1: 0, x2: 22, y1: 7, y2: 7, class: "lx-spec-curve" }),
      "formula: every draft accepted alike",
    ),
    mark(
      s("path", { d: DIAMOND, class: "lx-spec-luck" }),
      `counted in real runs: ${plural(prompts, "prompt")}, temperature ${temperature}`,
    ),
    h("li", {}, "Acceptance: share of the judged drafts that stand. Checking drafts is taken to be free."),
  );
  return { rounds, speed };
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    {
      label: "Speculative decoding",
      defaults: data.defaults,
      draw: (state, width) => draw(ui, data, state, width),
    },
  );
  ui.legends = legends(data.measured);
  const { state } = ui;
  const last = data.runs[0].rounds.length;
  const go = (round) => ui.set({ round: Math.min(Math.max(round, 1), last) });
  const play = player(ui, {
    every: 1400,
    advance: () => {
      go(state.round + 1);
      return state.round < last;
    },
    atEnd: () => state.round >= last,
    rewind: () => go(1),
  });
  const move = (by) => () => {
    play.pause();
    go(state.round + by);
  };
  const rounds = row(
    h(
      "div",
      { class: "lx-buttons" },
      play.toggle,
      button("◀", move(-1), { "aria-label": "One round back", title: "One round back" }),
      button("▶", move(+1), { "aria-label": "One round on", title: "One round on" }),
    ),
    slider(ui, {
      key: "round",
      label: "Round",
      min: 1,
      max: last,
      wide: true,
      format: (v) => `${v} of ${last}`,
      onInput: play.pause,
    }),
  );
  const share = { min: 0, max: 1, step: 0.01, format: (v) => `${Math.round(v * 100)}%` };
  const speed = row(
    slider(ui, { key: "acceptance", label: "Acceptance a", ...share }),
    slider(ui, { key: "cost", label: "Cost of a draft c, in passes of the target", ...share, wide: true }),
  );
  ui.onState(() => {
    rounds.hidden = state.view !== "rounds";
    speed.hidden = state.view === "rounds";
    if (rounds.hidden) play.pause();
  });
  ui.controls.append(
    row(
      choice(ui, {
        key: "view",
        legend: "Show",
        options: [
          ["rounds", "the rounds"],
          ["speed", "when it pays"],
        ],
      }),
      slider(ui, { key: "k", label: "Drafts a round k", min: 1, max: data.runs.length }),
      h(
        "div",
        { class: "lx-buttons" },
        button("Reset", () => {
          play.pause();
          ui.reset();
        }),
      ),
    ),
    rounds,
    speed,
  );
  return ui.close;
}

export default { render };
