import assert from "node:assert/strict";
import { test } from "node:test";
import * as q from "../../../lessonlib/explorers/pictures/quantization.js";
import {
  bfloat16,
  float16,
  FORMATS,
  rms,
  roundEven,
  stored,
} from "../../../lessonlib/explorers/shared/quantize.js";

const weights = Float32Array.from({ length: 4 * 64 }, (_, i) => Math.sin(i * 1.7) * Math.cos(i / 9) * 0.1);
const marked = 64 + 37;

test("halves go to the even neighbour", () => {
  assert.deepEqual([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, -2.6].map(roundEven), [0, 2, 2, 0, -2, 2, -3]);
});

test("16-bit numbers are the nearest ones", () => {
  assert.equal(bfloat16(1 + 2 ** -8), 1); // a tie, to even
  assert.equal(bfloat16(1 + 3 * 2 ** -8), 1 + 2 ** -6);
  assert.equal(bfloat16(-0.1), -0.10009765625);
  assert.equal(float16(1 + 2 ** -11), 1);
  assert.equal(float16(65504), 65504);
  assert.equal(float16(-65520), -Infinity);
  assert.equal(float16(2 ** -24), 2 ** -24); // the smallest there is
  assert.equal(float16(2 ** -26), 0);
});

for (const format of ["int8", "int4", "nf4"]) {
  for (const group of [16, 32, 64]) {
    test(`${format}, groups of ${group}: the damage of a large weight stays in its group`, () => {
      const before = stored(weights, format, group);
      const found = q.facts(weights, { format, group, marked, outlier: 50 }, before);
      assert.deepEqual(found.kept, stored(found.after, format, group));
      const changed = [...found.kept.keys()].filter((i) => found.kept[i] !== before[i]);
      assert.ok(changed.every((i) => i >= found.first && i < found.first + group));
      assert.ok(found.damage[1] > 2 * found.damage[0]);
      const others = Array.from({ length: group }, (_, i) => found.first + i).filter((i) => i !== marked);
      assert.ok(Math.abs(rms((i) => found.error(others[i]), 0, others.length) - found.damage[1]) < 1e-12);
    });
  }
}

test("a weight is stored as the nearest number of its grid", () => {
  for (const format of ["int8", "int4", "nf4"]) {
    const grid = FORMATS[format].fit(weights, 0, 64);
    const step = Math.max(...grid.values.slice(1).map((value, i) => value - grid.values[i]));
    for (const weight of weights.subarray(0, 64)) {
      const nearest = Math.min(...grid.values.map((value) => Math.abs(value - weight)));
      assert.ok(grid.values.includes(grid.nearest(weight)));
      assert.ok(Math.abs(grid.nearest(weight) - weight) <= nearest + step * 1e-5);
    }
  }
});

test("the sentences follow the controls", () => {
  const title = (format, group, outlier) =>
    q.titleText({ format, group, outlier }, q.facts(weights, { format, group, marked, outlier }));
  assert.match(
    title("int4", 64, 20),
    /^INT4, one scale for 64 weights: one weight ×20 gives the others \d+\.\d times/,
  );
  assert.match(
    title("nf4", 32, 1),
    /^NF4, one scale for 32 weights: 5\.00 bits a weight, errors of \d+(\.\d)?% of/,
  );
  assert.match(title("fp16", 64, 20), /no scale to share/);
});

test("an error is white when there is none and darkest from half a typical weight on", () => {
  assert.deepEqual(
    [0, 0.25, -0.5, 3].map((error) => q.shade(error, 1)),
    [0, 0.5, 1, 1],
  );
});
