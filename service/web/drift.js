/** How far live queries and the gallery lie from what the encoder was proven on: the answer of /drift as elements. */
import { histogram } from "./charts.js";
import { html, table } from "./elements.js";
import { count, figure } from "./numbers.js";

const SUBJECTS = {
  text_queries: "Queries by text",
  image_queries: "Queries by image",
  gallery_images: "Images of the gallery",
  gallery_texts: "Texts of the gallery",
};
const MEASURES = {
  mean: "Where they lie on average",
  spread: "How they differ among each other",
  unfamiliar: "Of a kind it has not met",
  relevance: "Relevance of the best hit",
  nothing_matches: "Nothing matches",
  cut_texts: "Texts that were cut",
  undecodable_images: "Images that could not be read",
};
const SIGNS = { "as proven": "✓", "has moved": "!", far: "‼" };

/** `open`: what is said where there is no verdict. */
const verdictOf = (verdict, open) =>
  html("span", { class: `verdict verdict-${verdict ? verdict.replaceAll(" ", "-") : "open"}` }, `${SIGNS[verdict] ?? "–"} ${verdict ?? open}`);

export function driftSections({ reports, privacy }) {
  return [
    html("p", {}, "New images and new questions may be unlike those the encoder was proven on. This is what the service has seen since it started."),
    html("div", { class: "drifts" }, reports.map(card)),
    html("p", { class: "soft" }, `Privacy: ${privacy}.`),
  ];
}

function card({ subject, seen, verdict, why, reference, measures, relevance_histogram: histogramCounts }) {
  const known = measures.filter(({ value }) => value !== null);
  const rows = known.map(({ name, value, reference: was, verdict: each, why: because }) => [
    MEASURES[name] ?? name,
    figure(value),
    was === null ? null : figure(was),
    html("span", {}, verdictOf(each, "cannot be told"), ` ${because}`),
  ]);
  const title = SUBJECTS[subject] ?? subject;
  return html(
    "section",
    { class: "drift" },
    html("h3", {}, title, " ", verdictOf(verdict, reference ? "too early to tell" : "cannot be told")),
    html("p", {}, `${verdict ? `${count(seen)} seen: ` : ""}${why}.${reference ? ` Compared with ${reference}.` : ""}`),
    rows.length ? html("details", {}, html("summary", {}, "The measures", html("span", { class: "unseen" }, ` of ${title}`)), table(title, ["", "Now", "Proven", ""], rows)) : null,
    histogramCounts?.some((each) => each > 0) ? histogram({ title: `${title}: relevance of the best hit`, counts: histogramCounts }) : null,
  );
}
