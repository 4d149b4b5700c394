"""The header `idempotency-key` (draft-ietf-httpapi-idempotency-key-header): carry a request out once."""

import hashlib
import json
import re

from pydantic import BaseModel
from starlette.datastructures import Headers

from index.journal.changes import RequestKey
from service.access.access import Caller
from service.errors import InvalidField

HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotency-replayed"
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
        plain = part.model_dump() if isinstance(part, BaseModel) else part
        data = plain if isinstance(plain, bytes) else json.dumps(plain, sort_keys=True).encode()
        asked.update(b"%d:" % len(data))
        asked.update(data)
    return RequestKey(name, asked.digest())
