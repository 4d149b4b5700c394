"""Differences that mean something: paired bootstrap between bundles, and between clean and shifted.

Every figure of one set is drawn over the same images, so that a difference, a ratio or a mean of figures has an
interval of its own, much narrower than those of its parts.

retention    recall under a condition ÷ clean recall, of the same bundle: what is kept
score        mean over corruptions of Σ errors ÷ Σ errors of a baseline, over the severities measured
             (mCE, Hendrycks & Dietterich 2019, with 1 − R@k for the error); below 1 is better
relative     the same of the errors added by the corruption: how much is lost, whatever the clean figure, over
             those that the baseline is shown to lose by: what it does not lose cannot be divided by
gap          recall on the set the bundle was trained for − recall on another
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from training.errors import EvaluationError
from training.evaluation.comparison import Comparison, CorruptionScore, Difference, Shift, UnseenGap
from training.evaluation.hits import Hits
from training.evaluation.metrics import Estimate, bootstrap_differences, bootstrap_draws, estimate
from training.evaluation.ranks import DIRECTIONS, Direction, Doubles
from training.seen.exposure import Exposure
from training.shift.condition import Condition
from training.shift.conditions import Subject, near_kinds, subjects_of
from training.shift.corruptions import IMAGE_CORRUPTIONS

Exposures = Mapping[str, Mapping[str, Exposure | None]]
"""Bundle → set → what it has seen of it."""


def paired_difference(
    hits_a: ArrayLike, hits_b: ArrayLike, *, groups: ArrayLike, samples: int = 1000, seed: int = 0
) -> Estimate:
    """mean(a) − mean(b) of values from 0 to 1 (queries,), by bootstrap over `groups` (queries,): the images."""
    a, b = np.asarray(hits_a, dtype=np.float64), np.asarray(hits_b, dtype=np.float64)
    if a.shape != b.shape or a.shape != np.shape(groups):
        raise ValueError(f"a pair has one shape: {a.shape} and {b.shape} over groups {np.shape(groups)}")
    [difference] = bootstrap_differences([a], [b], [np.asarray(groups)], samples=samples, seed=seed)
    return difference


def compare(
    hits: Mapping[str, Sequence[Hits]],
    *,
    baseline: str | None = None,
    in_domain: str | None = None,
    held_out: Mapping[str, Sequence[str]] | None = None,
    exposures: Exposures | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Bundle name → its hits on each set, clean and under conditions; `held_out` its untrained corruptions,
    `exposures` what it has seen of each set.

    Differences are against `baseline`, or the first bundle; scores only against a named baseline. Raises
    EvaluationError where `in_domain` is no set, or bundles were measured on different images.
    """
    names, sets = tuple(hits), list(dict.fromkeys(each.dataset for of in hits.values() for each in of))
    if in_domain is not None and in_domain not in sets:
        raise EvaluationError(f"--in-domain {in_domain!r} is none of the sets: {', '.join(sets)}")
    reference = baseline or names[0]
    tables = [_Draws.of(hits, dataset, samples=samples, seed=seed + at) for at, dataset in enumerate(sets)]
    return Comparison(
        bundles=names,
        reference=reference,
        held_out={name: tuple(kinds) for name, kinds in (held_out or {}).items()},
        shifts=tuple(
            shift
            for table in tables
            for name in names
            for shift in _shifts(table, name, (held_out or {}).get(name))
        ),
        differences=tuple(
            each
            for table in tables
            for name in names
            if name != reference
            for each in _differences(table, name, reference, exposures or {})
        ),
        scores=tuple(
            score
            for table in tables
            for name in names
            if baseline and name != baseline
            for score in _scores(table, name, baseline)
        ),
        gaps=tuple(_gaps(tables, names, in_domain, exposures or {})) if in_domain else (),
    )


@dataclass(frozen=True, eq=False)
class _Sampled:
    """A figure beside its draws (samples,), so that what is computed of figures has draws too."""

    value: float
    draws: Doubles

    def minus(self, other: "_Sampled") -> "_Sampled":
        return _Sampled(self.value - other.value, self.draws - other.draws)

    def over(self, other: "_Sampled") -> "_Sampled | None":
        """None where the divisor is not above 0; draws in which it is not count for nothing."""
        if other.value <= 0:
            return None
        ratios = np.full(len(self.draws), np.nan)
        np.divide(self.draws, other.draws, out=ratios, where=other.draws > 0)
        return _Sampled(self.value / other.value, ratios)

    def error(self) -> "_Sampled":
        return _Sampled(1 - self.value, 1 - self.draws)

    @property
    def estimate(self) -> Estimate:
        return estimate(self.value, self.draws)


def _mean(figures: Sequence[_Sampled]) -> _Sampled:
    return _Sampled(
        float(np.mean([each.value for each in figures])), np.mean([each.draws for each in figures], axis=0)
    )


def _mean_of_all(figures: Sequence[_Sampled | None]) -> _Sampled | None:
    """None where there is none, or one of them is missing."""
    present = [figure for figure in figures if figure]
    return _mean(present) if present and len(present) == len(figures) else None


@dataclass(frozen=True, eq=False)
class _Draws:
    """All figures of one set, over the same draws of its images."""

    dataset: str
    figures: dict[tuple[str, Condition | None, Direction, int], _Sampled]
    conditions: dict[str, tuple[Condition, ...]]
    ks: tuple[int, ...]

    @classmethod
    def of(cls, hits: Mapping[str, Sequence[Hits]], dataset: str, *, samples: int, seed: int) -> "_Draws":
        measured = [(name, each) for name, of in hits.items() for each in of if each.dataset == dataset]
        if len(sizes := {len(each.counts[DIRECTIONS[0]]) for _, each in measured}) > 1:
            raise EvaluationError(f"{dataset}: bundles were measured on different images: {sorted(sizes)}")
        ks = measured[0][1].ks
        keys = [
            (name, each.condition, direction, k)
            for name, each in measured
            for direction in DIRECTIONS
            for k in ks
        ]
        sums = np.concatenate([each.sums[way] for _, each in measured for way in DIRECTIONS], axis=1)
        counts = np.repeat(
            np.stack([each.counts[way] for _, each in measured for way in DIRECTIONS], axis=1), len(ks), axis=1
        )
        # All conditions of a bundle share an unseen image: their mean is no surer of it than one of them.
        kinds = [2 * tuple(hits).index(name) + (condition is not None) for name, condition, _, _ in keys]
        draws = bootstrap_draws(sums, counts, kinds=kinds, samples=samples, seed=seed)
        values = sums.sum(axis=0) / counts.sum(axis=0)
        figures = {key: _Sampled(float(values[at]), draws[:, at]) for at, key in enumerate(keys)}
        conditions = {
            name: tuple(each.condition for owner, each in measured if owner == name and each.condition)
            for name in hits
        }
        return cls(dataset, figures, conditions, ks)

    def recall(self, bundle: str, subject: Subject | None, direction: Direction, k: int) -> _Sampled:
        """Of the clean set (None), or the mean over the subject's conditions."""
        if subject is None:
            return self.figures[bundle, None, direction, k]
        return _mean([self.figures[bundle, each, direction, k] for each in subject.conditions])

    def retention(self, bundle: str, subject: Subject, direction: Direction, k: int) -> _Sampled | None:
        clean = self.figures[bundle, None, direction, k]
        return _mean_of_all(
            [self.figures[bundle, each, direction, k].over(clean) for each in subject.conditions]
        )

    def added_error(self, bundle: str, condition: Condition, direction: Direction, k: int) -> _Sampled:
        """What the condition costs: clean recall − recall."""
        return self.figures[bundle, None, direction, k].minus(self.figures[bundle, condition, direction, k])

    def ways(self) -> Iterator[tuple[Direction, int]]:
        return ((direction, k) for direction in DIRECTIONS for k in self.ks)


def _shifts(table: _Draws, name: str, held_out: Sequence[str] | None) -> Iterator[Shift]:
    for subject in subjects_of(table.conditions[name]):
        for direction, k in table.ways():
            recall = table.recall(name, subject, direction, k)
            clean = table.recall(name, None, direction, k)
            yield Shift(
                bundle=name,
                dataset=table.dataset,
                direction=direction,
                k=k,
                subject=subject.name,
                severity=subject.severity,
                held_out=_kept_out(subject, held_out),
                near=near_kinds(subject.name, held_out or ()),
                recall=recall.estimate,
                clean=clean.value,
                difference=recall.minus(clean).estimate,
                retention=_estimate(table.retention(name, subject, direction, k)),
            )


def _kept_out(subject: Subject, held_out: Sequence[str] | None) -> bool | None:
    return subject.name in held_out if held_out is not None and subject.name in IMAGE_CORRUPTIONS else None


def _differences(table: _Draws, name: str, reference: str, exposures: Exposures) -> Iterator[Difference]:
    """On the clean set, then under every subject that both were measured under."""
    seen_by = tuple(
        bundle
        for bundle in (name, reference)
        if (exposure := exposures.get(bundle, {}).get(table.dataset)) is not None and exposure.counts
    )
    shared = [each for each in table.conditions[name] if each in set(table.conditions[reference])]
    for subject in (None, *subjects_of(shared)):
        for direction, k in table.ways():
            ours, theirs = (table.recall(bundle, subject, direction, k) for bundle in (name, reference))
            yield Difference(
                bundle=name,
                against=reference,
                seen_by=seen_by,
                dataset=table.dataset,
                direction=direction,
                k=k,
                subject=subject.name if subject else "clean",
                severity=subject.severity if subject else None,
                recall=ours.minus(theirs).estimate,
                retention=_estimate(_retention_difference(table, (name, reference), subject, direction, k)),
            )


def _retention_difference(
    table: _Draws, bundles: tuple[str, str], subject: Subject | None, direction: Direction, k: int
) -> _Sampled | None:
    if subject is None:
        return None
    ours, theirs = (table.retention(bundle, subject, direction, k) for bundle in bundles)
    return ours.minus(theirs) if ours and theirs else None


def _scores(table: _Draws, name: str, baseline: str) -> Iterator[CorruptionScore]:
    kinds: dict[str, list[Condition]] = {}
    for condition in table.conditions[name]:
        if condition.corruption and condition in set(table.conditions[baseline]):
            kinds.setdefault(condition.corruption, []).append(condition)
    for direction, k in table.ways() if kinds else ():
        ratios = [_error_ratio(table, (name, baseline), each, direction, k) for each in kinds.values()]
        added = [_added_ratio(table, (name, baseline), each, direction, k) for each in kinds.values()]
        yield CorruptionScore(
            bundle=name,
            dataset=table.dataset,
            direction=direction,
            k=k,
            baseline=baseline,
            corruptions=len(kinds),
            score=_estimate(_mean_of_all(ratios)),
            relative=_estimate(_mean_of_all([ratio for ratio in added if ratio])),
        )


def _error_ratio(
    table: _Draws, bundles: tuple[str, str], conditions: Sequence[Condition], direction: Direction, k: int
) -> _Sampled | None:
    ours, theirs = (
        _mean([table.figures[bundle, each, direction, k].error() for each in conditions]) for bundle in bundles
    )
    return ours.over(theirs)


def _added_ratio(
    table: _Draws, bundles: tuple[str, str], conditions: Sequence[Condition], direction: Direction, k: int
) -> _Sampled | None:
    ours, theirs = (
        _mean([table.added_error(bundle, each, direction, k) for each in conditions]) for bundle in bundles
    )
    return ours.over(theirs) if theirs.estimate.low > 0 else None


def _gaps(
    tables: Sequence[_Draws], names: Sequence[str], in_domain: str, exposures: Exposures
) -> Iterator[UnseenGap]:
    """The sets are drawn apart: each table has draws of its own."""
    home = next(table for table in tables if table.dataset == in_domain)
    for table in tables:
        for name in names if table is not home else ():
            exposure = exposures.get(name, {}).get(table.dataset)
            for direction, k in table.ways():
                gap = home.recall(name, None, direction, k).minus(table.recall(name, None, direction, k))
                yield UnseenGap(
                    bundle=name,
                    dataset=table.dataset,
                    direction=direction,
                    k=k,
                    in_domain=in_domain,
                    status=exposure.status if exposure else None,
                    gap=gap.estimate,
                )


def _estimate(figure: _Sampled | None) -> Estimate | None:
    return figure.estimate if figure else None
