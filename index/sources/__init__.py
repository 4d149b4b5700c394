"""Galleries as people have them: a folder, a table that names images, or WebDataset tars.

`open_gallery` tells them apart by the name alone.
"""

import glob
import itertools
import os
import re
from pathlib import Path

from index.errors import GalleryError
from index.gallery import Gallery
from index.sources.folder import FolderGallery
from index.sources.tables import TABLE_SUFFIXES, TableGallery
from index.sources.tars import TarGallery

__all__ = ["open_gallery"]

TABLE_NAMES = ("items.jsonl", "items.csv", "items.parquet")

_PACKED_TAR = re.compile(r"\.(tgz|tbz2|txz|tar\.\w+)$")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_gallery(source: str, *, root: Path | None = None) -> Gallery:
    """The gallery that `source` names; raises `GalleryError`.

    - a folder: its images; or, where it holds an `items.jsonl`, `items.csv` or `items.parquet`, that table;
    - a `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet` file: its rows, with the images' paths relative
      to `root`, by default the table's folder;
    - `.tar` files: one, a glob (`shards/*.tar`), or braces (`shard-{0000..0012}.tar`): WebDataset samples.
    """
    if source.endswith(".tar"):
        return TarGallery(source, _expand(source))
    if _PACKED_TAR.search(source):
        raise GalleryError(f"{source}: images are read from tars by offset; unpack it to a plain .tar first")
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return _open_folder(_readable(path), root)
    if not path.is_file():
        raise GalleryError(f"the gallery {source} does not exist")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        known = ", ".join(sorted(TABLE_SUFFIXES))
        raise GalleryError(f"{source} is no gallery: give a folder, a table ({known}) or .tar files")
    return TableGallery(_readable(path), root=root)


def _readable(path: Path) -> Path:
    """The same path; raises `GalleryError` now, not item by item once an encoder was loaded."""
    try:
        if path.is_dir():
            os.scandir(path).close()
            os.stat(f"{path}/.")  # noqa: PTH116 - enters it, which a path object would not
        else:
            path.open("rb").close()
    except OSError as error:
        raise GalleryError(f"the gallery {path} cannot be read: {error.strerror}") from error
    return path


def _open_folder(folder: Path, root: Path | None) -> Gallery:
    tables = [folder / name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise GalleryError(f"{folder} holds {names}: name the one that is meant as the gallery")
    if tables:
        return TableGallery(tables[0], root=root)
    if root is not None:
        raise GalleryError(f"{folder} is a folder of images, which has no other root: leave out --root")
    return FolderGallery(folder)


def _expand(pattern: str) -> list[Path]:
    """The tar files that a name, a glob or braces stand for, in order."""
    named = [Path(name).expanduser() for name in _expand_braces(pattern)]
    found: list[Path] = []
    for path in named:
        matches = [path] if path.is_file() else [Path(match) for match in sorted(glob.glob(str(path)))]  # noqa: PTH207 - an absolute pattern
        if not matches:
            raise GalleryError(f"no tar file matches {path}")
        found.extend(match.absolute() for match in matches)
    return list(dict.fromkeys(found))


def _expand_braces(pattern: str) -> list[str]:
    pieces = _BRACES.split(pattern)  # literal, inside of braces, literal, …
    choices = [_choices(piece) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    limits = _RANGE.fullmatch(inside)
    if not limits:
        return inside.split(",")
    first, last = limits.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
