"""Tables that name images: CSV, TSV, JSONL, Parquet.

Columns: `image` or `path`; `id` if there is one, else the image's path is the id; `captions`, `caption`
or `title` become its texts. All columns but the image's and the id's are the payload. Opens no image.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.errors import BadItem, GalleryError
from index.gallery import (
    Failure,
    GalleryItem,
    checked_id,
    clean_payload,
    path_below,
    texts_of,
    without_surrogates,
)
from index.image_files import ImageSource

Row = tuple[float, int, dict[str, Any] | BadItem]
"""How much of the file is read (0 to 1), the row's number as people count, and its columns or its fault."""

_INCONVERTIBLE = (ValueError, OverflowError)  # what Arrow raises for a value that Python has no type for
_TEXT_COLUMNS = frozenset(("id", "image", "path", "title", "caption", "captions"))
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d{0,17})\.\d{1,17}")


class TableGallery:
    skipped = 0

    def __init__(self, path: Path, *, root: Path | None = None) -> None:
        self.kind = path.suffix.lower().removeprefix(".")
        self.source = str(path)
        self.root = (root or path.parent).expanduser().absolute()
        self._path = path
        self._fraction = 0.0
        if not self.root.is_dir():
            raise GalleryError(f"the root {self.root} of the gallery's images is no folder")

    def __iter__(self) -> Iterator[GalleryItem | Failure]:
        try:
            for fraction, number, row in TABLE_SUFFIXES[self._path.suffix.lower()](self._path):
                self._fraction = fraction
                yield self._entry(number, row)
        except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
            raise GalleryError(f"{self._path} cannot be read: {error}") from error

    def fraction(self) -> float:
        return self._fraction

    def _entry(self, number: int, row: dict[str, Any] | BadItem) -> GalleryItem | Failure:
        try:
            if isinstance(row, BadItem):
                raise row
            return _item(row, self.root)
        except BadItem as error:
            return Failure(f"{self._path.name}:{number}", error.code, str(error))


def _item(row: dict[str, Any], root: Path) -> GalleryItem:
    column = _image_column(row)
    if isinstance(row[column], dict):
        raise BadItem("bad_path", f"{column!r} embeds the image: write it to a file and name the file")
    path = path_below(root, row[column])
    named = row.get("id")
    payload = clean_payload({key: value for key, value in row.items() if key not in (column, "id")})
    return GalleryItem(checked_id(path if named is None else named), ImageSource(path), texts_of(row), payload)


def _image_column(columns: dict[str, Any]) -> str:
    for name in ("image", "path"):
        if name in columns:
            return name
    found = ", ".join(map(repr, columns)) or "none"
    raise BadItem("bad_row", f"no column 'image' or 'path' names the image; it has {found[:200]}")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    size_bytes, read_bytes = max(1, path.stat().st_size), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            read_bytes += len(line)
            if line.strip():
                yield read_bytes / size_bytes, number, _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | BadItem:
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        return BadItem("bad_row", f"the line is not JSON: {error}")
    return row if isinstance(row, dict) else BadItem("bad_row", "the line is JSON, but not an object")


class _CountedLines:
    """Lines of a text file, counting bytes; what is not UTF-8 survives as surrogates, to be refused by row."""

    def __init__(self, path: Path) -> None:
        self._size_bytes = max(1, path.stat().st_size)
        self._read_bytes = 0
        self._path = path

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            for line in file:
                start = line.removeprefix(b"\xef\xbb\xbf") if self._read_bytes == 0 else line
                self._read_bytes += len(line)
                yield start.decode("utf-8", "surrogateescape")

    def fraction(self) -> float:
        return self._read_bytes / self._size_bytes


def _csv_rows(path: Path) -> Iterator[Row]:
    lines = _CountedLines(path)
    reader = csv.reader(iter(lines), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    header = [name.strip() for name in next(reader, [])]
    _check_header(path, header)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.fraction(), reader.line_num, BadItem("bad_row", f"the row is not CSV: {error}")
            continue
        if cells:
            yield lines.fraction(), reader.line_num, _columns(header, cells)


def _check_header(path: Path, header: list[str]) -> None:
    if any("\0" in name or "\ufffd" in name or without_surrogates(name) != name for name in header):
        raise GalleryError(f"{path} is not UTF-8: save it as a UTF-8 table")
    if not {"image", "path"} & set(header):
        raise GalleryError(
            f"{path} starts with the columns {', '.join(header)[:200]!r}: one must be 'image' or 'path'"
        )
    if len(set(header)) < len(header):
        raise GalleryError(f"{path} has a column twice: {', '.join(header)[:200]}")


def _columns(header: list[str], cells: list[str]) -> dict[str, Any] | BadItem:
    if len(cells) != len(header):
        return BadItem("bad_row", f"the row has {len(cells)} cells, the header {len(header)}")
    if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        return BadItem("bad_row", "the row is not valid UTF-8")
    return {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}


def _cell(name: str, cell: str) -> str | int | float:
    """A number where the text is exactly how a number is written, so that filters can compare ranges."""
    if name in _TEXT_COLUMNS:
        return cell
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) else cell


def _parquet_rows(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        if not {"image", "path"} & set(file.schema_arrow.names):
            raise GalleryError(f"{path} has neither a column 'image' nor 'path'")
        total, number = max(1, file.metadata.num_rows), 0
        for batch in file.iter_batches(batch_size=1024):
            for row in _batch_rows(_in_microseconds(batch)):
                number += 1
                yield number / total, number, row


def _in_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times as Python has them: Arrow refuses to convert one with nanoseconds rather than cut it."""
    columns = [
        column.cast(_coarser(column.type), safe=False) if _counts_nanoseconds(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _counts_nanoseconds(kind: pa.DataType) -> bool:
    types = pa.types
    is_time = types.is_timestamp(kind) or types.is_time64(kind) or types.is_duration(kind)
    return bool(is_time and kind.unit == "ns")


def _coarser(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us")


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | BadItem]:
    """All rows at once, which is quick; one by one where a value among them is none that Python knows."""
    try:
        rows: list[dict[str, Any] | BadItem] = batch.to_pylist()
    except _INCONVERTIBLE:
        rows = [_batch_row(batch, place) for place in range(batch.num_rows)]
    return rows


def _batch_row(batch: pa.RecordBatch, place: int) -> dict[str, Any] | BadItem:
    """One row; a text that is not UTF-8 and a date after 9999, for example, are faults of the row."""
    try:
        row: dict[str, Any] = batch.slice(place, 1).to_pylist()[0]
    except _INCONVERTIBLE as error:
        return BadItem("bad_row", f"the row cannot be read: {error}")
    return row


TABLE_SUFFIXES = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".parquet": _parquet_rows,
}
