"""The tables of a release: its items with their payloads, and its texts. Parquet, written in a stream."""

import bisect
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.errors import CorruptRelease, UnknownItem
from index.image_files import ImageSource

ROWS_PER_GROUP = 4096

_log = logging.getLogger(__name__)

# Payloads are JSON text: galleries differ in their columns, and a stream does not tell them beforehand.
ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.large_string()),
        ("digest", pa.binary(32)),
        ("path", pa.large_string()),
        ("offset_bytes", pa.int64()),
        ("length_bytes", pa.int64()),
        ("width_pixels", pa.int32()),
        ("height_pixels", pa.int32()),
        ("thumbnail_offset_bytes", pa.int64()),
        ("thumbnail_length_bytes", pa.int64()),
        ("payload", pa.large_string()),
    ]
)
TEXT_SCHEMA = pa.schema(
    [("digest", pa.binary(32)), ("text", pa.large_string()), ("item_rows", pa.large_list(pa.int64()))]
)


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """One row of the item table; `thumbnail` is its (offset, length) in bytes within the thumbnail file."""

    id: str
    digest: bytes
    source: ImageSource
    width_pixels: int
    height_pixels: int
    thumbnail: tuple[int, int]
    payload: dict[str, Any]

    def as_row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "digest": self.digest,
            "path": self.source.path,
            "offset_bytes": self.source.offset_bytes,
            "length_bytes": self.source.length_bytes,
            "width_pixels": self.width_pixels,
            "height_pixels": self.height_pixels,
            "thumbnail_offset_bytes": self.thumbnail[0],
            "thumbnail_length_bytes": self.thumbnail[1],
            "payload": json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")),
        }


class TableWriter:
    """Appends rows to a Parquet file, holding at most one row group in memory; a context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


class ItemTable:
    """The items of a release by row number, which is also their row in the image vectors."""

    def __init__(self, table: pa.Table) -> None:
        self._column = {name: table.column(name).combine_chunks() for name in table.column_names}
        self._ids = self._column["id"]
        # UTF-8 sorts as code points do, so Python's bisect may walk Arrow's order; eight bytes an item.
        self._order: NDArray[np.uint64] = pc.sort_indices(self._ids).to_numpy()

    @classmethod
    def read(cls, path: Path) -> "ItemTable":
        return cls(_read_table(path, ITEM_SCHEMA))

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, row: int) -> str:
        return str(self._ids[row].as_py())

    def row(self, item_id: str) -> int:
        """The row of an id; raises `UnknownItem`."""
        place = bisect.bisect_left(self._order, item_id, key=lambda row: self.id(int(row)))
        if place < len(self) and self.id(int(self._order[place])) == item_id:
            return int(self._order[place])
        raise UnknownItem(f"no item has the id {item_id[:200]!r}")

    def payload(self, row: int) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(self._column["payload"][row].as_py())
        return payload

    def payloads(self) -> Iterator[dict[str, Any]]:
        """Every payload in row order; for building filters over all of them."""
        for start in range(0, len(self), ROWS_PER_GROUP):
            yield from map(json.loads, self._column["payload"].slice(start, ROWS_PER_GROUP).to_pylist())

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Many at once, which costs a fifth of one after the other."""
        found: list[str] = self._ids.take(pa.array(rows)).to_pylist()
        return found

    def payload_texts(self, rows: NDArray[np.int64]) -> list[str]:
        """The payloads of many rows, as the JSON they are kept as."""
        found: list[str] = self._column["payload"].take(pa.array(rows)).to_pylist()
        return found

    def image_source(self, row: int) -> ImageSource:
        offset, length = (
            self._column["offset_bytes"][row].as_py(),
            self._column["length_bytes"][row].as_py(),
        )
        return ImageSource(self._column["path"][row].as_py(), offset, length)

    def digest(self, row: int) -> bytes:
        """SHA-256 of the image's bytes as they were embedded."""
        return bytes(self._column["digest"][row].as_py())

    def size_pixels(self, row: int) -> tuple[int, int]:
        """Width and height of the image, upright."""
        return self._column["width_pixels"][row].as_py(), self._column["height_pixels"][row].as_py()

    def thumbnail_range(self, row: int) -> tuple[int, int]:
        """Offset and length in bytes within the release's thumbnail file."""
        offset = self._column["thumbnail_offset_bytes"][row].as_py()
        return offset, self._column["thumbnail_length_bytes"][row].as_py()


class TextTable:
    """The texts of a release by row number, which is also their row in the text vectors."""

    def __init__(self, table: pa.Table) -> None:
        self._column = {name: table.column(name).combine_chunks() for name in table.column_names}

    @classmethod
    def read(cls, path: Path) -> "TextTable":
        return cls(_read_table(path, TEXT_SCHEMA))

    def __len__(self) -> int:
        return len(self._column["text"])

    def text(self, row: int) -> str:
        return str(self._column["text"][row].as_py())

    def find(self, digest: bytes) -> int | None:
        """The row of the text with that SHA-256."""
        digests, order = self._column["digest"], self._order
        place = bisect.bisect_left(order, digest, key=lambda row: digests[int(row)].as_py())
        if place < len(order) and digests[int(order[place])].as_py() == digest:
            return int(order[place])
        return None

    @cached_property
    def _order(self) -> NDArray[np.uint64]:
        order: NDArray[np.uint64] = pc.sort_indices(self._column["digest"].cast(pa.binary())).to_numpy()
        return order

    def id(self, row: int) -> str:
        """The start of the text's own SHA-256 in hex: the same text has the same id in every release."""
        return text_id(self._column["digest"][row].as_py())

    def item_rows(self, row: int) -> list[int]:
        """Rows of the items the text belongs to, in order; none for a text that came from `--texts`."""
        return list(self._column["item_rows"][row].as_py())

    def item_lists(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(offsets, rows) of all texts at once, uncopied: text i has rows[offsets[i] : offsets[i + 1]]."""
        column = self._column["item_rows"]
        return column.offsets.to_numpy(), column.values.to_numpy()

    def payload(self, row: int) -> dict[str, Any]:
        return {"text": self.text(row), "item_count": len(self._column["item_rows"][row])}


def text_id(digest: bytes) -> str:
    return digest.hex()[:20]


def read_digests(path: Path) -> Iterator[list[bytes]]:
    """The digest column of either table, a bounded list at a time; what cannot be read is left out."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["digest"]):
                yield batch.column("digest").to_pylist()
    except (OSError, pa.ArrowException) as error:
        _log.warning("%s cannot be read: %s", path, error)


def text_row(digest: bytes, text: str, item_rows: Sequence[int]) -> dict[str, Any]:
    return {"digest": digest, "text": text, "item_rows": list(item_rows)}


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise CorruptRelease(f"{path.name} cannot be read as a table: {error}") from error
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise CorruptRelease(f"{path.name} lacks the columns {', '.join(missing)}")
    return table.select(schema.names).cast(schema)
