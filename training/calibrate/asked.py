"""What held-out sets can be asked: short queries, captions and images with an answer there, and without one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import SEARCHED, BankItems, Search
from encoders.modalities import Modality
from encoders.query_bank import QueryBank
from training.calibrate.absent import AbsentQuery, disjoint_captions, without_present
from training.calibrate.pages import (
    Gallery,
    Pages,
    Queries,
    pair_pages,
    pair_sizes,
    prior_of,
    word_galleries,
    word_pages,
)
from training.evaluation.embedding import EmbeddedPairs
from training.evaluation.short_queries import Ask, Encode
from training.short_queries.draw import Mentions, mentions_of

MINIMUM_ABSENT = 30
"""Queries about nothing in the set: fewer say little about where "nothing matches" begins."""
MINIMUM_IMAGES = 20
MOST_QUERIES = 1000
MOST_ITEMS = 10_000
DRAWS_OF_ABSENT = 5

_NOTHING = np.array([], dtype=np.int64)
Prior: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Asker:
    """How queries become vectors: `encode` texts as they are, `ask` short queries as the bundle asks them."""

    encode: Encode
    ask: Ask
    bank: QueryBank | None

    def gallery(self, items: NDArray[np.float32], searched: Modality) -> Gallery:
        penalties = (
            np.zeros(len(items), np.float32) if self.bank is None else self.bank.penalty(items, searched)
        )
        return Gallery(items, penalties, BankItems.of(self.bank, searched))


@dataclass(frozen=True, eq=False)
class AskedPairs:
    """One kind of search of a set: queries that have an answer in the gallery, and queries that have none."""

    gallery: Gallery
    present: Queries
    absent: Queries

    @property
    def prior(self) -> Prior:
        return prior_of(self.present.vectors, self.gallery)

    def pages(self, prior: Prior, rng: np.random.Generator) -> Iterator[Pages]:
        """Galleries of several sizes, the whole last."""
        for size in pair_sizes(len(self.gallery.items)):
            absent = self.absent
            if absent.allowed is None and size < len(self.gallery.items):
                absent = absent.part(np.tile(np.arange(len(absent.own)), DRAWS_OF_ABSENT))
            some = self._some_present(rng)
            queries = _both(some, absent, len(self.gallery.items))
            yield pair_pages(queries, self.gallery, size=size, prior=prior, rng=rng)

    def whole(self, prior: Prior) -> Pages:
        """Every query once, in the whole set."""
        queries = _both(self.present, self.absent, len(self.gallery.items))
        rng = np.random.default_rng(0)
        return pair_pages(queries, self.gallery, size=len(self.gallery.items), prior=prior, rng=rng)

    def _some_present(self, rng: np.random.Generator) -> Queries:
        count = len(self.present.own)
        if count <= MOST_QUERIES:
            return self.present
        return self.present.part(np.sort(rng.choice(count, size=MOST_QUERIES, replace=False)))


@dataclass(frozen=True, eq=False)
class AskedWords:
    """Short queries of a set, by what the captions of its images mention."""

    name: str
    gallery: Gallery
    mentions: Mentions
    ask: Ask
    bank: QueryBank | None

    @property
    def prior(self) -> Prior:
        phrases = sorted(self.mentions.counts())
        return prior_of(self.ask(phrases), self.gallery) if phrases else (0.0, 1e-6)

    def pages(self, prior: Prior, rng: np.random.Generator) -> Iterator[Pages]:
        """Galleries of several sizes, the whole last; those with too few queries of one sort are left out."""
        count = len(self.gallery.items)
        for size, draw, share in word_galleries(count):
            rows = np.sort(rng.choice(count, size=size, replace=False)) if size < count else np.arange(count)
            mentions = self.mentions.part(rows)
            found = word_pages(
                self.gallery.part(rows), mentions, self.ask, prior=prior, seed=f"{self.name} {size} {draw}"
            )
            if found is not None and min(found.present.sum(), (~found.present).sum()) >= MINIMUM_ABSENT:
                yield replace(found, share=share)


Asked: TypeAlias = AskedPairs | AskedWords


def searches_of(
    name: str, embedded: EmbeddedPairs, absent: Sequence[AbsentQuery], asker: Asker
) -> dict[Search, list[Asked]]:
    """The kinds of search that this set can calibrate; {} for fewer than MINIMUM_IMAGES images."""
    if len(embedded.image_ids) < MINIMUM_IMAGES:
        return {}
    found: dict[Search, list[Asked]] = {
        search: list(asked) for search, asked in pair_searches(embedded, absent, asker).items()
    }
    words = words_to_images(name, embedded, asker)
    if any(True for _ in words.pages((0.0, 1.0), np.random.default_rng(0))):
        found["words_to_image"] = [words]
    return found


def pair_searches(
    embedded: EmbeddedPairs, absent: Sequence[AbsentQuery], asker: Asker
) -> dict[Search, list[AskedPairs]]:
    """Captions and images, where enough of them can be asked of what the set does not show."""
    sentences = [*_listed_sentences(embedded, absent, asker), *_lonely_sentences(embedded, asker)]
    images = [*_images_to_texts(embedded, asker)]
    found: dict[Search, list[AskedPairs]] = {"sentence_to_image": sentences, "image_to_text": images}
    return {search: asked for search, asked in found.items() if asked}


def words_to_images(name: str, embedded: EmbeddedPairs, asker: Asker) -> AskedWords:
    gallery = asker.gallery(embedded.image_vectors, SEARCHED["words_to_image"])
    return AskedWords(name, gallery, mentions_of(embedded.captions_by_image()), asker.ask, asker.bank)


def _listed_sentences(
    embedded: EmbeddedPairs, absent: Sequence[AbsentQuery], asker: Asker
) -> Iterator[AskedPairs]:
    """Captions, and those listed captions of whose subject no caption speaks."""
    kept, _ = without_present(absent, embedded.captions)
    if len(kept) < MINIMUM_ABSENT:
        return
    vectors = asker.encode([query.caption for query in kept])
    yield AskedPairs(
        asker.gallery(embedded.image_vectors, "images"),
        _captions(embedded),
        Queries(vectors, [_NOTHING] * len(vectors), np.arange(len(vectors))),
    )


def _lonely_sentences(embedded: EmbeddedPairs, asker: Asker) -> Iterator[AskedPairs]:
    """Captions that have their image, and captions in galleries that share no content word with them."""
    images, captions = len(embedded.image_ids), len(embedded.captions)
    if captions > MOST_ITEMS:
        return
    allowed = disjoint_captions(embedded.captions, embedded.caption_image, images).T
    says_something = ~allowed[np.arange(captions), embedded.caption_image]
    rows = np.flatnonzero(says_something & (allowed.sum(axis=1) >= MINIMUM_IMAGES))
    if len(rows) < MINIMUM_ABSENT:
        return
    rows = rows[:: -(-len(rows) // MOST_QUERIES)]
    absent = Queries(
        embedded.caption_vectors[rows], [_NOTHING] * len(rows), embedded.caption_image[rows], allowed[rows]
    )
    yield AskedPairs(asker.gallery(embedded.image_vectors, "images"), _captions(embedded), absent)


def _images_to_texts(embedded: EmbeddedPairs, asker: Asker) -> Iterator[AskedPairs]:
    """Images that have their captions, and images in galleries of captions that share no word with theirs."""
    images, captions = len(embedded.image_ids), len(embedded.captions)
    if captions > MOST_ITEMS:
        return
    allowed = disjoint_captions(embedded.captions, embedded.caption_image, images)
    rows = np.flatnonzero(allowed.sum(axis=1) >= MINIMUM_IMAGES)
    if len(rows) < MINIMUM_ABSENT:
        return
    own = [np.flatnonzero(embedded.caption_image == image) for image in range(images)]
    yield AskedPairs(
        asker.gallery(embedded.caption_vectors, "texts"),
        Queries(embedded.image_vectors, own, np.arange(images)),
        Queries(embedded.image_vectors[rows], [_NOTHING] * len(rows), rows, allowed[rows]),
    )


def _captions(embedded: EmbeddedPairs) -> Queries:
    owner = embedded.caption_image
    return Queries(embedded.caption_vectors, [row[None] for row in owner], owner)


def _both(present: Queries, absent: Queries, items: int) -> Queries:
    """Present queries before absent ones; each in whatever gallery it is allowed."""
    allowed = None
    if absent.allowed is not None:
        allowed = np.concatenate([np.ones((len(present.own), items), dtype=np.bool_), absent.allowed])
    return Queries(
        np.concatenate([present.vectors, absent.vectors]),
        [*present.own, *absent.own],
        np.concatenate([present.group, absent.group]),
        allowed,
    )
