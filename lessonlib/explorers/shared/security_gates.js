// What the gates of the security explorer do to a request, and how it is written down.

import { h } from "./dom.js";

const ABOUT = [
  "size, cost and budget",
  "does it read like an attack?",
  "the model answers",
  "secrets are cut out",
];
const SIGNS = { passes: "✓", stops: "✗", redacts: "✂", "not reached": "–" };

/** What each gate does, with the validator's line at this score; the same as `steps` in gates.py. */
export function steps(told, line) {
  const { admission, validator, engine, filter } = told;
  if (!admission.passes) return ["stops", "not reached", "not reached", "not reached"];
  if (validator.score >= line) return ["passes", "stops", "not reached", "not reached"];
  if (!engine.passes) return ["passes", "passes", "stops", "not reached"];
  return ["passes", "passes", "passes", filter.kinds.length ? "redacts" : "passes"];
}

/** Whether some gate acted. */
export const stopped = (told, line) =>
  steps(told, line).some((step) => step === "stops" || step === "redacts");

/** A text cut at the marked places: [piece, marked] pairs. */
export function pieces(source, marked) {
  const characters = [...source]; // Python counts characters, not UTF-16 units
  const cut = (from, to) => characters.slice(from, to).join("");
  const parts = [];
  let at = 0;
  for (const [start, end] of marked) {
    if (start < at) continue;
    parts.push([cut(at, start), false], [cut(start, end), true]);
    at = end;
  }
  return [...parts, [cut(at), false]].filter(([piece]) => piece !== "");
}

/** What each gate says of a request. */
export function reasons(told, line) {
  const done = steps(told, line);
  const { score, reason } = told.validator;
  const judged = done[1] === "stops" ? reason : "Nothing in it looks like an attack.";
  const kinds = told.filter?.kinds.map((kind) => kind.replaceAll("_", " ")) ?? [];
  const says = [
    told.admission.reason,
    `Score ${score.toFixed(2)}, line ${line.toFixed(2)}. ${judged}`,
    told.engine?.passes === false ? told.engine.reason : "It writes:",
    kinds.length
      ? `Cut out: ${[...new Set(kinds)].join(", ")}. The user gets:`
      : "Nothing to hide. The user gets:",
  ];
  return says.map((words, i) => (done[i] === "not reached" ? "" : words));
}

const badge = (step) =>
  h("b", { class: `lx-badge lx-badge-${step.replace(" ", "-")}` }, `${SIGNS[step]} ${step}`);

/** One request's way: a list item for each gate. */
export function chain(data, told, line) {
  const done = steps(told, line);
  const says = reasons(told, line);
  const written = [null, null, told.engine?.text, told.filter?.text];
  return h(
    "ol",
    { class: "lx-chain", "aria-label": "Gates" },
    done.map((step, i) =>
      h(
        "li",
        { class: step === "not reached" ? "lx-gate lx-faint" : "lx-gate" },
        h(
          "div",
          { class: "lx-gate-name" },
          h("span", {}, `${i + 1}  ${data.gates[i]}`),
          h("small", {}, ABOUT[i]),
        ),
        badge(step),
        h(
          "div",
          says[i]
            ? { class: "lx-gate-says", role: "group", tabindex: 0, "aria-label": `${data.gates[i]} says` } // it may scroll
            : { class: "lx-gate-says" },
          says[i],
          says[i] && written[i] != null && h("code", {}, written[i].trim() || "(nothing)"),
        ),
      ),
    ),
  );
}

/** All requests and what each gate does to them; the chosen one is marked. */
export function overview(data, list, line, chosen) {
  return h(
    "table",
    { class: "lx-table lx-requests" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["Request", ...data.gates].map((name) => h("th", { scope: "col" }, name)),
      ),
    ),
    h(
      "tbody",
      {},
      list.map((told, i) =>
        h(
          "tr",
          { class: i === chosen ? "lx-chosen" : null },
          h("th", { scope: "row" }, `${i === chosen ? "▸ " : ""}${told.name}`),
          steps(told, line).map((step) =>
            h(
              "td",
              { class: `lx-cell-${step.replace(" ", "-")}` },
              step === "passes" ? "✓" : step === "not reached" ? "" : `${SIGNS[step]} ${step}`,
            ),
          ),
        ),
      ),
    ),
  );
}
