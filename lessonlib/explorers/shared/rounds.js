// One round of speculative decoding: its drafts with their verdicts, and the place where it was decided.

import { h, s } from "./dom.js";
import { canvas, text } from "./drawing.js";
import { percent } from "./numbers.js";
import { chance, verdict } from "./speculation.js";
import { brief, visible } from "./text.js";

export function story(round, width) {
  const parts = round.drafts
    .slice(0, round.stood)
    .map(({ piece }) => h("span", { class: "lx-spec-stood" }, brief(piece, 14)));
  const taken = [...round.drafts.slice(0, round.stood).map(({ piece }) => piece), round.last];
  const used = taken.reduce((length, piece) => length + brief(piece, 14).length + 2, 2);
  const before = [...visible(round.before)].slice(-Math.max(16, Math.floor(width / 8) - used)).join("");
  return h(
    "p",
    { class: "lx-spec-story" },
    h("span", { class: "lx-spec-before" }, `…${before}`),
    parts,
    h("span", { class: "lx-spec-own" }, brief(round.last, 14)),
  );
}

export function draftRows(round, width, high) {
  const svg = canvas(
    width,
    high * (round.drafts.length + 1) + 26,
    "The drafts of this round: q, p, the chance to stand, the number drawn, the verdict",
  );
  const q = Math.round(width * 0.22) + 48;
  const p = q + 56;
  const bar = p + 14;
  const end = width - 76;
  const quiet = (x, words, anchor = "start") =>
    svg.append(text(x, 12, words, { class: "lx-quiet", "text-anchor": anchor }));
  quiet(0, "draft");
  quiet(q, "q", "end");
  quiet(p, "p", "end");
  quiet(bar, width < 460 ? "chance to stand" : "chance to stand: p / q, at most 100%");
  round.drafts.forEach((draft, i) => {
    const y = 20 + i * high;
    const said = verdict(round, i);
    const judged = said !== "not judged";
    const tone = judged ? "" : "lx-quiet";
    const number = (x, value) =>
      value != null &&
      svg.append(text(x, y + 15, percent(value), { "text-anchor": "end", class: `lx-num ${tone}` }));
    svg.append(
      text(0, y + 15, `${i + 1}`, { class: "lx-quiet lx-num" }),
      text(14, y + 15, brief(draft.piece, Math.floor((q - 66) / 7.4)), { class: `lx-mono ${tone}` }),
    );
    number(q, draft.q);
    number(p, draft.p);
    const box = (span, fill) =>
      s("rect", {
        x: bar,
        y: y + 4,
        width: Math.max(span * (end - bar), 0.5),
        height: high - 8,
        rx: 2,
        style: fill === "none" ? null : `fill:${svg.paint(fill)}`,
        class: `lx-box lx-box-${fill}`,
      });
    if (judged) {
      const at = bar + draft.luck * (end - bar);
      svg.append(
        box(1, "none"),
        box(chance(draft), "reused"),
        s("path", { d: `M${at},${y + 4} l6,7.5 l-6,7.5 l-6,-7.5 z`, class: "lx-spec-luck" }),
      );
    }
    svg.append(
      text(end + 8, y + 15, said, {
        class: said === "stands" ? "lx-strong lx-is-reused" : judged ? "lx-strong lx-is-again" : "lx-quiet",
      }),
    );
  });
  const y = 20 + round.drafts.length * high;
  const bonus = round.stood === round.drafts.length;
  svg.append(
    text(0, y + 17, "+", { class: "lx-strong" }),
    text(14, y + 17, brief(round.last, Math.floor((q - 66) / 7.4)), {
      class: "lx-mono lx-strong lx-is-fresh",
    }),
    text(
      q - 32,
      y + 17,
      bonus
        ? "bonus: all stood, so one token more, drawn from p"
        : "resampled: drawn where p has more than q",
      {
        class: "lx-is-fresh",
      },
    ),
  );
  return svg;
}

// At the deciding place: what p and q have in common, what q offers too much, and what p wants more.
export function placeChart(round, width, high) {
  const { place, stood, drafts, overlap } = round;
  const bonus = stood === drafts.length;
  const left = 104;
  const right = 104;
  const top = Math.max(...place.map(({ p, q }) => Math.max(p, q)));
  const svg = canvas(
    width,
    20 + place.length * high + 20,
    "p and q of the likeliest tokens at the deciding place",
  );
  const head = bonus ? `Behind draft ${stood}: p alone decides` : `At draft ${stood + 1}, which was rejected`;
  svg.append(text(0, 12, head, { class: "lx-strong" }));
  const numbers = (y, a, b, attributes) =>
    svg.append(
      text(width - 52, y, a, { "text-anchor": "end", ...attributes }),
      text(width, y, b, { "text-anchor": "end", ...attributes }),
    );
  numbers(12, bonus ? "" : "q", "p", { class: "lx-quiet" });
  place.forEach(({ piece, p, q }, i) => {
    const y = 20 + i * high;
    const x = (share) => left + (share / top) * (width - left - right);
    const marked = piece === round.last || (!bonus && piece === drafts[stood].piece);
    svg.append(
      text(left - 8, y + 15, brief(piece, 12), {
        "text-anchor": "end",
        class: `lx-mono ${marked ? "lx-strong" : "lx-quiet"}`,
      }),
    );
    const common = Math.min(p, q);
    for (const [from, to, fill] of [
      [0, common, "reused"],
      [common, p, "fresh"],
      [common, q, "again"],
    ]) {
      if (to <= from) continue;
      svg.append(
        s("rect", {
          x: x(from),
          y: y + 4,
          width: Math.max(x(to) - x(from), 1),
          height: high - 8,
          style: `fill:${svg.paint(fill)}`,
          class: `lx-box lx-box-${fill}`,
        }),
      );
    }
    numbers(y + 15, bonus ? "" : percent(q), percent(p), { class: "lx-num" });
  });
  const foot = bonus
    ? "The target's pass has paid for this token too."
    : `Common to both, over all tokens: ${percent(overlap)}, the chance to stand here.`;
  svg.append(text(0, 20 + place.length * high + 14, foot, { class: "lx-quiet" }));
  return svg;
}
