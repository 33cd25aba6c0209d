import assert from "node:assert/strict";
import { test } from "node:test";
import { gatesTitle, sizeTitle, timingTitle } from "../../../lessonlib/explorers/pictures/security.js";
import { pieces, reasons, steps, stopped } from "../../../lessonlib/explorers/shared/security_gates.js";
import {
  accuracy,
  bestCut,
  lineAt,
  logBins,
  power,
  span,
} from "../../../lessonlib/explorers/shared/security_plots.js";

const told = (more = {}) => ({
  name: "x",
  text: "abc",
  harmful: true,
  admission: { passes: true, reason: "few tokens" },
  validator: { score: 0.4, reason: "It attacks.", marked: [[0, 2]] },
  engine: { passes: true, text: "answer", tokens: 3 },
  filter: { text: "[REDACTED:api_key]", kinds: ["api_key", "api_key"] },
  ...more,
});

test("a request goes on until a gate stops it", () => {
  assert.deepEqual(steps(told(), 0.5), ["passes", "passes", "passes", "redacts"]);
  assert.deepEqual(steps(told(), 0.4), ["passes", "stops", "not reached", "not reached"]);
  const refused = told({
    admission: { passes: false, reason: "too much" },
    engine: undefined,
    filter: undefined,
  });
  assert.deepEqual(steps(refused, 0.5), ["stops", "not reached", "not reached", "not reached"]);
  assert.deepEqual(reasons(refused, 0.5), ["too much", "", "", ""]);
  const long = told({ engine: { passes: false, reason: "too long" }, filter: undefined });
  assert.deepEqual(steps(long, 0.5), ["passes", "passes", "stops", "not reached"]);
  assert.equal(stopped(told({ filter: { text: "a", kinds: [] } }), 0.5), false);
});

test("each gate says why", () => {
  const said = reasons(told(), 0.5);
  assert.equal(said[1], "Score 0.40, line 0.50. Nothing in it looks like an attack.");
  assert.equal(said[3], "Cut out: api key. The user gets:");
  assert.equal(reasons(told(), 0.3)[1], "Score 0.40, line 0.30. It attacks.");
  assert.equal(reasons(told(), 0.3)[2], "");
});

test("the title counts both kinds", () => {
  const clean = { text: "a", kinds: [] };
  const list = [
    told(),
    told({ harmful: false, filter: clean }),
    told({ filter: clean }),
    told({ harmful: null }),
  ];
  assert.match(gatesTitle(list, 0.5), /at 0\.50: 1 of 2 harmful .*, 0 of 1 harmless/);
  assert.match(gatesTitle(list, 0.2), /at 0\.20: 2 of 2 harmful .*, 1 of 1 harmless/);
});

test("marked places are cut out, overlaps and emoji included", () => {
  assert.deepEqual(
    pieces("🙂abcdef", [
      [1, 3],
      [2, 4],
      [5, 6],
    ]),
    [
      ["🙂", false],
      ["ab", true],
      ["cd", false],
      ["e", true],
      ["f", false],
    ],
  );
  assert.deepEqual(pieces("", []), []);
});

const size = {
  hidden: 4,
  spectra: [
    { size: 3, values: [3, 2, 1], hidden: null, gap: 1 },
    { size: 6, values: [3, 2, 1, 1, 1e-6, 1e-7], hidden: 4, gap: 25921.4 },
  ],
};

test("the cliff is named where there is one", () => {
  assert.equal(
    sizeTitle(size, 0),
    "With 3 prompts all 3 values are large: nothing shows the model's hidden size yet.",
  );
  assert.match(sizeTitle(size, 1), /fall 26,000-fold behind number 4: that is the model's hidden size\.$/);
  assert.match(sizeTitle({ ...size, hidden: 5 }, 1), /behind number 4: but the model's hidden size is 5\.$/);
});

const timing = {
  shared: { hits: [1, 2, 2], misses: [8, 9, 30], auc: 1 },
  salted: { hits: [8, 9, 20], misses: [8, 9, 20], auc: 0.5 },
};

test("the attacker's line decides how often the guess is right", () => {
  assert.equal(accuracy(timing.shared, 5), 1);
  assert.equal(accuracy(timing.salted, 5), 0.5);
  assert.equal(accuracy(timing.shared, 8.5), 5 / 6);
  const [low, high] = span(timing);
  assert.ok(low < 1 && high > 30);
  assert.equal(lineAt([low, high], 0), low);
  assert.ok(Math.abs(lineAt([low, high], 100) - high) < 1e-9);
  const best = lineAt([low, high], bestCut(timing));
  assert.ok(best > 2 && best <= 8, String(best));
  assert.equal(
    timingTitle(timing, 5),
    "The attacker is right 100% of the time with one cache for all (AUC 1.00), 50% with salts (AUC 0.50).",
  );
});

test("every value is in one bin, outliers at the ends", () => {
  const bins = logBins([0.5, 1, 9.9, 10, 99, 100, 1000], [1, 100], 2);
  assert.deepEqual(bins, [3, 4]);
});

test("powers of ten as people write them", () => {
  assert.deepEqual([1000, 1, 0.01, 1e-5, 1e12].map(power), ["1000", "1", "0.01", "10⁻⁵", "10¹²"]);
});
