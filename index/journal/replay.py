"""The journal applied to the gallery of a rebuild: without what was deleted or replaced, with what was put."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from index.cache import SeenImage
from index.embed import EmbeddedItem
from index.gallery import Failure, Gallery, GalleryItem
from index.image_files import LIVE_SCHEME, ImageSource, digest_of
from index.journal.changes import Change, Upsert
from index.journal.images import IMAGES_NAME
from index.journal.location import LIVE_NAME
from index.journal.snapshot import last_sequence_of, open_snapshot


@dataclass(frozen=True)
class LiveState:
    """The last change of every id, up to number `sequence`; vectors only of items without an image."""

    sequence: int
    changes: dict[str, Change]
    releases: Path

    @property
    def images(self) -> Path:
        """The folder of their images."""
        return self.releases / LIVE_NAME / IMAGES_NAME

    def items(self) -> Iterator[GalleryItem]:
        """What was put with an image."""
        for change in self.changes.values():
            if isinstance(change, Upsert) and change.digest is not None:
                yield _item(change, f"{LIVE_SCHEME}{change.digest.hex()}")

    def bare_vectors(self, fingerprint: str) -> Iterator[EmbeddedItem | Failure]:
        """What was put as a vector: taken as it is, or a failure where another encoder made it."""
        for change in self.changes.values():
            if not isinstance(change, Upsert) or change.digest is not None:
                continue
            if change.fingerprint != fingerprint:
                yield Failure(
                    change.id,
                    "other_encoder",
                    f"it was put as a vector of {change.fingerprint}, and the encoder is {fingerprint}: "
                    "put it again, best as an image",
                )
            else:
                digest = digest_of(change.vector.tobytes())
                yield EmbeddedItem(
                    _item(change, LIVE_SCHEME), SeenImage(digest, 0, 0, change.vector, b""), reused=True
                )

    def changed_meanwhile(self, item_id: str) -> bool:
        """Whether the journal holds a later change of the item by now: it is applied over the release."""
        return item_id in self.changes and last_sequence_of(self.releases, item_id) > self.sequence


def read_live(releases: Path, *, known: int = 0) -> LiveState | None:
    """The changes beside the releases; None where there never were any. Raises as `open_snapshot`."""
    with open_snapshot(releases, known=known) as snapshot:
        changes = {change.id: _as_needed(change) for change in snapshot.changes()}
    return LiveState(snapshot.sequence, changes, releases) if snapshot.sequence else None


def replayed(gallery: Gallery, live: LiveState | None) -> Iterator[GalleryItem | Failure]:
    """The gallery's items that no live change speaks of, then those that were put with an image."""
    if live is None:
        yield from gallery
        return
    for entry in gallery:
        if isinstance(entry, Failure) or entry.id not in live.changes:
            yield entry
    yield from live.items()


def _as_needed(change: Change) -> Change:
    """Images are embedded anew: their vectors need not wait in memory."""
    has_image = isinstance(change, Upsert) and change.digest is not None
    return change.without_vectors() if has_image else change


def _item(upsert: Upsert, path: str) -> GalleryItem:
    return GalleryItem(upsert.id, ImageSource(path), upsert.texts, upsert.payload)
