"""Ids that are not valid UTF-8: refused as such, before anything puts U+FFFD in place of what cannot be read.

Two such ids would else become one. A path or a query has their bytes percent-encoded; JSON can escape half of a
surrogate pair.
"""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request

from service.errors import InvalidField

_UNPAIRED = re.compile(rb"\\u[dD][89a-fA-F]")  # a pair begins so too: only the parser tells
_SEARCHED_BYTES = 1 << 20  # of a body that is no JSON: a larger one is told as such
_NAMES_OF_IDS = {"id", "has_id", "delete"}


def _item_id(request: Request, item_id: str) -> str:
    """The id in the path. Raises InvalidField where the server could not read its bytes."""
    _check_utf8(request.scope.get("raw_path") or b"", what="the id in the path", param="id")
    return item_id


ItemId = Annotated[str, Depends(_item_id)]


def check_query(request: Request) -> None:
    """Raises InvalidField where the query string is not UTF-8: a filter in it may name ids."""
    _check_utf8(request.scope["query_string"], what="the query", param=None)


def broken_id(body: bytes) -> InvalidField | None:
    """What to tell of JSON with an id that is not valid UTF-8; None where that is not why it is no JSON."""
    if len(body) > _SEARCHED_BYTES or not _UNPAIRED.search(body):
        return None
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for path, text in _ids(given, ()):
        if any("\ud800" <= character <= "\udfff" for character in text):
            place = ".".join(path)
            return InvalidField(
                f"{place}: the id {text[:200]!r} is not valid UTF-8", param=place, code="bad_id"
            )
    return None


def _check_utf8(encoded: bytes, *, what: str, param: str | None) -> None:
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as error:
        raise InvalidField(
            f"{what} is not valid UTF-8, {encoded[:200]!r}: percent-encode the bytes of its UTF-8",
            param=param,
            code="bad_id" if param else None,
        ) from error


def _ids(value: Any, path: tuple[str, ...], *, named: bool = False) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str) and named:
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _ids(inner, (*path, name), named=name in _NAMES_OF_IDS)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _ids(inner, (*path, str(place)), named=named)
