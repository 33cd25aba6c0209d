import assert from "node:assert/strict";
import { test } from "node:test";
import * as d from "../../../lessonlib/explorers/shared/batching_draw.js";
import * as sim from "../../../lessonlib/explorers/shared/batching_sim.js";

const LIMITS = { arrival: [0, 64], prompt: [8, 2048], output: [1, 64] };
const STEPS = { fixed: 1, perToken: 0, perKvToken: 0 };
const run = (requests, settings) =>
  sim.simulate(requests, settings, { cost: STEPS, blockSize: 4, noLimit: 1e9 });

test("times are written as they are said", () => {
  assert.equal(d.duration(0.00448, false), "4.5 ms");
  assert.equal(d.duration(0.2, false), "200 ms");
  assert.equal(d.duration(0.9996, false), "1.00 s");
  assert.equal(d.duration(1234.5, false), "1,234.5 s");
  assert.equal(d.duration(1, true), "1 step");
  assert.equal(d.duration(1.5, true), "1.5 steps");
  assert.equal(d.duration(41, true), "41 steps");
  assert.equal(d.durations([0.02, 0.055], false), "20 / 55 ms");
  assert.equal(d.durations([0.02, 1.5], false), "20 ms / 1.50 s");
  assert.equal(d.durations([1, 41], true), "1 / 41 steps");
});

test("a drag moves what was taken hold of, within the limits", () => {
  const request = { arrival: 10, prompt: 128, output: 12 };
  assert.deepEqual(d.dragged(request, "arrival", 2.4, LIMITS), { ...request, arrival: 12 });
  assert.deepEqual(d.dragged(request, "arrival", -99, LIMITS), { ...request, arrival: 0 });
  assert.deepEqual(d.dragged(request, "output", 5, LIMITS), { ...request, output: 17 });
  assert.deepEqual(d.dragged(request, "output", -50, LIMITS), { ...request, output: 1 });
  assert.deepEqual(d.dragged(request, "prompt", 0.5, LIMITS), { ...request, prompt: 192 });
  assert.deepEqual(d.dragged(request, "prompt", -9, LIMITS), { ...request, prompt: 8 });
  assert.deepEqual(d.dragged(request, "prompt", 999, LIMITS), { ...request, prompt: 2048 });
  assert.deepEqual(d.dragged({ ...request, prompt: 7 }, "output", 0, LIMITS), { ...request, prompt: 7 });
});

test("what is dragged by a width becomes as much wider", () => {
  const request = { arrival: 3, prompt: 256, output: 9 };
  for (const [part, edge] of [
    ["arrival", 0],
    ["prompt", 1],
    ["output", 2],
  ]) {
    const after = d.barOf(d.dragged(request, part, 4, LIMITS));
    assert.equal(after[edge] - d.barOf(request)[edge], 4);
  }
});

test("a stay ends with a preemption and begins again", () => {
  const requests = [
    { arrival: 0, prompt: 4, output: 12 },
    { arrival: 0, prompt: 4, output: 12 },
  ];
  const { continuous } = run(requests, { slots: 2, chunk: 4, blocks: 4 });
  const stays = d.staysOf(continuous);
  const lost = stays.filter((stay) => stay.lost !== null);
  assert.equal(lost.length, continuous.facts.preemptions);
  assert.ok(lost.length > 0);
  assert.equal(stays.length, requests.length + lost.length);
  for (const stay of stays) assert.ok(stay.from < stay.to && (stay.lost ?? stay.to) >= stay.to);
  assert.ok(continuous.cells.flat().some((cell) => cell.kind === "again"));
});

test("nobody stays longer than the steps that ran him", () => {
  const requests = [1, 5, 9].map((output, i) => ({ arrival: 20 * i, prompt: 3, output }));
  const { static: fixed } = run(requests, { slots: 2, chunk: 4, blocks: 9 });
  assert.deepEqual(d.busySpans(fixed.steps), [
    [0, 1],
    [20, 25],
    [40, 49],
  ]);
  assert.deepEqual(
    d.staysOf(fixed).map(({ place, slot, from, answer, to }) => [place, slot, from, answer, to]),
    [
      [0, 0, 0, null, 1],
      [1, 0, 20, 21, 25],
      [2, 0, 40, 41, 49],
    ],
  );
});
