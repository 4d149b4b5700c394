"""Exact search over a release and what is laid over it: the rows that may be found, and the best among them.

Rows are those of `GalleryView`. The release's are searched by faiss, the few added ones by NumPy; both give the
same inner products. The search thread's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.search.columns import Mask
from service.search.delta import AddedVectors, Floats
from service.search.filters import Condition, PayloadFilter
from service.search.gallery_view import GalleryView
from service.wire.schemas import Space

Rows = NDArray[np.int64]
ROUNDING = 1e-6  # by which a score found in one way may differ from the same found in another
MOST_TAKEN = 2048
"""Where few rows are left out, they are looked for too and dropped: on a GPU, faiss cannot leave any out."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Cosines, rows and what they are ordered by, best first: the cosine, less what is taken off for hubs."""

    scores: Floats
    rows: Rows
    ordering: Floats

    def part(self, which: slice | NDArray[np.bool_]) -> "Ranked":
        return Ranked(self.scores[which], self.rows[which], self.ordering[which])

    def without(self, row: int | None) -> "Ranked":
        if row is None:
            return self
        return self.part(self.rows != row)

    def at_least(self, score: float) -> "Ranked":
        return self.part(self.scores >= score)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be found of a space: rows of the release, ascending (None: all), and of the delta."""

    space: Space
    base: Rows | None
    added: Rows
    count: int  # of both


def allowed_rows(
    view: GalleryView, space: Space, condition: Condition | None, *, payload_filter: PayloadFilter
) -> Allowed:
    """What is shown and passes the condition; texts pass with at least one of their items."""
    delta = view.delta
    if condition is None:
        if space == "images":
            return _allowed(view, space, delta.shown_base_rows, delta.alive)
        return _allowed(view, space, *view.shown_texts)
    items = payload_filter.mask(condition) & ~delta.hidden
    added = delta.alive & delta.payload_filter.mask(condition) if len(delta.alive) else delta.alive
    if space == "images":
        return _allowed(view, space, np.flatnonzero(items), added)
    texts, added_texts = view.texts_of(items, added)
    return _allowed(view, space, None if texts is None else np.flatnonzero(texts), added_texts)


def _allowed(view: GalleryView, space: Space, base: Rows | None, added: Mask) -> Allowed:
    rows = np.flatnonzero(added)
    whole = view.base_count if space == "images" else view.base_text_count
    return Allowed(space, base, rows, len(rows) + (whole if base is None else len(base)))


class Ranking:
    """The order of the allowed rows for one query (dim,)."""

    def __init__(self, view: GalleryView, allowed: Allowed, *, vector: Floats, corrected: bool) -> None:
        images = allowed.space == "images"
        self._index = view.release.images if images else view.release.texts
        self._layer: AddedVectors = view.delta.images if images else view.delta.texts.vectors
        self._allowed = allowed
        self._query = vector
        self._base_count = len(self._index)
        self._penalties = self._index.penalties if corrected else None

    @property
    def by_cosine(self) -> bool:
        """Whether the order is that of the cosines themselves."""
        return self._penalties is None

    def best(self, reach: int) -> Ranked:
        """The first `reach` rows; fewer where fewer are allowed.

        Rows that are equally good come in the order of their numbers, as copies of an image do: a longer list
        begins with the shorter one, and pages neither repeat nor skip.
        """
        reach = max(1, min(reach, self._allowed.count))
        ranked, keys = self._in_order(*self._best_of_release(reach + 1))
        if len(keys) > reach and keys[reach] == keys[reach - 1]:  # faiss leaves out any of those that are equal
            ranked, _ = self._in_order(*self._at_least(float(-keys[reach]) - ROUNDING, corrected=True))
        return ranked.part(slice(reach))

    def within(self, score: float) -> Ranked:
        """All rows of at least this cosine."""
        ranked, _ = self._in_order(*self._at_least(score, corrected=False))
        return ranked.at_least(score)

    def _best_of_release(self, reach: int) -> tuple[Floats, Rows]:
        """Cosines and rows, in the order of the rows."""
        among = self._allowed.base
        spare = 0 if among is None else len(self._index) - len(among)
        if among is not None and reach + spare > MOST_TAKEN:
            scores, rows = self._searched(reach, among)
        else:
            scores, rows = self._searched(reach + spare, None)
            if among is not None:
                kept = _are_in(rows, among)
                scores, rows = scores[kept], rows[kept]
        order = np.argsort(rows)
        return scores[order], rows[order]

    def _searched(self, reach: int, among: Rows | None) -> tuple[Floats, Rows]:
        query, corrected = self._query[None], not self.by_cosine
        scores, rows = self._index.search(query, reach, corrected=corrected, among=among)
        found = rows[0] >= 0
        return scores[0][found], rows[0][found]

    def _at_least(self, score: float, *, corrected: bool) -> tuple[Floats, Rows]:
        """Cosines and rows of the release, in the order of the rows; `corrected`: of so much less penalty."""
        (found,) = self._index.within(
            self._query[None], score, corrected=corrected and not self.by_cosine, among=self._allowed.base
        )
        return found

    def _in_order(self, scores: Floats, rows: Rows) -> tuple[Ranked, Floats]:
        """With the added rows, all of them, by cosine less penalty; and the negative of that for each."""
        penalties = None if self._penalties is None else self._penalties[rows]
        added = self._allowed.added
        if len(added):
            layer = self._layer
            vectors = layer.vectors if len(added) == layer.count else layer.vectors[added]
            scores = np.concatenate([scores, vectors @ self._query])
            rows = np.concatenate([rows, self._base_count + added])
            if penalties is not None:
                penalties = np.concatenate([penalties, layer.penalties[added]])
        keys = -scores if penalties is None else penalties - scores
        order = np.argsort(keys, kind="stable")
        return Ranked(scores[order], rows[order], -keys[order]), keys[order]


def _are_in(rows: Rows, among: Rows) -> Mask:
    """Which of the rows are among others, which ascend; many times quicker than `np.isin` for a few of many."""
    if not len(among):
        return np.zeros(len(rows), dtype=np.bool_)
    places = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    found: Mask = among[places] == rows
    return found
