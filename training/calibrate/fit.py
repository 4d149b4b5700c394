"""Pages whose truth is known to the calibration of one kind of search: weights, the two levels, and figures.

Everything that is told of the fit comes from folds that it has not seen: the queries of a noun, or of an image,
are in one fold in every gallery.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import BankWeights, SearchCalibration, Weights, logistic
from training.calibrate.figures import Nothing, Said, balanced_accuracy, best_cutoff, figures_of
from training.calibrate.logistic import fit_logistic
from training.calibrate.pages import Doubles, Pages
from training.errors import CalibrationError

FOLDS = 5
MOST_FALSE_NOTHING = 0.04
LEAST_NOTHING_PRECISION = 0.86
LEAST_MATCHED = 0.6
MOST_UNSURE = 0.48
LEAST_MATCH_PRECISION = 0.5
SURE = 0.5
_CUTOFFS = 200


def fit_search(pages: Sequence[Pages], *, prior: tuple[float, float], measured_on: str) -> SearchCalibration:
    """Weights on all the pages; levels and figures by cross-validation.

    Raises CalibrationError where a higher score does not make a hit likelier.
    """
    folds = [one.group % FOLDS for one in pages]
    said = _cross_fitted(pages, folds)
    likely, perhaps = choose_levels(said)
    accuracy, _ = _told_apart([one.first for one in said], pages, folds)
    flat_accuracy, flat_cutoff = _told_apart([one.cosine for one in pages], pages, folds)
    figures = figures_of(
        said,
        measured_on=f"{measured_on}, {FOLDS} folds",
        likely=likely,
        perhaps=perhaps,
        flat_cutoff=nothing_level([one.cosine for one in pages], pages) or flat_cutoff,
        balanced_accuracy=accuracy,
        flat_balanced_accuracy=flat_accuracy,
    )
    return SearchCalibration(
        weights=fit_weights(pages),
        likely=likely,
        perhaps=perhaps,
        prior_mean=prior[0],
        prior_spread=prior[1],
        gallery_sizes=tuple(sorted({one.gallery_size for one in pages})),
        figures=figures,
    )


def fit_weights(pages: Sequence[Pages]) -> Weights:
    """Every size of gallery counts the same, and in each of them the hits of present and of absent queries."""
    features = np.concatenate([_features(one) for one in pages])
    truth = np.concatenate([one.right[one.known] for one in pages]).astype(np.float64)
    weight = np.concatenate([one.hit_weight[one.known] for one in pages])
    intercept, (score, *others) = fit_logistic(features, truth, weight=weight)
    if score <= 0:
        raise CalibrationError(
            f"a higher score does not make a match likelier (its weight is {score:.3g}): the bundle's "
            "vectors say nothing about these pairs"
        )
    mean, spread, best, *bank = map(float, others)
    return Weights(
        intercept=intercept,
        score=float(score),
        mean=mean,
        spread=spread,
        best_unrelated=best,
        bank=BankWeights(nearest=bank[0], mean=bank[1], spread=bank[2]) if bank else None,
    )


def said_by(weights: Weights, pages: Pages) -> Said:
    """What the weights say of pages, whose numbers were made with the calibration's prior."""
    return Said(pages, logistic(weights.logit(pages.scores, pages.numbers)))


def choose_levels(said: Sequence[Said]) -> tuple[float, float]:
    """(likely, perhaps) by the relevance of first hits that a fit has not seen.

    perhaps: the highest level below which "nothing matches" is right in at least 86% at even odds, and wrong
    for at most 4% of the queries with a right hit among the first five; 0 where there is none: it is never
    said. likely: at most 0.5, low enough that of the queries whose first hit is right 60% are a match, and
    that at most 48% of all are unsure while a match is right more often than not.
    """
    first, pages = [one.first for one in said], [one.pages for one in said]
    perhaps = nothing_level(first, pages) or 0.0
    values, right = np.concatenate(first), np.concatenate([one.first_right for one in pages])
    weight = np.concatenate([one.query_weight for one in pages])
    if not right.any():
        return SURE, min(perhaps, SURE)
    likely = min(SURE, _weighted_quantile(values[right], weight[right], 1 - LEAST_MATCHED))
    sure_of_nothing = weight[values < perhaps].sum() / weight.sum()
    share_matched = 1 - MOST_UNSURE - sure_of_nothing
    if 0 < share_matched < 1:
        wanted = _weighted_quantile(values, weight, 1 - share_matched)
        likely = max(min(likely, wanted), min(likely, _level_of_precision(values, right, weight)))
    return likely, min(perhaps, likely)


def _level_of_precision(values: Doubles, right: NDArray[np.bool_], weight: Doubles) -> float:
    """The lowest value of first hits from which on at least LEAST_MATCH_PRECISION of them are right."""
    order = np.argsort(-values, kind="stable")
    precision = np.cumsum((weight * right)[order]) / np.cumsum(weight[order])
    good = np.flatnonzero(precision >= LEAST_MATCH_PRECISION)
    return float(values[order[good[-1]]]) if len(good) else np.inf


def nothing_level(first: Sequence[Doubles], pages: Sequence[Pages]) -> float | None:
    """The highest value of first hits below which "nothing" keeps to that rule; None where there is none."""
    values = np.concatenate(first)
    for cutoff in np.unique(np.quantile(values, np.linspace(0.0, 1.0, _CUTOFFS)))[::-1]:
        nothing = Nothing.of(pages, [one < cutoff for one in first])
        precision = nothing.precision
        if precision is None:
            return None
        if precision >= LEAST_NOTHING_PRECISION and nothing.false <= MOST_FALSE_NOTHING:
            return float(cutoff)
    return None


def _cross_fitted(pages: Sequence[Pages], folds: Sequence[NDArray[np.int64]]) -> list[Said]:
    """What fits to the other folds say of every page."""
    relevance = [np.full(one.scores.shape, np.nan) for one in pages]
    for fold in range(FOLDS):
        weights = fit_weights([one.part(of != fold) for one, of in zip(pages, folds, strict=True)])
        for values, one, of in zip(relevance, pages, folds, strict=True):
            values[of == fold] = said_by(weights, one.part(of == fold)).relevance
    return [Said(one, values) for one, values in zip(pages, relevance, strict=True)]


def _told_apart(
    first: Sequence[Doubles], pages: Sequence[Pages], folds: Sequence[NDArray[np.int64]]
) -> tuple[float, float]:
    """(balanced accuracy of present against absent at cutoffs of other folds, the cutoff of all folds)."""
    values, fold = np.concatenate(first), np.concatenate(folds)
    present = np.concatenate([one.present for one in pages])
    weight = np.concatenate([one.query_weight for one in pages])
    above = np.zeros_like(values)
    for number in range(FOLDS):
        rows = fold != number
        cutoff = best_cutoff(values[rows], present[rows], weight[rows])
        above[~rows] = values[~rows] >= cutoff
    accuracy = balanced_accuracy(above, present, weight, cutoff=0.5)
    return accuracy, best_cutoff(values, present, weight)


def _features(pages: Pages) -> Doubles:
    """(hits, 4), or (hits, 7) with the bank's: what the weights look at, of every hit whose truth is known."""
    rows, columns = np.nonzero(pages.known)
    return np.column_stack([pages.scores[rows, columns], pages.numbers[rows]])


def _weighted_quantile(values: Doubles, weight: Doubles, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])
