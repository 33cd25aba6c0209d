import assert from "node:assert/strict";
import { test } from "node:test";
import {
  contextsOf,
  fromModel,
  shapeOf,
  summaryText,
} from "../../../lessonlib/explorers/pictures/kv_cache.js";
import { divisors, kvBytesPerToken } from "../../../lessonlib/explorers/shared/kv.js";
import { kindOf } from "../../../lessonlib/explorers/shared/kv_drawing.js";

const BASE = { hidden: 64, ffn: 128, vocab: 100, tied: 1, qkvBias: 0, outBias: 0, mlpBias: 0, qkNorm: 0 };
const SMALL = {
  ...BASE,
  layers: 2,
  heads: 8,
  kvHeads: 2,
  headDim: 8,
  context: 2000,
  window: null,
  windowLayers: null,
};
const DATA = {
  models: { small: SMALL, long: { ...SMALL, context: 100_000 } },
  contexts: [128, 2000, 4096, 65536],
  cards: [
    { name: "1 kB", bytes: 1000 },
    { name: "1 MB", bytes: 1e6 },
  ],
};

test("contexts are round, and end with the model's own", () => {
  assert.deepEqual(contextsOf(DATA.contexts, SMALL), [128, 2000]);
  assert.deepEqual(contextsOf(DATA.contexts, DATA.models.long), [128, 2000, 4096, 65536, 100_000]);
});

test("another model brings its own shape and a context it can take", () => {
  const state = { model: "small", ...fromModel(DATA, "small") };
  assert.equal(state.context, 2000);
  assert.deepEqual(shapeOf(DATA.models, state), SMALL);
  assert.equal(fromModel(DATA, "long").context, 4096);
});

test("KV heads divide the query heads", () => {
  assert.deepEqual(divisors(12), [1, 2, 3, 4, 6, 12]);
  assert.match(kindOf({ heads: 8, kvHeads: 8 }), /^Multi-head/);
  assert.match(kindOf({ heads: 8, kvHeads: 1 }), /^Multi-query/);
  assert.match(kindOf({ heads: 8, kvHeads: 2 }), /: 4 query heads share one$/);
});

test("fewer KV heads hold fewer bytes, and so do fewer bits", () => {
  const bytes = [8, 4, 2, 1].map((kvHeads) => kvBytesPerToken({ ...SMALL, kvHeads }));
  assert.deepEqual(
    bytes.map((value) => value / bytes[3]),
    [8, 4, 2, 1],
  );
  const wide = { ...SMALL, headDim: 128 };
  assert.equal(kvBytesPerToken(wide, "float32") / kvBytesPerToken(wide, "float16"), 2);
  assert.equal(kvBytesPerToken(wide, "int4") * 8, (4 + 32 / 128) * 2 * 2 * 2 * 128); // 4.25 bits a number
});

test("the words name what fits", () => {
  const state = { ...fromModel(DATA, "small"), model: "small", view: "cost", format: "float16", users: 3 };
  assert.match(summaryText(DATA, state), /none on 1 kB, \d on 1 MB\.$/);
  assert.match(
    summaryText(DATA, { ...state, view: "reuse", step: 2, prompt: 5, layers: 1 }),
    /^Changed small after step 2/,
  );
});
