/** Elements in one expression. Words enter as text, never as markup; styles only by class. */

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A table with a heading for each column; a cell is words or an element, the first of a row names the row. */
export function table(caption, headings, rows) {
  const cells = ([first, ...others]) => [
    html("th", { scope: "row" }, first),
    ...others.map((cell) => html("td", {}, cell ?? "–")),
  ];
  return html(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    html(
      "table",
      {},
      html("caption", {}, caption),
      html("thead", {}, html("tr", {}, headings.map((heading) => (heading ? html("th", { scope: "col" }, heading) : html("td"))))),
      html("tbody", {}, rows.map((row) => html("tr", {}, cells(row)))),
    ),
  );
}

/** [name, value] pairs as a definition list; those without a value are left out. */
export const facts = (pairs) =>
  html(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))),
  );
