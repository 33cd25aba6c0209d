import assert from "node:assert/strict";
import { test } from "node:test";
import * as m from "../../../lessonlib/explorers/shared/speculation.js";

test("nothing accepted brings one token, everything accepted k + 1", () => {
  for (const k of [1, 4, 8]) {
    assert.equal(m.expectedTokens(0, k), 1);
    assert.equal(m.expectedTokens(1, k), k + 1);
  }
});

test("drafts for nothing always pay, drafts as dear as the target never do", () => {
  assert.equal(m.bestK(0.5, 0, 8), 8);
  assert.equal(m.bestK(0.99, 1, 8), 0);
  assert.equal(m.bestK(0, 0.1, 8), 0);
});

test("a draft that the target likes better always stands", () => {
  assert.equal(m.chance({ p: 0.5, q: 0.2 }), 1);
  assert.equal(m.chance({ p: 0.1, q: 0.2 }), 0.5);
  assert.equal(m.chance({ p: 0, q: 0.2 }), 0);
});

test("what was counted is divided by passes and by judged drafts", () => {
  const run = { k: 4, passes: 10, tokens: 25, judged: 20, accepted: 15 };
  assert.deepEqual(m.counted(run, 0.25), { acceptance: 0.75, tokens: 2.5, speedup: 1.25 });
});

test("the title says when drafting loses, and what would be best", () => {
  assert.match(m.speedTitle(0.8, 8, 0.5, 8), /a loss. Best: 2 drafts/);
  assert.match(m.speedTitle(0.3, 4, 0.9, 8), /No number of drafts pays here/);
  assert.match(m.speedTitle(0.8, m.bestK(0.8, 0.1, 8), 0.1, 8), /the best number/);
});

test("a round in words names the rejected draft, or the bonus", () => {
  const drafts = [
    { piece: " a", p: 0.5, q: 0.5 },
    { piece: " b", p: 0.1, q: 0.4 },
  ];
  assert.equal(
    m.roundWords({ drafts, stood: 1, last: " c" }, { round: 3 }),
    "Round 3: 1 of 2 drafts accepted; “·b” (p 10%, q 40%) is rejected, “·c” drawn in its place.",
  );
  assert.match(m.roundWords({ drafts, stood: 2, last: " c" }, { round: 3 }), /“·c” is the bonus token/);
});
