/**
 * The search page: the address says what is asked, this module asks the service and has the answers drawn.
 * Every move is a change of address followed by `show()`, so back, forward and shared links are one path.
 */
import { fetchItem, fetchRelease, searchItem, searchPicture, searchText } from "./api.js";
import { EMPTY, addressOf, asks, readAddress, searchKey } from "./address.js";
import { appendAnswers, drawAnswers, drawNothing, drawProblem, drawWaiting, endWaiting, plural, reflect } from "./answers.js";
import { closeDetail, openDetail, watchDetail } from "./detail.js";
import { focusAnswer, watchKeys } from "./keyboard.js";
import { keepPicture, keptPicture, watchPictures } from "./pictures.js";
import { notAPicture, pictureGone } from "./problems.js";
import { byId, exampleCard, thumbnail, titleOf } from "./views.js";

const PAGE = 30; // full rows of 2, 3, 5 and 6
const KEPT_SEARCHES = 20;
const PATIENCE_MS = 150; // a faster answer shows no sign of waiting, which would only flicker
const EXAMPLES = [
  "a dog", "red car", "birthday cake", "water skiing",
  "tropical fish", "a house in the snow", "playing music", "fresh fruit",
];

const answered = new Map(); // search key -> outcome: {results, truncated, goodMatch, isAll, seedTitle}
let current = null; // the outcome on the page
let shownKey = null;
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
  if (asked.item) openDetail(asked.item, {}); // a shared link: no need to wait for what lies behind
  else closeDetail();
  if (!asks(asked)) fillExamples();
  else if (answered.has(key)) keepAndDraw(asked, key, answered.get(key));
  else await askAndDraw(asked, key, signal);
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
    drawProblem(error, askAgain);
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

async function ask(asked, signal) {
  const [answer, seed] = await Promise.all([
    askPage(asked, 0, signal),
    asked.like ? fetchItem(asked.like, signal) : null,
  ]);
  return {
    results: answer.results,
    truncated: answer.truncated === true,
    goodMatch: answer.good_match,
    isAll: answer.results.length < PAGE,
    seedTitle: seed ? titleOf(asked.like, seed.payload ?? seed) : "",
  };
}

async function askPage(asked, offset, signal) {
  const page = { k: PAGE, offset, in: asked.in };
  if (asked.q) return searchText(asked.q, page, signal);
  if (asked.like) return searchItem(asked.like, page, signal);
  const picture = keptPicture(asked.picture);
  if (!picture) throw pictureGone();
  return searchPicture(picture.blob, page, signal);
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
    outcome.results.push(...results);
    outcome.isAll = results.length < PAGE;
    appendAnswers(asked, outcome, results)?.querySelector("a").focus({ preventScroll: true });
  } catch (error) {
    if (!signal.aborted) drawProblem(error, showMore);
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
  const best = Math.max(...results.map(({ score }) => score));
  const isAmong = at >= 0;
  openDetail(asked.item, { result: results[at], best, hasPrevious: at > 0, hasNext: isAmong && at + 1 < results.length });
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
  const next = { ...EMPTY, q: byId("query").value.trim(), in: chosenScope() };
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

function framed({ id }) {
  const frame = document.createElement("span");
  frame.append(thumbnail(id, "")); // the card's words say it
  return frame;
}

/** Live examples: their pictures are what this gallery answers right now. */
async function fillExamples() {
  const list = document.querySelector(".examples");
  if (list.children.length) return;
  const cards = EXAMPLES.map(exampleCard);
  list.append(...cards);
  await Promise.all(
    cards.map(async (card, at) => {
      const answer = await searchText(EXAMPLES[at], { k: 4, offset: 0, in: "images" }).catch(() => null);
      if (answer?.good_match === false) card.remove(); // this gallery has nothing of the kind
      else if (answer) card.querySelector(".mosaic").append(...answer.results.map(framed));
    }),
  );
}

async function fillFooter() {
  const release = await fetchRelease().catch(() => null);
  if (!release) return;
  const parts = [
    release.counts?.images !== undefined && plural(release.counts.images, "picture", "pictures"),
    release.model && `encoder ${release.model}`,
    release.release && `release ${release.release}`,
  ];
  byId("release").textContent = parts.filter(Boolean).join(" · ");
}

function start() {
  byId("search").addEventListener("submit", submit);
  for (const choice of document.querySelectorAll("input[name=in]")) {
    choice.addEventListener("change", () => asks(view()) && go({ ...view(), in: choice.value, item: "" }));
  }
  byId("more").addEventListener("click", showMore);
  document.addEventListener("click", follow);
  addEventListener("popstate", show);
  watchKeys();
  watchDetail({ onStep: stepDetail, onClose: leaveDetail });
  watchPictures({
    file: byId("file"),
    camera: byId("camera"),
    overlay: byId("drop"),
    onPicture: (blob) => go({ ...EMPTY, picture: keepPicture(blob), in: chosenScope() }),
    onRefusal: (why) => drawProblem(notAPicture(why)),
  });
  fillFooter();
  show();
}

start();
