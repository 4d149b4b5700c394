/** What the page shows before anything is asked: live examples, and in the footer what is served. */
import { fetchRelease, searchTexts } from "./api.js";
import { imagesOf, plural } from "./numbers.js";
import { byId, exampleCard, thumbnail } from "./views.js";

const IMAGES_OF_AN_EXAMPLE = 4;
const SHOWN = 8;
const EXAMPLES = [
  "a dog", "red car", "birthday cake", "water skiing", "tropical fish", "a house in the snow",
  "playing music", "fresh fruit", "a flower", "people dancing", "a boat at sea", "a night sky",
];

/** Their images are what this gallery answers right now; one request for all. Raises ServiceError. */
export async function fillExamples() {
  const list = document.querySelector(".examples");
  if (list.querySelector("img")) return;
  try {
    const { answers } = await searchTexts(EXAMPLES, { k: IMAGES_OF_AN_EXAMPLE, with_payload: false, count_in_drift: false });
    const cards = answers
      .filter(({ results, verdict }) => results?.length && verdict !== "nothing") // what this gallery has
      .slice(0, SHOWN)
      .map(({ index, results }) => illustrated(EXAMPLES[index], results));
    list.replaceChildren(...cards);
    byId("examples").classList.toggle("none", !cards.length);
  } catch (error) {
    list.replaceChildren(...EXAMPLES.slice(0, SHOWN).map(exampleCard)); // words alone are examples too
    throw error;
  }
}

function illustrated(text, results) {
  const card = exampleCard(text);
  card.querySelector(".mosaic").append(...results.map(framed));
  return card;
}

function framed({ id }) {
  const frame = document.createElement("span");
  frame.append(thumbnail(id, "")); // the card's words say it
  return frame;
}

export async function fillFooter() {
  const release = await fetchRelease().catch(() => null);
  if (!release) return;
  const parts = [
    plural(imagesOf(release), "image", "images"),
    release.model && `encoder ${release.model}`,
    release.release && `release ${release.release}`,
  ];
  byId("release").textContent = parts.filter(Boolean).join(" · ");
}
