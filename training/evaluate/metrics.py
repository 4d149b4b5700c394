"""Retrieval metrics both ways: recall@k, median rank, mAP@R, with intervals by bootstrap over images.

Pure NumPy over the ranks of `training.evaluate.ranks`, which take ties at their expectation. It does NOT know
models, files or texts, nor which figures a report shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from encoders.query_bank import QueryBank
from training.evaluate.ranks import (
    DIRECTIONS,
    Direction,
    Doubles,
    Ints,
    Retrieval,
    checked_rows,
    checked_vectors,
    rank_pairs,
)

DEFAULT_KS = (1, 5, 10)
_BOOTSTRAP_BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One direction: recall@k and mAP@R from 0 to 1, the median of expected ranks, queries with ties."""

    recall: dict[int, Estimate]
    mean_average_precision: Estimate
    median_rank: float
    queries: int
    tied_queries: int


def summarise(
    retrieval: Retrieval, *, ks: Sequence[int] = DEFAULT_KS, samples: int = 1000, seed: int = 0
) -> dict[Direction, Summary]:
    """Figures of both directions, each with a 95% interval from `samples` bootstrap draws of images."""
    columns = [
        values
        for direction in DIRECTIONS
        for ranks in [retrieval.direction(direction)]
        for values in [*(ranks.hit_probability(k) for k in ks), ranks.average_precision]
    ]
    owners = [retrieval.direction(direction).image for direction in DIRECTIONS for _ in range(len(ks) + 1)]
    estimates = iter(bootstrap_means(columns, owners, samples=samples, seed=seed))
    return {
        direction: Summary(
            recall={k: next(estimates) for k in ks},
            mean_average_precision=next(estimates),
            median_rank=float(np.median(retrieval.direction(direction).expected_rank)),
            queries=len(retrieval.direction(direction)),
            tied_queries=retrieval.direction(direction).tied_queries,
        )
        for direction in DIRECTIONS
    }


def bootstrap_means(
    values: Sequence[Doubles], images: Sequence[Ints], *, samples: int = 1000, seed: int = 0
) -> list[Estimate]:
    """Mean of each array of per-query values, with its 2.5 and 97.5 percentiles over draws of images.

    values[i] and images[i] are (queries,); all share the same draws, so the difference of two bundles on
    one set may be given as one more array (a paired bootstrap). Only queries are drawn: the gallery stays.
    """
    present = np.unique(np.concatenate(images))
    rows = [np.searchsorted(present, image) for image in images]
    sums = np.stack(
        [np.bincount(r, v, len(present)).astype(np.float64) for r, v in zip(rows, values, strict=True)], axis=1
    )
    counts = np.stack([np.bincount(r, minlength=len(present)) for r in rows], axis=1).astype(np.float64)
    draws = bootstrap_draws(sums, counts, samples=samples, seed=seed)
    means = [float(v.mean()) for v in values]
    return [estimate(mean, draws[:, column]) for column, mean in enumerate(means)]


def bootstrap_draws(sums: Doubles, counts: Doubles, *, samples: int = 1000, seed: int = 0) -> Doubles:
    """(samples, columns): the mean of each column over draws of images, the same draws for all columns.

    sums and counts are (images, columns): of the queries of an image, the values' total and how many there are.
    """
    if samples < 2:
        raise ValueError(f"a bootstrap needs at least 2 samples, got {samples}")
    return np.concatenate(
        [
            (weights @ sums) / np.maximum(weights @ counts, 1)
            for weights in _image_weights(len(sums), samples=samples, seed=seed)
        ]
    )


def estimate(value: float, draws: Doubles) -> Estimate:
    """The value with the 2.5 and 97.5 percentiles of its draws (samples,); NaN draws do not count."""
    finite = draws[np.isfinite(draws)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (value, value)
    return Estimate(value, float(low), float(high))


def fold_recall(
    image_vectors: ArrayLike,
    caption_vectors: ArrayLike,
    *,
    caption_image: ArrayLike,
    caption_group: ArrayLike | None = None,
    folds: int = 5,
    ks: Sequence[int] = DEFAULT_KS,
    bank: QueryBank | None = None,
) -> dict[Direction, dict[int, float]]:
    """Mean recall@k over consecutive folds of equally many images: COCO "1K" is five folds of its 5K.

    Each fold is ranked alone, with its own captions. Raises ValueError when images do not divide evenly.
    """
    images, captions = checked_vectors(image_vectors, caption_vectors)
    owner = checked_rows(caption_image, captions=len(captions), images=len(images))
    if folds < 1 or len(images) % folds:
        raise ValueError(f"{len(images)} images do not divide into {folds} equal folds")
    side = len(images) // folds
    parts = []
    for fold in range(folds):
        inside = np.flatnonzero(owner // side == fold)
        group = None if caption_group is None else np.asarray(caption_group)[inside]
        parts.append(
            rank_pairs(
                images[fold * side : (fold + 1) * side],
                captions[inside],
                caption_image=owner[inside] - fold * side,
                caption_group=group,
                bank=bank,
            )
        )
    return {
        direction: {
            k: float(np.mean([part.direction(direction).hit_probability(k).mean() for part in parts]))
            for k in ks
        }
        for direction in DIRECTIONS
    }


def _image_weights(images: int, *, samples: int, seed: int) -> Iterator[Doubles]:
    """Blocks (rows, images) of how often each image is drawn; together they have `samples` rows."""
    rng = np.random.default_rng(seed)
    rows_per_block = max(1, _BOOTSTRAP_BLOCK // images)
    for start in range(0, samples, rows_per_block):
        rows = min(rows_per_block, samples - start)
        drawn = rng.integers(images, size=(rows, images)) + np.arange(rows)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)
