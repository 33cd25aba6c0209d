// What the pictures are drawn with: patterns that carry meaning without colour, axes, areas, labels.

import { h, s, unique } from "./dom.js";

const SOLID = { fresh: "var(--lx-fresh)", answer: "var(--lx-fresh-soft)" }; // answer: paler, where both are new

/**
 * An SVG canvas with the course's four fills. Meaning first, colour second:
 *   fresh  — computed for the first time      solid
 *   again  — computed again, though known     diagonal stripes
 *   reused — read from the cache              dots
 *   cut    — taken out of the running         thin cross-hatch
 */
export function canvas(width, height, label) {
  const id = unique("fill");
  const tile = (name, size, turn, ...marks) =>
    s(
      "pattern",
      {
        id: `${id}-${name}`,
        width: size,
        height: size,
        patternUnits: "userSpaceOnUse",
        patternTransform: turn ? `rotate(${turn})` : null,
      },
      s("rect", { width: size, height: size, class: `lx-${name}-ground` }),
      ...marks,
    );
  const svg = s(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "lx-svg" },
    s(
      "defs",
      {},
      tile("again", 6, 45, s("rect", { width: 2.6, height: 6, class: "lx-again-mark" })),
      tile("reused", 6, 0, s("circle", { cx: 3, cy: 3, r: 1.25, class: "lx-reused-mark" })),
      tile(
        "cut",
        5,
        45,
        s("rect", { width: 1, height: 5, class: "lx-cut-mark" }),
        s("rect", { width: 5, height: 1, class: "lx-cut-mark" }),
      ),
    ),
  );
  svg.paint = (name) => SOLID[name] ?? `url(#${id}-${name})`;
  return svg;
}

/** Text in a drawing. */
export const text = (x, y, content, attributes = {}) => s("text", { x, y, ...attributes }, content);

/** A legend entry: a swatch in the very fill of the picture, and its meaning. */
export function legend(entries) {
  return h(
    "ul",
    { class: "lx-legend" },
    entries.map(([name, meaning]) => {
      const svg = canvas(22, 14, "");
      svg.removeAttribute("role");
      svg.removeAttribute("aria-label");
      svg.setAttribute("aria-hidden", "true");
      svg.append(
        s("rect", {
          x: 0.75,
          y: 0.75,
          width: 20.5,
          height: 12.5,
          rx: 2,
          style: name === "none" ? null : `fill:${svg.paint(name)}`,
          class: `lx-box lx-box-${name}`,
        }),
      );
      return h("li", {}, svg, meaning);
    }),
  );
}

/** A line of figures, each under its name: [name, value] pairs. */
export const factRow = (facts) =>
  h(
    "div",
    { class: "lx-facts" },
    facts.map(([name, value]) => h("div", { class: "lx-fact" }, h("span", {}, name), h("b", {}, value))),
  );

/** A token as a list item: its text above its id, in one of four alternating tints or as "special". */
export const chip = (piece, id, tint, attributes = {}) =>
  h(
    "li",
    { ...attributes, class: `lx-chip lx-chip-${tint} ${attributes.class ?? ""}` },
    h("span", { class: "lx-piece" }, piece),
    h("span", { class: "lx-id" }, id),
  );

/**
 * Horizontal bars with their words on the left and numbers on the right.
 * Each bar: {piece, share, fill, note}. `top` is the share that fills the width.
 */
export function shareBars(bars, width, { top, row = 24, left = 110, right = 62, label }) {
  const svg = canvas(width, row * bars.length, label);
  bars.forEach(({ piece, share, fill, note, format }, i) => {
    const y = i * row;
    const strong = note ? "lx-strong" : "";
    svg.append(
      text(left - 8, y + row / 2 + 4, piece, { "text-anchor": "end", class: `lx-mono ${strong}` }),
      s("rect", {
        x: left,
        y: y + 3.5,
        width: Math.max(((width - left - right) * share) / top, 1.5),
        height: row - 8,
        rx: 2,
        style: `fill:${svg.paint(fill)}`,
        class: `lx-box lx-box-${fill}`,
      }),
      text(width, y + row / 2 + 4, format(share), { "text-anchor": "end", class: `lx-num ${strong}` }),
    );
    if (note) {
      const end = left + ((width - left - right) * share) / top;
      const room = width - right - end > note.length * 7 + 10;
      if (room) svg.append(text(end + 8, y + row / 2 + 4, note, { class: "lx-quiet" }));
    }
  });
  return svg;
}

/** Points of a staircase: value i holds for the whole step i. `x(i)` is the left edge of step i. */
export function staircase(values, x, y) {
  return values
    .map(
      (value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)} ${x(i + 1).toFixed(1)},${y(value).toFixed(1)}`,
    )
    .join(" ");
}

/** The area between two staircases. */
export function between(upper, lower, x, y) {
  const back = lower
    .map(
      (value, i) => `${x(i + 1).toFixed(1)},${y(value).toFixed(1)} ${x(i).toFixed(1)},${y(value).toFixed(1)}`,
    )
    .reverse()
    .join(" ");
  return `${staircase(upper, x, y)} ${back}`;
}

/** Push labels apart so that none overlaps: [{y, …}] in, the same with `y` moved, at least `gap` apart. */
export function spread(labels, gap, bottom) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  for (let i = 1; i < sorted.length; i++) sorted[i].y = Math.max(sorted[i].y, sorted[i - 1].y + gap);
  const overflow = sorted.length ? sorted.at(-1).y - bottom : 0;
  if (overflow > 0) {
    sorted.at(-1).y = bottom;
    for (let i = sorted.length - 2; i >= 0; i--) sorted[i].y = Math.min(sorted[i].y, sorted[i + 1].y - gap);
  }
  return labels;
}
