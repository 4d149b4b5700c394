"""How far what comes lies from what the encoder was proven on. Pure NumPy, sums and counts only.

`Reference` describes unit rows of known origin: the bundle's bank of queries. `Window` keeps the last queries
as sums: mean, pairwise cosine and shares follow from those, so that no query is kept, neither its text nor its
vector; a query costs O(d) work, a window O(d) memory. With n queries and N reference rows,

    mean        √max(0, ‖m − μ‖² − tr Σ (1/n + 1/N)) / √tr Σ: how far the mean has moved, in spreads of the
                reference. ‖m − μ‖² is the squared MMD of a linear kernel; under no change its mean is what
                is taken off, and its deviation √(2 tr Σ²)(1/n + 1/N), which the standard errors are counted in.
    spread      mean cosine between two different queries, (‖Σx‖² − n) / (n(n − 1)); under no
                change its deviation is √(4 μᵀΣμ / n + 2 tr Σ² / n²) (Hoeffding 1948).
    unfamiliar  share that lies farther from the reference than 99% of its own rows: by Mahalanobis' distance in
                its `COMPONENTS` main directions, what is left of a row counted with the mean of the other
                variances (Tipping and Bishop 1999). Fitted on one half, the limit taken from the other.
"""

from collections import deque
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 64
FAMILIAR_SHARE = 0.99
LEAST_ROWS = 100
"""Of a reference: fewer tell too little of how a domain spreads."""
BUCKETS = 8
BUCKET_QUERIES = 250
HISTOGRAM_BINS = 10

Doubles = NDArray[np.float64]
Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Distances from rows of known origin. mean (d,), axes (d, k) in units of their deviation."""

    mean: Rows
    axes: Rows
    deviations: Rows
    rest_variance: float
    limit: float

    @classmethod
    def of(cls, rows: Rows) -> "Familiarity":
        """From rows (n, d) in no order of their own; every second one only sets the limit."""
        fitted, held_out = rows[::2].astype(np.float64), rows[1::2]
        mean = fitted.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(fitted.T))
        count = min(COMPONENTS, rows.shape[1] - 1, len(fitted) // 8)
        main, rest = variances[::-1][:count], variances[::-1][count:]
        familiarity = cls(
            mean=mean.astype(np.float32),
            axes=np.ascontiguousarray(axes[:, ::-1][:, :count], dtype=np.float32),
            deviations=np.sqrt(np.maximum(main, 1e-12)).astype(np.float32),
            rest_variance=max(float(rest.mean()), 1e-12),
            limit=np.inf,
        )
        limit = float(np.quantile(familiarity.distances(held_out), FAMILIAR_SHARE))
        return cls(familiarity.mean, familiarity.axes, familiarity.deviations, familiarity.rest_variance, limit)

    def distances(self, rows: Rows) -> Rows:
        """Squared (n,) of rows (n, d)."""
        centred = rows - self.mean
        along = centred @ self.axes
        left = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        distances: Rows = ((along / self.deviations) ** 2).sum(axis=1) + left / self.rest_variance
        return distances

    def unfamiliar(self, rows: Rows) -> NDArray[np.bool_]:
        """(n,): which rows lie farther than the limit."""
        far: NDArray[np.bool_] = self.distances(rows) > self.limit
        return far


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of unit rows (n, d): mean μ (d,), tr Σ, tr Σ² and μᵀΣμ of their covariance Σ."""

    count: int
    mean: Doubles
    variance: float
    squared_variance: float
    variance_along_mean: float
    familiarity: Familiarity

    @classmethod
    def of(cls, rows: Rows) -> "Reference | None":
        """None of fewer than `LEAST_ROWS`."""
        if len(rows) < LEAST_ROWS:
            return None
        mean = rows.mean(axis=0, dtype=np.float64)
        covariance = np.cov(rows.astype(np.float64).T, bias=True)
        return cls(
            count=len(rows),
            mean=mean,
            variance=max(float(np.trace(covariance)), 1e-12),
            squared_variance=float((covariance**2).sum()),
            variance_along_mean=float(mean @ covariance @ mean),
            familiarity=Familiarity.of(rows),
        )

    @property
    def pairwise_cosine(self) -> float:
        """Mean cosine of two different rows."""
        return _pairwise_cosine(self.count * self.mean, self.count)


@dataclass(slots=True)
class Sums:
    """Queries as sums. `judged` have a relevance of their best hit, `decided` an answer to "does it match"."""

    total: Doubles
    count: int = 0
    unfamiliar: int = 0
    cut: int = 0
    undecodable: int = 0
    judged: int = 0
    relevance: float = 0.0
    relevance_squares: float = 0.0
    decided: int = 0
    unmatched: int = 0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, dtype=np.int64))

    @classmethod
    def of_rows(cls, rows: Rows, reference: Reference | None) -> "Sums":
        """Of unit rows (n, d) that are no queries."""
        strange = int(reference.familiarity.unfamiliar(rows).sum()) if reference and len(rows) else 0
        return cls(rows.sum(axis=0, dtype=np.float64), count=len(rows), unfamiliar=strange)

    @property
    def pairwise_cosine(self) -> float:
        return _pairwise_cosine(self.total, self.count)

    def add(self, other: "Sums") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class QueryNote:
    """What is noted of a query: its unit vector (d,), whether it was cut, and what the search made of it.

    `relevance` of its best hit and `matched` are None where no calibration tells, or a filter was asked for.
    """

    vector: Rows
    cut: bool = False
    relevance: float | None = None
    matched: bool | None = None


class Window:
    """The last `BUCKETS` · `BUCKET_QUERIES` queries as sums; the oldest bucket goes when a new one begins."""

    def __init__(self, dim: int, reference: Reference | None) -> None:
        self._dim = dim
        self._familiarity = reference.familiarity if reference else None
        self._buckets: deque[Sums] = deque([Sums(np.zeros(dim))], maxlen=BUCKETS)

    def note(self, query: QueryNote) -> None:
        strange = bool(self._familiarity and self._familiarity.unfamiliar(query.vector[np.newaxis])[0])
        sums = self._current()
        sums.total += query.vector
        sums.count += 1
        sums.unfamiliar += strange
        sums.cut += query.cut
        if query.relevance is not None:
            sums.judged += 1
            sums.relevance += query.relevance
            sums.relevance_squares += query.relevance**2
            sums.histogram[min(int(query.relevance * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
        if query.matched is not None:
            sums.decided += 1
            sums.unmatched += not query.matched

    def note_undecodable(self) -> None:
        """An image that came as a query and was none."""
        self._current().undecodable += 1

    def sums(self) -> Sums:
        """Of the whole window."""
        whole = Sums(np.zeros(self._dim))
        for bucket in self._buckets:
            whole.add(bucket)
        return whole

    def _current(self) -> Sums:
        newest = self._buckets[-1]
        if newest.count + newest.undecodable >= BUCKET_QUERIES:
            newest = Sums(np.zeros(self._dim))
            self._buckets.append(newest)
        return newest


@dataclass(frozen=True, slots=True)
class Departure:
    """A number beside its reference, and how many standard errors lie between the two."""

    value: float
    reference: float
    standard_errors: float


def mean_shift(sums: Sums, reference: Reference) -> Departure:
    """How far the mean has moved, in spreads of the reference; 0 for a sample of the reference itself."""
    gap = sums.total / sums.count - reference.mean
    squared = float(gap @ gap)
    per_sample = 1 / sums.count + 1 / reference.count
    expected = reference.variance * per_sample
    deviation = max(np.sqrt(2 * reference.squared_variance) * per_sample, 1e-12)
    shift = np.sqrt(max(0.0, squared - expected) / reference.variance)
    return Departure(float(shift), 0.0, float((squared - expected) / deviation))


def likeness(sums: Sums, reference: Reference) -> Departure:
    """Mean cosine of two different queries. Needs two."""
    n = sums.count
    variance = 4 * reference.variance_along_mean / n + 2 * reference.squared_variance / n**2
    expected = reference.pairwise_cosine
    difference = sums.pairwise_cosine - expected
    return Departure(sums.pairwise_cosine, expected, difference / max(float(np.sqrt(variance)), 1e-12))


def share(part: int, whole: int, expected: float) -> Departure:
    """A share beside the expected one, by the normal approximation of a binomial."""
    value = part / whole
    # Of an expected 0 no share would be an error: then the sample's own deviation counts.
    guess = expected if 0 < expected < 1 else (part + 1) / (whole + 2)
    deviation = float(np.sqrt(guess * (1 - guess) / whole))
    return Departure(value, expected, (value - expected) / deviation)


def _pairwise_cosine(total: Doubles, count: int) -> float:
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else 1.0
