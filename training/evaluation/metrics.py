"""Retrieval metrics both ways: recall@k, median rank, mAP@R, with intervals by bootstrap over images.

Pure NumPy over the ranks of `training.evaluation.ranks`, which take ties at their expectation.

**Intervals that do not collapse.** A bootstrap of a few images that were all found says 100 to 100%, though
the next image may be missed. So every draw is of n images out of the n measured and two that were not seen,
each of which is all right or all wrong with even odds, apart for figures that are compared: for a share that is
Laplace's rule, for a paired difference Bonett and Price's (2012). Captions of one image are drawn together; an
unseen image of m queries counts as √m of them, between one (they are independent) and m (they are all alike).
`python -m benchmarks.statistics` simulates what the intervals cover; docs/generalisation.md has the table.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from encoders.query_bank import QueryBank
from training.evaluation.ranks import (
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
UNSEEN_IMAGES = 2
"""That every interval reckons with: see above."""
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
    """Mean of each array of per-query values from 0 to 1, with its 95% interval over draws of images.

    values[i] and images[i] are (queries,); all share the same draws. Only queries are drawn: the gallery stays.
    """
    sums, counts = _by_image(values, images)
    draws = bootstrap_draws(sums, counts, samples=samples, seed=seed)
    means = [float(v.mean()) for v in values]
    return [estimate(mean, draws[:, column]) for column, mean in enumerate(means)]


def bootstrap_differences(
    ones: Sequence[Doubles],
    others: Sequence[Doubles],
    images: Sequence[Ints],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> list[Estimate]:
    """mean(ones[i]) − mean(others[i]) of per-query values from 0 to 1, both over the same draws of images."""
    sums, counts = _by_image([*ones, *others], [*images, *images])
    draws = bootstrap_draws(sums, counts, samples=samples, seed=seed)
    return [
        estimate(float(one.mean() - other.mean()), draws[:, column] - draws[:, len(ones) + column])
        for column, (one, other) in enumerate(zip(ones, others, strict=True))
    ]


def bootstrap_draws(
    sums: Doubles, counts: Doubles, *, kinds: Sequence[int] | None = None, samples: int = 1000, seed: int = 0
) -> Doubles:
    """(samples, columns): the mean of each column over draws of images, the same draws for all columns.

    sums and counts are (images, columns): of the queries of an image, the values' total and how many there are.
    kinds (columns,): columns of one kind (conditions of one bundle, say) take an unseen image to be right or
    wrong together; by default every column is one of its own.
    """
    if samples < 2:
        raise ValueError(f"a bootstrap needs at least 2 samples, got {samples}")
    kind = np.arange(sums.shape[1]) if kinds is None else np.unique(np.asarray(kinds), return_inverse=True)[1]
    asked = np.maximum((counts > 0).sum(axis=0), 1)
    weight = np.sqrt(counts.sum(axis=0) / asked)  # of an unseen image, in queries
    rng = np.random.default_rng(seed)
    blocks = []
    for weights, unseen in _image_weights(len(sums), rng, samples=samples):
        right = rng.binomial(unseen[:, None], 0.5, size=(len(unseen), int(kind.max()) + 1))[:, kind]
        total = weights @ counts + unseen[:, None] * weight
        blocks.append((weights @ sums + right * weight) / np.where(total > 0, total, 1))
    return np.concatenate(blocks)


def estimate(value: float, draws: Doubles) -> Estimate:
    """The value with the 2.5 and 97.5 percentiles of its draws (samples,); NaN draws do not count."""
    finite = draws[np.isfinite(draws)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (value, value)
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def images_for(images: int, half: float, wanted: float) -> int:
    """How many make an interval of ±`half` one of ±`wanted`; to two digits, upwards."""
    needed = images * (half / wanted) ** 2
    step = int(10 ** max(0, math.floor(math.log10(max(1.0, needed))) - 1))
    return math.ceil(needed / step) * step


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


def _by_image(values: Sequence[Doubles], images: Sequence[Ints]) -> tuple[Doubles, Doubles]:
    """(sums, counts), each (images, arrays): of the queries of every image that any array has."""
    present = np.unique(np.concatenate(images))
    rows = [np.searchsorted(present, image) for image in images]
    sums = np.stack([np.bincount(r, v, len(present)) for r, v in zip(rows, values, strict=True)], axis=1)
    counts = np.stack([np.bincount(r, minlength=len(present)) for r in rows], axis=1)
    return sums.astype(np.float64), counts.astype(np.float64)


def _image_weights(images: int, rng: np.random.Generator, *, samples: int) -> Iterator[tuple[Doubles, Ints]]:
    """Blocks of (how often each image is drawn (rows, images), how often an unseen one (rows,)).

    A row is of `images` draws out of the images and `UNSEEN_IMAGES` more; all blocks have `samples` rows.
    """
    places = images + UNSEEN_IMAGES
    rows_per_block = max(1, _BOOTSTRAP_BLOCK // places)
    for start in range(0, samples, rows_per_block):
        rows = min(rows_per_block, samples - start)
        drawn = rng.integers(places, size=(rows, images)) + np.arange(rows)[:, None] * places
        counts = np.bincount(drawn.ravel(), minlength=rows * places).reshape(rows, places)
        yield counts[:, :images].astype(np.float64), counts[:, images:].sum(axis=1).astype(np.int64)
