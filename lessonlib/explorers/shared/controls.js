// Native controls, each with a visible label, bound to one key of the explorer's state.

import { h, unique } from "./dom.js";

const value = (maybe, state) => (typeof maybe === "function" ? maybe(state) : maybe);

/** A range input. `max` may depend on the state; `format` writes the value for eyes and screen readers. */
export function slider(ui, { key, label, min, max, step = 1, format = String, wide = false, onInput }) {
  const id = unique(key);
  const shown = h("output", { for: id, class: "lx-value" });
  const input = h("input", { type: "range", id, min, step });
  input.addEventListener("input", () => {
    ui.set({ [key]: Number(input.value) });
    onInput?.();
  });
  ui.onState(() => {
    input.max = value(max, ui.state);
    input.value = ui.state[key];
    shown.textContent = format(ui.state[key], ui.state);
    input.setAttribute("aria-valuetext", shown.textContent);
  });
  const box = h("div", { class: wide ? "lx-slider lx-wide" : "lx-slider" });
  box.append(h("div", { class: "lx-slider-head" }, h("label", { for: id }, label), shown), input);
  return box;
}

/** A small group of radio buttons that looks like a switch. `options`: [value, text] pairs. */
export function choice(ui, { key, legend, options }) {
  const name = unique(key);
  const inputs = options.map(([option]) =>
    h("input", { type: "radio", name, id: unique(key), value: option }),
  );
  for (const input of inputs) input.addEventListener("change", () => ui.set({ [key]: input.value }));
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
