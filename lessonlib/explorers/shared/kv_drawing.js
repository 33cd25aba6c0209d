// The drawings of the KV cache: two attention matrices, what grows with them, heads that share, and cards that fill.

import { s } from "./dom.js";
import { canvas, text } from "./drawing.js";
import { cellsAt, rowsAt } from "./kv.js";
import { plural, short, si, ticks, whole } from "./numbers.js";

const STRIP = 13;

function matrix(svg, { x, y, side, state, cached, cells }) {
  const cell = side / cells;
  const total = state.prompt + state.step - 1;
  const top = y + 44 + STRIP + 5;
  const box = (left, up, width, height, fill) =>
    svg.append(
      s("rect", {
        x: left,
        y: up,
        width,
        height,
        style: fill === "none" ? null : `fill:${svg.paint(fill)}`,
        class: fill === "none" ? "lx-kv-free" : null,
      }),
    );
  const amount = plural(cellsAt(state.prompt, state.step, cached), "cell");
  svg.append(
    text(x, y + 12, cached ? "With a cache" : "Without a cache", { class: "lx-strong" }),
    text(x, y + 28, `${amount} computed`, {
      class: `lx-strong lx-num ${cached ? "lx-is-fresh" : "lx-is-again"}`,
    }),
  );
  for (let i = total; i < cells; i++) box(x, top + i * cell, (i + 1) * cell, cell, "none");
  for (const [first, last, fill] of rowsAt(state.prompt, state.step, cached)) {
    for (let i = first; i < last; i++) box(x, top + i * cell, (i + 1) * cell, cell, fill);
    box(x + first * cell, y + 38, (last - first) * cell, STRIP, fill); // this column's key and value
  }
  if (total < cells) box(x + total * cell, y + 38, (cells - total) * cell, STRIP, "none");
  // A grid in the colour of the ground cuts the rows into cells.
  const grid = Array.from(
    { length: cells - 1 },
    (_, i) => `M${x + (i + 1) * cell},${y + 38} V${top + side} M${x},${top + (i + 1) * cell} h${side}`,
  );
  svg.append(s("path", { d: grid.join(" "), class: "lx-kv-grid" }));
  return { cell, top };
}

/** Both matrices of a step, side by side; `steps` is how many there will be. */
export function matricesDrawing(state, steps, width, side) {
  const cells = state.prompt + steps - 1;
  const left = 18;
  const gap = width - left - 2 * side;
  const height = 44 + STRIP + 5 + side + 20;
  const svg = canvas(width, height, "Attention matrix of this step, without and with a cache");
  for (const cached of [false, true]) {
    const x = left + (cached ? side + gap : 0);
    const { cell, top } = matrix(svg, { x, y: 0, side, state, cached, cells });
    const now = top + (state.prompt + state.step - 1.5) * cell;
    svg.append(text(x, top + side + 15, "each column: a token looked at", { class: "lx-quiet lx-small" }));
    if (!cached)
      svg.append(
        text(0, 0, "each row: a token that looks", {
          class: "lx-quiet lx-small",
          transform: `translate(11,${top + side}) rotate(-90)`,
        }),
      );
    const right = x + (state.prompt + state.step - 1) * cell;
    if (x + side - right > 78)
      svg.append(text(right + 6, now + 4, "◂ new token", { class: "lx-quiet lx-small" }));
  }
  return svg;
}

/** Columns, one a step: what has been gathered up to it. Steps ahead are pale. Ticks are round numbers of `unit`. */
export function growth({ title, values, format, axis = short, unit = 1, fill, tone, step, width, height }) {
  const svg = canvas(width, height, title);
  const margin = { left: 60, top: 26, bottom: 20 };
  const marks = ticks(Math.max(...values) / unit, 3).map((mark) => mark * unit);
  const y = (value) =>
    height - margin.bottom - (value / marks.at(-1)) * (height - margin.top - margin.bottom);
  svg.append(
    text(0, 12, title, { class: "lx-strong" }),
    text(width, 12, format(values[step - 1]), { "text-anchor": "end", class: `lx-strong lx-num ${tone}` }),
  );
  for (const mark of marks) {
    const at = Math.round(y(mark));
    svg.append(
      s("line", { x1: margin.left, x2: width, y1: at, y2: at, class: "lx-axis" }),
      text(margin.left - 6, at + 4, mark ? axis(mark) : 0, {
        "text-anchor": "end",
        class: "lx-quiet lx-num",
      }),
    );
  }
  const cell = (width - margin.left) / values.length;
  values.forEach((value, i) => {
    const x = margin.left + i * cell;
    svg.append(
      s("rect", {
        x: x + 1.5,
        y: y(value),
        width: cell - 3,
        height: Math.max(0, y(0) - y(value)),
        opacity: i < step ? 1 : 0.25,
        style: `fill:${svg.paint(fill)}`,
        class: `lx-box lx-box-${fill}`,
      }),
    );
    if (i === 0 || i === step - 1 || i === values.length - 1)
      svg.append(
        text(x + cell / 2, height - 5, i + 1, {
          "text-anchor": "middle",
          class: `lx-num ${i === step - 1 ? "lx-strong" : "lx-quiet"}`,
        }),
      );
  });
  svg.append(text(margin.left - 6, height - 5, "step", { "text-anchor": "end", class: "lx-quiet" }));
  return svg;
}

/** Which kind of attention it is, and how many query heads look at one KV head. */
export function kindOf({ heads, kvHeads }) {
  if (kvHeads === heads) return "Multi-head attention (MHA): each query head has a KV head";
  if (kvHeads === 1) return "Multi-query attention (MQA): all query heads share one";
  return `Grouped-query attention (GQA): ${heads / kvHeads} query heads share one`;
}

export function headsDrawing({ heads, kvHeads }, width) {
  const svg = canvas(width, 74, `${heads} query heads, ${kvHeads} KV heads`);
  const left = 92;
  const cell = Math.min(26, (width - left) / heads);
  const gap = cell > 5 ? 1.5 : 0.5;
  const group = heads / kvHeads;
  svg.append(
    text(0, 31, "query heads", { class: "lx-quiet" }),
    text(0, 62, "KV heads", { class: "lx-quiet" }),
    text(0, 11, kindOf({ heads, kvHeads }), { class: "lx-strong" }),
  );
  for (let i = 0; i < heads; i++)
    svg.append(
      s("rect", {
        x: left + i * cell,
        y: 20,
        width: cell - gap,
        height: 14,
        style: `fill:${svg.paint("fresh")}`,
      }),
    );
  for (let i = 0; i < kvHeads; i++) {
    const x = left + i * group * cell;
    const span = group * cell - gap;
    svg.append(
      s("path", { d: `M${x},36 v5 H${x + span} v-5 M${x + span / 2},41 v7`, class: "lx-bracket" }),
      s("rect", {
        x,
        y: 49,
        width: span,
        height: 17,
        style: `fill:${svg.paint("reused")}`,
        class: "lx-box lx-box-reused",
      }),
    );
  }
  return svg;
}

/** Bars of the cards: weights, one box a user, what is left. Their length is their memory. */
export function cardBars(cards, users, need, width) {
  const ROW = 50;
  const most = Math.max(...cards.map((card) => card.bytes));
  const svg = canvas(width, ROW * cards.length, "Memory of three cards and what fills it");
  cards.forEach((card, i) => {
    const y = i * ROW;
    const scale = width / most;
    const fit = need.fit[i];
    const words =
      fit === null
        ? `the weights alone need ${si(need.weights, "B")}`
        : `room for ${fit === 0 ? "no user" : plural(fit, "user")}${users > fit ? `, not for ${whole(users)}` : ""}`;
    svg.append(
      text(
        0,
        y + 13,
        [
          s("tspan", { class: "lx-strong" }, `${card.name} card: `),
          s(
            "tspan",
            { class: `lx-strong ${fit === null || users > fit ? "lx-is-again" : "lx-is-reused"}` },
            words,
          ),
        ],
        { class: "lx-num" },
      ),
    );
    const bar = (from, to, fill) =>
      svg.append(
        s("rect", {
          x: from * scale + 0.5,
          y: y + 19.5,
          width: Math.max((to - from) * scale - 1, 0.5),
          height: 20,
          style: fill === "none" ? null : `fill:${svg.paint(fill)}`,
          class: `lx-box lx-box-${fill}`,
        }),
      );
    bar(0, card.bytes, "none");
    if (fit === null) return bar(0, card.bytes, "again");
    bar(0, need.weights, "cut");
    const shown = Math.min(fit, users);
    const boxes = need.perUser * scale >= 4 ? shown : Math.min(shown, 1); // narrow users melt into one bar
    for (let j = 0; j < boxes; j++) {
      const from = need.weights + (j * shown * need.perUser) / boxes;
      bar(from, from + (shown * need.perUser) / boxes, "reused");
    }
  });
  return svg;
}
