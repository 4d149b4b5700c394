"""Which images and captions make up each batch: sources mixed by weight, drawn from seed, phase and epoch.

Nothing here depends on what was drawn before, so a run that resumes in the middle of an epoch sees exactly what
it would have seen.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import TwinlensError
from training.augmentation.augment import may_flip
from training.data.captions import normalise_caption
from training.data.pairs import CaptionedImage, MissingImage, PairSet
from training.errors import EmptyPairSet
from training.fit.recipe import Source
from training.fit.views.views import TrainingImage, image_digest


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its captions; `source` is its place in the recipe, `number` its own in the mixture."""

    image: TrainingImage
    captions: tuple[str, ...]
    source: int
    number: int


@dataclass(frozen=True)
class Draw:
    """One pair of a batch. Equal caption ids are equal captions, after normalisation.

    `caption` is what is shown, words left out; the id is that of the whole caption.
    """

    example: Example
    caption: str
    caption_id: int
    view: int


@dataclass(frozen=True)
class Mixture:
    """All examples of all sources, and how to draw from them."""

    examples: tuple[tuple[Example, ...], ...]
    sources: tuple[Source, ...]
    broken: tuple[MissingImage, ...]

    def epoch(self, *key: int) -> list[Example]:
        """The examples of one epoch in random order; `key` is (seed, phase, epoch)."""
        rng = np.random.default_rng([0, *key])
        chosen: list[Example] = []
        for source, examples in zip(self.sources, self.examples, strict=True):
            whole, part = divmod(round(source.weight * len(examples)), len(examples))
            chosen += list(examples) * whole
            chosen += [examples[index] for index in rng.permutation(len(examples))[:part]]
        return [chosen[index] for index in rng.permutation(len(chosen))]

    def draw(self, examples: Sequence[Example], *key: int, views: int, captions: int = 1) -> list[Draw]:
        """`captions` draws an example, one after the other, of one view; `key` is (seed, phase, epoch, step).

        Views are 0 to views − 1, 0 being the plain image and caption; views = 0 gives one never given before.
        An image with fewer captions repeats them: every process's share of a batch is of one size.
        """
        rng = np.random.default_rng([1, *key])
        return [draw for example in examples for draw in self._draw_one(example, views, captions, rng)]

    def shown(self, example: Example, caption: str, view: int) -> str:
        """The caption as `view` shows it: some of its words left out, always the same."""
        return _without_words(caption, self.sources[example.source].word_dropout, view)

    def _draw_one(self, example: Example, views: int, captions: int, rng: np.random.Generator) -> list[Draw]:
        view = int(rng.integers(views)) if views else 1 + int(rng.integers(2**31 - 2))
        order = rng.permutation(len(example.captions))
        chosen = [example.captions[order[place % len(order)]] for place in range(captions)]
        return [
            Draw(example, self.shown(example, caption, view), caption_id(caption), view) for caption in chosen
        ]


def build_mixture(
    sources: Sequence[Source],
    sets: Sequence[PairSet],
    *,
    threads: int = 2,
    on_image: Callable[[], None] = lambda: None,
) -> Mixture:
    """Decode every image once; those that do not decode are left out and named.

    Raises EmptyPairSet when a source has no usable image.
    """
    examples: list[tuple[Example, ...]] = []
    broken: list[MissingImage] = []
    with ThreadPoolExecutor(threads) as pool:
        for place, pair_set in enumerate(sets):
            first = sum(map(len, examples))
            usable: list[Example] = []
            for image, found in zip(pair_set.images, pool.map(_image, pair_set.images), strict=True):
                on_image()
                if isinstance(found, MissingImage):
                    broken.append(found)
                else:
                    usable.append(Example(found, image.captions, place, first + len(usable)))
            if not usable:
                raise EmptyPairSet(f"{pair_set.spec}: none of its {len(pair_set.images)} images decodes")
            examples.append(tuple(usable))
    return Mixture(tuple(examples), tuple(sources), tuple(broken))


def _image(image: CaptionedImage) -> TrainingImage | MissingImage:
    try:
        return TrainingImage(image.source, image_digest(image.source), may_flip(image.captions))
    except (TwinlensError, OSError) as error:
        return MissingImage(image.image_id, str(error))


def image_ids(draws: Sequence[Draw]) -> NDArray[np.int64]:
    """(n,) equal where images are, by content: a copy under another name is the same image."""
    return np.array([int.from_bytes(draw.example.image.digest[:8], "big", signed=True) for draw in draws])


def distinct_views(draws: Sequence[Draw]) -> tuple[list[Draw], NDArray[np.int64]]:
    """One draw of each (example, view), in order of appearance, and for every draw its place among them.

    A copy of an image under other captions may be augmented otherwise, or must not be mirrored.
    """
    places: dict[tuple[int, int], int] = {}
    distinct: list[Draw] = []
    rows = np.empty(len(draws), dtype=np.int64)
    for number, draw in enumerate(draws):
        key = (draw.example.number, draw.view)
        if key not in places:
            places[key] = len(distinct)
            distinct.append(draw)
        rows[number] = places[key]
    return distinct, rows


def caption_ids(draws: Sequence[Draw]) -> NDArray[np.int64]:
    return np.array([draw.caption_id for draw in draws], dtype=np.int64)


def caption_id(caption: str) -> int:
    """A number of 64 bits, equal for equal captions after normalisation, and on every process unlike `hash`."""
    digest = hashlib.sha256(normalise_caption(caption).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _without_words(caption: str, probability: float, view: int) -> str:
    words = caption.split()
    if probability == 0 or view == 0 or len(words) < 3:
        return caption
    rng = np.random.default_rng([2, view, caption_id(caption) % 2**63])
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= probability]
    return " ".join(kept) if kept else caption
