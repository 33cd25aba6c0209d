// Elements without ceremony.

const SVG = "http://www.w3.org/2000/svg";
const page = Math.random().toString(36).slice(2, 8); // every explorer loads this file anew, and counts for itself
let count = 0;

/** An id no other element of the page has. */
export const unique = (stem) => `lx-${stem}-${page}${++count}`;

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** An HTML element: `h("button", {class: "x", onclick: f}, "text")`. */
export const h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
