"""CSV, JSONL and Parquet: rows with an image column and caption columns.

A cell that is a list is joined by ", " (tags), except in a column called `captions`, or named with a
trailing `[]`, where every element is a caption. Rows of the same image add to its captions; empty cells
are skipped, and what an image already has is not repeated, whatever its case. Image paths are relative
to the `images=` folder, else to the file's own folder or the `images` folder in it.
"""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from training.data.readers.listed import ImageSource, ListedImage, Listing, files, normalised
from training.data.readers.spec import Spec, existing_file, matching_files
from training.errors import BadRow, BadSpec, MissingColumn, MissingFile

CAPTION_COLUMNS = ("caption", "captions")
BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Row:
    file: Path
    number: int
    cells: dict[str, Any]

    def bad(self, column: str, problem: str) -> BadRow:
        return BadRow(self.file, self.number, value=self.cells.get(column), problem=f"{column!r} {problem}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what. `captions` are tried in turn; `required` tells whether all must exist."""

    image: str
    captions: tuple[str, ...]
    required: bool
    split: str | None

    @classmethod
    def of(cls, spec: Spec) -> "Columns":
        given = spec.options.get("caption")
        names = tuple(name.strip() for name in given.split(",")) if given else CAPTION_COLUMNS
        if "" in names:
            raise BadSpec(f"{spec.text}: caption= lists an empty column name")
        return cls(spec.option("image", "image"), names, given is not None, spec.options.get("split"))

    def check(self, found: Iterable[str], file: Path) -> None:
        """Raises `MissingColumn` when a column that this needs is not among those `found`."""
        there = set(found)
        captions = [name.removesuffix("[]") for name in self.captions]
        lacking = [name for name in (self.image, *(captions if self.required else ())) if name not in there]
        if not self.required and not there.intersection(captions):
            lacking.append(" or ".join(captions))
        if self.split and "split" not in there:
            lacking.append("split")
        if lacking:
            raise MissingColumn(
                f"{file}: no column {', '.join(map(repr, lacking))} (image=, caption= and class= name others);"
                f" it has {', '.join(sorted(there)) or 'none'}"
            )


def read_csv(spec: Spec) -> Listing:
    path, columns = existing_file(spec.body), Columns.of(spec)
    return _grouped(_csv_rows(path, columns), columns=columns, folders=_folders(spec, path))


def read_jsonl(spec: Spec) -> Listing:
    path, columns = existing_file(spec.body), Columns.of(spec)
    return _grouped(_jsonl_rows(path, columns), columns=columns, folders=_folders(spec, path))


def read_parquet(spec: Spec) -> Listing:
    paths = matching_files(spec.body)
    columns = Columns.of(spec)
    rows = (row for path in paths for row in _parquet_rows(path, columns))
    return _grouped(rows, columns=columns, folders=_folders(spec, paths[0]))


def _folders(spec: Spec, path: Path) -> tuple[Path, ...]:
    folder = spec.folder("images")
    return (folder,) if folder else (path.parent, path.parent / "images")


def _csv_rows(path: Path, columns: Columns) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        header: list[str] = []
        try:
            header = next(reader, [])
            columns.check(header, path)
            for cells in reader:
                if len(cells) != len(header) and cells:
                    problem = f"{len(cells)} fields where the header has {len(header)}"
                    raise BadRow(path, reader.line_num, value=",".join(cells), problem=problem)
                if cells:
                    yield Row(path, reader.line_num, dict(zip(header, cells, strict=True)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadRow(path, reader.line_num + 1, value=str(error), problem="not CSV in UTF-8") from error


def _jsonl_rows(path: Path, columns: Columns) -> Iterator[Row]:
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except ValueError as error:
                raise BadRow(path, number, value=repr(line)[2:-1], problem=f"not JSON ({error})") from error
            if not isinstance(cells, dict):
                raise BadRow(path, number, value=cells, problem="not a JSON object")
            if columns.image not in cells:
                raise BadRow(
                    path, number, value=", ".join(cells), problem=f"no {columns.image!r} among its fields"
                )
            seen.update(cells)
            yield Row(path, number, cells)
    # A row may lack a caption field that others have; a field that no row has is a misspelt column.
    columns.check(seen, path)


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns.check(names, path)
            wanted = {columns.image, "split", *(name.removesuffix("[]") for name in columns.captions)}
            batches = file.iter_batches(BATCH_ROWS, columns=[name for name in names if name in wanted])
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, cells in enumerate(rows, start=1):
                yield Row(path, number, cells)
    except (pyarrow.ArrowException, OSError) as error:
        raise MissingFile(f"{path}: not a readable Parquet file: {error}") from error


def _grouped(rows: Iterator[Row], *, columns: Columns, folders: tuple[Path, ...]) -> Listing:
    """One listed image an image id, in the order in which the ids first come."""
    captions: dict[str, dict[str, str]] = {}
    for row in rows:
        if columns.split and row.cells.get("split") != columns.split:
            continue
        of_image = captions.setdefault(_image_id(row, columns.image), {})
        for column in columns.captions:
            for caption in _texts(row, column):
                of_image.setdefault(caption.casefold(), caption)
    for image, texts in captions.items():
        yield ListedImage(image, tuple(texts.values()), _places(image, folders))


def _image_id(row: Row, column: str) -> str:
    value = row.cells[column]
    if isinstance(value, dict | bytes):
        raise row.bad(column, "holds the image itself; a path is needed: write the images to files")
    if not isinstance(value, str) or not value.strip():
        raise row.bad(column, "is not the path of an image")
    return value.strip()


def _texts(row: Row, column: str) -> list[str]:
    """The captions in one cell: none where it is empty or absent."""
    name = column.removesuffix("[]")
    value = row.cells.get(name)
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int | float) for each in values):
        raise row.bad(name, "is neither a text nor a list of texts")
    texts = [text for text in (normalised(str(each)) for each in values) if text]
    spread = name == "captions" or column.endswith("[]")
    return texts if spread or not texts else [", ".join(texts)]


def _places(image: str, folders: tuple[Path, ...]) -> tuple[ImageSource, ...]:
    return files(*dict.fromkeys(folder / image for folder in folders))  # an absolute path wins over its folder
