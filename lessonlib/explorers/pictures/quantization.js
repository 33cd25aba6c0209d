// A real weight matrix in fewer bits: its grid of numbers, its errors, and what one large weight does to the others.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, choice, row, select, slider } from "../shared/controls.js";
import { canvas, factRow, text } from "../shared/drawing.js";
import { bytesText, percent, plural, scale, ticks } from "../shared/numbers.js";
import { table } from "../shared/table.js";
import { FORMATS, rms, stored } from "../shared/quantize.js";

const PATIENCE_MS = 60000;
const REACH = 4.5; // the histogram ends at so many typical weights on either side
const BINS = 61;
const DARKEST = 0.5; // of a typical weight: the error that is drawn darkest
const SHADE = [224, 106, 20];

const KEY =
  "weight ≈ code × scale: the largest weight of a group sets its scale, and so how coarse all the others are. " +
  "Perplexity: the model is as unsure as between so many equally likely tokens; lower is better. " +
  "Embedding and output layer stay in 8 bits.";

/** `weights` with the one at index `marked` made `factor` times larger. */
export function withOutlier(weights, marked, factor) {
  const changed = weights.slice();
  changed[marked] = weights[marked] * factor;
  return changed;
}

/** What the picture comes down to. `weights`: Float32Array, rows one after the other; `before`: what is stored of them. */
export function facts(weights, { format, group, marked, outlier }, before = stored(weights, format, group)) {
  const after = withOutlier(weights, marked, outlier);
  const first = marked - (marked % group);
  const grid = FORMATS[format].fit(after, first, first + group);
  const kept = before.slice(); // only the marked weight's group can change
  for (let i = first; i < first + group; i++) kept[i] = grid.nearest(after[i]);
  const error = (i) => after[i] - kept[i];
  const others = (of) => rms((i) => (i === marked ? 0 : of(i)), first, first + group) * othersShare(group);
  return {
    after,
    kept,
    first,
    grid,
    error,
    typical: rms((i) => weights[i], 0, weights.length),
    all: rms(error, 0, weights.length),
    damage: [others((i) => weights[i] - before[i]), others(error)],
  };
}

// The marked weight counts as no error but as one of the group: its place is taken out of the mean.
const othersShare = (group) => Math.sqrt(group / Math.max(group - 1, 1));

const sharing = (format, group) => `${FORMATS[format].name}, one scale for ${group} weights`;

/** The sentence above the picture. */
export function titleText({ format, group, outlier }, { typical, all, damage, grid }) {
  const { name, bits } = FORMATS[format];
  if (!grid.values)
    return `${name}: 16 bits a weight and no scale to share; a large weight costs the others nothing.`;
  const how = sharing(format, group);
  if (outlier === 1)
    return `${how}: ${bits(group).toFixed(2)} bits a weight, errors of ${((100 * all) / typical).toFixed(1)}% of a weight.`;
  const ratio = damage[1] / (damage[0] || 1);
  return `${how}: one weight ×${outlier} gives the others ${ratio.toFixed(1)} times the error.`;
}

/** How dark an error is drawn, 0 … 1. */
export const shade = (error, typical) => Math.min(1, Math.abs(error) / typical / DARKEST);

function histogram(data, state, found, width) {
  const { after, typical, first, kept } = found;
  const svg = canvas(
    width,
    246,
    "How large the weights are, and the numbers that can be stored for one group",
  );
  const reach = REACH * typical;
  const x = scale([-reach, reach], [4, width - 4]);
  const counts = new Array(BINS).fill(0);
  for (const weight of after) {
    const bin = Math.floor(((weight + reach) / (2 * reach)) * BINS);
    if (bin >= 0 && bin < BINS) counts[bin] += 1;
  }
  const top = Math.max(...counts);
  const ground = 112;
  svg.append(
    text(0, 12, `How large the weights are: ${data.matrices[state.matrix].name}`, { class: "lx-strong" }),
  );
  const step = (width - 8) / BINS;
  counts.forEach((count, i) => {
    const height = (count / top) * 86;
    if (count)
      svg.append(
        s("rect", {
          x: 4 + i * step + 0.5,
          y: ground - height,
          width: step - 1,
          height,
          style: `fill:${svg.paint("fresh")}`,
        }),
      );
  });
  svg.append(s("line", { x1: 0, x2: width, y1: ground + 0.5, y2: ground + 0.5, class: "lx-axis" }));
  const marks = ticks(reach, 3).filter((mark) => mark < reach * 0.97);
  for (const mark of [...marks.slice(1).map((m) => -m), ...marks]) {
    svg.append(
      text(x(mark), ground + 16, `${mark < 0 ? "−" : ""}${Math.abs(mark)}`, {
        "text-anchor": "middle",
        class: "lx-quiet lx-num",
      }),
    );
  }

  const { group } = state;
  const [above, below] = [166, 212];
  svg.append(
    text(0, 150, `The marked weight and the ${group - 1} others of its group`, { class: "lx-quiet" }),
    text(0, 238, levelsText(found, state), { class: "lx-quiet" }),
  );
  const lines = [];
  const rug = [];
  for (let i = first; i < first + group; i++) {
    if (Math.abs(after[i]) > reach) continue;
    rug.push(`M${x(after[i]).toFixed(1)},${above - 7} v10`);
    lines.push(`M${x(after[i]).toFixed(1)},${above + 5} L${x(kept[i]).toFixed(1)},${below - 5}`);
  }
  svg.append(
    s("path", { d: lines.join(""), class: "lx-snap", fill: "none" }),
    s("path", { d: rug.join(""), class: "lx-weight" }),
    ...levels(found, group, { reach, x, y: below, svg, width }),
  );
  if (after[data.marked] > reach)
    svg.append(
      text(width, ground - 52, `marked weight: ${after[data.marked].toFixed(2)} ▸`, {
        "text-anchor": "end",
        class: "lx-strong",
      }),
    );
  return svg;
}

// The numbers of the grid inside the picture: filled where one of the weights is stored as it.
function levels({ grid, kept, first }, group, { reach, x, y, svg, width }) {
  const seen = grid.values?.filter((value) => Math.abs(value) <= reach);
  if (!seen || seen.length > width / 7) {
    const box = { x: 0.5, y: y - 3.5, width: width - 1, height: 9, class: "lx-box lx-box-again" };
    return [s("rect", { ...box, style: `fill:${svg.paint("again")}` })];
  }
  const used = new Set(kept.subarray(first, first + group));
  return seen.map((value) =>
    s("path", {
      d: `M${x(value).toFixed(1)},${y - 4} l4,9 h-8 z`,
      class: used.has(value) ? "lx-level" : "lx-level lx-level-unused",
    }),
  );
}

/** What is written under the numbers that can be stored. */
export function levelsText({ grid, typical }, { format }) {
  const { name } = FORMATS[format];
  if (!grid.values) return `${name}: 1,024 numbers between any number and its double`;
  const inside = grid.values.filter((value) => Math.abs(value) <= REACH * typical).length;
  const size = grid.values.length;
  const where = inside === size ? "" : `: ${inside} here, the rest beyond the edge`;
  return `${name} can store ${size} numbers${where}`;
}

function errorMap(data, state, found, width) {
  const { columns } = data;
  const { rows, name, shape } = data.matrices[state.matrix];
  const [top, height] = [15, 192];
  const map = h("canvas", {
    width: columns,
    height: rows,
    role: "img",
    "aria-label": `Error of each weight, ${rows} rows of ${columns}`,
  });
  const context = map.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    image.data.set(SHADE, 4 * i);
    image.data[4 * i + 3] = 255 * shade(found.error(i), found.typical);
  }
  context.putImageData(image, 0, 0);

  const svg = canvas(width, 240, "");
  svg.setAttribute("aria-hidden", "true");
  const cell = width / columns;
  const y = top + (Math.floor(data.marked / columns) * height) / rows;
  const first = found.first % columns;
  svg.append(
    s("rect", {
      x: first * cell,
      y: y - 2,
      width: Math.max(state.group * cell, 3),
      height: height / rows + 4,
      class: "lx-error-mark",
    }),
    s("path", {
      d: `M${((data.marked % columns) + 0.5) * cell},${y - 3} l-5,-8 h10 z`,
      fill: "currentColor",
    }),
  );
  for (let edge = 0; edge <= columns; edge += state.group)
    svg.append(s("path", { d: `M${edge * cell},${top + height} v6`, class: "lx-bracket" }));
  const base = top + height + 22;
  svg.append(
    text(
      0,
      base,
      width < 700 ? "▼ marked weight" : "▼ marked weight, its group framed; ticks below: where groups end",
      {
        class: "lx-quiet",
      },
    ),
  );
  const steps = [0, 0.1, 0.25, DARKEST];
  steps.forEach((share, i) => {
    const left = width - 62 * (steps.length - i);
    const box = { x: left, y: base - 11, width: 13, height: 13 };
    svg.append(
      s("rect", { ...box, class: "lx-shade", opacity: shade(share, 1) }),
      s("rect", { ...box, class: "lx-bracket" }),
      text(left + 18, base, `${+(share * 100).toPrecision(2)}%${share === DARKEST ? "+" : ""}`, {
        class: "lx-quiet",
      }),
    );
  });
  return h(
    "div",
    {},
    h(
      "p",
      { class: "lx-lead" },
      h("b", {}, "Error of each weight"),
      `, as a share of a typical weight: ${rows} of the ${shape[0]} rows of ${name}`,
    ),
    h("div", { class: "lx-errors" }, map, svg),
  );
}

function formats(ui, state, data) {
  const first = ui.perplexities[0];
  const change = (perplexity) => {
    const more = 100 * (perplexity / first - 1);
    return `${more < 0 ? "−" : "+"}${Math.abs(more).toFixed(1)}%`;
  };
  const measured = (perplexity, i) =>
    perplexity == null ? "–" : `${perplexity.toFixed(2)}${i ? ` (${change(perplexity)})` : ""}`;
  return table({
    caption: "The whole model, as the engine stores it",
    note: ui.notice && `· ${ui.notice}`,
    heads: ["", "bits a weight", "size", "perplexity"],
    rows: data.stored.map(({ label, setting, bits, bytes }, i) => {
      const [format, group] = setting ?? [];
      return {
        now:
          format === state.format &&
          (format === "fp16" || (group ?? data.matrices[state.matrix].shape[1]) === state.group),
        cells: [label, bits.toFixed(2), `${(bytes / 1e6).toFixed(1)} MB`, measured(ui.perplexities[i], i)],
      };
    }),
  });
}

/** The picture in words. */
export function summaryText(found, { format, group, outlier }) {
  const share = (error) => percent(error / found.typical);
  const [before, after] = found.damage;
  const damage =
    outlier === 1 ? "" : `; beside the marked one ${share(after)}, before it grew ${share(before)}`;
  return (
    `${found.grid.values ? sharing(format, group) : FORMATS[format].name}: ` +
    `${FORMATS[format].bits(group).toFixed(2)} bits a weight, errors of ${share(found.all)} of a typical weight${damage}.`
  );
}

function draw(ui, sent, state, width) {
  const data = { ...sent, marked: sent.marked[state.matrix] };
  const weights = ui.weights[state.matrix];
  const key = [state.matrix, state.format, state.group].join();
  if (ui.before?.key !== key) ui.before = { key, values: stored(weights, state.format, state.group) };
  const found = facts(weights, { ...state, marked: data.marked }, ui.before.values);
  const { code, bits } = FORMATS[state.format];
  const { shape } = data.matrices[state.matrix];
  ui.title(titleText(state, found));
  const share = (error) => percent(error / found.typical);
  const spent = bits(state.group);
  const each = width >= 664 ? Math.floor((width - 28) / 2) : width;
  ui.figure.replaceChildren(
    factRow([
      ["bits a weight: code + scale", `${code} + ${(spent - code).toFixed(2)} = ${spent.toFixed(2)}`],
      [`this matrix, ${shape.join(" × ")}`, bytesText((shape[0] * shape[1] * spent) / 8)],
      ["error of all weights shown", share(found.all)],
      [
        "error of the marked one’s neighbours",
        `${share(found.damage[1])}, before: ${share(found.damage[0])}`,
      ],
    ]),
    h("div", { class: "lx-quant" }, histogram(data, state, found, each), formats(ui, state, data)),
    errorMap(data, state, found, width),
    h("p", { class: "lx-explain" }, KEY),
  );
  ui.say(summaryText(found, state));
}

function render({ model, el }) {
  const data = model.get("data");
  const view = model.get("weights");
  const all = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const ui = explorer(
    { model, el },
    { label: "Quantization", defaults: data.defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  let at = 0;
  ui.weights = data.matrices.map(({ rows }) => all.subarray(at, (at += rows * data.columns)));
  ui.perplexities = data.stored.map((entry) => entry.perplexity);
  ui.notice = "";
  let waiting = 0;

  const finish = (notice) => {
    clearTimeout(waiting);
    ui.notice = notice;
    measure.disabled = false;
    ui.redraw();
  };
  const wait = () => {
    clearTimeout(waiting);
    waiting = setTimeout(finish, PATIENCE_MS, "no kernel answers: run this cell again");
  };
  const ask = () => {
    measure.disabled = true;
    ui.notice = "measuring …";
    wait();
    model.send({ do: "measure" });
    ui.redraw();
  };
  const answer = (message) => {
    if (message.error) finish(message.error);
    else if (message.done) finish(`perplexity on ${plural(data.tokens, "token")}`);
    else {
      ui.perplexities[message.row] = message.perplexity;
      wait();
      ui.redraw();
    }
  };
  const measure = button("Measure perplexity", ask, { class: "lx-button lx-primary" });
  model.on("msg:custom", answer);
  ui.onClose(() => {
    clearTimeout(waiting);
    model.off("msg:custom", answer);
  });
  ui.controls.append(
    row(
      slider(ui, {
        key: "outlier",
        label: "Marked weight",
        values: data.outliers,
        format: (v) => (v === 1 ? "as it is" : `${v} times larger`),
      }),
      slider(ui, {
        key: "group",
        label: "One scale for",
        values: data.sizes,
        format: (v, { matrix }) => (v === data.matrices[matrix].shape[1] ? `${v}, a row` : `${v} weights`),
      }),
      choice(ui, {
        key: "format",
        legend: "Format",
        options: Object.entries(FORMATS).map(([key, { name }]) => [key, name]),
      }),
      select(ui, {
        key: "matrix",
        label: "Matrix",
        options: data.matrices.map(({ name }, i) => [String(i), name]),
      }),
      h("div", { class: "lx-buttons" }, measure, button("Reset", ui.reset)),
    ),
  );
  return ui.close;
}

export default { render };
