/**
 * Small charts: shares from 0 to 1 as bars, as lines over severity, and predicted against observed. Series differ by
 * colour and by form (filled or hollow, drawn through or dashed). Each comes as a figure whose image is described
 * in one sentence and told in full by a table. Knows numbers and names; no report.
 */
import { html, svg, table } from "./elements.js";
import { percent, withInterval } from "./numbers.js";

const BARS = { width: 360, left: 58, right: 62, pitch: 20, thickness: 14, gap: 10, foot: 20 };
const PLOT = { width: 320, height: 210, left: 48, right: 24, above: 10, below: 40 };

const text = (x, y, words, anchor = "middle") => svg("text", { x, y, "text-anchor": anchor }, words);

/** `series`: names in the order of their forms; null for a single one, which needs no key. */
function figureOf(drawing, { title, summary, series, rows, headings }) {
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", summary);
  return html(
    "figure",
    { class: "chart" },
    html("figcaption", {}, title),
    series && html("p", { class: "key", "aria-hidden": "true" }, series.map((name, place) => html("span", { class: `key-${place}` }, name))),
    drawing,
    html("details", {}, html("summary", {}, "The numbers", html("span", { class: "unseen" }, ` of ${title}`)), table(title, headings, rows)),
  );
}

/** `groups`: {name, values}, a {value, low, high} of each series (or null); one bar each, whiskers for intervals. */
export function barChart({ title, series, groups }) {
  const { width, left, right, pitch, thickness, gap, foot } = BARS;
  const x = (share) => left + (width - left - right) * Math.min(1, Math.max(0, share));
  const height = groups.length * (series.length * pitch + gap) + foot;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    drawing.append(svg("line", { class: "grid", x1: x(share), x2: x(share), y1: 0, y2: height - foot }));
    drawing.append(text(x(share), height - 3, percent(share, 0)));
  }
  groups.forEach(({ name, values }, row) => {
    const top = row * (series.length * pitch + gap) + 2;
    drawing.append(text(left - 8, top + (series.length * pitch) / 2 + 4, name, "end"));
    values.forEach((each, place) => each && drawing.append(...bar(each, { x, y: top + place * pitch, thickness, place })));
  });
  return figureOf(drawing, {
    title,
    series,
    summary: `${title}: ${groups.map(({ name, values }) => `${name} ${values.map((each, at) => `${each ? percent(each.value) : "not measured"} ${series[at]}`).join(", ")}`).join("; ")}.`,
    headings: ["", ...series],
    rows: groups.map(({ name, values }) => [name, ...values.map((each) => each && withInterval(each))]),
  });
}

function bar({ value, low, high }, { x, y, thickness, place }) {
  const middle = y + thickness / 2;
  const parts = [svg("rect", { class: `fill-${place}`, x: x(0), y, width: x(value) - x(0), height: thickness, rx: 3 })];
  if (low !== undefined && low !== null) {
    parts.push(svg("path", { class: "whisker", d: `M${x(low)} ${middle}H${x(high)}M${x(low)} ${middle - 3}v6M${x(high)} ${middle - 3}v6` }));
  }
  parts.push(text(x(Math.max(value, high ?? 0)) + 5, middle + 4, percent(value), "start"));
  return parts;
}

function plot({ first, last, top, ticks, across }) {
  const { width, height, left, right, above, below } = PLOT;
  const x = (value) => left + ((width - left - right) * (value - first)) / (last - first || 1);
  const y = (share) => above + (height - above - below) * (1 - Math.min(1, Math.max(0, share / top)));
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  for (const part of [0, 0.5, 1]) {
    drawing.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(part * top), y2: y(part * top) }));
    drawing.append(text(left - 6, y(part * top) + 4, percent(part * top, 0), "end"));
  }
  for (const [value, words] of ticks) drawing.append(text(x(value), height - below + 17, words));
  drawing.append(text((left + width - right) / 2, height - 2, across));
  return { drawing, x, y };
}

/** `lines`: {name, points}, points {x, value, low, high} in order; `top`: where the axis ends, 0 to 1. */
export function lineChart({ title, lines, top, across }) {
  const places = [...new Set(lines.flatMap(({ points }) => points.map((point) => point.x)))].sort((a, b) => a - b);
  const ticks = places.map((place) => [place, place === 0 ? "clean" : String(place)]);
  const { drawing, x, y } = plot({ first: places[0], last: places.at(-1), top, ticks, across });
  lines.forEach(({ points }, series) => {
    const d = points.map((point, at) => `${at ? "L" : "M"}${x(point.x)} ${y(point.value)}`).join("");
    drawing.append(...points.filter(({ low }) => low !== undefined && low !== null).map((point) => svg("path", { class: "whisker", d: `M${x(point.x)} ${y(point.low)}V${y(point.high)}` })));
    drawing.append(svg("path", { class: `line-${series}`, d }));
    drawing.append(...points.map((point) => svg("circle", { class: `mark-${series}`, cx: x(point.x), cy: y(point.value), r: 3.6 })));
  });
  const at = (points, place) => points.find((point) => point.x === place);
  return figureOf(drawing, {
    title,
    series: lines.length > 1 ? lines.map(({ name }) => name) : null,
    summary: `${title}: ${lines.map(({ name, points }) => `${name} from ${percent(points[0].value)} to ${percent(points.at(-1).value)}`).join("; ")}.`,
    headings: [across, ...lines.map(({ name }) => name)],
    rows: ticks.map(([place, name]) => [name, ...lines.map(({ points }) => at(points, place) && withInterval(at(points, place)))]),
  });
}

/** `bins`: {predicted, observed, share}; on the diagonal, what is said happens just as often. */
export function reliabilityChart({ title, bins }) {
  const ticks = [0, 0.5, 1].map((share) => [share, percent(share, 0)]);
  const { drawing, x, y } = plot({ first: 0, last: 1, top: 1, ticks, across: "relevance said" });
  drawing.append(svg("path", { class: "diagonal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }));
  drawing.append(svg("path", { class: "line-0", d: bins.map((bin, at) => `${at ? "L" : "M"}${x(bin.predicted)} ${y(bin.observed)}`).join("") }));
  drawing.append(...bins.map((bin) => svg("circle", { class: "mark-0", cx: x(bin.predicted), cy: y(bin.observed), r: 4 })));
  const worst = Math.max(...bins.map(({ predicted, observed }) => Math.abs(predicted - observed)));
  return figureOf(drawing, {
    title,
    series: null,
    summary: `${title}: what is said and what was seen differ by ${percent(worst)} at most.`,
    headings: ["relevance said", "was right"],
    rows: bins.map((bin) => [percent(bin.predicted), percent(bin.observed)]),
  });
}

/** Counts of equal steps from 0 to 1. */
export function histogram({ title, counts }) {
  const most = Math.max(1, ...counts);
  const ticks = [0, 0.5, 1].map((share) => [share, percent(share, 0)]);
  const { drawing, x, y } = plot({ first: 0, last: 1, top: 1, ticks, across: "relevance of the best hit" });
  for (const label of drawing.querySelectorAll("text[text-anchor=end]")) label.remove(); // counts, no shares
  const step = 1 / counts.length;
  counts.forEach((each, at) => {
    const height = y(0) - y(each / most);
    drawing.append(svg("rect", { class: "fill-0", x: x(at * step) + 1, y: y(0) - height, width: x(step) - x(0) - 2, height }));
  });
  return figureOf(drawing, {
    title,
    series: null,
    summary: `${title}: ${counts.join(", ")} queries in steps of ${percent(step, 0)}.`,
    headings: ["relevance", "queries"],
    rows: counts.map((each, at) => [`${percent(at * step, 0)} to ${percent((at + 1) * step, 0)}`, String(each)]),
  });
}
