import assert from "node:assert/strict";
import { test } from "node:test";
import { duration, titleText } from "../../../lessonlib/explorers/pictures/roofline.js";
import {
  decodeStep,
  mostSequences,
  prefillStep,
  ridgeBatch,
} from "../../../lessonlib/explorers/shared/roofline.js";

// 10 weights of 2 bytes, and no attention: small enough to work out by hand.
const model = {
  costs: {
    body_flops_per_token: 20,
    head_flops_per_token: 0,
    attention: [{ flops_per_pair: 1, window: null }],
  },
  kvBytes: 4,
  weights: { bf16: 20, int4: 5 },
  embedding: { bf16: 0, int4: 0 },
};
const chip = { flops: 100, bandwidth: 10, memory: 60 };

test("a step reads the weights once and computes for every sequence", () => {
  const step = decodeStep(model, "bf16", 3, 2, chip);
  assert.equal(step.bytes, 20 + 3 * 3 * 4);
  assert.equal(step.flops, 3 * (20 + 2));
  assert.equal(step.read, 5.6);
  assert.equal(step.compute, 0.66);
  assert.equal(step.seconds, 5.6);
  assert.equal(step.bound, "memory");
});

test("a prompt is computed for every token, and writes and reads their keys and values", () => {
  const step = prefillStep(model, "bf16", 5, chip);
  assert.equal(step.flops, 5 * 20 + 15);
  assert.equal(step.bytes, 20 + 2 * 5 * 4);
});

test("there is no ridge when a sequence reads longer than it computes", () => {
  assert.equal(ridgeBatch(model, "bf16", 2, chip), Infinity);
  const fast = { ...chip, bandwidth: 1000 };
  const ridge = ridgeBatch(model, "bf16", 2, fast);
  const { read, compute } = decodeStep(model, "bf16", ridge, 2, fast);
  assert.ok(Math.abs(read - compute) < 1e-12);
});

test("sequences fit beside the weights", () => {
  assert.equal(mostSequences(model, "bf16", 2, chip), 5);
  assert.ok(mostSequences(model, "bf16", 2, { ...chip, memory: 10 }) < 0);
});

test("the sentence names the side of the ridge", () => {
  const at = (read, compute) => ({
    read,
    compute,
    seconds: Math.max(read, compute),
    bound: read >= compute ? "memory" : "compute",
  });
  assert.equal(
    titleText(16, at(0.00512, 0.000256)),
    "Batch 16: memory-bound. Reading takes 20 times as long as computing, 5.12 ms a step.",
  );
  assert.equal(
    titleText(1024, at(0.01, 0.02)),
    "Batch 1,024: compute-bound. Computing takes 2.0 times as long as reading, 20.0 ms a step.",
  );
  assert.equal(duration(2.5e-5), "25.0 µs");
});
