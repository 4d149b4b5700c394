"""Multipart forms, all in memory: bodies are bounded already, so nothing goes to a folder that may be full.

Form: RFC 7578. A form is UTF-8; whatever says of itself that it is something else is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import InvalidField, InvalidForm, TooLarge, UnsupportedMediaType
from service.wire.content_types import is_utf8

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS = 64
MAX_FIELD_BYTES = 1 << 20
MAX_PARTS = 1000  # and near-boundaries, which cost the parser a hundred times their bytes
_PLAIN_ENCODINGS = (b"7bit", b"8bit", b"binary")


@dataclass(slots=True)
class Form:
    """Its files in order, and its text fields; of several with one name the last counts."""

    files: list[bytes] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


def parse_form(chunks: Iterable[bytes], boundary: bytes, *, name: str, limit: int) -> Form:
    """The form in these chunks, with up to `limit` files, all in fields called `name`.

    Raises InvalidForm, InvalidField, TooLarge or UnsupportedMediaType.
    """
    if not boundary:
        raise InvalidForm("the content-type names no boundary: multipart/form-data; boundary=…")
    reader, delimiter, count = _Reader(name, limit), b"\r\n--" + boundary, 0
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        for chunk in chunks:
            count += chunk.count(delimiter)
            if count > MAX_PARTS:
                raise TooLarge(f"the form has more than {MAX_PARTS} parts: send several requests")
            parser.write(chunk)
    except FormParserError as error:
        raise InvalidForm(f"the body is no form: {error}") from error
    if not reader.ended:
        raise InvalidForm("the form ends before its last boundary: send all of it")
    return reader.form


def too_many(count: str, limit: int, name: str) -> TooLarge:
    return TooLarge(
        f"{count} {name} in one request and {limit} are taken: send several requests",
        param=name,
        code="too_many_items",
    )


class _Reader:
    """What the parser calls, part by part. A file stays in the chunks that it came in until its part ends."""

    def __init__(self, name: str, limit: int) -> None:
        self.form = Form()
        self.ended = False
        self._name, self._limit = name, limit
        self._fields = 0  # text fields so far
        self._headers: list[list[bytes]] = []  # of the part: name and value
        self._field, self._is_file = "", False
        self._pieces: list[bytes] = []
        self._bytes = 0  # of the part

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_begin": lambda: self._headers.append([b"", b""]),
            "on_header_field": lambda data, start, end: self._add_to_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add_to_header(1, data[start:end]),
            "on_headers_finished": self._know_part,
            "on_part_data": self._take,
            "on_part_end": self._keep,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers, self._pieces, self._bytes = [], [], 0

    def _add_to_header(self, place: int, data: bytes) -> None:
        self._headers[-1][place] += data

    def _know_part(self) -> None:
        headers = {name.lower(): value for name, value in self._headers}
        told = parse_options_header(headers.get(b"content-disposition", b""))[1]
        if b"name" not in told:
            raise InvalidForm('a part of the form has no name: content-disposition: form-data; name="…"')
        self._field, self._is_file = _text(told[b"name"], "the name of a field"), b"filename" in told
        self._check_encoding(headers)
        if self._is_file:
            self._expect_file()
        else:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise TooLarge(f"the form has more than {MAX_FIELDS} text fields, and no more are taken")

    def _check_encoding(self, headers: dict[bytes, bytes]) -> None:
        charset = parse_options_header(headers.get(b"content-type", b""))[1].get(b"charset", b"utf-8")
        encoding = headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if not is_utf8(charset) or encoding not in _PLAIN_ENCODINGS:
            raise UnsupportedMediaType(
                f"field {self._field[:80]!r} of the form is sent as {charset[:40]!r} in {encoding[:40]!r}: "
                "text is taken as UTF-8 alone, and files as they are"
            )

    def _expect_file(self) -> None:
        if self._field != self._name:
            raise InvalidField(
                f"file field {self._field[:80]!r} is not taken: send {self._name!r}", param=self._field[:80]
            )
        if len(self.form.files) == self._limit:
            raise too_many(f"more than {self._limit}", self._limit, self._name)

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._bytes += end - start
        if not self._is_file and self._bytes > MAX_FIELD_BYTES:
            raise TooLarge(
                f"field {self._field[:80]!r} of the form exceeds the {MAX_FIELD_BYTES} bytes that are taken",
                param=self._field[:80],
            )
        self._pieces.append(data[start:end])  # the whole chunk itself, mostly

    def _keep(self) -> None:
        content = b"".join(self._pieces)
        self._pieces = []
        if self._is_file:
            self.form.files.append(content)
        elif self._field == "_charset_":
            self._check_charset(content)
        else:
            self.form.texts[self._field] = _text(content, f"field {self._field[:80]!r}")

    def _check_charset(self, content: bytes) -> None:
        """A field of forms that names the character set of the others (RFC 7578, 4.6)."""
        if not is_utf8(content):
            raise UnsupportedMediaType(
                f"the form says that it is {content[:40]!r}: text is taken as UTF-8 alone", param="_charset_"
            )

    def _end(self) -> None:
        self.ended = True


def _text(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise InvalidField(f"{what} is no UTF-8: byte {error.start} of it is {byte:#04x}") from error
