// Native controls, each with a visible label, bound to one key of the explorer's state.

import { h, unique } from "./dom.js";

const value = (maybe, state) => (typeof maybe === "function" ? maybe(state) : maybe);

/**
 * A range input. `max` may depend on the state; `format` writes the value for eyes and screen readers.
 * `values`, instead of `min`, `max` and `step`: the only values there are, smallest first; may depend on the state.
 */
export function slider(
  ui,
  { key, label, min = 0, max, step = 1, values, format = String, wide = false, onInput },
) {
  const id = unique(key);
  const shown = h("output", { for: id, class: "lx-value" });
  const input = h("input", { type: "range", id, min, step });
  input.addEventListener("input", () => {
    const at = Number(input.value);
    ui.set({ [key]: values ? value(values, ui.state)[at] : at });
    onInput?.();
  });
  ui.onState(() => {
    const list = value(values, ui.state);
    input.max = list ? list.length - 1 : value(max, ui.state);
    input.value = list ? list.indexOf(ui.state[key]) : ui.state[key];
    shown.textContent = format(ui.state[key], ui.state);
    input.setAttribute("aria-valuetext", shown.textContent);
  });
  const box = h("div", { class: wide ? "lx-slider lx-wide" : "lx-slider" });
  box.append(h("div", { class: "lx-slider-head" }, h("label", { for: id }, label), shown), input);
  return box;
}

/** A small group of radio buttons that looks like a switch. `options`: [value, text] pairs. */
export function choice(ui, { key, legend, options, onInput }) {
  const name = unique(key);
  const inputs = options.map(([option]) =>
    h("input", { type: "radio", name, id: unique(key), value: option }),
  );
  for (const input of inputs) {
    input.addEventListener("change", () => {
      ui.set({ [key]: input.value });
      onInput?.();
    });
  }
  ui.onState(() => {
    for (const input of inputs) input.checked = input.value === ui.state[key];
  });
  return h(
    "fieldset",
    { class: "lx-choice" },
    h("legend", {}, legend),
    h(
      "div",
      { class: "lx-switch" },
      inputs.map((input, i) => [input, h("label", { for: input.id }, options[i][1])]),
    ),
  );
}

/** A menu of which one entry holds. `options`: [value, text] pairs; may depend on the state. */
export function select(ui, { key, label, options, onInput }) {
  const id = unique(key);
  const input = h("select", { id, class: "lx-select" });
  let listed = "";
  input.addEventListener("change", () => {
    ui.set({ [key]: value(options, ui.state)[input.selectedIndex][0] });
    onInput?.();
  });
  ui.onState(() => {
    const list = value(options, ui.state);
    if (listed !== JSON.stringify(list)) {
      listed = JSON.stringify(list);
      input.replaceChildren(...list.map(([option, words]) => h("option", { value: option }, words)));
    }
    input.selectedIndex = list.findIndex(([option]) => option === ui.state[key]);
  });
  return h("div", { class: "lx-menu" }, h("label", { for: id }, label), input);
}

/** A number to type. What makes no sense is marked, and the picture keeps the last one that did. */
export function field(ui, { key, label, min = 0, onInput }) {
  const id = unique(key);
  const input = h("input", { type: "number", id, min, step: "any", class: "lx-field", inputmode: "decimal" });
  const valid = () =>
    input.value !== "" && Number.isFinite(input.valueAsNumber) && input.valueAsNumber >= min;
  input.addEventListener("input", () => {
    input.setAttribute("aria-invalid", String(!valid()));
    if (!valid()) return;
    ui.set({ [key]: input.valueAsNumber });
    onInput?.();
  });
  const show = () => {
    input.value = ui.state[key];
    input.removeAttribute("aria-invalid");
  };
  input.addEventListener("change", () => valid() || show());
  ui.onState(() => input.valueAsNumber === ui.state[key] || show()); // "0." and "1e" are left to be typed on
  return h("div", { class: "lx-number" }, h("label", { for: id }, label), input);
}

export const button = (text, onclick, attributes = {}) =>
  h("button", { type: "button", class: "lx-button", onclick, ...attributes }, text);

export const row = (...children) => h("div", { class: "lx-row" }, ...children);

/** The reader asked the system for less motion: no transitions, and a slower, stepwise play. */
export const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * Play and Pause. `advance()` moves one step and returns false at the end; `rewind()` runs when Play is pressed there.
 * Nothing moves until the reader presses Play.
 */
export function player(ui, { advance, atEnd, rewind, every = 160 }) {
  let timer = 0;
  const toggle = button("▶ Play", () => (timer ? pause() : play()), {
    class: "lx-button lx-primary lx-play",
  });
  const pause = () => {
    clearInterval(timer);
    timer = 0;
    toggle.textContent = "▶ Play";
  };
  const play = () => {
    if (atEnd()) rewind();
    toggle.textContent = "❚❚ Pause";
    timer = setInterval(() => advance() !== false || pause(), calm() ? Math.max(700, every) : every);
  };
  ui.onClose(pause);
  return { toggle, pause };
}
