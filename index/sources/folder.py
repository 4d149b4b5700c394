"""A folder of images, with all below it. Ids are relative paths; hidden files are passed over.

Knows images by their names' suffixes only; it opens none of them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from index.errors import BadItem
from index.gallery import IMAGE_SUFFIXES, Failure, GalleryItem, checked_id
from index.image_files import ImageSource, reading_fault


class FolderGallery:
    kind = "folder"

    def __init__(self, folder: Path) -> None:
        self.root = folder.absolute()
        self.source = str(self.root)
        self.skipped = 0
        self._seen = 0
        self._total = 0

    def __iter__(self) -> Iterator[GalleryItem | Failure]:
        self.skipped = self._seen = 0
        self._total = sum(_is_image(entry) for entry in _Walk(self.root).entries())
        for entry in _Walk(self.root).entries():
            if not _is_image(entry):
                self.skipped += 1
                continue
            self._seen += 1
            yield entry if isinstance(entry, Failure) else _item(entry)

    def fraction(self) -> float:
        return min(1.0, self._seen / max(1, self._total))


def _is_image(entry: str | Failure) -> bool:
    return isinstance(entry, Failure) or os.path.splitext(entry)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a path object for each of a million names costs seconds


def _item(path: str) -> GalleryItem | Failure:
    try:
        return GalleryItem(checked_id(path), ImageSource(path))
    except BadItem as error:
        return Failure(path, error.code, str(error))


@dataclass
class _Walk:
    """Files below a folder in a fixed order, one folder's names in memory at a time.

    A link to a folder is followed only where that shows something new: never back into the root, and no
    folder twice, so that circles end.
    """

    root: Path
    _visited: set[tuple[int, int]] = field(default_factory=set)

    def entries(self) -> Iterator[str | Failure]:
        """Relative paths; a failure for a folder that cannot be read."""
        home = self.root.resolve()
        pending = [self._children("")]
        while pending:
            child = next(pending[-1], None)
            if child is None:
                pending.pop()
            elif isinstance(child, Failure) or not self._is_folder(child):
                yield child
            elif not self._leads_back(child, home):
                pending.append(self._children(child))

    def _is_folder(self, path: str) -> bool:
        return os.path.isdir(self.root / path)  # noqa: PTH112 - false, not an error, for odd names

    def _leads_back(self, path: str, home: Path) -> bool:
        whole = self.root / path
        return whole.is_symlink() and whole.resolve().is_relative_to(home)

    def _children(self, folder: str) -> Iterator[str | Failure]:
        try:
            status = (self.root / folder).stat()
            if (status.st_dev, status.st_ino) in self._visited:
                return
            self._visited.add((status.st_dev, status.st_ino))
            names = sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))  # noqa: PTH208 - names, not path objects
        except OSError as error:
            yield Failure(folder or ".", reading_fault(error), f"the folder cannot be read: {error.strerror}")
            return
        for name in names:
            yield f"{folder}/{name}" if folder else name
