"""How a rebuild goes and how it went: counts, failures, rate. Data only; imports no encoder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from index.gallery import Failure
from index.manifest import Manifest

FAILURES_SHOWN = 10


@dataclass
class Tally:
    """What has been done so far; `fraction` is how much of the gallery has been read.

    `changed_meanwhile`: items put live whose image was gone, because the journal held a later change by then.
    """

    images: int = 0
    reused: int = 0
    changed_meanwhile: int = 0
    fraction: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    first_failures: list[Failure] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.images + self.failures.total()

    @property
    def expected(self) -> int | None:
        """About how many entries the gallery has, judged by what has been read of it."""
        return max(self.done, round(self.done / self.fraction)) if self.fraction else None

    def fail(self, failure: Failure) -> None:
        self.failures[failure.code] += 1
        if len(self.first_failures) < FAILURES_SHOWN:
            self.first_failures.append(failure)


@dataclass(frozen=True)
class RebuildReport:
    """What was published, and how it went. `seconds` is reading and embedding; loading the encoder is not."""

    manifest: Manifest
    tally: Tally
    seconds: float

    @property
    def release_id(self) -> str:
        return self.manifest.id

    @property
    def images_per_second(self) -> float:
        return self.tally.done / max(1e-3, self.seconds)


OnProgress = Callable[[Tally], None]
