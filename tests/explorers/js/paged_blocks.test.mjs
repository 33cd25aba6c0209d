import assert from "node:assert/strict";
import { test } from "node:test";
import { empty, jump, tail } from "../../../lessonlib/explorers/pictures/paged_blocks.js";

test("a jump goes to the next event of its kind, and round again", () => {
  const events = ["take", "share", "take", "share"].map((kind) => ({ kind }));
  assert.equal(jump(events, "share", 1), 2);
  assert.equal(jump(events, "share", 2), 4);
  assert.equal(jump(events, "share", 4), 2);
});

test("the end of a long text is whole words, and never too long", () => {
  const text = "You are a guide . Where is Rome ?";
  assert.equal(tail(text, 99), text);
  assert.equal(tail(text, text.length), text);
  for (let length = 6; length < text.length; length++) {
    const end = tail(text, length);
    assert.ok(end.length <= length, `${length}: ${end}`);
    assert.ok(text.endsWith(` ${end.replace("… ", "")}`), end);
  }
});

test("reserved places without a token are empty", () => assert.equal(empty({ held: 28, filled: 21 }), 7));
