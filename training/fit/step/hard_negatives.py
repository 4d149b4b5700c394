"""Batches whose images are easily taken for each other: a share of each is drawn as neighbours of the rest.

An image's neighbours are those whose captions say nearly the same, by the text tower that a run begins with:
nothing here depends on what was learned since, so a run that resumes draws what it would have drawn. An epoch
sees the same images as it would without, in another order.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.fit.step.mixture import Example

NEIGHBOURS = 16
"""Of each image. One of them is drawn: the nearest alone is often a second image of the same thing."""
BLOCK_SCORES = 4 * 1024 * 1024


def nearest(vectors: NDArray[np.float32], count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """(n, min(count, n − 1)) rows of the nearest others by inner product, nearest first; unit rows (n, d).

    In blocks: memory does not grow with n².
    """
    kept = min(count, len(vectors) - 1)
    found = np.empty((len(vectors), kept), dtype=np.int64)
    rows = max(1, BLOCK_SCORES // max(1, len(vectors)))
    for start in range(0, len(vectors), rows):
        scores = vectors[start : start + rows] @ vectors.T
        own = np.arange(len(scores))
        scores[own, start + own] = -np.inf
        best = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[start : start + rows] = np.take_along_axis(best, order, axis=1)
    return found


def gathered(
    order: Sequence[Example], neighbours: NDArray[np.int64], *key: int, batch: int, share: float
) -> list[Example]:
    """The examples of an epoch in an order that puts neighbours into one batch; the same examples, as often.

    neighbours[i] are the numbers of the examples near number i. Of each batch, 1 − `share` are the next of
    `order`, the rest neighbours of those that the epoch has not shown yet, or the next of `order` where none is
    left. The key (seed, phase, epoch) draws which.
    """
    rng = np.random.default_rng([4, *key])
    by_number = {example.number: example for example in order}
    left = Counter(example.number for example in order)
    upcoming = iter([example.number for example in order])
    chosen: list[int] = []

    def following() -> int:
        return next(number for number in upcoming if left[number] > 0)

    while len(chosen) < len(order):
        size = min(batch, len(order) - len(chosen))
        seeds = []
        for _ in range(max(1, round(size * (1 - share)))):
            seeds.append(following())
            left[seeds[-1]] -= 1
        members = [*seeds]
        while len(members) < size:
            near = _unseen_neighbour(neighbours[seeds[int(rng.integers(len(seeds)))]], left, rng)
            members.append(following() if near is None else near)
            left[members[-1]] -= 1
        chosen += members
    return [by_number[number] for number in chosen]


def _unseen_neighbour(near: NDArray[np.int64], left: Counter[int], rng: np.random.Generator) -> int | None:
    unseen = [int(number) for number in near if left[int(number)] > 0]
    return unseen[int(rng.integers(len(unseen)))] if unseen else None
