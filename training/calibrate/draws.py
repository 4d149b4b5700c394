"""Answers to draw a calibration from: queries in galleries of many sizes, with and without what they ask for.

From cosines alone: knows no model, no words, no files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import background_features, background_rows

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

PAGE = 10
"""Hits that a relevance is fitted and measured on: the first page."""
SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers from galleries of one size. `group` (q,) numbers the queries that stay together in a fold.

    best (q,) cosine of the first hit; background (q, 3) as encoders.calibration has it; hits (q, PAGE) the
    cosines whose truth is known: of a present query its own items on the page, of an absent one all; else NaN.
    """

    best: Doubles
    background: Doubles
    hits: Doubles
    group: Ints

    def part(self, rows: NDArray[np.bool_]) -> "Answers":
        return Answers(self.best[rows], self.background[rows], self.hits[rows], self.group[rows])


@dataclass(frozen=True, eq=False)
class Queries:
    """vectors (q, d) that ask; `own[i]` are the rows of the gallery that query i asks for, if any.

    `allowed` (q, items): which items may stand in the gallery of each query; None: all.
    """

    vectors: NDArray[np.float32]
    own: Sequence[Ints]
    group: Ints
    allowed: NDArray[np.bool_] | None = None

    def part(self, rows: Ints) -> "Queries":
        return Queries(
            self.vectors[rows],
            [self.own[int(row)] for row in rows],
            self.group[rows],
            None if self.allowed is None else self.allowed[rows],
        )


def prior_of(queries: Queries, items: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and spread that a query's cosines have on average."""
    sample = items[background_rows(len(items))]
    cosines = queries.vectors[background_rows(len(queries.vectors))] @ sample.T
    return float(cosines.mean()), max(1e-6, float(cosines.std(axis=1).mean()))


def sizes_up_to(items: int) -> tuple[int, ...]:
    """The gallery sizes to fit at: a few small ones, and the whole."""
    return (*(size for size in SIZES if size < items), items)


def draw_answers(
    queries: Queries,
    items: NDArray[np.float32],
    *,
    size: int,
    prior: tuple[float, float],
    rng: np.random.Generator,
) -> Answers:
    """Each query in a random gallery of at most `size` of its allowed items, an own one among them if any."""
    best, background, hits = [], [], []
    for query, cosines in enumerate(_cosines(queries.vectors, items)):
        own, gallery = queries.own[query], _gallery(queries, query, len(items), size, rng)
        scores = cosines[gallery]
        sample = scores[background_rows(len(scores))]
        best.append(scores.max())
        background.append(background_features(sample[None], gallery_size=[len(scores)], prior=prior)[0])
        hits.append(_known_hits(scores, _is_one_of(gallery, own), has_own=len(own) > 0))
    return Answers(np.array(best), np.array(background), np.array(hits), queries.group)


def _cosines(vectors: NDArray[np.float32], items: NDArray[np.float32]) -> Iterator[Doubles]:
    """(items,) of each of the vectors; the products of all of them at once would not fit."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield from (vectors[start : start + _ROWS_AT_ONCE] @ items.T).astype(np.float64)


def _gallery(queries: Queries, query: int, items: int, size: int, rng: np.random.Generator) -> Ints:
    allowed = np.arange(items) if queries.allowed is None else np.flatnonzero(queries.allowed[query])
    own = queries.own[query]
    gallery = allowed if size >= len(allowed) else rng.choice(allowed, size=size, replace=False)
    if len(own) and not _is_one_of(gallery, own).any():
        gallery[0] = rng.choice(own)
    return np.asarray(gallery, dtype=np.int64)


def _known_hits(scores: Doubles, is_own: NDArray[np.bool_], *, has_own: bool) -> Doubles:
    """(PAGE,) cosines of the page's hits whose truth is known, NaN elsewhere."""
    known = np.full(PAGE, np.nan)
    page = np.argpartition(-scores, PAGE)[:PAGE] if len(scores) > PAGE else np.arange(len(scores))
    if has_own:
        found = page[is_own[page]]
        known[: len(found)] = scores[found]
    else:
        known[: len(page)] = scores[page]
    return known


def _is_one_of(rows: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """(rows,); `wanted` are a handful, for which this is many times faster than np.isin."""
    found: NDArray[np.bool_] = (rows[:, None] == wanted).any(axis=1)
    return found
