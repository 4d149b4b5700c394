"""The header `idempotency-key` (draft-ietf-httpapi-idempotency-key-header): carry a request out once."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.datastructures import Headers

from index.journal.changes import RequestKey
from service.access.access import Caller
from service.errors import InvalidField

HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotency-replayed"
PIECE_VALUES = 10_000  # of a list, written as JSON at once: about a millisecond
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def idempotency_key(headers: Headers) -> str | None:
    """The key, with or without the quotes that the draft has around it. Raises InvalidField."""
    given = headers.getlist(HEADER)
    if not given:
        return None
    value = given[0].strip()
    if quoted := _QUOTED.fullmatch(value):
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    if len(given) > 1 or not _KEY.fullmatch(value):
        raise InvalidField(
            f"{HEADER} is {', '.join(given)[:80]!r}: expected one key of 1 to 255 visible ASCII characters",
            param=HEADER,
        )
    return value


def request_key(key: str, caller: Caller, *content: object) -> RequestKey:
    """`content`: what is asked for, as bytes, a model or what JSON holds. No caller's key is ever another's."""
    who = caller.key.sha256 if caller.key else ""
    name = hashlib.sha256(f"{who}\0{key}".encode()).digest()
    asked = hashlib.sha256()
    for part in content:
        plain = dict(part) if isinstance(part, BaseModel) else part
        pieces = (plain,) if isinstance(plain, bytes) else _pieces(plain)
        for piece in pieces:
            asked.update(b"%d:" % len(piece))
            asked.update(piece)
    return RequestKey(name, asked.digest())


def _pieces(value: Any) -> Iterator[bytes]:
    """What JSON holds, in pieces that are the same for the same value, in whatever order its fields are.

    A call that writes JSON holds the interpreter's lock: for seconds, where a list has millions of numbers.
    """
    if isinstance(value, dict):
        yield b"{%d" % len(value)
        for name in sorted(value):
            yield name.encode()
            yield from _pieces(value[name])
    elif isinstance(value, list):
        yield b"[%d" % len(value)
        for start in range(0, len(value), PIECE_VALUES):
            piece = value[start : start + PIECE_VALUES]
            if any(isinstance(one, (dict, list)) for one in piece):
                for one in piece:
                    yield from _pieces(one)
            else:
                yield _json(piece)
    else:
        yield _json(value)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(value).encode()
