import assert from "node:assert/strict";
import { test } from "node:test";
import { moved, staysInside } from "../../../lessonlib/classroom/form.js";

const key = (name, more = {}) => ({ key: name, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });

test("plain keys stay in the form: typing dd must not delete the cell", () => {
  for (const name of ["d", "Enter", "ArrowDown", " ", "Tab", "5"]) assert.equal(staysInside(key(name)), true, name);
});

test("the notebook's own commands get through", () => {
  assert.equal(staysInside(key("Escape")), false);
  assert.equal(staysInside(key("Enter", { shiftKey: true })), false);
  for (const modifier of ["ctrlKey", "metaKey", "altKey"]) assert.equal(staysInside(key("s", { [modifier]: true })), false);
});

test("an item moves by one place and never out of the list", () => {
  const list = ["a", "b", "c"];
  assert.deepEqual(moved(list, 2, -1), ["a", "c", "b"]);
  assert.deepEqual(moved(list, 0, 1), ["b", "a", "c"]);
  assert.deepEqual(moved(list, 0, -1), list);
  assert.deepEqual(moved(list, 2, 1), list);
  assert.deepEqual(list, ["a", "b", "c"]);
});
