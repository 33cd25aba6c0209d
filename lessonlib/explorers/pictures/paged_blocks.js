// Block tables over one pool of KV memory: a recording of the engine's BlockPool and PagedCache, event by event.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, player, row, slider } from "../shared/controls.js";
import { canvas, legend, text } from "../shared/drawing.js";
import { plural } from "../shared/numbers.js";

const FILL = { held: "fresh", shared: "reused", kept: "cut", free: "none" };
const JUMPS = [
  ["share", "Sharing"],
  ["copy", "Copy-on-write"],
  ["evict", "Eviction"],
  ["wait", "Waiting"],
];

/** Places that are reserved and hold no token. */
export const empty = ({ held, filled }) => held - filled;

/** The picture in words: the state of the blocks, and the waste. */
export function summaryText({ events, longest }, { event }) {
  const { blocks, paged, slabs } = events[event - 1];
  const counts = Object.keys(FILL).map(
    (state) => `${blocks.filter((block) => block.state === state).length} ${state}`,
  );
  return (
    `Blocks: ${counts.join(", ")}. Of ${paged.held} places in blocks ${empty(paged)} are empty; of ${slabs.held} ` +
    `in slabs for ${longest} tokens each, ${empty(slabs)} would be.`
  );
}

/** The last whole words of a text that fit in so many characters. */
export function tail(words, length) {
  if (words.length <= length) return words;
  const end = words.slice(words.length - length + 2);
  return `… ${end.slice(end.indexOf(" ") + 1)}`;
}

/** Number (1, 2, …) of the next event of a kind after this one; from the beginning when there is none behind. */
export function jump(events, kind, now) {
  const after = events.findIndex((event, i) => i + 1 > now && event.kind === kind);
  return (after >= 0 ? after : events.findIndex((event) => event.kind === kind)) + 1;
}

const CHIP = { width: 40, height: 26, gap: 5 };
const LINE = 36;

function tables(data, now, width) {
  const most = Math.max(...data.events.flatMap((event) => event.sequences.map(({ table }) => table.length)));
  const rows = Math.max(...data.events.map((event) => event.sequences.length));
  const svg = canvas(width, 22 + LINE * rows, "The block table of each sequence");
  const left = 24;
  const right = left + most * (CHIP.width + CHIP.gap) + 8;
  svg.append(
    text(left, 12, "Block table", { class: "lx-strong" }),
    text(right, 12, "Text so far", { class: "lx-strong" }),
  );
  now.sequences.forEach(({ name, table, tokens, text: words }, i) => {
    const y = 22 + i * LINE;
    svg.append(text(2, y + 18, name, { class: `lx-strong ${name === now.name ? "lx-is-fresh" : ""}` }));
    table.forEach((block, j) => {
      const x = left + j * (CHIP.width + CHIP.gap);
      const fill = FILL[now.blocks[block].state];
      svg.append(
        s("rect", { x: x + 0.5, y: y + 0.5, width: CHIP.width, height: CHIP.height, class: "lx-pb-place" }),
        s("rect", {
          x: x + 1,
          y: y + CHIP.height - 6,
          width: CHIP.width - 1,
          height: 6,
          style: `fill:${svg.paint(fill)}`,
        }),
        text(x + CHIP.width / 2, y + 15, block, { "text-anchor": "middle", class: "lx-num lx-strong" }),
      );
      if (now.changed.includes(block) && name === now.name)
        svg.append(
          s("rect", { x, y, width: CHIP.width + 1, height: CHIP.height + 1, class: "lx-pb-changed" }),
        );
    });
    if (table.length === 0) svg.append(text(left, y + 17, "no block yet", { class: "lx-quiet" }));
    const count = `${plural(tokens, "token")}: `;
    svg.append(
      text(right, y + 17, [
        s("tspan", { class: "lx-quiet lx-num" }, count),
        tail(words, Math.floor((width - right) / 6.9) - count.length),
      ]),
    );
  });
  return svg;
}

function blockBox(svg, { block, number, changed, x, y, width, height }) {
  const fill = FILL[block.state];
  const inner = width - 16;
  svg.append(
    s("rect", { x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1, class: "lx-pb-place" }),
    s("rect", {
      x: x + 1,
      y: y + 1,
      width: 8,
      height: height - 2,
      style: fill === "none" ? null : `fill:${svg.paint(fill)}`,
      class: fill === "none" ? "lx-pb-free" : null,
    }),
    text(x + 14, y + 15, `block ${number}`, { class: "lx-strong lx-num" }),
    text(x + width - 5, y + 15, block.state, { "text-anchor": "end", class: "lx-quiet" }),
  );
  block.words.forEach((word, i) => {
    const cell = inner / 2;
    const left = x + 13 + (i % 2) * cell;
    const top = y + 21 + Math.floor(i / 2) * 24;
    svg.append(
      s("rect", { x: left + 0.5, y: top + 0.5, width: cell - 3, height: 21, rx: 2, class: "lx-pb-slot" }),
      text(left + cell / 2 - 1, top + 15, word, {
        "text-anchor": "middle",
        class: block.state === "kept" ? "lx-quiet" : null,
      }),
    );
  });
  const foot = block.turn
    ? `no. ${block.turn} to be taken`
    : `count ${block.holders.length}: ${block.holders.join(", ")}`;
  svg.append(text(x + 14, y + height - 6, foot, { class: "lx-quiet lx-num", "font-size": 11 }));
  if (changed)
    svg.append(
      s("rect", { x: x + 1, y: y + 1, width: width - 2, height: height - 2, class: "lx-pb-changed" }),
    );
}

function pool(now, size, width) {
  const gap = 8;
  const columns = Math.min(now.blocks.length, Math.max(1, Math.floor((width + gap) / (124 + gap))));
  const each = (width + gap) / columns - gap;
  const height = 39 + 24 * Math.ceil(size / 2);
  const rows = Math.ceil(now.blocks.length / columns);
  const svg = canvas(width, rows * (height + gap), "The pool of blocks");
  now.blocks.forEach((block, number) => {
    const x = (number % columns) * (each + gap);
    const y = Math.floor(number / columns) * (height + gap);
    blockBox(svg, { block, number, changed: now.changed.includes(number), x, y, width: each, height });
  });
  return svg;
}

function wasteBars(data, now, width) {
  const most = Math.max(...data.events.map((event) => Math.max(event.paged.held, event.slabs.held)));
  const svg = canvas(width, 84, "Reserved places, in blocks and in slabs");
  const ways = [
    ["paged", `In blocks of ${data.blockSize}`],
    ["slabs", `In one slab of ${data.longest} for each`],
  ];
  ways.forEach(([way, name], i) => {
    const y = i * 42;
    const { held, filled } = now[way];
    const x = (places) => (places / most) * width;
    svg.append(
      text(
        0,
        y + 13,
        [
          s("tspan", { class: "lx-strong" }, `${name}: `),
          s(
            "tspan",
            { class: "lx-strong lx-is-again" },
            `${held - filled} of ${held} reserved places are empty`,
          ),
        ],
        { class: "lx-num" },
      ),
    );
    const bar = (from, to, fill) =>
      svg.append(
        s("rect", {
          x: x(from) + 0.5,
          y: y + 19.5,
          width: Math.max(x(to) - x(from) - 1, 0.5),
          height: 15,
          style: `fill:${svg.paint(fill)}`,
          class: `lx-box lx-box-${fill}`,
        }),
      );
    if (filled) bar(0, filled, "fresh");
    if (held > filled) bar(filled, held, "again");
  });
  return svg;
}

function draw(ui, data, state, width) {
  const now = data.events[state.event - 1];
  ui.title(now.sentence);
  ui.figure.replaceChildren(
    h(
      "p",
      { class: "lx-lead" },
      `The engine’s own block pool, recorded on six short texts. Memory for keys and values is cut into blocks of ${data.blockSize} tokens. A sequence’s block table lists its blocks in order, wherever they lie; a block’s count says how many sequences hold it.`,
    ),
    ui.legend,
    tables(data, now, width),
    pool(now, data.blockSize, width),
    wasteBars(data, now, width),
  );
  ui.say(summaryText(data, state));
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    { label: "Paged blocks", defaults: data.defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  ui.legend = legend([
    ["fresh", "held by one"],
    ["reused", "shared"],
    ["cut", "kept for later, held by nobody"],
    ["none", "free"],
    ["again", "reserved, but empty"],
  ]);
  ui.legend.append(
    h(
      "li",
      {},
      s(
        "svg",
        { width: 22, height: 14, "aria-hidden": "true", class: "lx-svg" },
        s("rect", { x: 1, y: 1, width: 20, height: 12, class: "lx-pb-changed" }),
      ),
      "part of this event",
    ),
  );
  const { state } = ui;
  const last = data.events.length;
  const go = (event) => ui.set({ event: Math.min(Math.max(event, 1), last) });
  const play = player(ui, {
    advance: () => {
      go(state.event + 1);
      return state.event < last;
    },
    atEnd: () => state.event >= last,
    rewind: () => go(1),
    every: 1800, // there is a sentence to read
  });
  const then = (action) => () => {
    play.pause();
    action();
  };
  ui.controls.append(
    row(
      h(
        "div",
        { class: "lx-buttons" },
        play.toggle,
        button(
          "◀",
          then(() => go(state.event - 1)),
          { "aria-label": "One event back", title: "One event back" },
        ),
        button(
          "▶",
          then(() => go(state.event + 1)),
          { "aria-label": "One event on", title: "One event on" },
        ),
        button("Reset", then(ui.reset)),
      ),
      slider(ui, {
        key: "event",
        label: "Event",
        min: 1,
        max: last,
        wide: true,
        format: (v) => `${v} of ${last}`,
        onInput: play.pause,
      }),
    ),
    row(
      h(
        "div",
        { class: "lx-buttons lx-pb-jumps", role: "group", "aria-label": "Jump to" },
        h("span", {}, "Jump to"),
        JUMPS.map(([kind, name]) =>
          button(
            name,
            then(() => go(jump(data.events, kind, state.event))),
          ),
        ),
      ),
    ),
  );
  return ui.close;
}

export default { render };
