"""How live changes get into a release: the gallery without what was deleted or replaced, with what was put.

Knows galleries and changes; embeds nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.cache import SeenImage
from index.embed import EmbeddedItem
from index.gallery import Failure, Gallery, GalleryItem
from index.live.pictures import PICTURES_NAME
from index.live.reading import LIVE_NAME, LiveReader
from index.live.records import Change, Put
from index.pictures import LIVE_SCHEME, ImageSource, digest_of

_NOTHING = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class LiveState:
    """The last change of every id, up to number `sequence`."""

    sequence: int
    changes: dict[str, Change]
    folder: Path

    @property
    def pictures(self) -> Path:
        return self.folder / PICTURES_NAME

    def items(self) -> Iterator[GalleryItem]:
        """What was put with a picture."""
        for change in self.changes.values():
            if isinstance(change, Put) and change.digest is not None:
                yield _item(change, f"{LIVE_SCHEME}{change.digest.hex()}")

    def bare_vectors(self, fingerprint: str) -> Iterator[EmbeddedItem | Failure]:
        """What was put as a vector: taken as it is, or a failure where another encoder made it."""
        for change in self.changes.values():
            if not isinstance(change, Put) or change.digest is not None:
                continue
            if change.fingerprint != fingerprint:
                yield Failure(
                    change.id,
                    "other_encoder",
                    f"it was put as a vector of {change.fingerprint}, and the encoder is {fingerprint}: "
                    "put it again, best as a picture",
                )
            else:
                digest = digest_of(change.vector.tobytes())
                yield EmbeddedItem(
                    _item(change, LIVE_SCHEME), SeenImage(digest, 0, 0, change.vector, b""), reused=True
                )


def read_live(releases: Path) -> LiveState | None:
    """The changes beside the releases; None where there never were any. Raises CorruptJournal."""
    folder = releases / LIVE_NAME
    if not folder.is_dir():
        return None
    reader, changes = LiveReader(folder), dict[str, Change]()
    for change in reader:
        changes.pop(change.id, None)  # so that the order is that of the last changes
        if isinstance(change, Put) and change.digest is not None:
            # Pictures are embedded anew: their vectors need not wait in memory.
            changes[change.id] = replace(change, vector=_NOTHING, text_vectors=_NOTHING)
        else:
            changes[change.id] = change
    return LiveState(reader.sequence, changes, folder) if reader.sequence else None


def folded(gallery: Gallery, live: LiveState | None) -> Iterator[GalleryItem | Failure]:
    """The gallery's items that no live change speaks of, then those that were put with a picture."""
    if live is None:
        yield from gallery
        return
    for entry in gallery:
        if isinstance(entry, Failure) or entry.id not in live.changes:
            yield entry
    yield from live.items()


def _item(put: Put, path: str) -> GalleryItem:
    return GalleryItem(put.id, ImageSource(path), put.texts, put.payload)
