"""Pairs of images that are nearly the same: every item against all that come after it, in bounded slices.

Exact: the cosines of all pairs are computed, so a whole gallery costs n²/2 of them. It is done by the piece: a
page stops when it has enough pairs, or when its time is over, and says where the next one begins. Between two
slices searches take their turn.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import QueueFull
from service.search.columns import Mask
from service.search.delta import Floats
from service.search.gallery_view import GalleryView
from service.search.thread import Searcher

ROWS_PER_SLICE = 16_384
MOST_QUERIES = 256  # rows compared with all others at once
PRODUCTS_PER_BLOCK = 1 << 36  # numbers multiplied for them: a second or so of one core
MAX_NAMED = 100  # duplicates of one item
ROUNDING = 1e-6
"""Two unit vectors of one image may miss a cosine of 1 by so much."""


@dataclass(slots=True)
class Twins:
    """What looks like the item at `row`: rows behind it, best first, at most MAX_NAMED; and how many in all."""

    row: int
    count: int = 0
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    scores: Floats = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    def add(self, rows: NDArray[np.int64], scores: Floats) -> None:
        self.count += len(rows)
        all_rows, all_scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        best = np.argsort(-all_scores, kind="stable")[:MAX_NAMED]
        self.rows, self.scores = all_rows[best], all_scores[best]


@dataclass(frozen=True, slots=True)
class Page:
    """Items that have duplicates behind them, in order; `next_row` is None at the end."""

    found: list[Twins]
    next_row: int | None


class Scan:
    """Over the items that a request's view show."""

    def __init__(self, view: GalleryView, *, min_score: float) -> None:
        self._holdings = view
        self._least = min_score - ROUNDING
        self.row_count = view.base_count + view.delta.images.count
        self._shown: Mask = np.concatenate([~view.delta.hidden, view.delta.alive])
        numbers = max(1, self.row_count * view.release.images.dim)
        self._queries = max(1, min(MOST_QUERIES, PRODUCTS_PER_BLOCK // numbers))

    async def page(self, first_row: int, searcher: Searcher, *, limit: int, until: float) -> Page:
        """From a row on, until there are `limit` pairs or the time is `until` (time.perf_counter() seconds).

        At least one block of rows is compared. Raises QueueFull while another page is being computed.
        """
        if searcher.scanning.locked():
            raise QueueFull("duplicates are being looked for already: one at a time", retry_after_seconds=5)
        async with searcher.scanning:
            found: list[Twins] = []
            row, pairs = first_row, 0
            while row < self.row_count:
                stop = min(row + self._queries, self.row_count)
                twins = {number: Twins(number) for number in range(row, stop)}
                for low, high in self._slices(row):
                    await searcher.call(partial(self._compare, twins, low, high))
                for one in twins.values():
                    if one.count:
                        found.append(one)
                        pairs += min(one.count, MAX_NAMED)
                    if pairs >= limit:
                        return self._ended(found, one.row + 1)
                row = stop
                if time.perf_counter() > until:
                    break
            return self._ended(found, row)

    def _ended(self, found: list[Twins], row: int) -> Page:
        return Page(found, row if row < self.row_count else None)

    def _slices(self, start: int) -> Iterator[tuple[int, int]]:
        for low in range(start, self.row_count, ROWS_PER_SLICE):
            yield low, min(low + ROWS_PER_SLICE, self.row_count)

    def _compare(self, twins: dict[int, Twins], low: int, high: int) -> None:
        """Search thread only."""
        numbers = list(twins)
        scores = self._vectors(numbers[0], numbers[-1] + 1) @ self._vectors(low, high).T
        near = scores >= self._least
        near &= self._shown[numbers][:, np.newaxis] & self._shown[low:high]
        for place in np.flatnonzero(near.any(axis=1)).tolist():
            rows = low + np.flatnonzero(near[place])
            rows = rows[rows > numbers[place]]
            if len(rows):
                twins[numbers[place]].add(rows, scores[place, rows - low])

    def _vectors(self, low: int, high: int) -> Floats:
        """(high - low, dim)."""
        base = self._holdings.base_count
        parts = []
        if low < base:
            parts.append(self._holdings.release.images.matrix(low, min(high, base)))
        if high > base:
            parts.append(self._holdings.delta.images.vectors[max(low, base) - base : high - base])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
