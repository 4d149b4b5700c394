"""What paired comparisons need of a retrieval: for every image, how many of its queries were hit.

One row an image, so that memory does not grow with captions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.ranks import DIRECTIONS, Direction, Doubles, Retrieval
from training.shift.condition import Condition


@dataclass(frozen=True, eq=False)
class Hits:
    """One bundle on one set under one condition (None: clean).

    sums[direction]: (images, ks) expected hits of each image's queries in the top k; counts[direction]:
    (images,) how many queries there are.
    """

    dataset: str
    condition: Condition | None
    ks: tuple[int, ...]
    sums: dict[Direction, Doubles]
    counts: dict[Direction, Doubles]


def hits_of(
    retrieval: Retrieval, images: int, *, dataset: str, condition: Condition | None, ks: Sequence[int]
) -> Hits:
    """Hits by image, of a set of so many images."""
    sums: dict[Direction, Doubles] = {}
    counts: dict[Direction, Doubles] = {}
    for direction in DIRECTIONS:
        ranks = retrieval.direction(direction)
        sums[direction] = np.stack(
            [np.bincount(ranks.image, ranks.hit_probability(k), images).astype(np.float64) for k in ks], axis=1
        )
        counts[direction] = np.bincount(ranks.image, minlength=images).astype(np.float64)
    return Hits(dataset, condition, tuple(ks), sums, counts)
