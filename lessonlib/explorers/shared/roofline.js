// The roofline: how long a step takes when memory and arithmetic both run at their peaks. No document needed.
// Williams, Waterman & Patterson 2009 (doi:10.1145/1498765.1498785); FLOPs and bytes as in engine/costs.py.

import { stepWork } from "./work.js";

const timed = (flops, bytes, { flops: peak, bandwidth }) => {
  const [compute, read] = [flops / peak, bytes / bandwidth];
  return {
    flops,
    bytes,
    compute,
    read,
    seconds: Math.max(compute, read),
    bound: read >= compute ? "memory" : "compute",
  };
};

/** One decode step: `batch` sequences, each its next token, which sees `context` tokens, itself included. */
export function decodeStep(model, weights, batch, context, chip) {
  const work = stepWork(model.costs, context - 1, 2, true);
  return timed(batch * work.flops, model.weights[weights] + batch * (context + 1) * model.kvBytes, chip);
}

/** A prompt of `length` tokens read at once, in one sequence. */
export function prefillStep(model, weights, length, chip) {
  const work = stepWork(model.costs, length, 1, true);
  return timed(work.flops, model.weights[weights] + 2 * length * model.kvBytes, chip);
}

/** The batch from which computing takes longer than reading; Infinity when a sequence alone has too many bytes. */
export function ridgeBatch(model, weights, context, chip) {
  const none = decodeStep(model, weights, 0, context, chip);
  const one = decodeStep(model, weights, 1, context, chip);
  const gain = one.compute - (one.read - none.read);
  return gain > 0 ? none.read / gain : Infinity;
}

/** Bytes that must be held: all weights, and each sequence's keys and values. */
export const held = (model, weights, batch, context) =>
  model.weights[weights] + model.embedding[weights] + batch * context * model.kvBytes;

/** How many sequences fit beside the weights; below 0 when the weights alone do not. */
export const mostSequences = (model, weights, context, chip) =>
  Math.floor((chip.memory - held(model, weights, 0, context)) / (context * model.kvBytes));
