"""All that a page is made of, measured elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from encoders.calibration import Calibration
from training.evaluation.comparison import Comparison
from training.evaluation.ranks import Direction
from training.evaluation.report import RetrievalReport
from training.shift.condition import Condition


@dataclass(frozen=True)
class Shown:
    """An image or a caption, as an answer: `image` is a data URI, None for a caption."""

    text: str
    image: str | None = None


@dataclass(frozen=True)
class Failure:
    """A query far from its answer; `rank`: the expected place of its best right answer, from 1, of `items`."""

    bundle: str
    name: str
    condition: Condition | None
    direction: Direction
    query: Shown
    right: Shown
    rank: float
    items: int
    instead: tuple[Shown, ...]


@dataclass(frozen=True)
class PageInputs:
    """`comparison` names bundles as `bundle_names` does, and so do `calibrations` and `held_out`, the
    corruptions that each one's recipe kept out of training, where that is known. `command`: how the page came.
    """

    reports: Sequence[RetrievalReport]
    comparison: Comparison | None = None
    failures: Sequence[Failure] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    command: str = ""

    @property
    def in_domain(self) -> str | None:
        """The set of the kind that the bundles were trained on, where one was named."""
        gaps = self.comparison.gaps if self.comparison else ()
        return gaps[0].in_domain if gaps else None
