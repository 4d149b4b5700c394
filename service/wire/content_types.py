"""What a request says of its body: media type, character set, boundary; and what of it is taken.

Text is UTF-8. A name of another character set is refused, and never looked up: Python's codecs by name include
some that take time which grows with the square of a text, and some that raise what nobody expects.
"""

from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from service.errors import UnsupportedMediaType

MAX_CHARACTERS = 256  # of a content-type; taking one apart takes time that grows with the square
MULTIPART = "multipart/form-data"
IMAGES_TAKEN = "image/*, multipart/form-data or application/json"


@dataclass(frozen=True, slots=True)
class ContentType:
    """`name` in lower case, empty where none was given; `boundary` of a form, else empty."""

    name: str
    boundary: bytes = b""

    @classmethod
    def of(cls, headers: Headers) -> "ContentType":
        """Raises UnsupportedMediaType where a body of text says that it is not UTF-8."""
        value = headers.get("content-type", "")
        name, parameters, _ = value.partition(";")
        name = name.strip().lower()
        if not parameters:
            return cls(name)
        if len(value) > MAX_CHARACTERS:
            raise UnsupportedMediaType(
                f"content-type has {len(value)} characters and {MAX_CHARACTERS} are taken: send a shorter one"
            )
        options = parse_options_header(value)[1]
        if (is_json(name) or name == MULTIPART) and not is_utf8(options.get(b"charset", b"utf-8")):
            raise UnsupportedMediaType(f"content-type {value!r}: text is taken as UTF-8 alone: send it so")
        return cls(name, options.get(b"boundary", b"") if name == MULTIPART else b"")

    @property
    def is_json(self) -> bool:
        return is_json(self.name)

    @property
    def is_image(self) -> bool:
        return self.name.startswith("image/")

    def refusal(self, *, taken: str) -> UnsupportedMediaType:
        """`taken`: what to send instead."""
        return UnsupportedMediaType(
            f"content-type {self.name[:MAX_CHARACTERS] or 'missing'!r} is not taken here: send {taken}"
        )


def is_json(name: str) -> bool:
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


def is_utf8(charset: bytes) -> bool:
    """Whether a character set is called UTF-8: compared, never looked up."""
    return charset.strip(b" \t'\"").lower() in (b"utf-8", b"utf8")
