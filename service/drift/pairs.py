"""What relevance a good query can expect: that of the gallery's own texts for their own images, and back.

A lower bound of what the best hit of such a query gets. Nothing is searched: a sample of pairs is judged as
hits are.
"""

from dataclasses import dataclass

import numpy as np

from encoders.calibration import SEARCHED, background_rows
from encoders.modalities import Modality
from index.release import Release
from service.drift.windows import Departure, Sums
from service.search.relevance import SEARCHED_BY_PAIRS, Judge

MAX_PAIRS = 128
LEAST_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Expected:
    """Mean and variance of the relevance of `count` pairs."""

    mean: float
    variance: float
    count: int


def expected_relevance(release: Release, judge: Judge | None, asked_by: Modality) -> Expected | None:
    """None without a calibration of this direction, or where too few texts belong to an image."""
    search = SEARCHED_BY_PAIRS[asked_by]
    space = SEARCHED[search]
    part = judge.calibration.searches.get(search) if judge else None
    pairs = _pairs(release)
    if judge is None or part is None or len(pairs) < LEAST_PAIRS:
        return None
    background, searched = judge.backgrounds[space], release.images if space == "images" else release.texts
    found = []
    for text_row, image_row in pairs:
        text, image = release.texts.reconstruct(text_row), release.images.reconstruct(image_row)
        query, row = (text, image_row) if asked_by == "texts" else (image, text_row)
        penalty = 0.0 if searched.penalties is None else float(searched.penalties[row])
        relevance = judge.relevance_of(search, part, query, background, len(searched))
        found.append(float(relevance(np.array([text @ image - penalty]))[0]))
    return Expected(float(np.mean(found)), float(np.var(found)), len(found))


def relevance_departure(sums: Sums, expected: Expected) -> Departure:
    """Mean relevance of the best hits beside the expected one. Needs one judged query."""
    n, mean = sums.judged, sums.relevance / sums.judged
    variance = max(0.0, sums.relevance_squares / n - mean**2)
    deviation = np.sqrt(max(variance / n + expected.variance / expected.count, 1e-12))
    return Departure(mean, expected.mean, float((mean - expected.mean) / deviation))


def _pairs(release: Release) -> list[tuple[int, int]]:
    """(text row, image row) of a sample of the texts, each with the first image that it belongs to."""
    if not len(release.texts):
        return []
    offsets, rows = release.texts_table.item_lists()
    sampled = background_rows(len(release.texts), limit=MAX_PAIRS)
    return [(int(text), int(rows[offsets[text]])) for text in sampled if offsets[text + 1] > offsets[text]]
