"""From scores to relevance, and to match, unsure or nothing: a query is judged against its own background.

A score means little alone: one query is near to everything, another to nothing. What tells them apart is how
the query lies to the gallery as a whole, and to what the encoder was made with. A calibration looks at these
numbers:

    score            what a hit is ordered by: its cosine, less what is taken off for hubs
    mean, spread     of the query's scores over a sample of the gallery (its background)
    best_unrelated   mean + spread · E(n), where E(n) is the expected best of n normal draws: what the nearest
                     of n unrelated items would reach, so that a large gallery does not pass for a good match
    bank.nearest     mean of the query's 30 best scores among the items of the bundle's query bank: what the
                     encoder gives a query that it has seen answers to
    bank.mean, bank.spread   of its scores over the whole bank

A logistic function of them is fitted on held-out sets (`training.calibrate`) in galleries of many sizes, one
for each kind of search. All but the score are the same for every hit of a query and the score's weight is
positive, so that relevance never rises from the first hit to the last. Mean and spread are drawn towards those
of the fit by `PRIOR_ITEMS` items: a gallery of one has a background too.

What the first hit's relevance reaches decides the verdict: from `likely` on the gallery has a match, below
`perhaps` it has nothing, and in between the encoder cannot tell.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from encoders.errors import BundleError
from encoders.modalities import Modality
from encoders.query_bank import QUERY_BANK, QueryBank
from encoders.short_queries import SHORT_QUERIES

CALIBRATION = "calibration.json"
BACKGROUND_ITEMS = 2048
"""Items of a gallery that a query is compared with, at most: two million products at 1,024 dimensions."""
BANK_ITEMS = 3072
"""Of the bank, at most."""
PRIOR_ITEMS = 50
NEAREST = 30

Search: TypeAlias = Literal["words_to_image", "sentence_to_image", "image_to_text"]
Verdict: TypeAlias = Literal["match", "unsure", "nothing"]
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]

SEARCHED: dict[Search, Modality] = {
    "words_to_image": "images",
    "sentence_to_image": "images",
    "image_to_text": "texts",
}
"""What each kind of search looks through."""


class BadCalibration(BundleError):
    """A calibration that cannot be used: not valid, or made with another encoder, bank or templates."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BankWeights(_Part):
    nearest: float
    mean: float
    spread: float


class Weights(_Part):
    """A logistic function of a hit's score and its query's numbers; more score is never less likely.

    `bank`: None where the bundle has no bank of what is searched.
    """

    intercept: float
    score: float = Field(gt=0)
    mean: float
    spread: float
    best_unrelated: float
    bank: BankWeights | None = None

    def logit(self, scores: ArrayLike, numbers: Doubles) -> Doubles:
        """(n, k) for scores (n, k) and the numbers of the n queries, (n, 3), or (n, 6) with the bank's."""
        factors = [self.mean, self.spread, self.best_unrelated]
        if self.bank is not None:
            factors += [self.bank.nearest, self.bank.mean, self.bank.spread]
        of_query = self.intercept + numbers @ factors
        logit: Doubles = self.score * np.asarray(scores, dtype=np.float64) + of_query[:, np.newaxis]
        return logit


class ReliabilityBin(_Part):
    """As many hits as in every other bin: their mean relevance, and how many of them fit."""

    predicted: float
    observed: float


class Interval(_Part):
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


class Figures(_Part):
    """What was measured, on which set; shares from 0 to 1, over present and absent queries at even odds.

    A flat cutoff of the cosine stands beside it, chosen by the same rule on the same data.
    """

    measured_on: str
    gallery_items: int
    present_queries: int
    absent_queries: int
    judged_hits: int
    reliability: tuple[ReliabilityBin, ...]
    calibration_error: Interval
    """Mean distance of relevance from the share that fits, over 15 bins of equal weight."""
    nothing_of_absent: float
    """How many queries about what the gallery does not hold are told so."""
    nothing_of_present: float
    nothing_precision: float | None
    """None where nothing is ever said to match nothing."""
    false_nothing: float
    """Of the queries with a right hit among the first five, the share that is told nothing matches."""
    match_of_right: float
    """Of the queries whose first hit is right, the share that is called a match."""
    match_precision: float | None
    unsure: float
    order_faults: int
    """Answers in which relevance rises from one hit to the next."""
    balanced_accuracy: float
    """Telling present from absent queries by the first hit's relevance, at the best level of other folds."""
    flat_cutoff: float
    flat_balanced_accuracy: float
    flat_nothing_of_absent: float
    flat_nothing_precision: float | None
    flat_false_nothing: float


class GalleryFit(_Part):
    """What a gallery's own texts taught of relevance there: logit' = (1 + slope) · logit + shift."""

    slope: float = Field(gt=-1)
    shift: float
    present_queries: int
    absent_queries: int

    def __call__(self, logit: Doubles) -> Doubles:
        return (1.0 + self.slope) * logit + self.shift


class SearchCalibration(_Part):
    """One kind of search: hits of at least `likely` are called likely, of at least `perhaps` perhaps."""

    weights: Weights
    likely: float = Field(ge=0, le=1)
    perhaps: float = Field(ge=0, le=1)
    prior_mean: float
    prior_spread: float = Field(gt=0)
    gallery_sizes: tuple[int, ...]
    figures: Figures | None = None

    @model_validator(mode="after")
    def _levels_in_order(self) -> Self:
        if self.perhaps > self.likely:
            raise ValueError(f"perhaps begins at {self.perhaps}, above likely ({self.likely})")
        return self

    def relevance(
        self,
        scores: ArrayLike,
        *,
        background: ArrayLike,
        gallery_size: int,
        bank: ArrayLike | None = None,
        fit: GalleryFit | None = None,
    ) -> Doubles:
        """(k,) from 0 to 1 for the scores (k,) of one query's hits, all as hits are ordered by.

        `background` (m,) are the query's scores with `background_rows` of the gallery, `gallery_size` how many
        items it chose from, `bank` its scores with the bundle's bank (`BankItems.scores`). 0.5: as likely an
        answer as a hit of a query about nothing here. Raises ValueError for scores that are not finite, or
        where the calibration needs a bank and there is none.
        """
        found = _finite(scores)[np.newaxis]
        numbers = background_numbers(
            _finite(background)[np.newaxis],
            gallery_size=[gallery_size],
            prior=(self.prior_mean, self.prior_spread),
        )
        if self.weights.bank is not None:
            if bank is None:
                raise ValueError(
                    "this calibration looks at the bundle's query bank, and there are no scores of it"
                )
            numbers = np.concatenate([numbers, bank_numbers(_finite(bank)[np.newaxis])], axis=1)
        logit = self.weights.logit(found, numbers)[0]
        return logistic(fit(logit) if fit else logit)

    def verdict(self, relevance: ArrayLike) -> Verdict:
        """What the relevance of a query's hits comes to; no hit at all is nothing."""
        best = float(np.max(np.asarray(relevance, dtype=np.float64), initial=0.0))
        if best >= self.likely and np.size(relevance):
            return "match"
        return "unsure" if best >= self.perhaps and np.size(relevance) else "nothing"


class Calibration(_Part):
    """What `calibration.json` holds: a calibration for each kind of search that it understands.

    `fingerprint` names the encoder, `bank` and `short_queries` are the SHA-256 of the bundle's files that it
    was fitted with (None: the bundle had none): another bank orders hits otherwise, other templates ask
    otherwise.
    """

    kind: Literal["twinlens-calibration"] = "twinlens-calibration"
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    bank: str | None
    short_queries: str | None
    searches: dict[Search, SearchCalibration]
    fitted_on: str
    digest: str
    """SHA-256 over the images and captions it was fitted on."""

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse_calibration(content: bytes, *, fingerprint: str) -> Calibration:
    """Raises BadCalibration when it is not one, or of another encoder than `fingerprint`."""
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
    calibration = parse_calibration(content, fingerprint=fingerprint)
    for name, fitted in ((QUERY_BANK, calibration.bank), (SHORT_QUERIES, calibration.short_queries)):
        if file_digest(bundle_path / name) != fitted:
            raise BadCalibration(
                f"{CALIBRATION} was fitted {'without' if fitted is None else 'with another'} {name}: calibrate "
                "the bundle again (python -m training calibrate)"
            )
    return calibration


def file_digest(path: Path) -> str | None:
    """The SHA-256 of a file, None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@lru_cache(maxsize=8)
def background_rows(count: int, *, limit: int = BACKGROUND_ITEMS) -> NDArray[np.int64]:
    """The rows of a gallery of `count` that stand for it: all, or `limit` drawn by a fixed seed; ascending."""
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).choice(count, size=limit, replace=False)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class BankItems:
    """Items of the bundle's bank that a search might have found: rows (b, d), and what hubs lose (b,)."""

    rows: Floats
    penalties: Floats

    @classmethod
    def of(cls, bank: QueryBank | None, searched: Modality) -> "BankItems | None":
        """None where the bank has no items of what is searched."""
        if bank is None or searched not in bank.rows:
            return None
        rows = bank.rows[searched]
        rows = rows[background_rows(len(rows), limit=BANK_ITEMS)]
        return cls(rows, bank.penalty(rows, searched))

    def scores(self, queries: Floats) -> Floats:
        """(q, b), or (b,) for one query: what the bank's items are ordered by."""
        scores: Floats = queries @ self.rows.T - self.penalties
        return scores


def background_numbers(scores: Doubles, *, gallery_size: ArrayLike, prior: tuple[float, float]) -> Doubles:
    """(q, 3): mean, spread and best_unrelated of each query's scores (q, m), `gallery_size` (q,).

    `prior` are the mean and spread that count as `PRIOR_ITEMS` more items; m may be 0.
    """
    prior_mean, prior_spread = prior
    items = scores.shape[1]
    total = items + PRIOR_ITEMS
    mean = (scores.sum(axis=1) + PRIOR_ITEMS * prior_mean) / total
    squares = ((scores - mean[:, None]) ** 2).sum(axis=1)
    prior_squares = PRIOR_ITEMS * (prior_spread**2 + (prior_mean - mean) ** 2)
    spread = np.sqrt((squares + prior_squares) / total)
    best = np.array([expected_best(int(size)) for size in np.asarray(gallery_size).reshape(-1)])
    return np.column_stack([mean, spread, mean + spread * best])


def bank_numbers(scores: ArrayLike) -> Doubles:
    """(q, 3): nearest, mean and spread of each query's scores (q, b) with the bank."""
    all_of_them = np.asarray(scores, dtype=np.float64)
    reach = min(NEAREST, all_of_them.shape[1])
    nearest = np.partition(all_of_them, all_of_them.shape[1] - reach, axis=1)[:, -reach:]
    return np.column_stack([nearest.mean(axis=1), all_of_them.mean(axis=1), all_of_them.std(axis=1)])


def expected_best(draws: int) -> float:
    """The expected largest of `draws` standard normal numbers, by Blom's formula (1958); 0 for none."""
    if draws <= 1:
        return 0.0
    return -NormalDist().inv_cdf(0.625 / (draws + 0.25))


def logistic(logit: Doubles) -> Doubles:
    chance: Doubles = 1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0)))
    return chance


def _finite(scores: ArrayLike) -> Doubles:
    found = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not np.isfinite(found).all():
        raise ValueError("a score is not a finite number: the vectors do not come from a healthy encoder")
    return found
