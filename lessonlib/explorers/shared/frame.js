// What every explorer shares: one root, one state, one draw a frame. Controls, drawing and numbers have their own files.

import { h } from "./dom.js";

const ANNOUNCE_AFTER_MS = 400;
const SAVE_AFTER_MS = 300;

/** True for the keys JupyterLab must still see: shortcuts with a modifier, run cell, leave the output. */
export function belongsToNotebook({ key, ctrlKey, metaKey, altKey, shiftKey }) {
  return ctrlKey || metaKey || altKey || key === "Escape" || (shiftKey && key === "Enter");
}

/** Call `action` once, `ms` after the last request. */
export function debounce(action, ms) {
  let timer = 0;
  const request = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(action, ms, ...args);
  };
  request.cancel = () => clearTimeout(timer);
  return request;
}

/** Known keys of `saved`, defaults for the rest: a state saved by an older version must not break the picture. */
export function restoreState(defaults, saved) {
  return Object.fromEntries(Object.entries(defaults).map(([key, value]) => [key, saved?.[key] ?? value]));
}

/**
 * Build the frame of an explorer inside `el` and return its handle.
 *
 * `defaults` is the state after Reset. `draw(state, width)` paints everything from the state; it runs at most once a
 * frame, after a change of the state or of the width. The state travels back to Python, so that a second view, or the
 * page reloaded, starts where the reader was.
 */
export function explorer({ model, el }, { label, defaults, draw }) {
  const title = h("p", { class: "lx-title" });
  const controls = h("div", { class: "lx-controls", role: "group", "aria-label": `${label}: controls` });
  const figure = h("div", { class: "lx-figure" });
  const words = h("p", { class: "lx-words", role: "status", "aria-live": "polite" });
  const root = h("section", { class: "lx", "aria-label": label }, title, controls, figure, words);
  el.append(root);

  const state = restoreState(defaults, model.get("state"));
  const mirrors = []; // one function a control: show the state's value
  let width = 0;
  let frame = 0;

  const save = debounce(() => {
    model.set("state", { ...state });
    model.save_changes();
  }, SAVE_AFTER_MS);
  const announce = debounce((text) => {
    if (words.textContent !== text) words.textContent = text;
  }, ANNOUNCE_AFTER_MS);
  const redraw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      if (width > 0) draw(state, width);
    });
  };

  const ui = {
    root,
    figure,
    controls,
    state,
    redraw,
    /** Change some of the state; controls and picture follow. */
    set(patch) {
      Object.assign(state, patch);
      for (const mirror of mirrors) mirror();
      redraw();
      save();
    },
    reset: () => ui.set({ ...defaults }),
    onState: (mirror) => {
      mirrors.push(mirror);
      mirror();
    },
    title: (...parts) => title.replaceChildren(...parts),
    /** The picture in words: shown below it, and read out once the reader has stopped moving. */
    say: (text) => (words.textContent === "" ? (words.textContent = text) : announce(text)),
  };

  const guard = (event) => belongsToNotebook(event) || event.stopPropagation();
  root.addEventListener("keydown", guard);
  const watch = new ResizeObserver(([entry]) => {
    const measured = Math.floor(entry.contentRect.width);
    if (measured !== width) {
      width = measured;
      redraw();
    }
  });
  watch.observe(figure);

  const cleanups = [];
  ui.onClose = (cleanup) => cleanups.push(cleanup);
  ui.close = () => {
    watch.disconnect();
    cancelAnimationFrame(frame);
    save.cancel();
    announce.cancel();
    for (const cleanup of cleanups) cleanup();
  };
  return ui;
}
