"""What a reader yields: an image as its dataset lists it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.errors import UnreadableImage


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image's bytes are: a whole file, or `length` bytes at `offset` of a tar shard."""

    path: Path
    offset: int | None = None
    length: int | None = None

    def read(self) -> bytes:
        """The image's bytes, still encoded. Raises `UnreadableImage` when they are gone or cut."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset or 0)
                data = file.read(-1 if self.length is None else self.length)
        except OSError as error:
            raise UnreadableImage(f"{self.path}: {error.strerror or error}") from error
        if self.length is not None and len(data) < self.length:
            raise UnreadableImage(
                f"{self.path}: {len(data)} bytes at offset {self.offset} instead of {self.length};"
                " the shard has changed since it was read"
            )
        return data


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image id, its captions, and the places where its file may be, best first.

    `fault` says why the dataset itself gives no usable image (no caption, no image in the shard).
    """

    image_id: str
    captions: tuple[str, ...]
    places: tuple[ImageSource, ...] = ()
    fault: str | None = None


Listing = Iterator[ListedImage]


def normalised(text: str) -> str:
    """`text` with every run of white space as one blank, and none at the ends."""
    return " ".join(text.split())


def files(*paths: Path) -> tuple[ImageSource, ...]:
    return tuple(ImageSource(path) for path in paths)
