"""A calibration from held-out sets: what has an answer there and what has none, for each kind of search.

Sets of several kinds of images in one fit keep it from taking one kind's scores for all.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.calibration import Calibration, Figures, Search, SearchCalibration
from training.calibrate.absent import AbsentQuery
from training.calibrate.asked import MINIMUM_ABSENT, MINIMUM_IMAGES, Asked, Asker, searches_of
from training.calibrate.fit import fit_search
from training.errors import CalibrationError
from training.evaluation.embedding import EmbeddedPairs

LOSES_BY = 0.01
"""Balanced accuracy by which a flat cutoff must be better: less is one query or two."""


def calibrate(
    sets: Mapping[str, EmbeddedPairs],
    absent: Sequence[AbsentQuery],
    asker: Asker,
    *,
    fingerprint: str,
    bank: str | None,
    short_queries: str | None,
) -> Calibration:
    """Fit every kind of search that the sets (by name) can show; `bank` and `short_queries` are files' digests.

    Absent captions of whose subject a caption of the set speaks are left out of it, and so are searches with
    fewer than `MINIMUM_ABSENT` queries about nothing. Raises CalibrationError when none remains.
    """
    asked: dict[Search, list[Asked]] = {}
    digest = hashlib.sha256()
    for name, embedded in sets.items():
        for search, each in searches_of(name, embedded, absent, asker).items():
            asked.setdefault(search, []).extend(each)
        told = [*embedded.image_ids, *embedded.captions]
        digest.update("\n".join(told).encode())
    digest.update("\n".join(query.caption for query in absent).encode())
    name = ", ".join(sets)
    if not asked:
        counts = ", ".join(str(len(each.image_ids)) for each in sets.values())
        raise CalibrationError(
            f"{name}: {counts} images, and too few queries that have no answer among them ({len(absent)} are "
            f"listed): a calibration takes at least {MINIMUM_IMAGES} images and {MINIMUM_ABSENT} such queries"
        )
    return Calibration(
        fingerprint=fingerprint,
        bank=bank,
        short_queries=short_queries,
        searches={search: _fit(each, measured_on=name) for search, each in sorted(asked.items())},
        fitted_on=name,
        digest=digest.hexdigest(),
    )


def _fit(asked: Sequence[Asked], *, measured_on: str, seed: int = 0) -> SearchCalibration:
    rng = np.random.default_rng(seed)
    mean, spread = np.mean([each.prior for each in asked], axis=0)
    prior = (float(mean), float(spread))
    pages = [page for each in asked for page in each.pages(prior, rng)]
    return fit_search(pages, prior=prior, measured_on=measured_on)


def without_losers(calibration: Calibration) -> tuple[Calibration | None, list[str]]:
    """(the calibration without searches in which a flat cutoff decides better, why they are left out).

    None where no search is left: on few images the fit learns their noise, and is worse than no fit.
    """
    losers = {
        search: reason
        for search, each in calibration.searches.items()
        if each.figures is not None and (reason := _why_it_loses(each.figures)) is not None
    }
    told = [f"{search.replace('_', ' ')}: {reason}" for search, reason in losers.items()]
    kept = {search: each for search, each in calibration.searches.items() if search not in losers}
    return (calibration.model_copy(update={"searches": kept}) if kept else None), told


def _why_it_loses(figures: Figures) -> str | None:
    if figures.balanced_accuracy > figures.flat_balanced_accuracy - LOSES_BY:
        return None
    return (
        f"tells present from absent in {figures.balanced_accuracy:.1%}, a flat cutoff in "
        f"{figures.flat_balanced_accuracy:.1%} ({figures.present_queries:,} queries with a match, "
        f"{figures.absent_queries:,} without): not written; give more images to fit on"
    )
