"""Fit relevance to one gallery by the gallery's own texts: nouns that they name or not, asked of its images.

The bundle's calibration was fitted on other images. Where a gallery has texts, they tell how it holds here:
every noun of the bundle's lexicon is asked, the first hits of each are right where their own texts name it, and
two numbers are fitted to that (Platt 1999), drawn towards no change by a ridge:

    logit' = (1 + slope) · logit + shift

Hits whose texts name no noun at all say nothing and are left out: an image without a title is not wrong.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import (
    BankItems,
    Doubles,
    Floats,
    GalleryFit,
    SearchCalibration,
    background_numbers,
    bank_numbers,
    logistic,
)
from encoders.lexicon import Lexicon

LEAST_QUERIES = 30
"""Nouns that the texts name, and nouns that they do not: with fewer of either nothing is fitted."""
LEAST_DESCRIBED = 0.5
"""The share of items whose texts name a noun."""
RIDGE = (0.02, 0.002)
"""Of slope and shift, beside a mean over hits."""
_STEPS = 50

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Ask = Callable[[Sequence[str]], Floats]
"""Nouns to unit rows (q, d), asked as short queries are."""
Find = Callable[[Floats], tuple[Floats, Ints]]
"""Queries (q, d) to the scores and rows (q, k) of their first hits, best first."""


@dataclass(frozen=True, eq=False)
class NamedNouns:
    """Which of the nouns that people ask for the texts of each item (n) name."""

    rows: dict[str, Ints]
    """Noun → the items whose texts name it, ascending; [] for a noun that none names."""
    described: Bools
    """(n,): whether its texts name any noun."""

    @classmethod
    def of(cls, lexicon: Lexicon, texts: Iterable[tuple[str, Iterable[int]]], *, items: int) -> "NamedNouns":
        """`texts`: each with the rows of the items that it belongs to."""
        rows: dict[str, set[int]] = {noun: set() for noun in lexicon.asked_for}
        described = np.zeros(items, dtype=np.bool_)
        for text, own in texts:
            if named := lexicon.mentioned(text):
                found = list(own)
                described[found] = True
                for noun in named & rows.keys():
                    rows[noun].update(found)
        return cls({noun: np.array(sorted(found), dtype=np.int64) for noun, found in rows.items()}, described)


@dataclass(frozen=True, eq=False)
class SearchedGallery:
    """How a gallery of `size` items is searched: its first hits, a sample's rows (m, d) and penalties (m,)."""

    size: int
    find: Find
    sample: Floats
    sample_penalties: Floats
    bank: BankItems | None


def fit_gallery(
    calibration: SearchCalibration,
    named: NamedNouns,
    gallery: SearchedGallery,
    ask: Ask,
    *,
    nouns: Sequence[str] | None = None,
) -> GalleryFit | None:
    """What the texts teach of relevance here; None where they name too little. `nouns`: only of these."""
    asked = list(named.rows) if nouns is None else list(nouns)
    present = np.array([len(named.rows[noun]) > 0 for noun in asked], dtype=np.bool_)
    if min(present.sum(), (~present).sum()) < LEAST_QUERIES or named.described.mean() < LEAST_DESCRIBED:
        return None
    queries = ask(asked)
    scores, rows = gallery.find(queries)
    right = np.stack([np.isin(hits, named.rows[noun]) for noun, hits in zip(asked, rows, strict=True)])
    logit = _logit(calibration, gallery, queries, scores)
    return fit_platt(logit, right, known=named.described[rows], present=present)


def fit_platt(logit: Doubles, right: Bools, *, known: Bools, present: Bools) -> GalleryFit:
    """Slope and shift for logits (q, k) of hits that are right or not (q, k), where that is known (q, k).

    Present and absent queries (q,) have half of all weight each.
    """
    weight = np.zeros(logit.shape)
    for kind in (present, ~present):
        hits = known & kind[:, np.newaxis]
        weight[hits] = 0.5 / max(1, hits.sum())
    start, truth = logit[known], right[known].astype(np.float64)
    found = _minimum(start, truth, weight[known] / weight.sum())
    slope = max(float(found[0]), _LEAST_SLOPE)
    return GalleryFit(
        slope=slope,
        shift=float(found[1]),
        present_queries=int(present.sum()),
        absent_queries=int((~present).sum()),
    )


_LEAST_SLOPE = -0.95  # relevance must rise with the score whatever the texts say


def _minimum(start: Doubles, truth: Doubles, share: Doubles) -> Doubles:
    """(slope, shift) of the least loss, which is convex: Newton's steps, halved while they overshoot."""
    rows, ridge = np.column_stack([start, np.ones(len(start))]), np.array(RIDGE)

    def loss(found: Doubles) -> float:
        logit = start + rows @ found
        return float(share @ (np.logaddexp(0.0, logit) - truth * logit) + ridge @ found**2 / 2)

    found = np.zeros(2)
    for _ in range(_STEPS):
        chance = logistic(start + rows @ found)
        gradient = rows.T @ (share * (chance - truth)) + ridge * found
        curvature = (rows * (share * chance * (1 - chance))[:, np.newaxis]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        while loss(found - step) > loss(found) and np.abs(step).max() > _SMALL_STEP:
            step = step / 2
        found = found - step
        if np.abs(step).max() < _SMALL_STEP:
            break
    return found


_SMALL_STEP = 1e-9


def _logit(
    calibration: SearchCalibration, gallery: SearchedGallery, queries: Floats, scores: Floats
) -> Doubles:
    background = (queries @ gallery.sample.T - gallery.sample_penalties).astype(np.float64)
    numbers = background_numbers(
        background,
        gallery_size=[gallery.size] * len(queries),
        prior=(calibration.prior_mean, calibration.prior_spread),
    )
    if calibration.weights.bank is not None:
        if gallery.bank is None:
            raise ValueError("this calibration looks at the bundle's query bank, and there is none")
        numbers = np.concatenate([numbers, bank_numbers(gallery.bank.scores(queries))], axis=1)
    return calibration.weights.logit(scores, numbers)
