import assert from "node:assert/strict";
import { test } from "node:test";
import * as m from "../../../lessonlib/explorers/pictures/deployment.js";

const AT = {
  api_in: 1,
  api_out: 2,
  prompt_ratio: 2,
  api_ms: 50,
  server_ms: 20,
  server_hour: 1,
  server_speed: 100,
  computer_price: 365,
  computer_years: 1,
  computer_watts: 0,
  computer_speed: 10,
  electricity: 0.3,
};

test("a rule names who is out", () => {
  const left = (rule) => m.OPTIONS.filter(({ who }) => m.allowed(who, rule)).map(({ who }) => who);
  assert.deepEqual(left("anywhere"), ["api", "server", "computer"]);
  assert.deepEqual(left("ours"), ["server", "computer"]);
  assert.deepEqual(left("here"), ["computer"]);
});

test("one machine more where one is full", () => {
  assert.equal(m.machines(10, 1), 1);
  assert.equal(m.machines(10, m.capacity(10)), 1);
  assert.equal(m.machines(10, m.capacity(10) + 1), 2);
});

test("a computer that is there already, at no power, costs nothing and breaks even at once", () => {
  const free = { ...AT, computer_price: 0 };
  assert.equal(m.cost("computer", free, 1e6), 0);
  assert.equal(m.breakEven("computer", free), 0);
  assert.equal(m.money(0), "$0");
  assert.equal(m.cheapest(free, 1e6, "anywhere").who, "computer");
});

test("an API for nothing is never beaten", () => {
  const gift = { ...AT, api_in: 0, api_out: 0 };
  assert.equal(m.breakEven("server", gift), null);
  assert.equal(m.breakEven("computer", gift), null);
});

test("every row of the comparison speaks of all three", () => {
  for (const row of m.comparison(AT, { tokens: 1e6 })) {
    assert.equal(row.length, 4);
    for (const words of row) assert.ok(typeof words === "string" && words !== "", String(row));
  }
});
