import assert from "node:assert/strict";
import { test } from "node:test";
import * as n from "../../../lessonlib/explorers/shared/numbers.js";

test("amounts are short and keep three digits", () => {
  assert.equal(n.si(0), "0");
  assert.equal(n.si(7), "7");
  assert.equal(n.si(1234), "1.23 k");
  assert.equal(n.si(15_600_000_000), "15.6 G");
  assert.equal(n.si(999_600), "1.00 M");
  assert.equal(n.si(2.6e12, "FLOP"), "2.60 TFLOP");
  assert.equal(n.whole(1234567), "1,234,567");
  assert.equal(n.whole(0), "0");
  assert.equal(n.short(2000), "2 k");
  assert.equal(n.short(500), "500");
});

test("ratios and shares read naturally", () => {
  assert.equal(n.times(3.94), "×3.9");
  assert.equal(n.times(9.96), "×10");
  assert.equal(n.times(1234.4), "×1,234");
  assert.equal(n.timesInWords(46.8), "47 times");
  assert.equal(n.percent(0), "0%");
  assert.equal(n.percent(0.00001), "<0.01%");
  assert.equal(n.percent(0.0042), "0.42%");
  assert.equal(n.percent(0.0312), "3.1%");
  assert.equal(n.percent(0.0996), "10%");
  assert.equal(n.percent(0.99), "99%");
  assert.equal(n.percent(0.996), "99.6%");
  assert.equal(n.percent(0.99996), ">99.9%");
  assert.equal(n.percent(1), "100%");
  assert.equal(n.plural(1, "token"), "1 token");
  assert.equal(n.plural(1200, "token"), "1,200 tokens");
});

test("ticks begin at 0, are round, and cover the top", () => {
  for (const top of [0.013, 0.95, 1, 3, 43, 60, 880, 1.2e12]) {
    const marks = n.ticks(top);
    assert.equal(marks[0], 0);
    assert.ok(marks.at(-1) >= top, `${top}: ${marks}`);
    assert.ok(marks.at(-2) < top, `${top}: ${marks}`);
    assert.ok(marks.length >= 2 && marks.length <= 7, `${top}: ${marks}`);
  }
  assert.deepEqual(n.ticks(0), [0, 1]);
});

test("step ticks name the first and the last step", () => {
  assert.deepEqual(n.stepTicks(1), [1]);
  for (const last of [2, 7, 32, 100, 512]) {
    const marks = n.stepTicks(last);
    assert.equal(marks[0], 1);
    assert.equal(marks.at(-1), last);
    assert.deepEqual(
      marks,
      [...new Set(marks)].sort((a, b) => a - b),
    );
  }
});

test("log ticks are powers of ten around the values", () => {
  assert.deepEqual(n.logTicks(1, 1000), [1, 10, 100, 1000]);
  const marks = n.logTicks(3e4, 5e12, 5);
  assert.ok(marks[0] <= 3e4 && marks.at(-1) >= 5e12);
  assert.ok(marks.length <= 7);
  assert.ok(n.logTicks(1, 1).length >= 2);
});

test("scales map ends to ends, linear and log", () => {
  const linear = n.scale([0, 10], [100, 0]);
  assert.equal(linear(0), 100);
  assert.equal(linear(10), 0);
  assert.equal(linear(5), 50);
  const log = n.scale([1, 100], [0, 200], true);
  assert.equal(log(1), 0);
  assert.equal(log(10), 100);
  assert.equal(log(0), 0); // clamped, not minus infinity
});
