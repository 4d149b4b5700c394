"""Large JSON documents as streams of their list elements: memory holds one element, not the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

from training.errors import BadRow


def elements(path: Path, *, prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and value of the objects at `prefix` ("images.item"; "item" for a top-level list).

    Raises `BadRow` where the document is not JSON, is cut short, or an element is not an object.
    """
    row = 0
    with path.open("rb") as file:
        try:
            for row, value in enumerate(ijson.items(file, prefix, use_float=True), start=1):
                if not isinstance(value, dict):
                    raise BadRow(path, row, value=value, problem="not a JSON object")
                yield row, value
        except (ijson.JSONError, UnicodeDecodeError) as error:
            problem = f"not JSON, or cut short, after element {row} of {prefix!r}"
            raise BadRow(path, row + 1, value=normalised_error(error), problem=problem) from error


def normalised_error(error: Exception) -> str:
    return " ".join(str(error).split())


def field(row: dict[str, Any], name: str, kind: type, *, path: Path, number: int) -> Any:
    """`row[name]`, which must be a `kind`; raises `BadRow` with the value that is there instead."""
    if name not in row:
        raise BadRow(path, number, value=", ".join(row), problem=f"no {name!r} among its fields")
    if not isinstance(row[name], kind) or isinstance(row[name], bool):
        raise BadRow(path, number, value=row[name], problem=f"{name!r} is not a {kind.__name__}")
    return row[name]
