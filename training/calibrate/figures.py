"""How well relevance and verdicts hold: reliability, calibration error, and how often "nothing" is right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import Figures, Interval, ReliabilityBin
from training.calibrate.pages import Pages

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
BINS = 15
SAMPLES = 200


@dataclass(frozen=True, eq=False)
class Said:
    """Pages with the relevance (q, PAGE) that a calibration gives their hits, NaN beyond the last."""

    pages: Pages
    relevance: Doubles

    @property
    def first(self) -> Doubles:
        return self.relevance[:, 0]


def figures_of(
    said: Sequence[Said],
    *,
    measured_on: str,
    likely: float,
    perhaps: float,
    flat_cutoff: float,
    balanced_accuracy: float,
    flat_balanced_accuracy: float,
) -> Figures:
    """Figures over galleries by their share, present and absent queries of each at even odds."""
    pages = [one.pages for one in said]
    first = [one.first for one in said]
    nothing = Nothing.of(pages, [values < perhaps for values in first])
    flat = Nothing.of(pages, [one.cosine < flat_cutoff for one in pages])
    match = [values >= likely for values in first]
    right = [one.first_right for one in pages]
    matched = _share(pages, match)
    return Figures(
        measured_on=measured_on,
        gallery_items=max(one.gallery_size for one in pages),
        present_queries=sum(int(one.present.sum()) for one in pages),
        absent_queries=sum(int((~one.present).sum()) for one in pages),
        judged_hits=sum(int(one.known.sum()) for one in pages),
        reliability=reliability(said)[0],
        calibration_error=calibration_error(said),
        nothing_of_absent=nothing.of_absent,
        nothing_of_present=nothing.of_present,
        nothing_precision=nothing.precision,
        false_nothing=nothing.false,
        match_of_right=_ratio(_share(pages, match, right), _share(pages, right)) or 0.0,
        match_precision=_ratio(_share(pages, match, right), matched),
        unsure=max(0.0, 1.0 - matched - (nothing.of_absent + nothing.of_present) / 2),
        order_faults=sum(_order_faults(one.relevance) for one in said),
        balanced_accuracy=balanced_accuracy,
        flat_cutoff=flat_cutoff,
        flat_balanced_accuracy=flat_balanced_accuracy,
        flat_nothing_of_absent=flat.of_absent,
        flat_nothing_precision=flat.precision,
        flat_false_nothing=flat.false,
    )


@dataclass(frozen=True)
class Nothing:
    """How often "nothing matches" is said, of absent and of present queries, and how often it is wrong.

    `false`: of the queries with a right hit among the first five, the share that it is said of.
    """

    of_absent: float
    of_present: float
    false: float

    @classmethod
    def of(cls, pages: Sequence[Pages], said: Sequence[Bools]) -> "Nothing":
        present, absent = [one.present for one in pages], [~one.present for one in pages]
        five = [one.right_in_five for one in pages]
        return cls(
            of_absent=_ratio(_share(pages, said, absent), _share(pages, absent)) or 0.0,
            of_present=_ratio(_share(pages, said, present), _share(pages, present)) or 0.0,
            false=_ratio(_share(pages, said, five), _share(pages, five)) or 0.0,
        )

    @property
    def precision(self) -> float | None:
        """How often it is right where as many queries are absent as present; None where it is never said."""
        return _ratio(self.of_absent, self.of_absent + self.of_present)


def reliability(said: Sequence[Said]) -> tuple[tuple[ReliabilityBin, ...], float]:
    """Bins of equal weight, and the mean distance of relevance from the share that fits."""
    hits = _Hits.of(said)
    weight, predicted, observed = hits.binned(hits.weight)
    full = weight > 0
    predicted, observed, weight = predicted[full] / weight[full], observed[full] / weight[full], weight[full]
    bins = tuple(
        ReliabilityBin(predicted=float(p), observed=float(o)) for p, o in zip(predicted, observed, strict=True)
    )
    return bins, float(weight @ np.abs(predicted - observed) / weight.sum())


def calibration_error(said: Sequence[Said], *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """The expected calibration error, with its 95% interval by bootstrap over queries."""
    hits, rng = _Hits.of(said), np.random.default_rng(seed)
    errors = []
    for _ in range(samples):
        drawn = np.bincount(rng.integers(hits.queries, size=hits.queries), minlength=hits.queries)
        weight, predicted, observed = hits.binned(hits.weight * drawn[hits.query])
        errors.append(float(np.abs(predicted - observed).sum() / weight.sum()))
    low, high = np.percentile(errors, [2.5, 97.5])
    value = reliability(said)[1]
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))


@dataclass(frozen=True, eq=False)
class _Hits:
    """Hits whose truth is known, by rising relevance: (n,) each."""

    relevance: Doubles
    right: Doubles
    weight: Doubles
    query: NDArray[np.int64]
    queries: int

    @classmethod
    def of(cls, said: Sequence[Said]) -> "_Hits":
        known = np.concatenate([one.pages.known for one in said])
        query = np.repeat(np.arange(len(known))[:, None], known.shape[1], axis=1)[known]
        relevance = np.concatenate([one.relevance for one in said])[known]
        order = np.argsort(relevance, kind="stable")
        return cls(
            relevance[order],
            np.concatenate([one.pages.right for one in said])[known][order].astype(np.float64),
            np.concatenate([one.pages.hit_weight for one in said])[known][order],
            query[order],
            len(known),
        )

    def binned(self, weight: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """(weight, its product with relevance, with truth) of each of BINS bins of equal weight."""
        total = weight.sum()
        place = np.minimum(((np.cumsum(weight) - weight / 2) / total * BINS).astype(np.int64), BINS - 1)
        parts = (weight, weight * self.relevance, weight * self.right)
        of_bin, said, so = (np.asarray(np.bincount(place, part, BINS), dtype=np.float64) for part in parts)
        return of_bin, said, so


def best_cutoff(values: Doubles, present: Bools, weight: Doubles) -> float:
    """The value from which on "present" is most often right; of several, the one in the middle. All (n,)."""
    order = np.argsort(values, kind="stable")
    values, signed = values[order], np.where(present[order], -weight[order], weight[order])
    # Below the cut: absent ones refused less present ones lost. A cut lies between two different values.
    gained = np.concatenate([[0.0], np.cumsum(signed)])
    possible = np.concatenate([[True], np.diff(values) > 0, [True]])
    best = np.flatnonzero(possible & (gained >= gained[possible].max() - 1e-12))
    place = int(best[len(best) // 2])
    if place == 0:
        return float(values[0])
    if place == len(values):
        return float(np.nextafter(values[-1], np.inf))
    return float((values[place - 1] + values[place]) / 2)


def balanced_accuracy(values: Doubles, present: Bools, weight: Doubles, *, cutoff: float) -> float:
    """How often `values` (n,) from `cutoff` on tell present from absent, at even odds of the two."""
    shares = [
        float(weight[rows & right].sum() / weight[rows].sum())
        for rows, right in ((present, values >= cutoff), (~present, values < cutoff))
    ]
    return sum(shares) / 2


def _share(pages: Sequence[Pages], *conditions: Sequence[Bools]) -> float:
    """The share of all weight that the queries have for which all conditions hold."""
    total = 0.0
    for number, one in enumerate(pages):
        rows = np.ones(len(one), dtype=np.bool_)
        for condition in conditions:
            rows &= condition[number]
        total += float(one.query_weight[rows].sum())
    return total / sum(one.share for one in pages)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _order_faults(relevance: Doubles) -> int:
    return int((np.diff(relevance, axis=1) > 0).any(axis=1).sum())
