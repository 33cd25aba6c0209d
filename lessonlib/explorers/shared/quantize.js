// Weights in fewer bits: the arithmetic of lessonlib/engine/quantize, equal to it to the last bit of float32.

const f32 = Math.fround;
const TINY = 2 ** -126; // the scale of a group of zeros: any but zero would do
const SMALLEST = f32(1e-38);
const scratch = new Float32Array(1); // a float32, and below its bits
const scratchBits = new Uint32Array(scratch.buffer);

/** 4-bit NormalFloat (QLoRA, appendix E): quantiles of the normal distribution, scaled to −1 … 1. */
export const NF4_LEVELS = Float32Array.of(
  ...[-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
  ...[-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0],
  ...[0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
);
const NF4_MIDPOINTS = Float32Array.from({ length: 15 }, (_, i) =>
  f32(f32(NF4_LEVELS[i] + NF4_LEVELS[i + 1]) / 2),
);

/** Nearest whole number, halves to the even one, as IEEE 754 and torch.round have it. */
export function roundEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The nearest number that bfloat16 has: the upper half of a float32's bits. */
export function bfloat16(x) {
  scratch[0] = x;
  scratchBits[0] = scratchBits[0] + 0x7fff + ((scratchBits[0] >>> 16) & 1);
  scratchBits[0] &= 0xffff0000;
  return scratch[0];
}

/** The nearest number that float16 has; beyond 65,504 it has infinity. */
export function float16(x) {
  if (Math.abs(x) >= 65520) return Math.sign(x) * Infinity;
  const step = float16Step(x);
  return roundEven(x / step) * step;
}

/** How far apart the float16 numbers around x are. */
export function float16Step(x) {
  scratch[0] = Math.abs(x);
  const exponent = (scratchBits[0] >>> 23) - 127;
  return 2 ** (Math.max(exponent, -14) - 10);
}

const clamp = (low, x, high) => Math.min(Math.max(x, low), high);

function extremes(weights, from, to) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = from; i < to; i++) {
    low = Math.min(low, weights[i]);
    high = Math.max(high, weights[i]);
  }
  return { low, high, size: Math.max(-low, high) };
}

const codes = (first, last, value) => Array.from({ length: last - first + 1 }, (_, i) => value(first + i));

/**
 * The formats. `bits(group)`: of a weight, its share of the group's scale included. `fit(weights, from, to)`: the grid
 * of one group, as {nearest: weight → the number that is stored for it, values: every number the group can store}.
 * FP16's numbers are too many to list.
 */
export const FORMATS = {
  fp16: {
    name: "FP16",
    code: 16,
    bits: () => 16,
    fit: () => ({ nearest: float16, values: null }),
  },
  int8: {
    name: "INT8",
    code: 8,
    bits: (group) => 8 + 16 / group, // a bfloat16 scale
    fit(weights, from, to) {
      const scale = bfloat16(Math.max(f32(extremes(weights, from, to).size / 127), TINY));
      const value = (code) => f32(code * scale);
      return {
        nearest: (x) => value(clamp(-127, roundEven(f32(x / scale)), 127)),
        values: codes(-127, 127, value),
      };
    },
  },
  int4: {
    name: "INT4",
    code: 4,
    bits: (group) => 4 + 32 / group, // a bfloat16 scale and a bfloat16 zero
    fit(weights, from, to) {
      const { low, high } = extremes(weights, from, to);
      const exact = f32(f32(high - low) / 15);
      const zero = bfloat16(f32(low + f32(8 * exact)));
      const scale = bfloat16(exact === 0 ? TINY : exact);
      const value = (code) => f32(f32((code - 8) * scale) + zero);
      return {
        nearest: (x) => value(clamp(0, roundEven(f32(f32(f32(x - zero) / scale) + 8)), 15)),
        values: codes(0, 15, value),
      };
    },
  },
  nf4: {
    name: "NF4",
    code: 4,
    bits: (group) => 4 + 32 / group, // a float32 maximum
    fit(weights, from, to) {
      const { size } = extremes(weights, from, to);
      const reciprocal = f32(1 / Math.max(size, SMALLEST));
      const value = (code) => f32(NF4_LEVELS[code] * size);
      const nearest = (x) => {
        const scaled = clamp(-1, f32(x * reciprocal), 1);
        let code = 0;
        while (code < 15 && NF4_MIDPOINTS[code] < scaled) code++;
        return value(code);
      };
      return { nearest, values: codes(0, 15, value) };
    },
  },
};

/** What is left of the weights (rows one after the other) when each run of `group` of them shares a scale. */
export function stored(weights, format, group) {
  const out = new Float32Array(weights.length);
  for (let from = 0; from < weights.length; from += group) {
    const { nearest } = FORMATS[format].fit(weights, from, from + group);
    for (let i = from; i < from + group; i++) out[i] = nearest(weights[i]);
  }
  return out;
}

/** Root of the mean square of what `value(i)` gives for i from … to. */
export function rms(value, from, to) {
  let sum = 0;
  for (let i = from; i < to; i++) sum += value(i) ** 2;
  return Math.sqrt(sum / Math.max(to - from, 1));
}
