"""A release that was not taken into service: which, why, since when.

The reason is one of a few words, for a metric's label; the message is the whole story, for people.
"""

import errno
import time
from dataclasses import dataclass, field, replace

from encoders.errors import BundleError, FingerprintMismatch, Unreadable, UnsupportedBundle
from encoders.reading import errno_behind
from index.errors import CorruptRelease, NoRelease, UnknownRelease, UnsupportedRelease
from service.device.batches import is_out_of_memory
from service.errors import EncodingFailed

_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((FingerprintMismatch,), "fingerprint_mismatch"),
    ((UnsupportedRelease, UnsupportedBundle), "unsupported"),
    ((CorruptRelease, BundleError), "corrupt"),
    ((UnknownRelease, NoRelease), "missing"),
    ((EncodingFailed,), "failed_to_warm"),
    ((OSError, Unreadable), "unreadable"),
)
_LACKING = {  # what a machine may be short of, rather than a release at fault
    errno.ENOMEM: "out_of_memory",
    errno.EMFILE: "too_many_open_files",
    errno.ENFILE: "too_many_open_files",
    errno.ENOSPC: "storage_full",
    errno.EDQUOT: "storage_full",
}
REASONS = (*dict.fromkeys(_LACKING.values()), *(word for _, word in _REASONS), "other")


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """`release` is None where not even CURRENT could be read. Times are seconds since the epoch."""

    release: str | None
    reason: str
    message: str
    tries: int = 1
    since: float = field(default_factory=time.time)

    @classmethod
    def of(cls, release: str | None, error: Exception, *, before: "LoadFailure | None") -> "LoadFailure":
        """Another try of what was refused `before` keeps its beginning."""
        refusal = cls(release, reason_of(error), str(error) or repr(error))
        if before is None or before.release != release:
            return refusal
        return replace(refusal, tries=before.tries + 1, since=before.since)


def reason_of(error: Exception) -> str:
    if is_out_of_memory(error):
        return "out_of_memory"
    if lacking := _LACKING.get(errno_behind(error) or 0):
        return lacking
    return next((word for kinds, word in _REASONS if isinstance(error, kinds)), "other")
