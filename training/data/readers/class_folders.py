"""A folder of class folders, as torchvision's ImageFolder and most small photo sets have it.

Every image below a class folder, however deep, bears the folder's name as its only caption. Images come one
of each class in turn, so that the first few (`limit=`) show every class. Hidden files are skipped.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from training.data.readers.listed import ListedImage, Listing, files
from training.data.readers.spec import Spec, existing_folder
from training.errors import EmptyPairSet

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


def read_class_folders(spec: Spec) -> Listing:
    """Raises `EmptyPairSet` where no folder in it holds an image, `MissingFile` where it is no folder."""
    root = existing_folder(spec.body)
    classes = [sorted(_images(folder)) for folder in sorted(root.iterdir()) if folder.is_dir()]
    if not any(classes):
        raise EmptyPairSet(f"{spec.text}: no image in a folder of {root}: one folder a class is needed")
    for turn in zip_longest(*classes):
        for path in turn:
            if path is not None:
                inside = path.relative_to(root)
                yield ListedImage(inside.as_posix(), (inside.parts[0],), files(path))


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder.parent).parts)
        if path.suffix.lower() in IMAGES and not hidden:
            yield path
