// The two measured views of the security explorer: singular values on a log axis, and times of answers.

import { s } from "./dom.js";
import { canvas, text } from "./drawing.js";
import { logTicks, scale } from "./numbers.js";

/** 10 ** exponent as it is written on an axis: 1000, 1, 0.01, 10⁻⁵. */
export function power(value) {
  const exponent = Math.round(Math.log10(value));
  if (Math.abs(exponent) <= 3) return String(+(10 ** exponent).toPrecision(1));
  return `10${[...String(exponent)].map((digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit])).join("")}`;
}

/** Milliseconds with three digits: 0.482 ms, 12.3 ms. */
export const ms = (value) => `${+value.toPrecision(3)} ms`;

/** The span of all times, a little wider than they are. */
export function span({ shared, salted }) {
  const all = [shared, salted].flatMap(({ hits, misses }) => [...hits, ...misses]);
  return [Math.min(...all) * 0.8, Math.max(...all) * 1.25];
}

/** The attacker's line in ms: `percent` of the way along the log axis. */
export const lineAt = ([low, high], percent) => low * (high / low) ** (percent / 100);

/** How often the attacker is right who says "asked before" of everything answered sooner than `line`. */
export function accuracy({ hits, misses }, line) {
  const right = hits.filter((time) => time < line).length + misses.filter((time) => time >= line).length;
  return right / (hits.length + misses.length);
}

/** The line, in percent of the axis, at which the attacker is right most often while all share one cache. */
export function bestCut(timing) {
  const range = span(timing);
  const right = Array.from({ length: 101 }, (_, at) => accuracy(timing.shared, lineAt(range, at)));
  const most = Math.max(...right);
  return Math.round((right.indexOf(most) + right.lastIndexOf(most)) / 2);
}

/** Counts of values in `count` bins of equal width on a log axis; what lies outside is in the first or last. */
export function logBins(values, [low, high], count) {
  const bins = new Array(count).fill(0);
  for (const value of values) {
    const at = Math.floor((Math.log(value / low) / Math.log(high / low)) * count);
    bins[Math.min(count - 1, Math.max(0, at))] += 1;
  }
  return bins;
}

/** Singular values (largest first), with the cliff where Python found one. */
export function spectrumPlot({ values, hidden, size }, width, height) {
  const [left, right, top, bottom] = [58, 16, 14, height - 44];
  const svg = canvas(width, height, `${size} singular values on a logarithmic axis`);
  const smallest = Math.max(Math.min(...values), values[0] * 1e-9);
  const marks = logTicks(smallest, values[0], 6);
  const y = scale([marks[0], marks.at(-1)], [bottom, top], true);
  const x = scale([1, Math.max(values.length, 2)], [left + 6, width - right]);
  for (const mark of marks) {
    const at = Math.round(y(mark)) + 0.5;
    svg.append(
      s("line", { x1: left, x2: width - right, y1: at, y2: at, class: "lx-axis" }),
      text(left - 8, at + 4, power(mark), { "text-anchor": "end", class: "lx-quiet lx-num" }),
    );
  }
  const radius = width / values.length > 6 ? 2.6 : 1.8;
  values.forEach((value, i) => {
    const behind = hidden !== null && i >= hidden;
    const place = { cx: x(i + 1).toFixed(1), cy: y(value).toFixed(1), r: behind ? radius + 0.6 : radius };
    svg.append(s("circle", { ...place, class: behind ? "lx-dot-behind" : "lx-dot" }));
  });
  for (const mark of [1, Math.round(values.length / 2), values.length])
    svg.append(text(x(mark), bottom + 18, mark, { "text-anchor": "middle", class: "lx-quiet lx-num" }));
  svg.append(
    text((left + width - right) / 2, height - 6, "number of the singular value, largest first", {
      "text-anchor": "middle",
      class: "lx-quiet",
    }),
  );
  if (hidden !== null) {
    const at = Math.round(x(hidden + 0.5)) + 0.5;
    svg.append(
      s("line", { x1: at, x2: at, y1: top, y2: bottom, class: "lx-cliff" }),
      text(at - 8, y(Math.sqrt(marks[0] * marks.at(-1))), `the cliff: ${hidden} values before it`, {
        "text-anchor": "end",
        class: "lx-strong",
      }),
    );
  }
  return svg;
}

/** One row of the timing view: what was asked before upwards, what was not downwards, the line through both. */
function timingRow(svg, { times, name, line, area, x, width, bins }) {
  const [top, bottom] = area;
  const middle = Math.round((top + bottom) / 2) + 0.5;
  const range = x.range;
  const [hits, misses] = [times.hits, times.misses].map((list) => logBins(list, range, bins));
  const most = Math.max(...hits, ...misses);
  const unit = (middle - top - 20) / most;
  const edge = (i) => x(range[0] * (range[1] / range[0]) ** (i / bins));
  for (const [counts, fill, up] of [
    [hits, "reused", true],
    [misses, "again", false],
  ])
    counts.forEach((count, i) => {
      if (count === 0) return;
      svg.append(
        s("rect", {
          x: edge(i).toFixed(1),
          y: up ? middle - count * unit : middle,
          width: Math.max(edge(i + 1) - edge(i) - 1, 1).toFixed(1),
          height: count * unit,
          style: `fill:${svg.paint(fill)}`,
          class: `lx-box lx-box-${fill}`,
        }),
      );
    });
  const at = Math.round(x(line)) + 0.5;
  svg.append(
    s("line", { x1: x.start, x2: width - 10, y1: middle, y2: middle, class: "lx-axis" }),
    s("line", { x1: at, x2: at, y1: top + 16, y2: bottom, class: "lx-cliff" }),
    text(0, top + 11, name, { class: "lx-strong" }),
  );
}

/** Both rows over one axis of milliseconds; `names`: a headline for each. */
export function timingPlot(timing, names, percent, width, height) {
  const svg = canvas(width, height, "Times of the attacker's answers, without and with salts");
  const range = span(timing);
  const start = 10;
  const x = Object.assign(scale(range, [start, width - 10], true), { range, start });
  const line = lineAt(range, percent);
  const bins = Math.min(60, Math.floor(width / 16));
  const half = (height - 40) / 2;
  ["shared", "salted"].forEach((key, i) =>
    timingRow(svg, {
      times: timing[key],
      name: names[key],
      line,
      area: [i * half, (i + 1) * half - 8],
      x,
      width,
      bins,
    }),
  );
  const factors = [1, 2, 5].flatMap((step) => logTicks(...range, 12).map((mark) => mark * step));
  for (const mark of factors.filter((value) => value > range[0] && value < range[1]).sort((a, b) => a - b))
    svg.append(
      text(x(mark), height - 22, +mark.toPrecision(1), { "text-anchor": "middle", class: "lx-quiet lx-num" }),
    );
  svg.append(
    text(width / 2, height - 5, "time to the first token of the attacker's probe, in milliseconds", {
      "text-anchor": "middle",
      class: "lx-quiet",
    }),
  );
  return svg;
}
