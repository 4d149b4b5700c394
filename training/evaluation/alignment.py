"""Why captions score their own image no higher than any other: the towers, the pairs, or a foreign domain.

Three signs, none of which asks for a caption to score its own image:

likeness    whether images that are alike have captions that are alike. Each tower compares within itself: right
            pairs show even where the towers were never trained together, and wrong ones even where they were
decisive    whether captions have a clear favourite among the images, whichever it is: only towers that were
            trained together, on images and words like these, have one
known       whether the pairs of the bundle's own query bank score each other: towers that were trained together

Measured with the default encoder: likeness 84 and decisive 0.6 on Flickr8k, 1.0 and 0.6 with the captions of
the next photo; 9 and 0.2 on screenshots with their sentences, −0.3 with those of the next; 18 and 0.0 on photos
with Czech captions, 1 and 0.1 on screenshots with Chinese ones.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from encoders.query_bank import QueryBank
from training.evaluation.ranks import Doubles, Floats, Ints

MOST_IMAGES = 512
PERMUTATIONS = 40
LIKENESS = 4.0
"""Standard deviations of likeness between images and captions paired at random."""
DECISIVE = 0.3
KNOWN_MARGIN = 0.05


class Alignment(BaseModel):
    """How images and captions lie to each other, whoever belongs to whom.

    likeness: in standard deviations of random pairings. decisive: best score of a caption above the best of as
    many normal draws, in deviations of its scores. known_margin: of the bank's pairs, mean cosine above that of
    any image and text; None where the bank has no pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    likeness: float
    decisive: float
    known_margin: float | None = None

    @property
    def pairs_are_right(self) -> bool:
        return self.likeness >= LIKENESS

    @property
    def towers_agree(self) -> bool:
        """Whether the towers are known to have been trained together."""
        return (self.known_margin or 0.0) >= KNOWN_MARGIN or self.decisive >= DECISIVE


def measure_alignment(
    image_vectors: Floats, caption_vectors: Floats, *, caption_image: Ints, bank: QueryBank | None = None
) -> Alignment:
    """Of unit rows (n, d) and (m, d); caption_image (m,) is the row of each caption's image."""
    rng = np.random.default_rng(0)
    asked = np.unique(caption_image)
    kept = np.sort(rng.permutation(asked)[:MOST_IMAGES])
    images = image_vectors[kept].astype(np.float64)
    told = np.isin(caption_image, kept)
    captions, owner = caption_vectors[told].astype(np.float64), np.searchsorted(kept, caption_image[told])
    texts = np.zeros_like(images)
    np.add.at(texts, owner, captions)
    return Alignment(
        likeness=_likeness(images, texts, rng),
        decisive=_decisive(images, captions, rng),
        known_margin=_known_margin(bank),
    )


def explain(alignment: Alignment) -> str:
    """The likely cause, what speaks for it, and what to do."""
    right = "The pairs are right (images that are alike have captions that are alike)"
    if alignment.pairs_are_right and alignment.towers_agree:
        return (
            f"{right}, and the towers agree on what they know: this domain is foreign to them. Adapt the "
            "bundle, or train it on pairs of this kind"
        )
    if alignment.pairs_are_right:
        return (
            f"{right}: the towers are not trained together, or this domain is foreign to them. Evaluate on "
            "pairs of the kind they were trained on to tell"
        )
    if alignment.decisive >= DECISIVE:
        return (
            "Captions find images, but not their own, and images that are alike have captions that are not: "
            "captions and images are paired wrongly. Look for a shifted or shuffled column"
        )
    causes = "" if alignment.towers_agree else "the towers are not trained together, "
    return (
        f"Images that are alike have captions that are not, and no caption has a favourite: {causes}captions "
        "and images are paired wrongly, or images or language are foreign to the towers. Look at some pairs to "
        "tell"
    )


def _likeness(images: Doubles, texts: Doubles, rng: np.random.Generator) -> float:
    """Correlation of cosines between images with those between their texts, against pairs at random."""
    if len(images) < 3:
        return 0.0
    apart = np.triu_indices(len(images), 1)
    among_images, among_texts = (_cosines(rows) for rows in (images, texts))
    wanted = _standard(among_images[apart])

    def correlation(order: Ints) -> float:
        return float(wanted @ _standard(among_texts[np.ix_(order, order)][apart])) / len(wanted)

    drawn = np.array([correlation(rng.permutation(len(images))) for _ in range(PERMUTATIONS)])
    found = correlation(np.arange(len(images)))
    return float((found - drawn.mean()) / max(float(drawn.std()), 1e-9)) if found else 0.0


def _decisive(images: Doubles, captions: Doubles, rng: np.random.Generator) -> float:
    scores = captions @ images.T
    scores -= scores.mean(axis=0)  # an image that stands near every caption is nobody's favourite
    deviation = np.maximum(scores.std(axis=1), 1e-9)
    best = (scores.max(axis=1) - scores.mean(axis=1)) / deviation
    unrelated = rng.standard_normal((2000, len(images))).max(axis=1)
    return float(best.mean() - unrelated.mean())


def _known_margin(bank: QueryBank | None) -> float | None:
    """Row by row: `training bank` keeps images and captions in pairs; a log of queries has no images."""
    if bank is None or len(bank.rows) < 2 or len(bank.rows["images"]) != len(bank.rows["texts"]):
        return None
    images, texts = bank.rows["images"], bank.rows["texts"]
    matched = float(np.einsum("nd,nd->n", images, texts).mean())
    return matched - float(images.mean(axis=0) @ texts.mean(axis=0))


def _cosines(rows: Doubles) -> Doubles:
    """(n, n), about the mean: what all have in common tells none from another."""
    centred = rows - rows.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    found: Doubles = unit @ unit.T
    return found


def _standard(values: Doubles) -> Doubles:
    centred: Doubles = (values - values.mean()) / max(float(values.std()), 1e-12)
    return centred
