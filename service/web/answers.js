/** The answers on the page: heading, waiting, grid, notices, problems. Knows nothing of requests or history. */
import { imageAddress } from "./api.js";
import { asks } from "./address.js";
import { drawFilters } from "./filters.js";
import { plural } from "./numbers.js";
import { keptImage } from "./images.js";
import { problemNotice } from "./problems.js";
import { isCalibrated, scaleOf } from "./scores.js";
import { byId, imageTile, skeletons, textLine } from "./views.js";

const CUT = "Your text is longer than the encoder reads: only its beginning was searched. A sentence or two is best.";
const VERDICTS = {
  nothing: "Nothing here seems to match that. These come nearest, in case one helps.",
  unsure: "Not sure that anything here matches that: the encoder cannot tell. See for yourself.",
};
const FAR_FILTERED = "Nothing that passes the filters seems to match that. These come nearest, in case one helps.";
const NOTHING = "Nothing found: the gallery may be empty. Try other words, or another image.";
const NOTHING_PASSES = "Nothing in the gallery passes these filters. Remove one to see more.";

const quoted = (text) => `“${text.length > 80 ? `${text.slice(0, 79)}…` : text}”`;

/** The form, the page's look and its title say what is asked, wherever the question came from. */
export function reflect(asked) {
  document.documentElement.dataset.view = asks(asked) ? "answers" : "home"; // the style sheet shows and hides by it
  byId("query").value = asked.q;
  document.querySelector(`input[name=in][value=${asked.in}]`).checked = true;
  byId("answers").hidden = false;
  drawFilters(asked.filters);
  byId("problem").replaceChildren();
  byId("notice").hidden = true;
  byId("answers-note").textContent = "";
  nameAnswers(asked, "");
  if (!asks(asked)) drawNothing();
}

function nameAnswers(asked, seedTitle) {
  byId("answers-title").textContent = headingOf(asked, seedTitle);
  document.title = asks(asked) ? `${headingOf(asked, seedTitle)} · Twinlens` : "Twinlens";
  const seed = document.querySelector(".seed");
  const address = asked.like ? imageAddress(asked.like, 256) : keptImage(asked.image)?.address;
  seed.hidden = !address;
  if (address && seed.src !== address) seed.src = address;
}

function headingOf(asked, seedTitle) {
  const isTexts = asked.in === "texts";
  if (asked.q) return `${isTexts ? "Texts close to" : "Images of"} ${quoted(asked.q)}`;
  if (asked.image) return isTexts ? "Texts for your image" : "Images like yours";
  return `${isTexts ? "Texts for" : "More like"} ${seedTitle ? quoted(seedTitle) : "this image"}`;
}

export function drawWaiting(asked) {
  byId("answers").setAttribute("aria-busy", "true");
  byId("status").textContent = "Searching…";
  byId("more").hidden = true;
  byId("grid").className = asked.in === "texts" ? "lines" : "tiles";
  byId("grid").replaceChildren(...skeletons(asked.in === "texts" ? 8 : 18));
}

/** The footer waits for it: it would be seen jumping down. */
export function endWaiting() {
  byId("answers").removeAttribute("aria-busy");
  document.documentElement.dataset.drawn = "";
}

export function drawAnswers(asked, outcome) {
  nameAnswers(asked, outcome.seedTitle);
  byId("problem").replaceChildren();
  byId("answers").hidden = false;
  byId("grid").className = asked.in === "texts" ? "lines" : "tiles";
  byId("grid").classList.toggle("far", outcome.verdict === "nothing");
  byId("grid").replaceChildren();
  byId("numbers").hidden = !outcome.results.some(isCalibrated);
  drawNotice(noticeFor(asked, outcome), { isFiltered: asked.filters.length > 0 });
  appendAnswers(asked, outcome, outcome.results);
  // Whoever stood on an answer that is gone goes on reading from the top of the new ones.
  const isLost = !document.activeElement || document.activeElement === document.body;
  if (isLost && !asked.item) byId("answers-title").focus({ preventScroll: true });
}

function drawNotice(words, { isFiltered }) {
  const notice = byId("notice");
  notice.hidden = !words;
  notice.querySelector("p").textContent = words;
  notice.querySelector("button").hidden = !(isFiltered && words !== CUT);
}

/** Adds `results`, the last of `outcome.results`; answers the first element added. */
export function appendAnswers(asked, outcome, results) {
  const scale = scaleOf(outcome);
  const element = asked.in === "texts" ? textLine : imageTile;
  const added = results.map((result) => element(result, scale, { ...asked, item: "" }));
  byId("grid").append(...added);
  byId("more").hidden = outcome.isAll;
  const count = outcome.results.length;
  const found = asked.in === "texts" ? plural(count, "text", "texts") : plural(count, "image", "images");
  byId("answers-note").textContent = count ? `${found}, best first. ${legendOf(outcome.results)}` : "";
  byId("status").textContent = `${found}. ${byId("answers-title").textContent}. ${noticeFor(asked, outcome)}`;
  return added[0];
}

const legendOf = (results) =>
  results.some(isCalibrated)
    ? "Words and bars say how likely each one fits."
    : "The score is the cosine similarity, 1 at most.";

/** One verdict: what the encoder does not know it cannot judge, whatever its figures say. */
function noticeFor({ filters }, { results, verdict, truncated, unknownWords }) {
  if (!results.length) return filters.length ? NOTHING_PASSES : NOTHING;
  const said = verdict === "nothing" && filters.length ? FAR_FILTERED : VERDICTS[verdict];
  return [truncated && CUT, unknownWords.length ? unknown(unknownWords) : said].filter(Boolean).join(" ");
}

const unknown = (words) =>
  `The encoder has not learned ${words.map(quoted).join(", ")}: what it shows is a guess. Try another word for it, or English.`;

export function drawNothing() {
  byId("grid").replaceChildren();
  byId("more").hidden = true;
  byId("numbers").hidden = true;
  byId("status").textContent = "";
}

/** In place of answers; or, where there are some, above them. `options` are problemNotice's. */
export function drawProblem(error, options) {
  byId("answers").hidden ||= !byId("grid").children.length;
  byId("problem").replaceChildren(problemNotice(error, options));
  byId("problem").scrollIntoView({ block: "nearest" });
}
