// Questions as native form controls. Python says what to show (spec) and how it stands (state); this file draws
// it, keeps the focus where it is, and sends answers.

/** Whether a key press must not reach the notebook: there, "dd" deletes the cell. */
export function staysInside(event) {
  const forNotebook =
    event.ctrlKey || event.metaKey || event.altKey || event.key === "Escape" ||
    (event.key === "Enter" && event.shiftKey);
  return !forNotebook;
}

/** The list with the item at `from` moved by `step`; unchanged at either end. */
export function moved(list, from, step) {
  const to = from + step;
  if (to < 0 || to >= list.length) return list;
  const copy = [...list];
  copy.splice(to, 0, ...copy.splice(from, 1));
  return copy;
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "html") node.innerHTML = value; // made by Python from the course's own Markdown
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

let forms = 0;

function render({ model, el }) {
  const form = `lesson-form-${++forms}`;
  const spec = model.get("spec");
  const root = element("section", { class: "lesson-form", "aria-label": spec.title });
  root.append(element("h3", {}, spec.title));
  if (spec.intro) root.append(element("div", { class: "lesson-intro", html: spec.intro }));
  const questions = spec.questions.map((question, i) =>
    drawQuestion(question, `${form}-${i}`, (answer) => model.send({ question: question.id, answer })),
  );
  const pages = drawPages(spec.questions, questions);
  root.append(...pages.top, ...questions.map((view) => view.node), ...pages.bottom);
  const update = () => {
    const state = model.get("state");
    questions.forEach((view) => view.update(state[view.id]));
    pages.update(state);
  };
  root.addEventListener("keydown", (event) => {
    if (staysInside(event)) event.stopPropagation();
  });
  update();
  model.on("change:state", update);
  el.append(root);
  return () => model.off("change:state", update);
}

const MARKS = { good: ["✓", "right"], retry: ["✗", "not right yet"], info: ["●", "saved"] };

/** Several questions are shown one at a time: numbered buttons above, back and next below. */
function drawPages(specs, questions) {
  if (questions.length < 2) return { top: [], bottom: [], update() {} };
  let at = 0;
  const tabs = specs.map((_, i) => element("button", { type: "button", onclick: () => show(i) }));
  const back = element("button", { type: "button", onclick: () => show(at - 1) }, "← Back");
  const next = element("button", { type: "button", onclick: () => show(at + 1) }, "Next →");
  function show(i) {
    at = i;
    questions.forEach((view, k) => (view.node.hidden = k !== i));
    tabs.forEach((tab, k) => (k === i ? tab.setAttribute("aria-current", "true") : tab.removeAttribute("aria-current")));
    // A disabled button would lose the focus of whoever is paging with the keyboard.
    back.setAttribute("aria-disabled", i === 0);
    next.setAttribute("aria-disabled", i === specs.length - 1);
  }
  for (const [button, blocked] of [[back, () => at === 0], [next, () => at === specs.length - 1]])
    button.addEventListener("click", (event) => blocked() && event.stopImmediatePropagation(), true);
  show(0);
  return {
    top: [element("nav", { class: "lesson-tabs", "aria-label": "Questions" }, ...tabs)],
    bottom: [element("div", { class: "lesson-pages" }, back, next)],
    update(state) {
      tabs.forEach((tab, i) => {
        const tone = state[specs[i].id]?.tone;
        const [mark, word] = MARKS[tone] || ["", "not answered"];
        tab.className = tone ? `lesson-${tone}` : "";
        tab.textContent = `${i + 1}${mark && ` ${mark}`}`;
        tab.setAttribute("aria-label", `${specs[i].legend}: ${word}`);
      });
    },
  };
}

const CONTROLS = { single: drawChoices, multiple: drawChoices, numeric: drawNumber, ordering: drawOrder };

function drawQuestion(question, id, send) {
  const button = element("button", { type: "submit" }, question.button);
  const message = element("div", { class: "lesson-message", role: "status" });
  const controls = CONTROLS[question.kind](question, id);
  const submit = (event) => {
    event.preventDefault();
    const answer = controls.read();
    if (answer === null) say(message, "retry", `<p>${controls.missing}</p>`);
    else if (!button.disabled) send(answer);
  };
  const fields = element(
    "fieldset",
    { "aria-describedby": `${id}-text` },
    element("legend", {}, question.legend),
    element("div", { id: `${id}-text`, class: "lesson-text", html: question.text }),
    controls.node,
    element("div", { class: "lesson-actions" }, button),
    message,
  );
  const node = element("form", { class: "lesson-question", onsubmit: submit, novalidate: true }, fields);
  let shown = "";
  const update = (state) => {
    if (!state || JSON.stringify(state) === shown) return;
    shown = JSON.stringify(state);
    controls.write(state.answer, state.reasons || {});
    say(message, state.tone, state.message);
    node.querySelectorAll("input, button").forEach((control) => (control.disabled = Boolean(state.closed)));
    if (state.closed) button.hidden = true;
  };
  return { id: question.id, node, update };
}

function say(message, tone, html) {
  message.className = `lesson-message lesson-${tone}`;
  message.innerHTML = html;
}

function drawChoices(question, id) {
  const type = question.kind === "single" ? "radio" : "checkbox";
  const words = type === "radio" ? ["✓ Right.", "✗ Not this one."] : ["✓ Belongs to it.", "✗ Does not belong."];
  const node = element("div", { class: "lesson-choices" });
  const rows = question.choices.map((choice, i) => {
    const input = element("input", { type, name: id, value: choice.id, id: `${id}-${i}` });
    const reason = element("div", { class: "lesson-reason", id: `${id}-${i}-reason` });
    const text = element("div", { html: choice.html });
    node.append(element("div", { class: "lesson-choice" }, element("label", { for: input.id }, input, text), reason));
    return { choice, input, reason };
  });
  return {
    node,
    missing: type === "radio" ? "Choose one first." : "Choose at least one first.",
    read() {
      const chosen = rows.filter((row) => row.input.checked).map((row) => row.choice.id);
      if (!chosen.length) return null;
      return type === "radio" ? chosen[0] : chosen;
    },
    write(answer, reasons) {
      const chosen = [answer].flat();
      for (const { choice, input, reason } of rows) {
        input.checked = chosen.includes(choice.id);
        const why = reasons[choice.id];
        reason.className = `lesson-reason${why ? (why.right ? " lesson-good" : " lesson-retry") : ""}`;
        reason.innerHTML = why ? `<b>${why.right ? words[0] : words[1]}</b> ${why.html}` : "";
        if (why) input.setAttribute("aria-describedby", reason.id);
      }
    },
  };
}

function drawNumber(question, id) {
  const input = element("input", { type: "text", inputmode: "decimal", id: `${id}-number`, autocomplete: "off", size: 14 });
  const unit = question.unit ? element("span", { class: "lesson-unit", id: `${id}-unit` }, question.unit) : "";
  if (unit) input.setAttribute("aria-describedby", unit.id);
  return {
    node: element("div", { class: "lesson-number-field" }, element("label", { for: input.id }, "Your answer"), input, unit),
    missing: "Write a number first.",
    read: () => input.value.trim() || null,
    write: (answer) => (input.value = answer ?? input.value),
  };
}

function drawOrder(question, id) {
  const said = element("div", { class: "lesson-unseen", role: "status" });
  const list = element("ol", { class: "lesson-order" });
  let order = question.choices.map((choice) => choice.id);
  const rows = Object.fromEntries(
    question.choices.map((choice, i) => {
      const text = element("div", { html: choice.html, id: `${id}-${i}` });
      const button = (step, sign, word) =>
        element(
          "button",
          { type: "button", "aria-label": `Move ${word}: ${text.textContent.trim()}`, onclick: () => move(choice.id, step) },
          sign,
        );
      const buttons = element("div", { class: "lesson-moves" }, button(-1, "↑", "up"), button(1, "↓", "down"));
      return [choice.id, element("li", {}, element("div", { class: "lesson-item" }, buttons, text))];
    }),
  );
  function place() {
    const focused = document.activeElement;
    order.forEach((item) => list.append(rows[item]));
    if (list.contains(focused)) focused.focus();
  }
  function move(item, step) {
    const from = order.indexOf(item);
    order = moved(order, from, step);
    place();
    said.textContent = `Now number ${order.indexOf(item) + 1} of ${order.length}.`;
  }
  place();
  return {
    node: element("div", {}, list, said),
    missing: "",
    read: () => order,
    write(answer) {
      if (Array.isArray(answer) && answer.length === order.length) order = [...answer];
      place();
    },
  };
}

export default { render };
