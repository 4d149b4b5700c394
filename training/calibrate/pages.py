"""First pages to fit a calibration on: what queries find in galleries of many sizes, and what of it is right.

Everything is in scores as hits are ordered by: cosines less what is taken off for hubs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import BankItems, background_numbers, background_rows, bank_numbers
from training.evaluation.short_queries import Ask
from training.short_queries.draw import Mentions, draw
from training.short_queries.phrases import Phrase

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PAGE = 10
"""Hits that a relevance is fitted and measured on: the first page."""
FIRST_HITS = 5
PAIR_SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
WORD_SIZES = {80: 6, 250: 2, 640: 1, 2000: 1}
"""Sizes of galleries for short queries, and how many of each are drawn from a larger set."""
WORDS_PER_GALLERY = 200
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Pages:
    """The first pages of q queries in galleries of one size, best hit first.

    scores (q, PAGE), NaN beyond the last hit; known (q, PAGE): whether it is known if a hit is right; right
    (q, PAGE) and none where unknown; present (q,): whether the gallery holds what is asked; numbers (q, 3) of
    the background, (q, 6) with the bank's; cosine (q,) of the nearest item; group (q,): what stays together in
    a fold; share: of one gallery's weight, so that several drawn of a size count as one.
    """

    scores: Doubles
    known: Bools
    right: Bools
    present: Bools
    numbers: Doubles
    cosine: Doubles
    group: Ints
    gallery_size: int
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.scores)

    def part(self, rows: Bools) -> "Pages":
        return Pages(
            self.scores[rows],
            self.known[rows],
            self.right[rows],
            self.present[rows],
            self.numbers[rows],
            self.cosine[rows],
            self.group[rows],
            self.gallery_size,
            self.share,
        )

    @property
    def first_right(self) -> Bools:
        return self.right[:, 0]

    @property
    def right_in_five(self) -> Bools:
        return np.asarray(self.right[:, :FIRST_HITS].any(axis=1), dtype=np.bool_)

    @property
    def query_weight(self) -> Doubles:
        """(q,): present and absent queries have half of the gallery's weight each, where there are both."""
        of_present, of_absent = max(1, self.present.sum()), max(1, (~self.present).sum())
        weight = np.where(self.present, 0.5 / of_present, 0.5 / of_absent)
        return np.asarray(self.share * weight, dtype=np.float64)

    @property
    def hit_weight(self) -> Doubles:
        """(q, PAGE), none where truth is unknown; hits of present and of absent queries have half each."""
        weight = np.zeros(self.known.shape)
        for rows in (self.present, ~self.present):
            known = self.known & rows[:, np.newaxis]
            weight[known] = 0.5 * self.share / max(1, known.sum())
        return weight


@dataclass(frozen=True, eq=False)
class Gallery:
    """Items (n, d) as they are searched: what each loses for being a hub (n,), and the bank's items."""

    items: Floats
    penalties: Floats
    bank: BankItems | None

    def part(self, rows: Ints) -> "Gallery":
        return Gallery(self.items[rows], self.penalties[rows], self.bank)


@dataclass(frozen=True, eq=False)
class Queries:
    """vectors (q, d) that ask; `own[i]` are the rows of the gallery that query i asks for, if any.

    `allowed` (q, items): which items may stand in the gallery of each query; None: all.
    """

    vectors: Floats
    own: Sequence[Ints]
    group: Ints
    allowed: Bools | None = None

    def part(self, rows: Ints) -> "Queries":
        return Queries(
            self.vectors[rows],
            [self.own[int(row)] for row in rows],
            self.group[rows],
            None if self.allowed is None else self.allowed[rows],
        )


def prior_of(vectors: Floats, gallery: Gallery) -> tuple[float, float]:
    """Mean and spread that a query's scores have on average."""
    rows = background_rows(len(gallery.items))
    asked = vectors[background_rows(len(vectors))]
    scores = asked @ gallery.items[rows].T - gallery.penalties[rows]
    return float(scores.mean()), max(1e-6, float(scores.std(axis=1).mean()))


def pair_sizes(items: int) -> tuple[int, ...]:
    """The gallery sizes to fit pairs at: a few small ones, and the whole."""
    return (*(size for size in PAIR_SIZES if size < items), items)


def pair_pages(
    queries: Queries, gallery: Gallery, *, size: int, prior: tuple[float, float], rng: np.random.Generator
) -> Pages:
    """Each query in a random gallery of at most `size` of its allowed items, an own one among them if any.

    Known are the own items of a query that has some, and all hits of one that has none: other items may fit as
    well, and nobody was asked.
    """
    found = []
    for query, cosines in enumerate(_products(queries.vectors, gallery.items)):
        own = queries.own[query]
        rows = _rows(queries, query, len(gallery.items), size, rng)
        scores = cosines[rows] - gallery.penalties[rows]
        page = best_rows(scores)
        is_own = _is_one_of(rows[page], own)
        sample = scores[background_rows(len(scores))]
        numbers = background_numbers(sample[None], gallery_size=[len(scores)], prior=prior)[0]
        known = is_own if len(own) else np.ones(len(page), dtype=np.bool_)
        found.append((_padded(scores[page]), _padded(known), _padded(is_own), numbers, cosines[rows].max()))
    present = np.array([len(own) > 0 for own in queries.own])
    return _pages(found, queries.vectors, gallery, present=present, group=queries.group, size=size)


def word_galleries(images: int) -> Iterator[tuple[int, int, float]]:
    """(size, number of the draw, share) of galleries for short queries: several small ones, and the whole."""
    for size, draws in WORD_SIZES.items():
        if size < images:
            yield from ((size, draw, 1 / draws) for draw in range(draws))
    yield images, 0, 1.0


def word_pages(
    gallery: Gallery, mentions: Mentions, ask: Ask, *, prior: tuple[float, float], seed: str
) -> Pages | None:
    """Short queries that the gallery holds and that it does not; None where there are none of one sort."""
    drawn = draw(mentions, count=WORDS_PER_GALLERY, seed=seed)
    if not (drawn.present and drawn.absent):
        return None
    return pages_of_words(gallery, mentions, drawn.present, drawn.absent, ask, prior=prior)


def pages_of_words(
    gallery: Gallery,
    mentions: Mentions,
    present: Sequence[Phrase],
    absent: Sequence[Phrase],
    ask: Ask,
    *,
    prior: tuple[float, float],
) -> Pages:
    """What these phrases find; right is what a caption says, so that every hit is known."""
    phrases = [*present, *absent]
    vectors = ask(phrases)
    background = background_rows(len(gallery.items))
    found = []
    for phrase, cosines in zip(phrases, _products(vectors, gallery.items), strict=True):
        scores = cosines - gallery.penalties
        page = best_rows(scores)
        right = np.array([phrase in mentions.of_image[row] for row in page], dtype=np.bool_)
        numbers = background_numbers(scores[background][None], gallery_size=[len(scores)], prior=prior)[0]
        found.append(
            (_padded(scores[page]), _padded(np.ones_like(right)), _padded(right), numbers, cosines.max())
        )
    present_rows = np.arange(len(phrases)) < len(present)
    group = np.array([phrase.number for phrase in phrases], dtype=np.int64)
    return _pages(found, vectors, gallery, present=present_rows, group=group, size=len(gallery.items))


def best_rows(scores: Doubles) -> Ints:
    """The rows (PAGE,) of the best scores (n,), best first; equal ones in the order of their rows."""
    kept = np.argpartition(-scores, PAGE)[:PAGE] if len(scores) > PAGE else np.arange(len(scores))
    return kept[np.lexsort((kept, -scores[kept]))].astype(np.int64)


def _pages(
    found: Sequence[tuple[Doubles, Doubles, Doubles, Doubles, float]],
    vectors: Floats,
    gallery: Gallery,
    *,
    present: Bools,
    group: Ints,
    size: int,
) -> Pages:
    """Pages of (scores, known, right, background numbers, best cosine) of each query."""
    scores, known, right, numbers, cosine = (np.array(each) for each in zip(*found, strict=True))
    return Pages(
        scores=scores,
        known=known.astype(np.bool_),
        right=right.astype(np.bool_),
        present=present,
        numbers=_with_bank(numbers, vectors, gallery.bank),
        cosine=cosine,
        group=group,
        gallery_size=size,
    )


def _products(vectors: Floats, items: Floats) -> Iterator[Doubles]:
    """(items,) of each of the vectors; the products of all of them at once would not fit."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield from (vectors[start : start + _ROWS_AT_ONCE] @ items.T).astype(np.float64)


def _with_bank(numbers: Doubles, vectors: Floats, bank: BankItems | None) -> Doubles:
    if bank is None:
        return numbers
    blocks = (vectors[start : start + _ROWS_AT_ONCE] for start in range(0, len(vectors), _ROWS_AT_ONCE))
    return np.column_stack([numbers, np.concatenate([bank_numbers(bank.scores(block)) for block in blocks])])


def _rows(queries: Queries, query: int, items: int, size: int, rng: np.random.Generator) -> Ints:
    allowed = np.arange(items) if queries.allowed is None else np.flatnonzero(queries.allowed[query])
    own = queries.own[query]
    rows = allowed if size >= len(allowed) else rng.choice(allowed, size=size, replace=False)
    if len(own) and not _is_one_of(rows, own).any():
        rows[0] = rng.choice(own)
    return np.asarray(rows, dtype=np.int64)


def _padded(values: NDArray[np.generic]) -> Doubles:
    page = np.full(PAGE, np.nan if values.dtype.kind == "f" else 0.0)
    page[: len(values)] = values
    return page


def _is_one_of(rows: Ints, wanted: Ints) -> Bools:
    """(rows,); `wanted` are a handful, for which this is many times faster than np.isin."""
    found: Bools = (rows[:, None] == wanted).any(axis=1)
    return found
