/**
 * Answers as elements. Everything that came from the gallery enters as text or as an attribute of an
 * element that cannot run it, never as markup. Knows nothing of requests or of history.
 */
import { imageAddress } from "./api.js";
import { EMPTY, addressOf } from "./address.js";
import { scoreOf } from "./scores.js";

export const THUMBNAIL_PIXELS = 256;

export const byId = (id) => document.getElementById(id);

export const stamp = (name) => byId(`${name}-template`).content.firstElementChild.cloneNode(true);

/** What an item is called: its title, else the last part of its id. */
export function titleOf(id, payload) {
  const title = payload?.title;
  return title === undefined || title === null || title === "" ? id.split("/").pop() : String(title);
}

const tagsOf = (value) =>
  (Array.isArray(value) ? value : String(value ?? "").split(",")).map((tag) => String(tag).trim()).filter(Boolean);

function fillScore(element, result, scale) {
  const { word, number, name, share } = scoreOf(result, scale);
  const score = element.querySelector(".score");
  score.classList.toggle("worded", Boolean(word)); // the number only on demand
  score.querySelector(".unseen").textContent = `${name}: `;
  score.querySelector(".word").textContent = word;
  score.querySelector(".number").textContent = number;
  score.querySelector(".bar span").style.width = `${share * 100}%`;
}

export function thumbnail(id, title) {
  const image = new Image();
  image.loading = "lazy";
  image.decoding = "async";
  image.draggable = false;
  fillThumbnail(image, id, title);
  return image;
}

function fillThumbnail(image, id, title) {
  image.alt = title;
  fitToContent(image);
  image.addEventListener("error", () => image.parentElement?.classList.add("missing"));
  image.src = imageAddress(id, THUMBNAIL_PIXELS);
}

/** Photos fill their frame; drawings on white or on nothing are shown whole. */
export function fitToContent(image) {
  image.addEventListener("load", () => image.classList.toggle("fills", !isDrawnOnWhite(image)));
}

/** Told by the pixels of the rim. */
function isDrawnOnWhite(image) {
  const side = 16;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white";
  pen.fillRect(0, 0, side, side);
  pen.drawImage(image, 0, 0, side, side);
  const { data } = pen.getImageData(0, 0, side, side);
  let white = 0;
  for (let at = 0; at < side * side; at += 1) {
    const [x, y] = [at % side, Math.floor(at / side)];
    const isRim = x === 0 || y === 0 || x === side - 1 || y === side - 1;
    if (isRim && Math.min(data[4 * at], data[4 * at + 1], data[4 * at + 2]) >= 248) white += 1;
  }
  return white >= side; // a quarter of the rim; a blown-out sky is rarely that white that far
}

/** One image of the gallery as a link that opens it over the answers of `view`. */
export function imageTile(result, scale, view) {
  const tile = stamp("image");
  const link = tile.firstElementChild;
  const title = titleOf(result.id, result.payload);
  link.href = addressOf({ ...view, item: result.id });
  link.dataset.id = result.id;
  link.draggable = false;
  link.querySelector(".title").textContent = title;
  fillThumbnail(link.querySelector("img"), result.id, title);
  fillScore(link, result, scale);
  return tile;
}

/** One text as a link that searches images with it, beside the images it belongs to. */
export function textLine(result, scale, view) {
  const line = stamp("text");
  const link = line.querySelector(".line-text");
  const text = String(result.text ?? titleOf(result.id, result.payload));
  link.href = addressOf({ ...EMPTY, q: text });
  link.title = "Search images with this text";
  link.draggable = false;
  link.querySelector(".title").textContent = text;
  fillScore(link, result, scale);
  const images = (result.items ?? []).slice(0, 3).map((id) => {
    const opener = document.createElement("a");
    opener.href = addressOf({ ...view, item: id });
    opener.dataset.go = "";
    opener.dataset.id = id;
    opener.draggable = false;
    opener.append(thumbnail(id, `Image of this text: ${id.split("/").pop()}`));
    return opener;
  });
  line.querySelector(".line-images").append(...images);
  return line;
}

export function exampleCard(text) {
  const card = stamp("example");
  const link = card.firstElementChild;
  link.href = addressOf({ ...EMPTY, q: text });
  link.querySelector(".example-text").textContent = text;
  return card;
}

export function skeletons(count) {
  return Array.from({ length: count }, () => {
    const blank = document.createElement("li");
    blank.className = "skeleton";
    return blank;
  });
}

export function tagLinks(value) {
  return tagsOf(value).map((tag) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = addressOf({ ...EMPTY, q: tag });
    link.dataset.go = "";
    link.dir = "auto";
    link.textContent = tag;
    item.append(link);
    return item;
  });
}

/** Rows of a definition list: [name, value] pairs, empty values left out. */
export function factRows(facts) {
  return facts
    .filter(([, value]) => value !== undefined && value !== null && value !== "" && String(value) !== "")
    .flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const words = document.createElement("dd");
      term.textContent = name;
      words.dir = "auto";
      words.textContent = typeof value === "object" ? JSON.stringify(value) : String(value);
      return [term, words];
    });
}
