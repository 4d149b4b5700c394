"""How well relevance and the decision do: reliability, calibration error, precision, recall; a flat cutoff.

Pure functions of numbers between 0 and 1 and of cosines. It does not know where they come from.
"""

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import Decision, ReliabilityBin
from training.errors import CalibrationError

Doubles = NDArray[np.float64]
BINS = 10


def reliability(fits: Doubles, others: Doubles) -> tuple[tuple[ReliabilityBin, ...], float]:
    """Bins of a tenth, and the expected calibration error, for the relevance of hits that fit and that do not.

    Each kind has half of all weight: the odds that a calibration is fitted at. Raises CalibrationError where
    one kind is missing.
    """
    if not len(fits) or not len(others):
        raise CalibrationError(
            f"{len(fits)} hits that fit and {len(others)} that do not: reliability needs both kinds"
        )
    values = np.concatenate([fits, others])
    weight = np.concatenate([np.full(len(fits), 0.5 / len(fits)), np.full(len(others), 0.5 / len(others))])
    truth = np.concatenate([np.ones(len(fits)), np.zeros(len(others))])
    place = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    share = np.bincount(place, weight, BINS)
    predicted = np.bincount(place, weight * values, BINS)
    observed = np.bincount(place, weight * truth, BINS)
    bins = tuple(
        ReliabilityBin(
            low=i / BINS,
            high=(i + 1) / BINS,
            predicted=float(predicted[i] / share[i]),
            observed=float(observed[i] / share[i]),
            share=float(share[i]),
        )
        for i in range(BINS)
        if share[i] > 0
    )
    return bins, float(np.abs(predicted - observed).sum())


def decide(present: Doubles, absent: Doubles, *, threshold: float) -> Decision:
    """What "something matches" from `threshold` up gets right; present (n,) and absent (m,) are best values."""
    kept, refused = float((present >= threshold).mean()), float((absent < threshold).mean())
    return Decision(
        present_queries=len(present),
        absent_queries=len(absent),
        recall_present=kept,
        recall_absent=refused,
        precision_present=_share(kept, 1 - refused),
        precision_absent=_share(refused, 1 - kept),
        balanced_accuracy=(kept + refused) / 2,
    )


def best_threshold(present: Doubles, absent: Doubles) -> float:
    """The threshold of the highest balanced accuracy; of several, the one in the middle."""
    values = np.unique(np.concatenate([present, absent]))
    cuts = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    kept = 1 - np.searchsorted(np.sort(present), cuts, side="left") / len(present)
    refused = np.searchsorted(np.sort(absent), cuts, side="left") / len(absent)
    accuracy = kept + refused
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    return float(cuts[best[len(best) // 2]])


def _share(right: float, wrong: float) -> float:
    return right / (right + wrong) if right + wrong > 0 else 0.0
