"""Zero-shot classification: does an image lie nearest to its own class's name?

Scores are cosines of images with class vectors. Ties take their expectation, as in retrieval: among t classes
of the best score each is the answer with chance 1/t, so a collapsed model gets chance, not the first class.
Pure NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from training.data.pairs import MissingImage
from training.evaluation.metrics import Estimate, bootstrap_means
from training.evaluation.ranks import Doubles, Floats, Ints, QueryRanks, distinct_rows

DEFAULT_TOPS = (1, 5)
CONFUSIONS_KEPT = 10
_ROWS_PER_BLOCK = 4096


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: its images, the share of them that got it, and (`guessed`) how many images of any did."""

    name: str
    images: int
    top1: float
    guessed: float


@dataclass(frozen=True)
class Confusion:
    """`images` images of `name`, `share` of its images, were taken for `taken_for` (expected counts)."""

    name: str
    taken_for: str
    images: float
    share: float


class ZeroShotReport(BaseModel):
    """One set of labelled images; accuracies from 0 to 1, those in `top` with 95% intervals over images.

    `mean_per_class`: the mean of the classes' top-1, which large classes do not dominate; `chance` is what
    guessing gets at top-1. `per_class` is in the order of the classes; `confused`: the most frequent mistakes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    spec: str
    digest: str
    images: int
    classes: int
    templates: tuple[str, ...]
    top: dict[int, Estimate]
    mean_per_class: float
    tied_images: int
    per_class: tuple[ClassAccuracy, ...]
    confused: tuple[Confusion, ...]
    missing: tuple[MissingImage, ...] = ()
    broken: tuple[MissingImage, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float

    @property
    def chance(self) -> float:
        return 1 / self.classes


@dataclass(frozen=True, eq=False)
class Classified:
    """ranks (images,) of the right class; guesses (c, c): how many of the row's class got the column's."""

    ranks: QueryRanks
    guesses: Doubles


def classify(image_vectors: Floats, class_vectors: Floats, *, image_class: Ints) -> Classified:
    """Rank every image's class; unit rows (n, d) and (c, d), image_class (n,) rows of classes."""
    classes, column = distinct_rows(class_vectors)
    images = len(image_vectors)
    above, tied = np.empty(images, dtype=np.int64), np.empty(images, dtype=np.int64)
    guesses = np.zeros((len(class_vectors), len(class_vectors)))
    for start in range(0, images, _ROWS_PER_BLOCK):
        rows = np.arange(start, min(start + _ROWS_PER_BLOCK, images))
        scores = image_vectors[rows] @ classes.T
        if column is not None:
            scores = scores[:, column]
        right = scores[np.arange(len(rows)), image_class[rows]][:, None]
        above[rows], tied[rows] = (scores > right).sum(axis=1), (scores == right).sum(axis=1)
        best = (scores == scores.max(axis=1, keepdims=True)).astype(np.float64)
        np.add.at(guesses, image_class[rows], best / best.sum(axis=1, keepdims=True))
    one = np.ones(images, dtype=np.int64)
    ranks = QueryRanks(np.arange(images), above, tied, one, average_precision=1 / (above + (tied + 1) / 2))
    return Classified(ranks, guesses)


def top_accuracies(
    ranks: QueryRanks, *, classes: int, tops: Sequence[int] = DEFAULT_TOPS, samples: int = 1000, seed: int = 0
) -> dict[int, Estimate]:
    """Top-k accuracy with its interval, for each k below the number of classes (at or above it, all hit)."""
    asked = [k for k in tops if k < classes]
    hits = [ranks.hit_probability(k) for k in asked]
    estimates = bootstrap_means(hits, [ranks.image] * len(asked), samples=samples, seed=seed)
    return dict(zip(asked, estimates, strict=True))


def class_accuracies(guesses: Doubles, names: Sequence[str]) -> tuple[ClassAccuracy, ...]:
    """Each class that has images, in the order of `names` (classes,)."""
    images = guesses.sum(axis=1).round().astype(int)
    guessed = guesses.sum(axis=0)
    return tuple(
        ClassAccuracy(name, int(images[row]), float(guesses[row, row] / images[row]), float(guessed[row]))
        for row, name in enumerate(names)
        if images[row]
    )


def most_confused(
    guesses: Doubles, names: Sequence[str], *, at_most: int = CONFUSIONS_KEPT
) -> tuple[Confusion, ...]:
    """The most frequent mistakes, by images and then by share of the class."""
    images = guesses.sum(axis=1)
    wrong = guesses.copy()
    np.fill_diagonal(wrong, 0)
    shares = wrong / np.maximum(images, 1)[:, None]
    order = np.lexsort((-shares.ravel(), -wrong.ravel()))[:at_most]
    cells = [(int(cell) // len(names), int(cell) % len(names)) for cell in order]
    return tuple(
        Confusion(names[row], names[taken], float(wrong[row, taken]), float(shares[row, taken]))
        for row, taken in cells
        if wrong[row, taken] > 0
    )
