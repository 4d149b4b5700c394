"""The added items of an overlay, as filters read them. Knows nothing of vectors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from index.errors import UnknownItem
from index.journal.changes import Upsert


class PutTable:
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
