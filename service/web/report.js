/**
 * The generalisation report of a bundle (its report.json, format 2) as elements: recall by set, curves over
 * severity, other input sizes, named images, notes. Knows the report's fields; nothing of requests.
 */
import { barChart, lineChart } from "./charts.js";
import { html, table } from "./elements.js";
import { count, moment, percent, withInterval, words } from "./numbers.js";

const DIRECTIONS = [
  ["text_to_image", "text finds image"],
  ["image_to_text", "image finds text"],
];
const NAMES = DIRECTIONS.map(([, name]) => name);
const STEPS = [0.25, 0.5, 0.75, 1]; // where an axis of recall may end

const recallOf = (set, direction) => set.figures?.[direction]?.recall ?? {};
const depthsOf = (set) => [...new Set(DIRECTIONS.flatMap(([way]) => Object.keys(recallOf(set, way))))].map(Number).sort((a, b) => a - b);

export function reportSections(report) {
  const sets = report.datasets ?? [];
  const clean = sets.filter(({ condition }) => !condition);
  return [
    html("p", {}, `Measured ${moment(report.created)} in ${report.precision}. Recall at k: how often what belongs together is among the first k answers. Lines on bars are 95 % intervals.`),
    html("div", { class: "charts" }, clean.map(recallChart)),
    setsTable(clean),
    ...[...new Set(sets.map(({ name }) => name))].flatMap((name) => shiftsOf(name, sets.filter((set) => set.name === name))),
    ...(report.classification?.length ? [namedImages(report.classification)] : []),
    ...notesOf(report, sets),
  ];
}

function recallChart(set) {
  return barChart({
    title: `${set.name}: ${count(set.images)} images, ${count(set.captions)} texts`,
    series: NAMES,
    groups: depthsOf(set).map((k) => ({ name: `R@${k}`, values: DIRECTIONS.map(([way]) => recallOf(set, way)[k]) })),
  });
}

function setsTable(sets) {
  const depths = [...new Set(sets.flatMap(depthsOf))].sort((a, b) => a - b);
  const rows = sets.flatMap((set) =>
    DIRECTIONS.filter(([way]) => set.figures?.[way]).map(([way, name]) => [
      set.name,
      name,
      ...depths.map((k) => recallOf(set, way)[k] && withInterval(recallOf(set, way)[k])),
      String(set.figures[way].median_rank),
    ]),
  );
  return html("details", {}, html("summary", {}, "All sets as a table"), table("Recall by set, with 95 % intervals", ["Set", "", ...depths.map((k) => `R@${k}`), "Median rank"], rows));
}

/** Under other conditions: a curve for each corruption, a row for each input size. */
function shiftsOf(name, sets) {
  const whole = sets.find(({ condition }) => !condition);
  const corrupted = Map.groupBy(sets.filter(({ condition }) => condition?.corruption), ({ condition }) => condition.corruption);
  const resized = sets.filter(({ condition }) => condition?.input_size);
  const k = Math.max(...depthsOf(sets[0]));
  const parts = [];
  if (corrupted.size) {
    const top = axisEnd([whole, ...sets].filter(Boolean), k);
    parts.push(
      html("h3", {}, `${name} in other conditions`),
      html("p", {}, `Recall at ${k} as images or texts get worse, from severity 1 to 5.`),
      html("div", { class: "charts small" }, [...corrupted].map(([kind, measured]) => severityChart(kind, { whole, measured, k, top }))),
    );
  }
  if (resized.length) {
    const rows = resized.map((set) => [set.condition.input_size.join(" × "), ...DIRECTIONS.map(([way]) => recallOf(set, way)[k] && withInterval(recallOf(set, way)[k]))]);
    parts.push(html("h3", {}, `${name} at other input sizes`), table(`Recall at ${k} by input size in pixels`, ["Height × width", ...NAMES], rows));
  }
  return parts;
}

function axisEnd(sets, k) {
  const best = Math.max(...sets.flatMap((set) => DIRECTIONS.map(([way]) => recallOf(set, way)[k]?.value ?? 0)));
  return STEPS.find((step) => step >= best) ?? 1;
}

function severityChart(kind, { whole, measured, k, top }) {
  const places = [...(whole ? [[0, whole]] : []), ...measured.map((set) => [set.condition.severity, set])].sort(([a], [b]) => a - b);
  const lines = DIRECTIONS.map(([way, name]) => ({
    name,
    points: places.filter(([, set]) => recallOf(set, way)[k]).map(([severity, set]) => ({ x: severity, ...recallOf(set, way)[k] })),
  }));
  return lineChart({ title: words(kind), lines: lines.filter(({ points }) => points.length), top, across: "severity" });
}

function namedImages(sets) {
  const rows = sets.map((set) => [set.name, count(set.images), count(set.classes), ...[1, 5].map((k) => set.top?.[k] && withInterval(set.top[k])), percent(1 / set.classes)]);
  return html("div", {}, html("h3", {}, "Naming images it was not trained to name"), table("Zero-shot classification", ["Set", "Images", "Classes", "Top 1", "Top 5", "By guessing"], rows));
}

function notesOf(report, sets) {
  const notes = [...(report.notes ?? []), ...sets.flatMap(({ name, warnings = [] }) => warnings.map((each) => `${name}: ${each}`))];
  return notes.length ? [html("h3", {}, "Notes"), html("ul", { class: "notes" }, [...new Set(notes)].map((note) => html("li", {}, note)))] : [];
}
