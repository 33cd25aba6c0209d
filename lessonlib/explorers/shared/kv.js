// What keys and values weigh, and what they save: the arithmetic of engine/costs.py, config.py and kv_cache.py.

import { allSteps, runningTotal, stepWork } from "./work.js";

const WEIGHT_BYTES = 2; // a number of the weights, in 16 bits

/** How a number of the cache is stored: [name, bytes of `n` numbers]. Below 8 bits a scale and a zero come with them. */
const FORMATS = {
  float32: (n) => 4 * n,
  float16: (n) => 2 * n,
  int8: (n) => n + 4,
  int4: (n) => n / 2 + 4,
};

/** Bytes of keys and values that one token leaves behind. */
export const kvBytesPerToken = ({ layers, kvHeads, headDim }, format = "float16") =>
  2 * layers * kvHeads * FORMATS[format](headDim);

const layerMatrices = ({ heads, kvHeads, headDim, hidden, ffn }) =>
  2 * hidden * (heads + kvHeads) * headDim + 3 * hidden * ffn; // q and output, k and v; gate, up and down

/** Number of weights, as ModelConfig.num_parameters counts them. */
export function parameters(shape) {
  const { layers, heads, kvHeads, headDim, hidden, ffn, vocab } = shape;
  const biases =
    (heads + 2 * kvHeads) * headDim * shape.qkvBias +
    hidden * shape.outBias +
    (2 * ffn + hidden) * shape.mlpBias;
  const norms = 2 * hidden + 2 * headDim * shape.qkNorm;
  return vocab * hidden * (2 - shape.tied) + layers * (layerMatrices(shape) + biases + norms) + hidden;
}

/** What shared/work.js needs to work out FLOPs: per token, and per pair of tokens that see each other. */
export function flopCoefficients(shape) {
  const { layers, heads, headDim, window, windowLayers } = shape;
  const windowed =
    window === null ? 0 : windowLayers === null ? layers : windowLayers.filter((i) => i < layers).length;
  const attention = [
    { window: null, layers: layers - windowed },
    { window, layers: windowed },
  ];
  return {
    body_flops_per_token: 2 * layers * layerMatrices(shape),
    head_flops_per_token: 2 * shape.hidden * shape.vocab,
    attention: attention
      .filter((part) => part.layers > 0)
      .map((part) => ({ window: part.window, flops_per_pair: 4 * part.layers * heads * headDim })),
  };
}

/** Whole numbers that divide `n`, smallest first. */
export const divisors = (n) => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);

/** Rows of the attention matrix at a step: [first, last, fill]. Row i has i + 1 cells: each token sees itself and those before. */
export function rowsAt(prompt, step, cached) {
  const total = prompt + step - 1;
  const known = step === 1 ? 0 : total - 1;
  return [
    [0, known, cached ? "reused" : "again"],
    [known, total, "fresh"],
  ].filter(([first, last]) => last > first);
}

/** Cells that are computed at a step. */
export function cellsAt(prompt, step, cached) {
  const total = prompt + step - 1;
  return cached && step > 1 ? total : (total * (total + 1)) / 2;
}

/** What the cache holds and has saved after each step. */
export function gains(shape, { prompt, steps, format }) {
  const costs = flopCoefficients(shape);
  const [without, withCache] = [false, true].map((cached) => allSteps(costs, prompt, steps, cached));
  const perToken = kvBytesPerToken(shape, format);
  return {
    held: without.map((work) => work.tokens * perToken),
    saved: runningTotal(without.map((work, i) => work.flops - withCache[i].flops)),
  };
}

/**
 * What one token, one user and all of them need, and how many users fit beside the weights on each card (null where the
 * weights alone do not). `saved`: FLOPs that one user's cache saves at the last token of the context.
 */
export function needs(shape, { format, context, users }, cards) {
  const perToken = kvBytesPerToken(shape, format);
  const weights = WEIGHT_BYTES * parameters(shape);
  const perUser = perToken * context;
  const costs = flopCoefficients(shape);
  const [without, withCache] = [false, true].map((cached) => stepWork(costs, context - 1, 2, cached));
  const fit = cards.map((card) =>
    weights > card.bytes ? null : Math.floor((card.bytes - weights) / perUser),
  );
  return { perToken, perUser, all: perUser * users, weights, saved: without.flops - withCache.flops, fit };
}
