"""Intervals hold the truth as often as they say, in simulation; `benchmarks.statistics` has the whole table."""

import pytest

from benchmarks.statistics import (
    BANDS,
    CAPTIONS,
    CHANGES,
    Gallery,
    difference_coverage,
    recall_coverage,
)

SETS = [(40, 60), (80, 60), (1000, 16)]
"""(images, draws a cell): the cells together bring the error of the simulation below one point and a half."""


@pytest.mark.parametrize(("images", "draws"), SETS)
def test_intervals_of_recall_cover_95_percent_edges_included(images: int, draws: int) -> None:
    galleries = [Gallery(images, captions, icc) for captions, icc in CAPTIONS]
    cells = {
        band: [recall_coverage(gallery, band, draws=draws, seed=at) for at, gallery in enumerate(galleries)]
        for band in BANDS
    }
    means = {band: sum(found) / len(found) for band, found in cells.items()}
    assert 0.93 <= sum(means.values()) / len(means) <= 0.975
    assert min(means.values()) >= 0.9


@pytest.mark.parametrize(("images", "draws"), SETS)
def test_intervals_of_paired_differences_cover_at_least_93_percent(images: int, draws: int) -> None:
    galleries = [Gallery(images, captions, icc) for captions, icc in CAPTIONS]
    found = [
        difference_coverage(gallery, change, draws=draws, seed=at)
        for at, gallery in enumerate(galleries)
        for change in CHANGES
    ]
    assert sum(found) / len(found) >= 0.93


@pytest.mark.parametrize("recall", [0.0, 1.0])
def test_at_the_very_edges_the_interval_holds_the_truth_and_more(recall: float) -> None:
    assert recall_coverage(Gallery(40, 5, 0.3), (recall, recall), draws=20) == 1
