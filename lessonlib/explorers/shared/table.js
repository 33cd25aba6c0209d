// A table of which one row is the reader's.

import { h } from "./dom.js";

/**
 * `caption` and, less loud, `note`; `heads` of the columns, the first one's too; `rows`: {cells, now}, of which the one
 * that is `now` is bold and has a pointer.
 */
export function table({ caption, note, heads, rows }) {
  return h(
    "table",
    { class: "lx-table" },
    h("caption", {}, `${caption} `, h("span", { class: "lx-plain" }, note)),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((words) => (words ? h("th", { scope: "col" }, words) : h("td"))),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map(({ cells: [name, ...cells], now }) =>
        h(
          "tr",
          { class: now ? "lx-now-row" : null },
          h("th", { scope: "row" }, now ? `▸ ${name}` : name),
          cells.map((words) => h("td", {}, words)),
        ),
      ),
    ),
  );
}
