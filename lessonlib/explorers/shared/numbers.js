// Numbers: how they are written, and where they land on an axis. No document needed.

const SI = [
  [1e18, "E"],
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

const significant = (value, digits) => {
  const rounded = Number(value.toPrecision(digits));
  if (rounded === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toFixed(Math.min(decimals, 12));
};

/** Whole number with thousands separated: 12,345. */
export const whole = (value) =>
  Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");

/** Three significant digits with an SI prefix: 1.23 G. */
export function si(value, unit = "") {
  const [scale, prefix] = SI.find(([scale]) => Math.abs(value) >= scale * 0.9995) ?? [1, ""];
  const text = scale === 1 && Number.isInteger(value) ? String(value) : significant(value / scale, 3);
  return `${text} ${prefix}${unit}`.trim();
}

/** Memory in the units of its addresses: 512 KiB, 1.5 MiB. */
export function bytesText(value) {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(value, 1)) / 10)));
  const amount = value / 1024 ** power;
  const text = Number.isInteger(amount) || amount >= 100 ? whole(amount) : String(+amount.toPrecision(3));
  return `${text} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** A tick label: as short as it can be, 0.5 k → 500, 2000 → 2 k. */
export function short(value) {
  const [scale, prefix] = SI.find(([scale]) => value >= scale) ?? [1, ""];
  return `${+(value / scale).toPrecision(3)}${prefix && ` ${prefix}`}`;
}

/** A ratio a reader can say aloud: ×1.0, ×3.9, ×47. */
export const times = (ratio) => `×${ratio >= 9.95 ? whole(ratio) : ratio.toFixed(1)}`;

/** The same in words: "3.9 times", "47 times". */
export const timesInWords = (ratio) => `${times(ratio).slice(1)} times`;

/** Per cent with the digits that matter: 0.04%, 3.1%, 42%, 99.6%; 100% is all of it. */
export function percent(share) {
  const value = share * 100;
  if (value === 0) return "0%";
  if (value < 0.01) return "<0.01%";
  if (value < 1) return `${value.toFixed(2)}%`;
  if (value >= 99.95 && value < 100) return ">99.9%";
  return value < 9.95 || (value > 99 && value < 100) ? `${value.toFixed(1)}%` : `${value.toFixed(0)}%`;
}

/** "1 token", "2 tokens". */
export const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Round numbers from 0 to a little above `top`, about `wanted` of them. */
export function ticks(top, wanted = 4) {
  if (!(top > 0)) return [0, 1];
  const rough = top / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const marks = [];
  for (let i = 0; i * step < top + step * 0.999; i++) marks.push(+(i * step).toPrecision(12));
  return marks;
}

/** Whole step numbers for an x axis from 1 to `last`: the ends and a few round ones between. */
export function stepTicks(last, wanted = 6) {
  const step = Math.max(1, ticks(last, wanted)[1]);
  const marks = [1];
  for (let mark = step; mark <= last; mark += step)
    if (mark > 1 && last - mark > step * 0.45) marks.push(mark);
  if (last > 1) marks.push(last);
  return marks;
}

/** Powers of ten from at or below `bottom` to at or above `top`, thinned to about `wanted`. */
export function logTicks(bottom, top, wanted = 5) {
  const low = Math.floor(Math.log10(bottom) + 1e-9);
  const high = Math.max(low + 1, Math.ceil(Math.log10(top) - 1e-9));
  const stride = Math.max(1, Math.ceil((high - low) / wanted));
  const marks = [];
  for (let exponent = low; exponent < high + stride; exponent += stride) marks.push(10 ** exponent);
  return marks;
}

/** A function from values to pixels; `log` axes clamp at their lowest mark. */
export function scale([from, to], [start, end], log = false) {
  const f = log ? (value) => Math.log10(Math.max(value, from)) : (value) => value;
  const span = f(to) - f(from) || 1;
  return (value) => start + ((f(value) - f(from)) / span) * (end - start);
}
