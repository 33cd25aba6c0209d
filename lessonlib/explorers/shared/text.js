// Tokens made visible; the same marks as text.py.

const MARKS = { " ": "·", "\n": "↵", "\t": "→", "\r": "←" };

/** A token's text with a mark for every space, line end and tab; other control characters as ⟨1b⟩. */
export const visible = (piece) =>
  piece.replace(
    // eslint-disable-next-line no-control-regex
    /[ \x00-\x1f\x7f-\x9f]/g,
    (character) => MARKS[character] ?? `⟨${character.charCodeAt(0).toString(16).padStart(2, "0")}⟩`,
  );

/** At most `length` characters, the end of a longer text left out. */
export function clip(text, length) {
  const characters = [...text];
  return characters.length <= length ? text : `${characters.slice(0, Math.max(length - 1, 1)).join("")}…`;
}

/** The same in little room: at most `length` characters, five spaces or more counted (·×8). */
export const brief = (piece, length = 24) =>
  clip(
    visible(piece).replace(/·{5,}/g, (spaces) => `·×${spaces.length}`),
    length,
  );

/** A token as it is quoted in a sentence. */
export const quoted = (piece, length) => `“${brief(piece, length)}”`;

/** What the marks mean, as a last line or legend entry. */
export const MARKS_KEY = "· space   ·×8 eight spaces   ↵ line end";
