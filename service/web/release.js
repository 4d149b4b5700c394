/** The page of what is served: the release, how it was checked, how well its encoder finds, and drift. */
import { fetchDrift, fetchRelease } from "./api.js";
import { reliabilityChart } from "./charts.js";
import { driftSections } from "./drift.js";
import { facts, html, table } from "./elements.js";
import { gateSections } from "./gate.js";
import { keepKey } from "./key.js";
import { count, figure, moment, percent, imagesOf, plural } from "./numbers.js";
import { problemNotice } from "./problems.js";
import { reportSections } from "./report.js";
import { byId } from "./views.js";

const WAYS = { text_to_image: "A text finds images", image_to_text: "An image finds texts" };
const SEARCHES = { words_to_image: "A few words find images", sentence_to_image: "A sentence finds images", image_to_text: "An image finds texts" };

function section(id, ...parts) {
  const place = byId(id);
  place.replaceChildren(...parts.flat().filter(Boolean)); // also where a try that failed half-way left some
  place.hidden = false;
}

function served(release) {
  const { counts, live } = release;
  return facts([
    ["Release", release.release],
    ["Built", moment(release.created)],
    ["Serving since", moment(release.loaded)],
    ["Being loaded", release.loading && `${release.loading.release ?? "what is current"}, since ${moment(release.loading.since)}`],
    ["Images", count(counts.images)],
    ["Texts", count(counts.texts)],
    ["Left out", counts.failed ? `${count(counts.failed)} that could not be read` : null],
    ["Changed since", live && (live.added || live.hidden) ? `${count(live.added)} put, ${count(live.hidden)} of the release deleted or replaced` : null],
    ["Encoder", release.model],
    ["Fingerprint", html("code", {}, release.model_fingerprint)],
    ["Vectors", `${release.dim} numbers, ${release.precision}, on ${release.device}`],
    ["Texts are read", `up to ${release.context_length} tokens`],
  ]);
}

function refusal({ release, message }) {
  const what = release ? `The release ${release}, which CURRENT names,` : "What CURRENT names";
  return html("p", { class: "notice" }, `${what} could not be served, and the one before it stays: ${message}`);
}

const ASKED_BY = { images: "images", texts: "texts" };

function recallParts(measured) {
  const rows = Object.entries(measured).map(([space, each]) => [
    `Among ${ASKED_BY[space] ?? space}`,
    percent(each.recall, 2),
    `the first ${each.k} of ${count(each.query_count)} ${ASKED_BY[each.queries] ?? each.queries} asked`,
  ]);
  return [
    html("h2", {}, "Its index, against exact search"),
    rows.length
      ? table("What the index finds of what comparing with everything finds", ["", "Found", "Measured on"], rows)
      : html("p", {}, "It was not measured."),
  ];
}

function calibrationParts(told) {
  if (!told) return [html("h2", {}, "Its relevance"), html("p", {}, "The encoder brings no calibration: answers carry a cosine similarity, and no relevance.")];
  const measured = Object.entries(told.searches).filter(([, { figures }]) => figures?.reliability?.length);
  return [
    html("h2", {}, "Its relevance"),
    html("p", {}, "When the service says 80 %, eight of ten such answers should fit. On the dotted line they do; every dot stands for as many answers."),
    html("div", { class: "charts" }, measured.map(([way, { figures }]) => reliabilityChart({ title: SEARCHES[way] ?? way, bins: figures.reliability }))),
    html("ul", { class: "notes" }, measured.map(([way, { figures }]) => html("li", {}, `${SEARCHES[way] ?? way}: off by ${percent(figures.calibration_error.value)} on average, measured on ${figures.measured_on}, galleries of up to ${figure(figures.gallery_items)}.`))),
  ];
}

function draw(release) {
  document.title = `${release.model} · Twinlens`;
  byId("lead").textContent = `${plural(imagesOf(release), "image", "images")}, found by the encoder ${release.model}.`;
  section("served", release.refused && refusal(release.refused), served(release));
  const { report, calibration, recall, gate } = release.details;
  const title = html("h2", {}, "How well it finds on other sets");
  section("report", title, report?.datasets ? reportSections(report) : html("p", {}, "The encoder brings no evaluation report. `python -m training evaluate` writes one."));
  section("calibration", calibrationParts(calibration));
  section("checks", recallParts(recall ?? {}), gateSections(gate));
}

async function start() {
  const again = () => {
    byId("problem").replaceChildren();
    start();
  };
  const onKey = (key) => {
    keepKey(key);
    again();
  };
  try {
    draw(await fetchRelease({ details: true }));
  } catch (error) {
    byId("problem").replaceChildren(problemNotice(error, { retry: again, onKey }));
    return;
  } finally {
    byId("waiting").hidden = true;
    document.documentElement.dataset.drawn = "";
  }
  try {
    section("drift", html("h2", {}, "Drift"), driftSections(await fetchDrift()));
  } catch (error) {
    section("drift", html("h2", {}, "Drift"), problemNotice(error));
  }
}

start();
