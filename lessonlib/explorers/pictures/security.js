// A request on its way through a server's guards; and two attacks that need no forbidden word, measured on demand.

import { explorer } from "../shared/frame.js";
import { h, unique } from "../shared/dom.js";
import { button, choice, row, select, slider } from "../shared/controls.js";
import { legend } from "../shared/drawing.js";
import { percent, plural, whole } from "../shared/numbers.js";
import { chain, overview, pieces, reasons, steps, stopped } from "../shared/security_gates.js";
import { clip } from "../shared/text.js";
import {
  accuracy,
  bestCut,
  lineAt,
  ms,
  power,
  span,
  spectrumPlot,
  timingPlot,
} from "../shared/security_plots.js";

const PATIENCE_MS = 90000;
const WHAT = ["size", "timing"]; // what is measured on demand
const PLOT = 340;

/** The sentence above the gates. */
export function gatesTitle(requests, line) {
  const acted = (harmful) => {
    const some = requests.filter((told) => told.harmful === harmful);
    return `${some.filter((told) => stopped(told, line)).length} of ${some.length}`;
  };
  return (
    `Validator's line at ${line.toFixed(2)}: ${acted(true)} harmful requests are stopped or redacted, ` +
    `${acted(false)} harmless ones.`
  );
}

/** The sentence above the singular values. */
export function sizeTitle({ spectra, hidden: real }, stage) {
  const { size, hidden, gap } = spectra[stage];
  return hidden === null
    ? `With ${size} prompts all ${size} values are large: nothing shows the model's hidden size yet.`
    : `With ${size} prompts the values fall ${whole(+gap.toPrecision(2))}-fold behind number ${hidden}: ` +
        `${hidden === real ? "that is the model's hidden size" : `but the model's hidden size is ${real}`}.`;
}

/** The sentence above the times. */
export function timingTitle(timing, line) {
  return (
    `The attacker is right ${percent(accuracy(timing.shared, line))} of the time with one cache for all ` +
    `(AUC ${timing.shared.auc.toFixed(2)}), ${percent(accuracy(timing.salted, line))} with salts ` +
    `(AUC ${timing.salted.auc.toFixed(2)}).`
  );
}

function drawGates(ui, data, { request, line }) {
  const list = data.own ? [...data.requests, data.own] : data.requests;
  const chosen = Math.min(request, list.length - 1);
  const told = list[chosen];
  const done = steps(told, line);
  const marked = done[1] === "stops" ? told.validator.marked : [];
  ui.title(gatesTitle(data.requests, line));
  ui.figure.replaceChildren(
    h(
      "div",
      { class: "lx-guards" },
      h(
        "div",
        {},
        h(
          "pre",
          { class: "lx-request", role: "group", tabindex: 0, "aria-label": "What the model is given" },
          h("span", { class: "lx-dim" }, data.header),
          pieces(told.text, marked).map(([piece, on]) => (on ? h("mark", {}, piece) : piece)),
        ),
        chain(data, told, line),
      ),
      h(
        "div",
        {},
        overview(data, list, line, chosen),
        h(
          "p",
          { class: "lx-key" },
          "Grey: the operator's system prompt, which stands before every request and holds a secret code word. " +
            "The validator's line at 0.50 lets 1 in 100 harmless texts be stopped by mistake, 0.90 lets 1 in 1,000.",
        ),
      ),
    ),
  );
  const end = done.findIndex((step) => step === "stops" || step === "redacts");
  const where = end < 0 ? "passes all four gates" : `${data.gates[end].toLowerCase()} ${done[end]} it`;
  ui.say(
    `${told.name}, line at ${line.toFixed(2)}: ${where}. ${end < 0 ? "" : clip(reasons(told, line)[end].replace(" The user gets:", ""), 90)}`,
  );
}

const WAITING = {
  size: [
    "How large is the model inside? Its API can be made to tell.",
    "A model turns a few hundred hidden numbers into a score for each token. However many prompts an attacker asks, the " +
      "table of scores (prompts × tokens) holds no more independent directions than there are hidden numbers; its " +
      "singular values, the sizes of those directions, show how many. Press Measure: the kernel plays the attacker, " +
      "first against an API without protection, then against the course's default policy.",
  ],
  timing: [
    "An answer that comes sooner betrays that somebody asked the same before.",
    "The beginning of a prompt that is in the cache need not be computed again. Press Measure: the kernel plays two " +
      "tenants of one server. One asks; the other times its own answers, to prompts that were asked before and to " +
      "new ones, first with one cache for all, then with a salt for each tenant, which keeps their caches apart.",
  ],
};

function drawWaiting(ui, view) {
  const [title, words] = WAITING[view];
  ui.title(title);
  ui.figure.replaceChildren(h("p", { class: "lx-plain lx-await" }, words));
  ui.say(title);
}

function drawSize(ui, data, state, width) {
  const { spectra, asked, refused } = data.size;
  const stage = Math.min(state.stage, spectra.length - 1);
  ui.title(sizeTitle(data.size, stage));
  const policy =
    `The course's default policy ends this at question ${whole(refused.asked)}: “${refused.reason}” ` +
    "There are no values to draw.";
  ui.figure.replaceChildren(
    spectrumPlot(spectra[stage], width, PLOT),
    h(
      "p",
      { class: "lx-key" },
      `Filled dots: values before the cliff. Rings: behind it, rounding errors. The attack asked ${whole(asked)} ` +
        `questions in all, each with 20 tokens lifted by a bias so that the API shows their scores.`,
    ),
    h("p", { class: "lx-note-box" }, policy),
  );
  const { values, size } = spectra[stage];
  ui.say(
    `${size} singular values, from ${+values[0].toPrecision(3)} down to ${power(values.at(-1))}; with the default ` +
      "policy none can be computed.",
  );
}

function drawTiming(ui, data, state, width) {
  const { timing } = data;
  const line = lineAt(span(timing), state.cut);
  ui.title(timingTitle(timing, line));
  const name = (words, { auc }) => `${words}: AUC ${auc.toFixed(2)}`;
  ui.figure.replaceChildren(
    legend([
      ["reused", "asked before by the other tenant (above)"],
      ["again", "new (below)"],
    ]),
    timingPlot(
      timing,
      {
        shared: name("One cache for all", timing.shared),
        salted: name("A salt for each tenant", timing.salted),
      },
      state.cut,
      width,
      PLOT,
    ),
    h(
      "p",
      { class: "lx-key" },
      "Left of the dashed line the attacker says “asked before”. AUC: the chance that a probe of something asked before " +
        "is answered sooner than one of something new; 1 tells all, 0.5 nothing. Each probe shares " +
        `${timing.blocks} blocks of 16 tokens; the victim still finds ${plural(timing.salted.reused, "token")} of its own.`,
    ),
  );
  const told = ["shared", "salted"].map((key) => `${key} ${percent(accuracy(timing[key], line))}`);
  ui.say(
    `Line at ${ms(line)}; the attacker is right: ${told.join(", ")} of ${2 * timing.shared.hits.length} times.`,
  );
}

function render({ model, el }) {
  const data = { ...model.get("data") };
  const defaults = { view: "gates", request: 6, line: data.line, text: "", stage: 99, cut: 50 };
  const draw = (state, width) => {
    if (state.view === "gates") drawGates(ui, data, state);
    else if (data[state.view] === null) drawWaiting(ui, state.view);
    else (state.view === "size" ? drawSize : drawTiming)(ui, data, state, width);
    ui.root.setAttribute("aria-busy", String(waiting !== 0));
    notice.textContent = said;
    measured.forEach((slide, i) => (slide.hidden = data[WHAT[i]] === null));
    measures.forEach((one, i) => (one.textContent = data[WHAT[i]] === null ? "Measure" : "Measure again"));
  };
  const ui = explorer({ model, el }, { label: "Security", defaults, draw });
  const notice = h("p", { class: "lx-notice", role: "status" });
  let waiting = 0; // timer while the kernel works
  let said = "";

  const settle = (words) => {
    clearTimeout(waiting);
    waiting = 0;
    said = words;
    for (const one of [send, ...measures]) one.disabled = false;
    ui.set({});
  };
  const wait = (words) => {
    clearTimeout(waiting);
    waiting = setTimeout(
      () => settle("No kernel answers: run this cell again, then try once more."),
      PATIENCE_MS,
    );
    said = words;
    for (const one of [send, ...measures]) one.disabled = true;
    ui.set({});
  };
  const answer = (message) => {
    if (message.progress) {
      wait(`Working: ${message.progress} …`);
      return;
    }
    const what = ["own", "size", "timing"].find((key) => message[key]);
    if (what) data[what] = message[what];
    settle(message.error ?? "");
    if (what === "own") ui.set({ request: data.requests.length });
    if (what === "timing") ui.set({ cut: bestCut(data.timing) });
  };
  model.on("msg:custom", answer);
  ui.onClose(() => {
    clearTimeout(waiting);
    model.off("msg:custom", answer);
  });

  const id = unique("own");
  const area = h("textarea", { id, rows: 2, maxlength: 4000, spellcheck: "false", autocomplete: "off" });
  area.addEventListener("input", () => ui.set({ text: area.value }));
  ui.onState(() => {
    if (area.value !== ui.state.text) area.value = ui.state.text;
  });
  const send = button(
    "Send",
    () => {
      wait("Working: your request is on its way through the gates …");
      model.send({ do: "own", text: ui.state.text });
    },
    { class: "lx-button lx-primary" },
  );
  const measures = WHAT.map((what) =>
    button(
      "Measure",
      () => {
        wait("Working: the kernel plays the attacker …");
        model.send({ do: what });
      },
      { class: "lx-button lx-primary" },
    ),
  );
  const measured = [
    slider(ui, {
      key: "stage",
      label: "Prompts the attacker has asked",
      max: () => Math.max((data.size?.spectra.length ?? 1) - 1, 1),
      format: (v) => data.size?.spectra[Math.min(v, data.size.spectra.length - 1)].size ?? "–",
    }),
    slider(ui, {
      key: "cut",
      label: "The attacker's line",
      max: 100,
      format: (v) => (data.timing ? ms(lineAt(span(data.timing), v)) : "–"),
    }),
  ];
  const options = () => [...data.requests, ...(data.own ? [data.own] : [])].map(({ name }, i) => [i, name]);
  const panels = {
    gates: [
      row(
        select(ui, { key: "request", label: "Request", options }),
        slider(ui, {
          key: "line",
          label: "The validator stops from score",
          min: 0.05,
          max: 0.95,
          step: 0.05,
          format: (v) => v.toFixed(2),
        }),
      ),
      h(
        "div",
        { class: "lx-own" },
        h(
          "div",
          { class: "lx-own-text" },
          h("label", { for: id }, "Or write your own: an attack, or code to be completed"),
          area,
        ),
        send,
      ),
    ],
    size: [row(measured[0], measures[0])],
    timing: [row(measured[1], measures[1])],
  };
  const boxes = Object.entries(panels).map(([name, parts]) => {
    const box = h("div", { class: "lx-panel" }, parts);
    ui.onState(() => (box.hidden = ui.state.view !== name));
    return box;
  });
  const views = [
    ["gates", "Requests at the gates"],
    ["size", "Stealing the model's size"],
    ["timing", "Timing the cache"],
  ];
  ui.controls.append(
    row(
      choice(ui, { key: "view", legend: "View", options: views }),
      h("div", { class: "lx-buttons" }, button("Reset", ui.reset)),
      notice,
    ),
    ...boxes,
  );
  return ui.close;
}

export default { render };
