/** What the page shows before anything is asked: live examples, and in the footer what is served. */
import { fetchRelease, searchTexts } from "./api.js";
import { plural } from "./answers.js";
import { byId, exampleCard, thumbnail } from "./views.js";

const PICTURES_OF_AN_EXAMPLE = 4;
const EXAMPLES = [
  "a dog", "red car", "birthday cake", "water skiing",
  "tropical fish", "a house in the snow", "playing music", "fresh fruit",
];

/** Their pictures are what this gallery answers right now; one request for all. Raises ServiceError. */
export async function fillExamples() {
  const list = document.querySelector(".examples");
  if (list.querySelector("img")) return;
  const cards = EXAMPLES.map(exampleCard);
  list.replaceChildren(...cards);
  const { answers } = await searchTexts(EXAMPLES, { k: PICTURES_OF_AN_EXAMPLE });
  for (const [at, { results = [], good_match: isGood }] of answers.entries()) {
    if (isGood === false) cards[at].remove(); // this gallery has nothing of the kind
    else cards[at].querySelector(".mosaic").append(...results.map(framed));
  }
  byId("examples").hidden ||= !list.children.length;
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
    release.counts?.images !== undefined && plural(release.counts.images, "picture", "pictures"),
    release.model && `encoder ${release.model}`,
    release.release && `release ${release.release}`,
  ];
  byId("release").textContent = parts.filter(Boolean).join(" · ");
}
