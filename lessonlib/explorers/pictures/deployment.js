// What a million tokens cost from an API, on a server of your own and on your own computer; and what else differs.

import { explorer } from "../shared/frame.js";
import { h, s } from "../shared/dom.js";
import { button, field, row, select, slider } from "../shared/controls.js";
import { canvas, spread, text } from "../shared/drawing.js";
import { logTicks, percent, plural, scale, short, whole } from "../shared/numbers.js";

const DAY = 86_400;

export const OPTIONS = [
  { who: "api", name: "an API", head: "API", fill: "fresh" },
  { who: "server", name: "your own server", head: "Own server", fill: "again" },
  { who: "computer", name: "your own computer", head: "Own computer", fill: "reused" },
];

/** New tokens a day of one machine that never rests. */
export const capacity = (speed) => speed * DAY;

/** Machines of this speed that so many new tokens a day take. */
export const machines = (speed, tokens) => Math.max(1, Math.ceil(tokens / capacity(speed)));

/** Dollars of electricity for a million new tokens on your own computer. */
export const power = (at) => ((1e6 / at.computer_speed / 3600) * at.computer_watts * at.electricity) / 1000;

const bought = (at) => at.computer_price / (at.computer_years * 365);

/** Dollars for a million new tokens and the prompts they answer; the same as in deployment.py. */
export function cost(who, at, tokens) {
  if (who === "api") return at.api_out + at.prompt_ratio * at.api_in;
  if (who === "server") return ((machines(at.server_speed, tokens) * 24 * at.server_hour) / tokens) * 1e6;
  return ((machines(at.computer_speed, tokens) * bought(at)) / tokens) * 1e6 + power(at);
}

/** New tokens a day from which one machine costs no more than the API; null when not even a fully busy one does. */
export function breakEven(who, at) {
  const [fixed, each, speed] =
    who === "server" ? [24 * at.server_hour, 0, at.server_speed] : [bought(at), power(at), at.computer_speed];
  const saved = cost("api", at, 1) - each;
  const tokens = saved > 0 ? (fixed / saved) * 1e6 : Infinity;
  return tokens <= capacity(speed) ? tokens : null;
}

/** $1,234, $1.23, $0.18, $0.0029. */
export function money(value) {
  if (value >= 100 || value === 0) return `$${whole(value)}`;
  return `$${value.toFixed(value >= 1 ? 2 : Math.min(1 - Math.floor(Math.log10(value)), 12))}`;
}

/** Which of the three a rule about the texts allows: "anywhere", "ours" (machines of our own), "here" (this computer). */
export const allowed = (who, rule) =>
  rule === "anywhere" || who === "computer" || (rule === "ours" && who === "server");

/** The cheapest of those that the rule allows. */
export function cheapest(at, tokens, rule) {
  return OPTIONS.filter(({ who }) => allowed(who, rule)).reduce((best, option) =>
    cost(option.who, at, tokens) < cost(best.who, at, tokens) ? option : best,
  );
}

/** The sentence above the picture. */
export function titleText(at, { tokens, rule }) {
  const best = cheapest(at, tokens, rule);
  const price = `${money(cost(best.who, at, tokens))} a million`;
  const day = `${short(tokens)} new tokens a day`;
  if (rule === "here") {
    const count = machines(at.computer_speed, tokens);
    return `No text may leave this computer: ${day} take ${plural(count, "computer")} like it, at ${price}.`;
  }
  const among = rule === "anywhere" ? "" : " of what your rule allows";
  const start = `At ${day} ${best.name} is cheapest${among}: ${price}.`;
  if (rule === "ours") return start;
  const even = breakEven("server", at);
  if (even === null) return `${start} Even a server that is always busy costs more than the API.`;
  const busy = even / capacity(at.server_speed);
  return `${start} A server breaks even at ${short(even)}, ${Math.round(busy * 100)}% busy.`;
}

/** Runs of amounts with the same cheapest option: [from, to, option]. */
export function cheapestRuns(at, rule, from, to, count = 240) {
  const runs = [];
  for (let i = 0; i < count; i++) {
    const [a, b] = [i, i + 1].map((n) => from * (to / from) ** (n / count));
    const option = cheapest(at, Math.sqrt(a * b), rule);
    if (runs.at(-1)?.[2] === option) runs.at(-1)[1] = b;
    else runs.push([a, b, option]);
  }
  return runs;
}

/** Amounts at which a line is drawn: even steps on a log axis, and both sides of every jump to one machine more. */
function samples(who, at, from, to) {
  const amounts = Array.from({ length: 121 }, (_, i) => from * (to / from) ** (i / 120));
  if (who !== "api") {
    const full = capacity(at[`${who}_speed`]);
    for (let n = 1; n <= 12; n++) amounts.push(n * full, n * full * 1.0001);
  }
  return amounts.filter((amount) => amount >= from && amount <= to).sort((a, b) => a - b);
}

function chart(at, { tokens, rule }, amounts, width) {
  const narrow = width < 620;
  const height = narrow ? 300 : 320;
  const margin = { left: 62, right: narrow ? 100 : 170, top: 46, bottom: 62 };
  const svg = canvas(
    width,
    height,
    "Dollars for a million new tokens, by new tokens a day, for the three ways",
  );
  const [from, to] = [amounts[0], amounts.at(-1)];
  const lines = OPTIONS.map((option) => ({
    ...option,
    points: samples(option.who, at, from, to).map((amount) => [
      amount,
      Math.max(cost(option.who, at, amount), 1e-6),
    ]),
  }));
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const marks = logTicks(Math.min(...values), Math.max(...values), 6);
  const bottom = height - margin.bottom;
  const x = scale([from, to], [margin.left, width - margin.right], true);
  const y = scale([marks[0], marks.at(-1)], [bottom, margin.top], true);
  svg.append(text(0, 12, "Dollars for a million new tokens, by new tokens a day", { class: "lx-strong" }));
  for (const mark of marks) {
    svg.append(
      s("line", {
        x1: margin.left,
        x2: x(to),
        y1: Math.round(y(mark)),
        y2: Math.round(y(mark)),
        class: "lx-axis",
      }),
      text(margin.left - 7, y(mark) + 4, money(mark).replace(".00", ""), {
        "text-anchor": "end",
        class: "lx-quiet lx-num",
      }),
    );
  }
  for (const mark of logTicks(from, to, narrow ? 4 : 8).filter((amount) => amount <= to)) {
    svg.append(
      s("line", { x1: x(mark), x2: x(mark), y1: bottom, y2: bottom + 4, class: "lx-bracket" }),
      text(x(mark), bottom + 17, short(mark), { "text-anchor": "middle", class: "lx-quiet lx-num" }),
    );
  }
  // A second scale above: how busy one server is at this many tokens.
  const full = capacity(at.server_speed);
  let edge = 0;
  for (const share of [0.001, 0.01, 0.1, 1]) {
    const place = x(share * full);
    if (share * full < from || share * full > to || place < edge) continue;
    edge = place + 44;
    svg.append(
      s("line", { x1: place, x2: place, y1: margin.top - 4, y2: margin.top, class: "lx-bracket" }),
      text(place, margin.top - 9, `${share * 100}%`, {
        "text-anchor": "middle",
        class: "lx-quiet lx-num",
      }),
    );
  }
  svg.append(
    text(width, margin.top - 9, narrow ? "server busy" : "how busy one server is", {
      "text-anchor": "end",
      class: "lx-quiet",
    }),
  );
  const now = Math.round(x(tokens));
  svg.append(s("line", { x1: now, x2: now, y1: margin.top, y2: bottom, class: "lx-dep-now" }));
  const labels = [];
  for (const { who, head, points } of lines) {
    const out = allowed(who, rule) ? "" : " lx-dep-out";
    svg.append(
      s("polyline", {
        points: points.map(([amount, value]) => `${x(amount).toFixed(1)},${y(value).toFixed(1)}`).join(" "),
        class: `lx-dep-line lx-dep-${who}${out}`,
      }),
      s("circle", {
        cx: now,
        cy: y(Math.max(cost(who, at, tokens), 1e-6)),
        r: 4,
        class: `lx-dep-dot lx-dep-${who}${out}`,
      }),
    );
    labels.push({
      y: y(points.at(-1)[1]) + 4,
      who,
      words: out && !narrow ? `${head}: ruled out` : head,
      out,
    });
  }
  for (const { y: at_, who, words, out } of spread(labels, 16, bottom)) {
    svg.append(text(x(to) + 8, at_, words, { class: out ? "lx-quiet" : `lx-strong lx-dep-ink-${who}` }));
  }
  for (const who of ["server", "computer"]) {
    const even = allowed("api", rule) ? breakEven(who, at) : null;
    if (even === null || even < from || even > to) continue;
    const point = { x: x(even), y: y(cost("api", at, even)) };
    svg.append(
      s("path", { d: `M${point.x},${point.y - 8} l8,8 l-8,8 l-8,-8 z`, class: "lx-dep-even" }),
      text(point.x - 6, point.y + 21, `break-even: ${short(even)}`, {
        "text-anchor": "end",
        class: "lx-strong lx-dep-halo",
      }),
    );
  }
  const strip = bottom + 32;
  svg.append(text(0, strip + 12, "cheapest", { class: "lx-quiet" }));
  for (const [first, last, { head, fill }] of cheapestRuns(at, rule, from, to)) {
    const wide = x(last) - x(first);
    svg.append(
      s("rect", {
        x: x(first),
        y: strip,
        width: wide,
        height: 16,
        style: `fill:${svg.paint(fill)}`,
        class: `lx-box lx-box-${fill}`,
      }),
    );
    if (wide > head.length * 7 + 14) {
      const middle = x(first) + wide / 2;
      svg.append(
        s("rect", {
          x: middle - head.length * 3.6 - 4,
          y: strip + 1.5,
          width: head.length * 7.2 + 8,
          height: 13,
          rx: 2,
          class: "lx-dep-plate",
        }),
        text(middle, strip + 12, head, { "text-anchor": "middle", class: "lx-strong" }),
      );
    }
  }
  return svg;
}

/** The rows of the comparison: a name, and a text for the API, the server and the computer. */
export function comparison(at, { tokens }) {
  const costs = OPTIONS.map(({ who }) => cost(who, at, tokens));
  const [servers, computers] = ["server", "computer"].map((who) => machines(at[`${who}_speed`], tokens));
  const busy = (who, count) => percent(tokens / capacity(at[`${who}_speed`]) / count);
  const texts = short(tokens * (1 + at.prompt_ratio));
  return [
    ["Cost of a million new tokens", ...costs.map(money)],
    ["Cost of 30 days", ...costs.map((each) => money((each * tokens * 30) / 1e6))],
    [
      "Cost of a million at ten times the work",
      ...OPTIONS.map(({ who }) => money(cost(who, at, 10 * tokens))),
    ],
    ["Machines of yours", "none", whole(servers), whole(computers)],
    ["How busy they are", "–", busy("server", servers), busy("computer", computers)],
    ["Latency: the network adds at least", `${at.api_ms} ms`, `${at.server_ms} ms`, "0 ms"],
    ["Privacy: tokens a day that leave the user's machine", texts, texts, "none"],
    ["Who can read them", "the provider", "you; who rents it to you", "only the user"],
    ["Control: who may change or stop the model", "the provider", "you", "the user"],
    ["Works without the internet", "no", "in your own network", "yes"],
  ];
}

const RUN_BY = { api: "somebody else's", server: "e.g. vLLM", computer: "Ollama, llama.cpp" };

function comparisonTable(at, state) {
  const best = cheapest(at, state.tokens, state.rule).who;
  return h(
    "table",
    { class: "lx-table lx-dep-table" },
    h("caption", {}, `At ${short(state.tokens)} new tokens a day`),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td"),
        OPTIONS.map(({ who, head }) => {
          const note = !allowed(who, state.rule) ? "ruled out" : who === best ? "cheapest" : RUN_BY[who];
          return h("th", { scope: "col" }, h("b", { class: `lx-dep-ink-${who}` }, head), h("span", {}, note));
        }),
      ),
    ),
    h(
      "tbody",
      {},
      comparison(at, state).map(([name, ...cells]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          cells.map((words, i) =>
            h("td", { class: allowed(OPTIONS[i].who, state.rule) ? null : "lx-dep-no" }, words),
          ),
        ),
      ),
    ),
  );
}

function draw(ui, data, state, width) {
  ui.title(titleText(state, state));
  ui.chart.replaceChildren(chart(state, state, data.amounts, width));
  ui.table.replaceChildren(comparisonTable(state, state));
  const prices = OPTIONS.map(({ who, head }) => `${head} ${money(cost(who, state, state.tokens))}`).join(
    ", ",
  );
  ui.say(`A million new tokens, with ${state.prompt_ratio} prompt tokens to each: ${prices}.`);
}

function priceFields(ui, data) {
  const number = (key, label, onInput) =>
    field(ui, { key, label, min: data.positive.includes(key) ? 0.001 : 0, onInput });
  // A measured speed is a choice; typing another one makes it your own.
  const speed = (who) => {
    const [key, preset, found] = [`${who}_speed`, `${who}_preset`, data.speeds[who]];
    const options = [...found.map(({ words }, i) => [String(i), words]), ["own", "your own number"]];
    const take = () => {
      const chosen = found[Number(ui.state[preset])];
      if (chosen) ui.set({ [key]: chosen.speed });
    };
    return [
      number(key, "New tokens/s", () => ui.set({ [preset]: "own" })),
      found.length > 0 && select(ui, { key: preset, label: "Speed of", options, onInput: take }),
    ];
  };
  const group = (name, ...fields) => h("fieldset", { class: "lx-dep-group" }, h("legend", {}, name), fields);
  return h(
    "div",
    { class: "lx-dep-groups", role: "group", "aria-label": "Prices and speeds" },
    group(
      "API: paid by the token",
      number("api_in", "$ per M in"),
      number("api_out", "$ per M out"),
      number("prompt_ratio", "In for each out"),
      number("api_ms", "Network, ms"),
    ),
    group(
      "Own server: paid by the hour, busy or not",
      number("server_hour", "$ an hour"),
      number("server_ms", "Network, ms"),
      speed("server"),
    ),
    group(
      "Own computer: bought, and its power",
      number("computer_price", "Price, $"),
      number("computer_years", "Lasts, years"),
      number("computer_watts", "At work, watts"),
      number("electricity", "Power, $ a kWh"),
      speed("computer"),
    ),
  );
}

function render({ model, el }) {
  const data = model.get("data");
  const ui = explorer(
    { model, el },
    { label: "Deployment", defaults: data.defaults, draw: (state, width) => draw(ui, data, state, width) },
  );
  ui.root.classList.add("lx-dep");
  ui.controls.append(
    row(
      slider(ui, {
        key: "tokens",
        label: "New tokens a day",
        values: data.amounts,
        format: short,
        wide: true,
      }),
      select(ui, {
        key: "rule",
        label: "The texts may go",
        options: [
          ["anywhere", "anywhere"],
          ["ours", "only to machines we run"],
          ["here", "nowhere: they stay on this computer"],
        ],
      }),
      h("div", { class: "lx-buttons" }, button("Reset", ui.reset)),
    ),
  );
  // The fields stand between the chart and the table, and are never drawn anew: typing goes on in them.
  ui.chart = h("div");
  ui.table = h("div");
  const warning =
    `Prices are EXAMPLES of ${data.seen}, in round numbers. Prices age: put your own in. ` +
    "Compare speeds of one and the same model, on your own work.";
  ui.figure.append(ui.chart, h("p", { class: "lx-key" }, warning), priceFields(ui, data), ui.table);
  return ui.close;
}

export default { render };
