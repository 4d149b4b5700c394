"""Averages of bundles chosen or shown by what they retrieve: the curve of an interpolation, the greedy soup.

Every average is written to a scratch folder and read back, so that what is measured is what would ship. It does
not know how weights are averaged, nor how figures are shown.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from training.blend.blend import write_mean
from training.data.pairs import PairSet
from training.evaluation.evaluate import evaluate
from training.evaluation.report import RetrievalReport

Measure = Callable[[Bundle], RetrievalReport]
"""A bundle's retrieval on the sets of a question."""


@dataclass(frozen=True)
class Point:
    """One interpolation: (1 − alpha) of the first bundle, alpha of the second."""

    alpha: float
    report: RetrievalReport


@dataclass(frozen=True)
class Taste:
    """One ingredient tried: the score of the soup with it, and whether it stayed."""

    name: str
    score: float
    kept: bool


def measure_on(sets: Sequence[PairSet], *, device: str, batch: int) -> Measure:
    def measure(bundle: Bundle) -> RetrievalReport:
        return evaluate(Encoder.load(bundle, device=device, max_batch=batch), sets)

    return measure


def score(report: RetrievalReport) -> float:
    """Mean of R@1, R@5 and R@10 both ways, from 0 to 1; sets count alike, however large."""
    return float(
        np.mean([
            estimate.value
            for dataset in report.datasets
            for recall in dataset.recall.values()
            for estimate in recall.values()
        ])
    )  # fmt: skip


def curve(first: Bundle, second: Bundle, alphas: Sequence[float], measure: Measure) -> list[Point]:
    """The report of every interpolation, in the order of `alphas`."""
    points = []
    for alpha in alphas:
        with tempfile.TemporaryDirectory(prefix="twinlens-blend-") as scratch:
            folder, shares = Path(scratch) / "blend", [1 - alpha, alpha]
            blended, _ = write_mean([first, second], shares, folder, method="interpolation")
            points.append(Point(alpha, measure(blended)))
    return points


def best_alpha(points: Sequence[Point]) -> float:
    """The one of the highest score; of equals, the closest to the first bundle."""
    return max(points, key=lambda point: (score(point.report), -point.alpha)).alpha


def greedy_soup(bundles: Sequence[Bundle], measure: Measure) -> tuple[list[Bundle], list[Taste]]:
    """The ingredients of a greedy soup (Wortsman et al. 2022, recipe 1), best first, and what was tried.

    From the best on, each is kept if the soup with it scores no less than the soup without.
    """
    scored = sorted(((score(measure(bundle)), bundle) for bundle in bundles), key=lambda pair: -pair[0])
    best, soup = scored[0][0], [scored[0][1]]
    tasted = [Taste(soup[0].name, best, kept=True)]
    for _, bundle in scored[1:]:
        tried = [*soup, bundle]
        with tempfile.TemporaryDirectory(prefix="twinlens-blend-") as scratch:
            mixed, _ = write_mean(tried, [1 / len(tried)] * len(tried), Path(scratch) / "soup", method="soup")
            found = score(measure(mixed))
        tasted.append(Taste(bundle.name, found, kept=found >= best))
        if found >= best:
            best, soup = found, tried
    return soup, tasted
