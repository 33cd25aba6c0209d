// The work of generating token by token: the arithmetic of lessonlib/engine/costs.py. No document needed.

/** Query–key pairs among the first `n` tokens when each sees itself and what came before (`window`: at most so many). */
export function pairs(n, window) {
  if (window == null || n <= window) return (n * (n + 1)) / 2;
  return (window * (window + 1)) / 2 + (n - window) * window;
}

/**
 * The work of step `t` (1, 2, …) after a prompt of `prompt` tokens: tokens processed and FLOPs by kind.
 * The same arithmetic as costs.predict; a test holds the two together.
 */
export function stepWork(costs, prompt, t, cached) {
  const total = prompt + t - 1;
  const held = cached && t > 1 ? total - 1 : 0;
  const tokens = total - held;
  const linear = tokens * costs.body_flops_per_token + costs.head_flops_per_token;
  const attention = costs.attention
    .map(({ flops_per_pair, window }) => flops_per_pair * (pairs(total, window) - pairs(held, window)))
    .reduce((sum, flops) => sum + flops, 0);
  return { tokens, linear, attention, flops: linear + attention };
}

/** Work of steps 1 … `steps`, one entry a step. */
export const allSteps = (costs, prompt, steps, cached) =>
  Array.from({ length: steps }, (_, i) => stepWork(costs, prompt, i + 1, cached));

/** Sum of each field over a list of steps. */
export function sum(steps) {
  const total = { tokens: 0, linear: 0, attention: 0, flops: 0 };
  for (const step of steps) for (const field of Object.keys(total)) total[field] += step[field];
  return total;
}

/** Values added up: what has been spent once step i is done. */
export function runningTotal(values) {
  let total = 0;
  return values.map((value) => (total += value));
}
