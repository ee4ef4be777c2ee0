// Makes elements. Invariant: what comes from outside becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export const el = (name, attributes, ...children) => make(document.createElement(name), attributes, children);

export const svg = (name, attributes, ...children) => make(document.createElementNS(SVG, name), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Replaces an element's content if it differs, so that focus, selection and screen readers are left in peace. */
export function show(id, ...children) {
  const old = byId(id);
  const next = make(old.cloneNode(false), null, children);
  if (!old.isEqualNode(next)) old.replaceChildren(...next.childNodes);
}

export const quiet = (text) => el("p", { class: "quiet" }, text);

/** A table, or what is said where it has no row. Columns: [heading, cell of a row, class]. Narrow screens show a row as a card. */
export function table(caption, none, columns, rows) {
  if (!rows.length) return none && quiet(none);
  // The roles, since some browsers forget them where a table is laid out as something else.
  const head = columns.map(([title, , kind]) => el("th", { scope: "col", role: "columnheader", class: kind }, title));
  const cellOf = (row) => ([title, cell, kind], i) => (i
    ? el("td", { "data-title": title, class: kind, role: "cell" }, cell(row))
    : el("th", { class: kind, scope: "row", role: "rowheader" }, cell(row)));
  const body = rows.map((row) => el("tr", { role: "row" }, columns.map(cellOf(row))));
  return el("table", { role: "table" },
    el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    el("tbody", { role: "rowgroup" }, body));
}
