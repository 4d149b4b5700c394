"""What can be searched for, and images in the forms a caller has them. Knows the wire's fields, no HTTP."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

Space = Literal["images", "texts"]
Truncate = Literal["end", "none"]
Expand = Literal["auto", "off", "templates"]
"""Whether a text is asked by the bundle's templates: where it is a few words, never, or always."""
ImageInput = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]
"""The bytes of an image file, its path, or an open file."""

_ASKED = ("text", "image", "vector", "id")
_WIRE_NAMES = {"in_": "in"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Exactly one of `text`, `image`, `vector` and `id`. What is None is left to the batch, or to the service.

    `vector` needs `model_fingerprint`, that of the encoder it is of. `in_` chooses what is searched.
    """

    text: str | None = None
    image: ImageInput | None = None
    vector: Iterable[float] | None = None
    id: str | None = None
    model_fingerprint: str | None = None
    k: int | None = None
    offset: int | None = None
    in_: Space | None = None
    filter: Mapping[str, Any] | None = None
    score_threshold: float | None = None
    with_payload: bool | None = None
    with_vector: bool | None = None
    truncate: Truncate | None = None
    expand: Expand | None = None
    count_in_drift: bool | None = None

    def kind(self) -> str:
        """Which of the four is asked for; raises ValueError unless it is exactly one."""
        given = [name for name in _ASKED if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a query takes exactly one of {', '.join(_ASKED)}, and has {' and '.join(given) or 'none'}"
            )
        return given[0]

    def options(self) -> dict[str, Any]:
        """All but what is asked for, as the wire names it."""
        names = [name for name in self.__dataclass_fields__ if name not in _ASKED]
        given = {name: getattr(self, name) for name in names}
        return {_WIRE_NAMES.get(name, name): value for name, value in given.items() if value is not None}

    def as_json(self) -> dict[str, Any]:
        """As an object of /search/batch; reads the image."""
        kind = self.kind()
        value: Any = getattr(self, kind)
        if kind == "image":
            value = base64.b64encode(read_image(value)).decode()
        elif kind == "vector":
            value = numbers(value)
        return {kind: value} | self.options()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to put: an image, or a vector with the `model_fingerprint` of its encoder.

    `payload` is shown with hits and filtered by; `texts` are found with `in_="texts"`.
    """

    id: str
    image: ImageInput | None = None
    vector: Iterable[float] | None = None
    model_fingerprint: str | None = None
    payload: Mapping[str, Any] | None = None
    texts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if (self.image is None) == (self.vector is None):
            raise ValueError(f"item {self.id!r} needs exactly one of image and vector")

    def as_json(self) -> dict[str, Any]:
        """As an object of /items/batch; reads the image."""
        given: dict[str, Any] = {"id": self.id} | self.extras()
        if self.image is not None:
            return given | {"image": base64.b64encode(read_image(self.image)).decode()}
        return given | {
            "vector": numbers(() if self.vector is None else self.vector),
            "model_fingerprint": self.model_fingerprint,
        }

    def extras(self) -> dict[str, Any]:
        """Payload and texts, where there are any."""
        given = {"payload": self.payload, "texts": self.texts}
        return {name: value for name, value in given.items() if value is not None}


def numbers(vector: Iterable[float]) -> list[float]:
    """Plain numbers from a list, an array or NumPy's."""
    return [float(number) for number in vector]


def read_image(given: ImageInput) -> bytes:
    """Its bytes, so that a retry can send them again. A str is a path."""
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    if isinstance(given, str | os.PathLike):
        return Path(given).read_bytes()
    return given.read()
