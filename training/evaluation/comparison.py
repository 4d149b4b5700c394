"""The Comparison: differences between bundles, and between clean and shifted sets, as JSON.

Knows figures; `training.evaluation.compare` makes them, `training.evaluation.comparison_tables` shows them.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.metrics import Estimate
from training.evaluation.ranks import Direction
from training.files import replacing
from training.seen.exposure import Status

COMPARISON_FORMAT = 1


class _Figure(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    dataset: str
    direction: Direction
    k: int


class Shift(_Figure):
    """What a bundle keeps under a subject: one condition, or the mean over a group at one severity.

    `held_out`: whether the corruption was kept out of the bundle's training; None for means, sizes and texts,
    and where that is not known. `near`: of one that was kept out, the kinds much like it that were not.
    `recall` and `clean` from 0 to 1, `difference` = recall − clean; `retention` None where clean recall is 0.
    """

    subject: str
    severity: int | None
    held_out: bool | None = None
    near: tuple[str, ...] = ()
    recall: Estimate
    clean: float
    difference: Estimate
    retention: Estimate | None


class Difference(_Figure):
    """`bundle` minus `against`, on the clean set (subject "clean") or under a subject; from −1 to 1.

    seen_by: which of the two were trained on the set's images, or chosen by them.
    """

    against: str
    seen_by: tuple[str, ...] = ()
    subject: str
    severity: int | None
    recall: Estimate
    retention: Estimate | None

    @property
    def verdict(self) -> str:
        """Of the recall: whether its interval leaves out zero. None where memory may be what is compared."""
        if self.seen_by:
            return f"no fair comparison: seen by {' and '.join(self.seen_by)}"
        if self.recall.low > 0:
            return "better"
        return "worse" if self.recall.high < 0 else "no difference shown"


class CorruptionScore(_Figure):
    """Errors against a baseline's, over `corruptions` kinds; `relative` over those that hurt the baseline."""

    baseline: str
    corruptions: int
    score: Estimate | None
    relative: Estimate | None


class UnseenGap(_Figure):
    """Clean recall on `in_domain` minus that on `dataset`; galleries of different sizes are not alike.

    status: whether the bundle has seen the set, by its own record; None where nobody looked.
    """

    in_domain: str
    status: Status | None = None
    gap: Estimate


class Comparison(BaseModel):
    """All that follows from the hits of several bundles on several sets; intervals are 95%.

    `held_out`: by bundle, the corruptions that its recipe kept out of training, where that is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["twinlens-comparison"] = "twinlens-comparison"
    format: int = COMPARISON_FORMAT
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    bundles: tuple[str, ...]
    reference: str
    held_out: dict[str, tuple[str, ...]] = {}
    shifts: tuple[Shift, ...] = ()
    differences: tuple[Difference, ...] = ()
    scores: tuple[CorruptionScore, ...] = ()
    gaps: tuple[UnseenGap, ...] = ()


def write_comparison(comparison: Comparison, path: Path) -> None:
    """JSON; the file is either the old one or the new one, never a part of it."""
    with replacing(path) as file:
        file.write(comparison.model_dump_json(indent=1).encode() + b"\n")
