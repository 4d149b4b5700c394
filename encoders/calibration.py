"""From cosines to relevance, and to "nothing here matches": a query is judged against its own background.

A cosine means little alone: one query is near to everything, another to nothing. What tells them apart is
how the query lies to the gallery as a whole, so a calibration looks at four numbers, and only these:

    score            the cosine of a hit (for the decision: of the best hit)
    mean, spread     of the query's cosines with a sample of the gallery (its background)
    best_unrelated   mean + spread · E(n), where E(n) is the expected best of n normal draws: what the nearest
                     of n unrelated items would reach, so that a large gallery does not pass for a good match

A logistic function of them is fitted on held-out pairs (`training.calibrate`) in galleries of many sizes. Mean
and spread are drawn towards those of the fit by `PRIOR_ITEMS` items: a gallery of one has a background too.

Pure NumPy: knows nothing of encoders, indexes or requests, nor how a calibration is fitted.
"""

from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from encoders.errors import BundleError

CALIBRATION = "calibration.json"
BACKGROUND_ITEMS = 2048
"""Items of a gallery that a query is compared with, at most: two million products at 1,024 dimensions."""
PRIOR_ITEMS = 50

Direction: TypeAlias = Literal["text_to_image", "image_to_text"]
Doubles: TypeAlias = NDArray[np.float64]


class BadCalibration(BundleError):
    """A calibration that cannot be used: of a newer format, of another encoder, or not valid."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Weights(_Part):
    """A logistic function of the four numbers; more score is never less likely."""

    intercept: float
    score: float = Field(gt=0)
    mean: float
    spread: float
    best_unrelated: float

    def probability(self, features: Doubles) -> Doubles:
        """features (n, 4) in the order of the fields; (n,) between 0 and 1."""
        logit = self.intercept + features @ [self.score, self.mean, self.spread, self.best_unrelated]
        probability: Doubles = 1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0)))
        return probability


class ReliabilityBin(_Part):
    """Hits of a relevance in [low, high): its mean, how many of them fit, and their share of all weight."""

    low: float
    high: float
    predicted: float
    observed: float
    share: float


class Decision(_Part):
    """How often "something matches" and "nothing matches" were right; `precision` at even odds of the two."""

    present_queries: int
    absent_queries: int
    recall_present: float
    recall_absent: float
    precision_present: float
    precision_absent: float
    balanced_accuracy: float


class Figures(_Part):
    """What was measured, on which set, beside a flat cosine cutoff that was fitted on the same data.

    Of a fit, both decisions are those of folds that they were not fitted on.
    """

    measured_on: str
    gallery_items: int
    """Of the decisions; reliability is over galleries of all sizes."""
    reliability: tuple[ReliabilityBin, ...]
    expected_calibration_error: float
    decision: Decision
    flat_cutoff: float
    flat_decision: Decision


class DirectionCalibration(_Part):
    """One direction of search: `hit` gives a hit's relevance, `answer` the chance that the best fits."""

    hit: Weights
    answer: Weights
    threshold: float = Field(ge=0, le=1)
    prior_mean: float
    prior_spread: float = Field(gt=0)
    gallery_sizes: tuple[int, ...]
    figures: Figures | None = None

    def relevance(self, scores: ArrayLike, *, background: ArrayLike, gallery_size: int) -> Doubles:
        """(k,) from 0 to 1 for the cosines (k,) of one query's hits.

        `background` (m,) are its cosines with `background_rows` of the gallery, `gallery_size` how many items
        it chose from. 0.5: as likely what the query was written for as a hit of a query about nothing here.
        """
        return self.hit.probability(self._features(scores, background, gallery_size))

    def is_good_match(self, best_score: float, *, background: ArrayLike, gallery_size: int) -> bool:
        """Whether the gallery holds what is asked, judged by the query's best cosine."""
        chance = self.answer.probability(self._features([best_score], background, gallery_size))
        return bool(chance[0] >= self.threshold)

    def _features(self, scores: ArrayLike, background: ArrayLike, gallery_size: int) -> Doubles:
        found = np.asarray(scores, dtype=np.float64).reshape(-1)
        cosines = np.asarray(background, dtype=np.float64).reshape(1, -1)
        if not (np.isfinite(found).all() and np.isfinite(cosines).all()):
            raise ValueError("a cosine is not a finite number: the vectors do not come from a healthy encoder")
        stats = background_features(
            cosines,
            gallery_size=np.array([gallery_size]),
            prior=(self.prior_mean, self.prior_spread),
        )
        return np.column_stack([found, np.repeat(stats, len(found), axis=0)])


class Calibration(_Part):
    """What `calibration.json` holds; `fingerprint` names the encoder whose cosines it understands."""

    kind: Literal["twinlens-calibration"] = "twinlens-calibration"
    format: Literal[1] = 1
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    directions: dict[Direction, DirectionCalibration]
    fitted_on: str
    digest: str
    """SHA-256 over the pairs and the absent queries it was fitted on."""

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse_calibration(content: bytes, *, fingerprint: str) -> Calibration:
    """Raises BadCalibration when it is not one, of a newer format, or of another encoder than `fingerprint`."""
    try:
        calibration = Calibration.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadCalibration(
            f"{CALIBRATION}, {where}: {first['msg']}: calibrate the bundle again (python -m training calibrate)"
        ) from error
    if calibration.fingerprint != fingerprint:
        raise BadCalibration(
            f"{CALIBRATION} is of encoder {calibration.fingerprint}, this one is {fingerprint}: calibrate again"
        )
    return calibration


def read_calibration(bundle_path: Path, *, fingerprint: str) -> Calibration | None:
    """A bundle's calibration, None where it has none. Raises BadCalibration, OSError."""
    try:
        content = (bundle_path / CALIBRATION).read_bytes()
    except FileNotFoundError:
        return None
    return parse_calibration(content, fingerprint=fingerprint)


@lru_cache(maxsize=8)
def background_rows(count: int, *, limit: int = BACKGROUND_ITEMS) -> NDArray[np.int64]:
    """The rows of a gallery of `count` that stand for it: all, or `limit` drawn by a fixed seed; ascending."""
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).choice(count, size=limit, replace=False)).astype(np.int64)


def background_features(cosines: Doubles, *, gallery_size: ArrayLike, prior: tuple[float, float]) -> Doubles:
    """(q, 3): mean, spread and best_unrelated of each query's cosines (q, m), `gallery_size` (q,).

    `prior` are the mean and spread that count as `PRIOR_ITEMS` more items; m may be 0.
    """
    prior_mean, prior_spread = prior
    items = cosines.shape[1]
    total = items + PRIOR_ITEMS
    mean = (cosines.sum(axis=1) + PRIOR_ITEMS * prior_mean) / total
    squares = ((cosines - mean[:, None]) ** 2).sum(axis=1)
    prior_squares = PRIOR_ITEMS * (prior_spread**2 + (prior_mean - mean) ** 2)
    spread = np.sqrt((squares + prior_squares) / total)
    best = np.array([expected_best(int(size)) for size in np.asarray(gallery_size).reshape(-1)])
    return np.column_stack([mean, spread, mean + spread * best])


def expected_best(draws: int) -> float:
    """The expected largest of `draws` standard normal numbers, by Blom's formula (1958); 0 for none."""
    if draws <= 1:
        return 0.0
    return -NormalDist().inv_cdf(0.625 / (draws + 0.25))
