"""What reports say about conditions: recall under each, and what part of the clean recall that is.

Pure reading of reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

from training.evaluation.metrics import Estimate
from training.evaluation.ranks import DIRECTIONS, Direction
from training.evaluation.report import DatasetReport, RetrievalReport
from training.shift.condition import Condition

USUAL_SEVERITY = 3
NAMES = {
    "resolution_bicubic": "low resolution (bicubic)",
    "resolution_bilinear": "low resolution (bilinear)",
    "over_exposure": "over-exposure",
    "under_exposure": "under-exposure",
    "gamma_darker": "darker gamma",
    "gamma_lighter": "lighter gamma",
    "low_light": "low light",
    "warm": "warm light",
    "cool": "cool light",
    "contrast": "low contrast",
    "jpeg": "JPEG",
    "text_insert": "letters inserted",
    "text_delete": "letters missing",
    "text_swap": "letters swapped",
    "text_keyboard": "mistyped letters",
}
"""Corruptions in words that fit "with …"; others say it by their names."""


@dataclass(frozen=True)
class Shifts:
    """One set as one bundle saw it: clean, and by corruption and severity, and by input size.

    `clean` is None where the set was measured under conditions only.
    """

    clean: DatasetReport | None
    corrupted: dict[str, dict[int, DatasetReport]]
    resized: dict[tuple[int, int], DatasetReport]

    @classmethod
    def of(cls, report: RetrievalReport, name: str) -> "Shifts":
        corrupted: dict[str, dict[int, DatasetReport]] = {}
        resized: dict[tuple[int, int], DatasetReport] = {}
        clean = None
        for dataset in (each for each in report.datasets if each.name == name):
            condition = dataset.condition
            if condition is None:
                clean = dataset
            elif condition.corruption is not None and condition.severity is not None:
                corrupted.setdefault(condition.corruption, {})[condition.severity] = dataset
            elif condition.input_size is not None:
                resized[condition.input_size] = dataset
        return cls(clean, corrupted, resized)

    def kept(
        self, dataset: DatasetReport, *, k: int, directions: Sequence[Direction] = DIRECTIONS
    ) -> float | None:
        """Share of the clean recall@k that is left, the mean of `directions`; None where there is none."""
        if self.clean is None:
            return None
        shares = [
            figure.value / whole.value
            for direction in directions
            if (figure := recall_at(dataset, direction, k)) and (whole := recall_at(self.clean, direction, k))
            if whole.value > 0
        ]
        return fmean(shares) if len(shares) == len(directions) else None

    def over_severity(self, corruption: str, direction: Direction, *, k: int) -> list[tuple[float, Estimate]]:
        """(severity, recall@k), the clean set at 0; empty where the corruption was not measured."""
        measured = sorted(self.corrupted.get(corruption, {}).items())
        places = [*([(0, self.clean)] if self.clean and measured else []), *measured]
        return [(float(s), each) for s, dataset in places if (each := recall_at(dataset, direction, k))]


@dataclass(frozen=True)
class Loss:
    """A condition, and the shares of recall@k that it leaves, both ways on average."""

    condition: Condition
    kept: float
    dataset: DatasetReport


def losses(shifts: Shifts, *, k: int, severity: int) -> list[Loss]:
    """Every corruption at that severity, the costliest first."""
    found = [
        Loss(dataset.condition, kept, dataset)
        for by_severity in shifts.corrupted.values()
        if (dataset := by_severity.get(severity)) and dataset.condition
        if (kept := shifts.kept(dataset, k=k)) is not None
    ]
    return sorted(found, key=lambda loss: loss.kept)


def usual_severity(reports: Sequence[RetrievalReport]) -> int | None:
    """The severity to speak of: 3, else the middle one of those measured; None where nothing was corrupted."""
    severities = severities_of(reports)
    if not severities:
        return None
    return USUAL_SEVERITY if USUAL_SEVERITY in severities else severities[len(severities) // 2]


def severities_of(reports: Sequence[RetrievalReport]) -> list[int]:
    conditions = (d.condition for report in reports for d in report.datasets)
    return sorted({each.severity for each in conditions if each is not None and each.severity is not None})


def corruptions_of(reports: Sequence[RetrievalReport], name: str) -> list[str]:
    """The corruptions that the set was measured under in any report, in order of appearance."""
    return list(dict.fromkeys(each for report in reports for each in Shifts.of(report, name).corrupted))


def highest_recall(views: Sequence[Shifts], *, k: int) -> float:
    """Where an axis over all severities ends: the next quarter above the best recall@k, from 0.25 to 1."""
    shown = [
        d for view in views for d in (view.clean, *(e for by in view.corrupted.values() for e in by.values()))
    ]
    best = max(estimate.high for d in shown if d for w in DIRECTIONS if (estimate := recall_at(d, w, k)))
    return min(1.0, ceil(4 * best) / 4) or 0.25


def recall_at(dataset: DatasetReport, direction: Direction, k: int) -> Estimate | None:
    return dataset.recall[direction].get(k)


def both_ways(dataset: DatasetReport, k: int) -> float:
    """Mean recall@k of the two directions, from 0 to 1."""
    return fmean(dataset.recall[direction][k].value for direction in DIRECTIONS)


def in_words(condition: Condition | str | None) -> str:
    """ "low light at severity 3", "input 160×160", "low light"; "no change" for None."""
    if condition is None:
        return "no change"
    if isinstance(condition, str):
        return NAMES.get(condition, condition.replace("_", " "))
    if condition.corruption is not None:
        return f"{in_words(condition.corruption)} at severity {condition.severity}"
    return str(condition)
