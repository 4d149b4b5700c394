"""Whether a bundle has seen the images of a set: by its own record, never by what somebody says.

An image counts as seen when its published photo id is in the record, or when a recorded hash lies within
`MAX_DISTANCE` bits of it or of its mirror image.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from training.data.leakage import MAX_DISTANCE, hashed_once, near_any
from training.data.pairs import PairSet
from training.seen.record import Seen, photo_digests

Status = Literal["seen", "partly seen", "unseen", "not looked for"]
SEEN_SHARE = 0.01
"""Of a set's images: from here on its figures, and comparisons by them, are memory in part."""


class Exposure(BaseModel):
    """How many of a set's `images` a bundle has `seen`.

    compared_with: images in the bundle's record; sources: how many were seen by source and role; unknown:
    bundles that it comes from of which nothing is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status
    images: int
    seen: int = 0
    compared_with: int = 0
    sources: dict[str, int] = {}
    unknown: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether so much was seen that the set's figures are memory in part."""
        return self.seen >= max(1.0, SEEN_SHARE * self.images)

    def __str__(self) -> str:
        if self.status == "not looked for":
            return _not_looked_for(self)
        if self.status == "unseen":
            known = f"the {self.compared_with:,} that it was made with"
            return f"unseen: none of its {self.images:,} images is among {known}"
        found = "; ".join(f"{name}: {count:,}" for name, count in self.sources.items())
        return f"{self.status.upper()}: {self.seen:,} of its {self.images:,} images ({found})"


def exposure_of(seen: Seen | None, pairs: PairSet) -> Exposure:
    """What the bundle with that record has seen of the set; images that do not decode are left out."""
    if seen is None:
        return Exposure(status="not looked for", images=len(pairs.images))
    hashed = hashed_once(pairs.images)
    photos = [photo_digests([image_id]) for image_id in hashed.ids]
    any_source, sources = np.zeros(len(hashed.ids), dtype=np.bool_), dict[str, int]()
    for source in seen.sources:
        known = set(source.photos.tolist())
        mine = near_any(source.hashes, hashed, max_distance=MAX_DISTANCE)
        mine |= np.array([not known.isdisjoint(photo.tolist()) for photo in photos], dtype=np.bool_)
        if count := int(mine.sum()):
            named = f"{source.record.name}, {source.record.role}"
            sources[named] = sources.get(named, 0) + count
        any_source |= mine
    count = int(any_source.sum())
    return Exposure(
        status=_status(count, len(hashed.ids), unknown=bool(seen.unknown)),
        images=len(hashed.ids),
        seen=count,
        compared_with=seen.count("trained on") + seen.count("chosen by"),
        sources=sources,
        unknown=seen.unknown,
    )


def _status(seen: int, images: int, *, unknown: bool) -> Status:
    if seen:
        return "seen" if seen == images else "partly seen"
    return "not looked for" if unknown else "unseen"


def _not_looked_for(exposure: Exposure) -> str:
    if not exposure.compared_with:
        return (
            "not looked for: the bundle does not say what it was trained on, so that nobody can call this set "
            "unseen (python -m training seen)"
        )
    named = ", ".join(exposure.unknown)
    return (
        f"not looked for in full: none of its {exposure.images:,} images is among the "
        f"{exposure.compared_with:,} it was made with, but what {named} was trained on is not known"
    )
