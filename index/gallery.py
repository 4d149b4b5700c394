"""What a gallery is: a stream of items, each with its image's place, its texts and its payload.

Also the rules that ids, texts and payloads must keep, whatever the source. Reads no file: that is
`index.sources`.
"""

import datetime
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from index.errors import BadItem
from index.image_files import ImageSource

# HEIC is here although Pillow does not read it: to be named in the ledger is better than to be passed over.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("avif", "jp2", "ppm", "pgm", "pbm", "tga", "ico", "heic", "heif"),
    )
)
MAX_ID_CHARACTERS = 1024
MAX_PAYLOAD_DEPTH = 64  # objects and lists within one another, the payload itself counted
_SMALLEST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**64 - 1


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """An image of the gallery. `payload` is JSON; `texts` are its captions, or its title."""

    id: str
    source: ImageSource
    texts: tuple[str, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that did not get in: which (its id, or its place in the source), why in a word, and why."""

    item: str
    code: str
    message: str


class Gallery(Protocol):
    """A source of items. Iterating streams: nothing is kept but what finding duplicates needs."""

    kind: str
    source: str
    root: Path
    skipped: int
    """Files passed over so far because their names are not those of images."""

    def __iter__(self) -> Iterator[GalleryItem | Failure]: ...

    def fraction(self) -> float:
        """How much of the source the running iteration has read, 0 to 1."""
        ...


def without_duplicates(entries: Iterable[GalleryItem | Failure]) -> Iterator[GalleryItem | Failure]:
    """The same stream, with a failure in place of every item whose id came before."""
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, Failure):
            yield entry
        elif entry.id in seen:
            yield Failure(entry.id, "duplicate_id", f"the id {entry.id!r} came before: ids must differ")
        else:
            seen.add(entry.id)
            yield entry


def checked_id(value: object) -> str:
    """A clean relative path, so that no id can name a place outside the gallery; raises `BadItem`."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadItem("bad_id", f"the id {value!r} is not a text")
    item_id = str(value)
    problem = _id_problem(item_id)
    if problem:
        raise BadItem("bad_id", f"the id {item_id[:200]!r} {problem}")
    return item_id


def _id_problem(item_id: str) -> str | None:
    if not item_id or len(item_id) > MAX_ID_CHARACTERS:
        return f"must have 1 to {MAX_ID_CHARACTERS} characters"
    if any(ord(character) < 32 or ord(character) == 127 for character in item_id):
        return "holds a control character"
    if any("\ud800" <= character <= "\udfff" for character in item_id):
        return "is not valid UTF-8"
    if any(part in ("", ".", "..") for part in item_id.split("/")):
        return "is not a clean relative path (no leading /, no empty, '.' or '..' parts)"
    return None


def path_below(root: Path, path: object) -> str:
    """`path` relative to the absolute `root` ; raises `BadItem` when it leads elsewhere."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise BadItem("bad_path", f"{str(path)[:200]!r} is not a path to an image")
    if without_surrogates(path) != path:
        raise BadItem("bad_path", f"the path {path[:200]!r} is not valid UTF-8")
    if "://" in path:
        raise BadItem("bad_path", f"{path[:200]!r} is a URL: images are read from disk, download them first")
    inside = os.path.join(os.path.normpath(root), "")  # noqa: PTH118 - ends in a separator, "/" included
    whole = os.path.normpath(os.path.join(inside, path))  # noqa: PTH118 - a path object costs a row much
    if not whole.startswith(inside):
        raise BadItem("outside_gallery", f"{path[:200]!r} is not below {root}: name a --root that holds it")
    return whole.removeprefix(inside)


def texts_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of an item, else its title; white space evened out, empty and repeated ones dropped."""
    for name in ("captions", "caption", "title"):
        value = columns.get(name)
        candidates = value if isinstance(value, list | tuple) else [value]
        texts = [even_text(str(text)) for text in candidates if isinstance(text, str | int)]
        if any(texts):
            return tuple(dict.fromkeys(text for text in texts if text))
    return ()


def even_text(text: str) -> str:
    return " ".join(without_surrogates(text).split())


def without_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can hold and UTF-8 cannot, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_payload(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns as what any reader of JSON can hold; raises `BadItem` where they nest too deeply.

    Bytes are left out, infinities and NaN become null, integers beyond 64 bits become text.
    """
    return _as_object(columns, MAX_PAYLOAD_DEPTH)


def _as_object(columns: Mapping[str, Any], depth_left: int) -> dict[str, Any]:
    return {
        without_surrogates(str(key)): _as_json(value, depth_left - 1)
        for key, value in columns.items()
        if not isinstance(value, bytes)
    }


def _as_json(value: Any, depth_left: int) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, Mapping | list | tuple):
        return _as_container(value, depth_left)
    if value is None or isinstance(value, bool | int | float):
        return _as_number(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return without_surrogates(str(value))


def _as_container(value: Any, depth_left: int) -> dict[str, Any] | list[Any]:
    if depth_left < 1:
        raise BadItem("bad_row", f"its columns are nested more than {MAX_PAYLOAD_DEPTH} deep")
    if isinstance(value, Mapping):
        return _as_object(value, depth_left)
    return [_as_json(inner, depth_left - 1) for inner in value if not isinstance(inner, bytes)]


def _as_number(value: float | bool | None) -> float | str | None:
    """Python reads any integer; most of those who get the payload, and the service's writer, know 64 bits."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
        return value
    return str(value)
