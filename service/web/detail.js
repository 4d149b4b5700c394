/**
 * One image of the gallery, large, over the answers. Which one is open is the address's business:
 * this module draws it and reports what the visitor wants through `onStep` and `onClose`.
 */
import { fetchItem, imageAddress } from "./api.js";
import { EMPTY, addressOf } from "./address.js";
import { nameOf } from "./conditions.js";
import { problemNotice } from "./problems.js";
import { isCalibrated, scoreOf } from "./scores.js";
import { THUMBNAIL_PIXELS, byId, factRows, fitToContent, tagLinks, titleOf } from "./views.js";

const dialog = byId("detail");
const frame = dialog.querySelector(".detail-image");
const body = dialog.querySelector(".detail-facts");
const LARGE_PIXELS = 1600;
const KNOWN = new Set(["title", "description", "tags", "category"]);
let pending = new AbortController();
let shown = "";
let isScored = false; // whether what is shown came with its result, and so with its score

export function watchDetail({ onStep, onClose }) {
  fitToContent(frame.querySelector("img"));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault(); // the address closes it, so that "back" and Esc agree
    onClose();
  });
  dialog.addEventListener("close", () => shown && onClose()); // a second Esc in a row cannot be prevented
  dialog.addEventListener("click", (event) => event.target === dialog && onClose());
  byId("close").addEventListener("click", onClose);
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => onStep(Number(button.dataset.step)));
  }
  dialog.addEventListener("keydown", (event) => {
    const isPlain = !(event.altKey || event.ctrlKey || event.metaKey || event.shiftKey); // Alt and an arrow is the browser's "back"
    const step = isPlain && { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) onStep(step);
  });
}

/** Answers the id that was open, or "". */
export function closeDetail() {
  const was = shown;
  pending.abort();
  shown = "";
  if (dialog.open) dialog.close();
  return was;
}

/** Shows item `id`. `result`, when the item is among the answers, saves a request and knows the score. */
export async function openDetail(id, { result, scale, filters, hasPrevious, hasNext }) {
  dialog.querySelector("[data-step='-1']").disabled = !hasPrevious;
  dialog.querySelector("[data-step='1']").disabled = !hasNext;
  const isSame = shown === id && dialog.open;
  if (isSame && (isScored || !result)) return;
  shown = id;
  isScored = Boolean(result);
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  drawLinks(id, filters);
  draw(id, result?.payload ?? {}, result, scale);
  if (!dialog.open) dialog.showModal();
  if (!isSame) {
    dialog.scrollTop = 0;
    byId("detail-title").focus({ preventScroll: true });
  }
  if (result?.payload) return;
  try {
    const item = await fetchItem(id, signal);
    if (!signal.aborted) draw(id, item.payload ?? item, result, scale);
  } catch (error) {
    if (error.name !== "AbortError") drawProblem(error);
  }
}

function drawImage(id, title) {
  const image = frame.querySelector("img");
  frame.classList.remove("missing");
  frame.href = imageAddress(id);
  frame.title = "Open the image itself";
  image.alt = title;
  const address = imageAddress(id, LARGE_PIXELS);
  if (image.src === address) return;
  image.removeAttribute("src"); // or the one before stays until this one has come
  // What no browser shows (TIFF), its thumbnail does. Where the file has moved, the service answers with it.
  image.onerror = () => {
    image.onerror = () => frame.classList.add("missing");
    image.src = imageAddress(id, THUMBNAIL_PIXELS);
  };
  image.src = address;
}

function drawLinks(id, filters) {
  for (const link of dialog.querySelectorAll("[data-find]")) {
    link.href = addressOf({ ...EMPTY, like: id, in: link.dataset.find, filters });
    link.hidden = false;
  }
}

function draw(id, payload, result, scale) {
  const title = titleOf(id, payload);
  drawImage(id, title);
  byId("detail-title").textContent = title;
  const description = String(payload.description ?? "");
  body.querySelector(".detail-description").textContent =
    description.toLowerCase() === title.toLowerCase() ? "" : description;
  body.querySelector(".detail-problem").replaceChildren();
  body.querySelector(".tags").replaceChildren(...tagLinks(payload.tags));
  body.querySelector("dl").replaceChildren(...factRows(factsOf(id, payload, result, scale)));
}

function factsOf(id, payload, result, scale) {
  const facts = [["Category", payload.category]];
  if (result && !result.text) {
    const { word, number } = scoreOf(result, scale);
    if (isCalibrated(result)) facts.push(["Relevance", `${word} (${number})`]);
    facts.push(["Cosine similarity", result.score.toFixed(3)]);
  }
  for (const [name, value] of Object.entries(payload)) {
    if (!KNOWN.has(name)) facts.push([nameOf(name), value]);
  }
  return [...facts, ["Id", id]];
}

function drawProblem(error) {
  body.querySelector(".detail-description").textContent = "";
  for (const link of dialog.querySelectorAll("[data-find]")) link.hidden = error.status === 404;
  body.querySelector(".tags").replaceChildren();
  body.querySelector("dl").replaceChildren();
  body.querySelector(".detail-problem").replaceChildren(problemNotice(error));
}
