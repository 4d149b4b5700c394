"""Live changes over one release: which of its items are hidden, and which are added. Immutable.

Every acknowledged change makes a new delta, which shares with the one before what did not change. A request
keeps the one it began with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.modalities import Modality
from encoders.query_bank import QueryBank, penalty_of
from index.errors import UnknownItem
from index.image_files import digest_of
from index.journal.changes import Change, Upsert
from index.journal.images import ImageStore
from index.release import Release
from service.search.columns import Mask
from service.search.filters import PayloadFilter

SLACK_ROWS = 1024  # that may be dead before a delta is made anew without them


Floats = NDArray[np.float32]
Penalty = Callable[[Floats], Floats]
"""Rows (n, dim) to what is taken off their scores for being hubs (n,)."""


class _Room:
    """Memory for rows, of which the first `used` are written and never written again."""

    def __init__(self, capacity: int, dim: int) -> None:
        self.vectors: Floats = np.empty((capacity, dim), dtype=np.float32)
        self.penalties: Floats = np.zeros(capacity, dtype=np.float32)
        self.used = 0


@dataclass(frozen=True, eq=False)
class AddedVectors:
    """`count` rows of unit vectors with their penalties; extending gives another layer, and copies little."""

    dim: int
    penalty: Penalty | None
    count: int = 0
    _room: _Room | None = None

    @property
    def vectors(self) -> Floats:
        """(count, dim)."""
        if self._room is None:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._room.vectors[: self.count]

    @property
    def penalties(self) -> Floats:
        """(count,); zeros where nothing corrects."""
        return np.empty(0, dtype=np.float32) if self._room is None else self._room.penalties[: self.count]

    def extended(self, rows: Floats) -> "AddedVectors":
        """This layer with `rows` (n, dim) behind it."""
        if not len(rows):
            return self
        total = self.count + len(rows)
        room = self._room
        if room is None or room.used != self.count or len(room.vectors) < total:  # full, or extended by another
            room = _Room(max(64, 2 * total), self.dim)
            room.vectors[: self.count], room.penalties[: self.count] = self.vectors, self.penalties
        room.vectors[self.count : total] = rows
        if self.penalty is not None:
            room.penalties[self.count : total] = self.penalty(np.ascontiguousarray(rows, dtype=np.float32))
        room.used = total
        return AddedVectors(self.dim, self.penalty, total, room)


class AddedPayloads:
    """What `index.items.ItemTable` is for a release's items, as far as filters need it."""

    def __init__(self, puts: Sequence[Upsert], row_of: Mapping[str, int]) -> None:
        self._puts = puts
        self._row_of = row_of

    def __len__(self) -> int:
        return len(self._puts)

    def row(self, item_id: str) -> int:
        """The row of an item that is shown; raises `UnknownItem`."""
        if item_id not in self._row_of:
            raise UnknownItem(f"no item has the id {item_id!r}")
        return self._row_of[item_id]

    def payloads(self) -> Iterator[dict[str, Any]]:
        for put in self._puts:
            yield put.payload


@dataclass(frozen=True, eq=False)
class AddedTexts:
    """Texts that the release does not hold, and the added items of all texts.

    `texts`, `digests` may be longer than this layer: what lies beyond `vectors.count` is a later one's.
    `owners_of_base`: row of a text of the release → rows of added items that have it too; `owners`: the same
    for the rows of this layer. Owners may be gone by now.
    """

    vectors: AddedVectors
    texts: list[str] = field(default_factory=list)
    row_of: dict[bytes, int] = field(default_factory=dict)
    owners: dict[int, tuple[int, ...]] = field(default_factory=dict)
    owners_of_base: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Delta:
    """As of change number `sequence`. Rows of added items count from 0, and `alive` says which are shown."""

    release: Release
    sequence: int
    hidden: Mask  # (items of the release,)
    images: AddedVectors
    texts: AddedTexts
    row_of: dict[str, int]  # id → row of an added item that is shown
    puts: list[Upsert]  # by row, without their vectors; what lies beyond `images.count` is a later delta's
    alive: Mask  # (added items,)
    joins_texts: bool  # False where the release's texts came from a file of their own, and stay those
    store: ImageStore | None = None  # of the added items' images; None where live changes are off

    @classmethod
    def empty(cls, release: Release, bank: QueryBank | None, *, sequence: int = 0) -> "Delta":
        """Nothing changed yet. `bank`: of the release's encoder."""
        table = release.texts_table
        return cls(
            release=release,
            sequence=sequence,
            hidden=np.zeros(len(release.items), dtype=np.bool_),
            images=_layer(release, bank, "images"),
            texts=AddedTexts(_layer(release, bank, "texts")),
            row_of={},
            puts=[],
            alive=np.empty(0, dtype=np.bool_),
            joins_texts=not len(table) or len(table.item_lists()[1]) > 0,
        )

    @cached_property
    def hidden_count(self) -> int:
        return int(np.count_nonzero(self.hidden))

    @cached_property
    def shown_base_rows(self) -> NDArray[np.int64] | None:
        """Rows of the release's items that are shown; None: all of them."""
        return np.flatnonzero(~self.hidden) if self.hidden_count else None

    @cached_property
    def payload_filter(self) -> PayloadFilter:
        """Over the added items; the search thread's."""
        return PayloadFilter(AddedPayloads(self.puts[: self.images.count], self.row_of))

    def hidden_rows(self) -> list[int]:
        """Rows of the release's items that are not shown."""
        rows: list[int] = np.flatnonzero(self.hidden).tolist()
        return rows

    def payloads(self) -> list[dict[str, Any]]:
        """Of the added items that are shown."""
        return [self.puts[row].payload for row in self.row_of.values()]

    def applied(self, changes: Sequence[Change]) -> "Delta":
        """This delta after some more changes, in order; vectors of puts must be of the release's encoder."""
        hidden, row_of = self.hidden.copy(), dict(self.row_of)
        alive = np.concatenate([self.alive, np.zeros(len(changes), dtype=np.bool_)])
        puts = self.puts if len(self.puts) == self.images.count else self.puts[: self.images.count]
        added: list[Upsert] = []
        for change in changes:
            base_row = _base_row(self.release, change.id)
            if base_row is not None:
                hidden[base_row] = True
            if (before := row_of.pop(change.id, None)) is not None:
                alive[before] = False
            if isinstance(change, Upsert):
                row_of[change.id] = self.images.count + len(added)
                alive[row_of[change.id]] = True
                added.append(change)
        puts.extend(put.without_vectors() for put in added)
        rows = np.array([put.vector for put in added], dtype=np.float32).reshape(-1, self.images.dim)
        after = replace(
            self,
            sequence=max((change.sequence for change in changes), default=self.sequence),
            hidden=hidden,
            images=self.images.extended(rows),
            texts=self._texts_with(added),
            row_of=row_of,
            puts=puts,
            alive=alive[: self.images.count + len(added)],
        )
        return after._without_the_dead() if len(after.alive) > 2 * len(row_of) + SLACK_ROWS else after

    def vector(self, row: int) -> Floats:
        """(dim,) of an added item."""
        vector: Floats = self.images.vectors[row]
        return vector

    def _texts_with(self, added: Sequence[Upsert]) -> AddedTexts:
        layer = self.texts
        if not self.joins_texts or not any(put.texts for put in added):
            return layer
        count = layer.vectors.count
        texts = layer.texts if len(layer.texts) == count else layer.texts[:count]
        row_of, owners = dict(layer.row_of), dict(layer.owners)
        owners_of_base = dict(layer.owners_of_base)
        fresh: list[Floats] = []
        for place, put in enumerate(added):
            owner = self.images.count + place
            for text, vector in zip(put.texts, put.text_vectors, strict=True):
                digest = digest_of(text.encode())
                base_row = self.release.texts_table.find(digest)
                if base_row is not None:
                    owners_of_base[base_row] = (*owners_of_base.get(base_row, ()), owner)
                    continue
                if digest not in row_of:
                    row_of[digest] = count + len(fresh)
                    texts.append(text)
                    fresh.append(vector)
                owners[row_of[digest]] = (*owners.get(row_of[digest], ()), owner)
        rows = np.array(fresh, dtype=np.float32).reshape(-1, self.images.dim)
        return AddedTexts(layer.vectors.extended(rows), texts, row_of, owners, owners_of_base)

    def _without_the_dead(self) -> "Delta":
        """The same, made anew of what is shown: memory must not grow with how often an item is put."""
        bare = replace(
            self,
            images=AddedVectors(self.images.dim, self.images.penalty),
            texts=AddedTexts(AddedVectors(self.images.dim, self.texts.vectors.penalty)),
            row_of={},
            puts=[],
            alive=np.empty(0, dtype=np.bool_),
        )
        return replace(bare.applied(list(self._whole_puts())), sequence=self.sequence)

    def _whole_puts(self) -> Iterable[Upsert]:
        zeros = np.zeros(self.images.dim, dtype=np.float32)
        for row in sorted(self.row_of.values()):
            put = self.puts[row]
            places = [self.texts.row_of.get(digest_of(text.encode())) for text in put.texts]
            vectors = [zeros if place is None else self.texts.vectors.vectors[place] for place in places]
            yield replace(put, vector=self.vector(row), text_vectors=np.array(vectors, dtype=np.float32))


def _layer(release: Release, bank: QueryBank | None, searched: Modality) -> AddedVectors:
    vectors = release.images if searched == "images" else release.texts
    return AddedVectors(vectors.dim, penalty_of(bank, searched) if vectors.penalties is not None else None)


def _base_row(release: Release, item_id: str) -> int | None:
    try:
        return release.items.row(item_id)
    except UnknownItem:
        return None
