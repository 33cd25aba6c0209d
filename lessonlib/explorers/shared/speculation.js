// Speculative decoding in numbers and words. No document needed.

import { percent, plural } from "./numbers.js";
import { quoted } from "./text.js";

/** Tokens that a pass of the target brings: 1 + a + … + a^k. Leviathan et al. 2023, equation 1. */
export function expectedTokens(a, k) {
  let total = 0;
  for (let i = 0; i <= k; i++) total += a ** i;
  return total;
}

/** How many times faster k drafts make decoding; each costs `c` of a pass. The same paper, theorem 3.8. */
export const speedup = (a, k, c) => expectedTokens(a, k) / (1 + k * c);

/** The number of drafts up to `most` that makes decoding fastest; 0 when none pays. */
export function bestK(a, c, most) {
  let best = 0;
  for (let k = 1; k <= most; k++) if (speedup(a, k, c) > (best ? speedup(a, best, c) : 1)) best = k;
  return best;
}

/** The chance that a draft stands: min(1, p / q). */
export const chance = ({ p, q }) => (q > 0 ? Math.min(1, p / q) : 1);

/** "stands", "rejected" or "not judged": what became of draft `i` of a round. */
export const verdict = (round, i) =>
  i < round.stood ? "stands" : i === round.stood ? "rejected" : "not judged";

/** The sentence above the rounds; the same as in speculative.py. */
export function roundTitle(number, drafts, stood) {
  let most = stood === drafts ? `all ${drafts} drafts stand` : `${stood} of ${drafts} drafts stand`;
  if (drafts === 1) most = stood ? "the draft stands" : "the draft is rejected";
  else if (!stood) most = `none of ${drafts} drafts stands`;
  const tokens = stood === 0 ? "1 token, as without drafts" : `${stood + 1} tokens instead of 1`;
  return `Round ${number}: ${most}; one pass of the large model brings ${tokens}.`;
}

/** The sentence above the curves. */
export function speedTitle(a, k, c, most) {
  const speed = speedup(a, k, c);
  const best = bestK(a, c, most);
  const now = `${plural(k, "draft")} a round: ${expectedTokens(a, k).toFixed(2)} tokens a pass, ×${speed.toFixed(2)} the speed`;
  if (!best) return `${now}. No number of drafts pays here.`;
  if (best === k) return `${now}. That is the best number.`;
  return `${now}${speed < 1 ? ", a loss" : ""}. Best: ${plural(best, "draft")}, ×${speedup(a, best, c).toFixed(2)}.`;
}

/** Counted in the run with k drafts: acceptance, tokens a pass, and the speed-up at cost `c`. */
export function counted(run, c) {
  const tokens = run.tokens / run.passes;
  return { acceptance: run.accepted / run.judged, tokens, speedup: tokens / (1 + run.k * c) };
}

/** The round in words. */
export function roundWords({ drafts, stood, last }, { round }) {
  const start = `Round ${round}: ${stood} of ${plural(drafts.length, "draft")} accepted`;
  if (stood === drafts.length) return `${start}; ${quoted(last, 14)} is the bonus token.`;
  const { piece, p, q } = drafts[stood];
  return `${start}; ${quoted(piece, 14)} (p ${percent(p)}, q ${percent(q)}) is rejected, ${quoted(last, 14)} drawn in its place.`;
}
