"""What the gallery holds for one request: a release with live changes laid over it, by one row number.

Rows of the release come first, those of added items behind; the same for texts. An item that was deleted or
replaced is hidden: its row is never given out.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.errors import ImageMissing, UnknownItem
from index.image_files import digest_of
from index.items import text_id
from index.journal.images import ImageStore
from index.release import Release
from service.search.columns import Mask
from service.search.delta import Delta, Floats

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GalleryView:
    """A release and the delta that belongs to it; immutable."""

    release: Release
    delta: Delta

    @cached_property
    def base_count(self) -> int:
        return len(self.release.items)

    @cached_property
    def base_text_count(self) -> int:
        return len(self.release.texts_table)

    @property
    def count(self) -> int:
        """Items that are shown."""
        return self.base_count - self.delta.hidden_count + len(self.delta.row_of)

    def row(self, item_id: str) -> int:
        """The row of an item that is shown; raises `UnknownItem`."""
        added = self.delta.row_of.get(item_id)
        if added is not None:
            return self.base_count + added
        row = self.release.items.row(item_id)
        if self.delta.hidden[row]:
            raise UnknownItem(f"no item has the id {item_id!r}: it was deleted")
        return row

    def id(self, row: int) -> str:
        added = row - self.base_count
        return self.release.items.id(row) if added < 0 else self.delta.puts[added].id

    def payload(self, row: int) -> dict[str, Any]:
        added = row - self.base_count
        return self.release.items.payload(row) if added < 0 else self.delta.puts[added].payload

    def described(self, rows: NDArray[np.int64], *, with_payload: bool) -> list[dict[str, Any]]:
        """`id` and, if wanted, `payload` of many rows: what a page of a thousand hits is made of."""
        base = rows[rows < self.base_count]
        table = self.release.items
        of_base: Iterator[dict[str, Any]]
        if with_payload:
            texts = map(orjson.loads, table.payload_texts(base))
            of_base = (
                {"id": name, "payload": payload} for name, payload in zip(table.ids(base), texts, strict=True)
            )
        else:
            of_base = ({"id": name} for name in table.ids(base))
        return [
            next(of_base) if row < self.base_count else self._added(row, with_payload=with_payload)
            for row in rows.tolist()
        ]

    def _added(self, row: int, *, with_payload: bool) -> dict[str, Any]:
        return {"id": self.id(row)} | ({"payload": self.payload(row)} if with_payload else {})

    def vector(self, row: int) -> Floats:
        """(dim,); the search thread's."""
        added = row - self.base_count
        return self.release.images.reconstruct(row) if added < 0 else self.delta.vector(added)

    def size_pixels(self, row: int) -> tuple[int, int] | None:
        """Width and height of the image, upright; None for an item without one."""
        added = row - self.base_count
        if added < 0:
            width, height = self.release.items.size_pixels(row)
        else:
            put = self.delta.puts[added]
            width, height = put.width_pixels, put.height_pixels
        return (width, height) if width else None

    def digest(self, row: int) -> bytes:
        """SHA-256 of the image's bytes; of an item without one, something that changes with it."""
        added = row - self.base_count
        if added < 0:
            return self.release.items.digest(row)
        put = self.delta.puts[added]
        return put.digest or digest_of(f"{put.id}\0{put.sequence}".encode())

    def thumbnail(self, row: int) -> bytes:
        """WebP, its long side at most 256 px; raises `ImageMissing`."""
        added = row - self.base_count
        if added < 0:
            return self.release.thumbnail(row)
        digest = self._image_of(added)
        return self._store.thumbnail(digest)

    def open_image(self, row: int) -> bytes:
        """The image's bytes; raises `ImageMissing`."""
        added = row - self.base_count
        return self.release.open_image(row) if added < 0 else self._store.read(self._image_of(added))

    def text(self, row: int) -> str:
        added = row - self.base_text_count
        return self.release.texts_table.text(row) if added < 0 else self.delta.texts.texts[added]

    def text_id(self, row: int) -> str:
        added = row - self.base_text_count
        return self.release.texts_table.id(row) if added < 0 else text_id(digest_of(self.text(row).encode()))

    def text_vector(self, row: int) -> Floats:
        """(dim,); the search thread's."""
        added = row - self.base_text_count
        return self.release.texts.reconstruct(row) if added < 0 else self.delta.texts.vectors.vectors[added]

    def items_of_text(self, row: int) -> NDArray[np.int64]:
        """Rows (n,) of the shown items that have the text; uncopied where it can be: it may be of all."""
        added, delta = row - self.base_text_count, self.delta
        own: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        if added < 0:
            offsets, rows = self.release.texts_table.item_lists()
            base = rows[offsets[row] : offsets[row + 1]]
            own = base[~delta.hidden[base]] if delta.hidden_count else base
            owners = delta.texts.owners_of_base.get(row, ())
        else:
            owners = delta.texts.owners[added]
        put = [self.base_count + owner for owner in owners if delta.alive[owner]]
        return np.concatenate([own, np.array(put, dtype=np.int64)]) if put else own

    def texts_of(self, base_items: Mask | None, added_items: Mask) -> tuple[Mask | None, Mask]:
        """Which texts belong to at least one of these items; of `None`, all base items, every base text does.

        Masks over the items, and then the texts, of the release and of the delta.
        """
        layer = self.delta.texts
        added = np.zeros(layer.vectors.count, dtype=np.bool_)
        for row, owners in layer.owners.items():
            added[row] = any(added_items[owner] for owner in owners)
        if base_items is None:
            return None, added
        offsets, rows = self.release.texts_table.item_lists()
        passed_before = np.concatenate([[0], np.cumsum(base_items[rows])])
        base: Mask = passed_before[offsets[1:]] > passed_before[offsets[:-1]]
        for row, owners in layer.owners_of_base.items():
            base[row] |= any(added_items[owner] for owner in owners)
        return base, added

    @cached_property
    def shown_texts(self) -> tuple[NDArray[np.int64] | None, Mask]:
        """Rows of the release's texts that are shown (None: all), and which of the added ones are."""
        delta = self.delta
        base, added = self.texts_of(~delta.hidden if delta.hidden_count else None, delta.alive)
        if base is None:
            return None, added
        offsets, _ = self.release.texts_table.item_lists()
        without_items: Mask = offsets[1:] == offsets[:-1]  # from a file of texts: they never had any
        return np.flatnonzero(base | without_items), added

    @property
    def _store(self) -> ImageStore:
        if self.delta.store is None:
            raise ImageMissing("the images of live changes are not open")
        return self.delta.store

    def _image_of(self, added: int) -> bytes:
        """Its SHA-256."""
        put = self.delta.puts[added]
        if put.digest is None:
            raise ImageMissing(f"the item {put.id!r} was put as a vector, without an image", code="no_image")
        return put.digest
