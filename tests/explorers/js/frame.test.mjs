import assert from "node:assert/strict";
import { test } from "node:test";
import { belongsToNotebook, debounce, restoreState } from "../../../lessonlib/explorers/shared/frame.js";
import { spread } from "../../../lessonlib/explorers/shared/drawing.js";
import { brief, clip, quoted, visible } from "../../../lessonlib/explorers/shared/text.js";

test("only shortcuts with a modifier, run cell and Escape reach the notebook", () => {
  for (const key of ["d", "x", "Enter", "ArrowUp", "Delete", "0", "Tab", " "]) {
    assert.ok(!belongsToNotebook({ key }), key);
  }
  assert.ok(!belongsToNotebook({ key: "D", shiftKey: true }));
  assert.ok(belongsToNotebook({ key: "Escape" }));
  assert.ok(belongsToNotebook({ key: "Enter", shiftKey: true }));
  for (const modifier of ["ctrlKey", "metaKey", "altKey"])
    assert.ok(belongsToNotebook({ key: "s", [modifier]: true }));
});

test("a saved state fills in what it knows and nothing else", () => {
  const defaults = { step: 1, count: "tokens" };
  assert.deepEqual(restoreState(defaults, undefined), defaults);
  assert.deepEqual(restoreState(defaults, {}), defaults);
  assert.deepEqual(restoreState(defaults, { step: 0, gone: true }), { step: 0, count: "tokens" });
});

test("a debounced action runs once, with the last arguments", async () => {
  const seen = [];
  const later = debounce((value) => seen.push(value), 5);
  later(1);
  later(2);
  later(3);
  await new Promise((done) => setTimeout(done, 30));
  assert.deepEqual(seen, [3]);
  later(4);
  later.cancel();
  await new Promise((done) => setTimeout(done, 30));
  assert.deepEqual(seen, [3]);
});

test("labels are pushed apart and stay inside", () => {
  const labels = spread([{ y: 100 }, { y: 100 }, { y: 98 }, { y: 20 }], 12, 110).map(({ y }) => y);
  const sorted = [...labels].sort((a, b) => a - b);
  for (let i = 1; i < sorted.length; i++) assert.ok(sorted[i] - sorted[i - 1] >= 12 - 1e-9, String(sorted));
  assert.ok(sorted.at(-1) <= 110);
  assert.equal(sorted[0], 20);
});

test("spaces, line ends, tabs and controls can be seen; long texts are cut", () => {
  assert.equal(visible(" a\n\tb\r"), "·a↵→b←");
  assert.equal(visible("\u001b\u0000"), "⟨1b⟩⟨00⟩");
  assert.equal(clip("🙂🙂🙂🙂", 3), "🙂🙂…");
  assert.equal(clip("abc", 3), "abc");
  assert.equal(brief("\n        x    y"), "↵·×8x····y");
  assert.equal(quoted(" return", 4), "“·re…”");
});
