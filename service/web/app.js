/**
 * The search page: the address says what is asked, this module asks the service and has the answers drawn.
 * Every move is a change of address followed by `show()`, so back, forward and shared links are one path.
 */
import { fetchFields, fetchItem, openImages, searchItem, searchImage, searchText } from "./api.js";
import { EMPTY, addressOf, asks, readAddress, searchKey } from "./address.js";
import { appendAnswers, drawAnswers, drawNothing, drawProblem, drawWaiting, endWaiting, reflect } from "./answers.js";
import { watchCamera } from "./camera.js";
import { serviceFilter } from "./conditions.js";
import { closeDetail, openDetail, watchDetail } from "./detail.js";
import { offerFilters, watchFilters } from "./filters.js";
import { fillExamples, fillFooter } from "./home.js";
import { keepKey, keptKey } from "./key.js";
import { focusAnswer, watchKeys } from "./keyboard.js";
import { keepImage, keptImage, watchImages } from "./images.js";
import { isAboutKeys, notAnImage, imageGone } from "./problems.js";
import { scaleOf } from "./scores.js";
import { byId, titleOf } from "./views.js";

const PAGE = 30; // full rows of 2, 3, 5 and 6
const DEEPEST = 10_000; // offset that the service takes
const KEPT_SEARCHES = 20;
const PATIENCE_MS = 150; // a faster answer shows no sign of waiting, which would only flicker
const AUTOMATIC_TRIES = 5; // of one search that finds the service busy; then the visitor decides
const PASS_MS = 50 * 60 * 1000; // images are opened for an hour

const answered = new Map(); // search key -> outcome: {results, verdict, levels, truncated, unknownWords, isAll, seedTitle}
let current = null; // the outcome on the page
let shownKey = null;
let tries = 0; // of the search that is shown, by itself
let pending = new AbortController(); // its signal aborts whatever an older question still waits for

const view = () => readAddress(location.search);
const chosenScope = () => document.querySelector("input[name=in]:checked").value;

function go(next, { replace = false } = {}) {
  const address = addressOf(next);
  if (replace) history.replaceState(history.state, "", address);
  else history.pushState({ isOurs: true }, "", address);
  show();
}

async function show() {
  const asked = view();
  const key = searchKey(asked);
  if (key !== shownKey) {
    shownKey = key;
    tries = 0;
    await showAnswers(asked, key);
    if (key !== shownKey) return;
  }
  showDetail(view());
}

async function showAnswers(asked, key) {
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  current = null;
  reflect(asked);
  if (asked.item) openDetail(asked.item, { filters: asked.filters }); // a shared link: no need to wait for what lies behind
  else closeDetail();
  if (!asks(asked)) await showExamples(signal);
  else if (answered.has(key)) keepAndDraw(asked, key, answered.get(key));
  else await askAndDraw(asked, key, signal);
}

async function showExamples(signal) {
  try {
    await fillExamples();
  } catch (error) {
    if (!signal.aborted && isAboutKeys(error)) drawProblem(error, { onKey: takeKey }); // else searching tells
  } finally {
    if (!signal.aborted) endWaiting();
  }
}

async function askAndDraw(asked, key, signal) {
  scrollTo(0, 0);
  const waiting = setTimeout(() => drawWaiting(asked), PATIENCE_MS);
  signal.addEventListener("abort", () => clearTimeout(waiting));
  try {
    const outcome = await ask(asked, signal);
    if (!signal.aborted) keepAndDraw(asked, key, outcome);
  } catch (error) {
    if (signal.aborted) return;
    drawNothing();
    drawProblem(error, { retry: tryAgain, isPatient: tries < AUTOMATIC_TRIES, onKey: takeKey });
  } finally {
    clearTimeout(waiting);
    if (!signal.aborted) endWaiting();
  }
}

function askAgain() {
  answered.delete(shownKey);
  shownKey = null;
  show();
}

/** The same search once more; as often as it takes by hand, a few times by itself. */
async function tryAgain() {
  tries += 1;
  const key = shownKey;
  await showAnswers(view(), key);
  if (key === shownKey) showDetail(view());
}

async function takeKey(key) {
  keepKey(key);
  await usePasses();
  askAgain();
  fillAround();
}

/** Lets <img> have images while keys are on; a key that is refused is told by the search that follows. */
async function usePasses() {
  byId("forget").hidden = !keptKey();
  if (keptKey()) await openImages().catch(() => null);
}

async function fillAround() {
  fillFooter();
  offerFilters(await fetchFields().catch(() => null));
}

async function ask(asked, signal) {
  const [answer, seed] = await Promise.all([
    askPage(asked, 0, signal),
    asked.like ? fetchItem(asked.like, signal) : null,
  ]);
  return {
    results: answer.results,
    truncated: answer.truncated === true,
    verdict: answer.verdict,
    levels: answer.levels,
    unknownWords: answer.unknown_words ?? [],
    isAll: answer.results.length < PAGE,
    seedTitle: seed ? titleOf(asked.like, seed.payload ?? seed) : "",
  };
}

async function askPage(asked, offset, signal) {
  const page = { k: PAGE, offset, in: asked.in, filter: serviceFilter(asked.filters) };
  if (asked.q) return searchText(asked.q, page, signal);
  if (asked.like) return searchItem(asked.like, page, signal);
  const image = keptImage(asked.image);
  if (!image) throw imageGone();
  return searchImage(image.blob, page, signal);
}

function keepAndDraw(asked, key, outcome) {
  current = outcome;
  answered.delete(key); // so that the newest comes last
  answered.set(key, outcome);
  if (answered.size > KEPT_SEARCHES) answered.delete(answered.keys().next().value);
  drawAnswers(asked, outcome);
}

async function showMore() {
  const asked = view();
  const outcome = current;
  const { signal } = pending;
  byId("more").disabled = true;
  try {
    const { results } = await askPage(asked, outcome.results.length, signal);
    if (signal.aborted) return;
    byId("problem").replaceChildren();
    outcome.results.push(...results);
    outcome.isAll = results.length < PAGE || outcome.results.length > DEEPEST;
    appendAnswers(asked, outcome, results)?.querySelector("a").focus({ preventScroll: true });
  } catch (error) {
    if (!signal.aborted) drawProblem(error, { retry: showMore, onKey: takeKey });
  } finally {
    byId("more").disabled = false;
  }
}

/** The answers one can step through in the detail view, and where the open one is among them. */
function placeOf(asked) {
  const results = asked.in === "images" ? (current?.results ?? []) : [];
  return { results, at: results.findIndex(({ id }) => id === asked.item) };
}

function showDetail(asked) {
  if (!asked.item) {
    focusAnswer(closeDetail());
    return;
  }
  const { results, at } = placeOf(asked);
  const isAmong = at >= 0;
  const { filters } = asked;
  openDetail(asked.item, { result: results[at], scale: scaleOf(current ?? { results: [] }), filters, hasPrevious: at > 0, hasNext: isAmong && at + 1 < results.length });
}

function stepDetail(step) {
  const asked = view();
  const { results, at } = placeOf(asked);
  const next = at < 0 ? undefined : results[at + step];
  if (next) go({ ...asked, item: next.id }, { replace: true });
}

function leaveDetail() {
  if (!view().item) return;
  if (history.state?.isOurs) history.back(); // the answers' own entry lies right below
  else go({ ...view(), item: "" }, { replace: true });
}

function submit(event) {
  event.preventDefault();
  const next = { ...EMPTY, q: byId("query").value.trim(), in: chosenScope(), filters: view().filters };
  if (!next.q) {
    byId("query").focus();
    return;
  }
  if (matchMedia("(pointer: coarse)").matches) byId("query").blur(); // the keyboard would hide the answers
  if (searchKey(next) === searchKey(view())) askAgain();
  else go(next);
}

function follow(event) {
  const link = event.target.closest("a[data-go]");
  const isPlain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!link || !isPlain || event.defaultPrevented) return;
  event.preventDefault();
  go(readAddress(new URL(link.href).search));
}

function showNumbers() {
  const isShown = byId("numbers").getAttribute("aria-pressed") !== "true";
  byId("numbers").setAttribute("aria-pressed", String(isShown));
  byId("grid").dataset.numbers = isShown ? "shown" : "";
}

function watchPage() {
  byId("search").addEventListener("submit", submit);
  for (const choice of document.querySelectorAll("input[name=in]")) {
    choice.addEventListener("change", () => asks(view()) && go({ ...view(), in: choice.value, item: "" }));
  }
  byId("more").addEventListener("click", showMore);
  byId("numbers").addEventListener("click", showNumbers);
  byId("notice").querySelector("button").addEventListener("click", () => go({ ...view(), filters: [], item: "" }));
  byId("forget").addEventListener("click", () => {
    keepKey("");
    location.reload();
  });
  document.addEventListener("click", follow);
  addEventListener("popstate", show);
  watchKeys();
  watchDetail({ onStep: stepDetail, onClose: leaveDetail });
  watchFilters((filters) => go({ ...view(), filters, item: "" }));
}

const searchWith = (blob) => go({ ...EMPTY, image: keepImage(blob), in: chosenScope(), filters: view().filters });

async function start() {
  watchPage();
  watchCamera(searchWith);
  watchImages({
    file: byId("file"),
    camera: byId("camera"),
    overlay: byId("drop"),
    onImage: searchWith,
    onRefusal: (why) => drawProblem(notAnImage(why)),
  });
  if (keptKey()) await usePasses();
  setInterval(usePasses, PASS_MS);
  fillAround();
  show();
}

start();
