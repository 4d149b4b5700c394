"""Requests that are bad or odd: good ones with something done to them, by chance, from a seed.

Each is bytes for a connection of its own. What is done to one is told by name.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.odd_values import (
    AHEAD,
    ENDS,
    HEADERS,
    LAST_CHUNKS,
    LITERALS,
    METHODS,
    NAMES,
    TARGETS,
    VALUES,
    VERSIONS,
)

CRLF = b"\r\n"
JSON, IMAGE = b"application/json", b"image/png"


@dataclass
class Request:
    """A request in its parts; `told` is what was done to it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    chunked: bool = False
    after: bytes = b""  # what follows on the same connection
    cut: int | None = None  # bytes that are sent at all
    told: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        headers = list(self.headers)
        if self.chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        elif self.body:
            headers.append((b"content-length", str(len(self.body)).encode()))
        lines = [
            self.method + b" " + self.target + b" " + self.version,
            *(name + b": " + value for name, value in headers),
        ]
        body = (
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if self.chunked and self.body else self.body
        )
        return (CRLF.join(lines) + CRLF * 2 + body + self.after)[: self.cut]


def good_requests(image: bytes, *, fingerprint: str, dim: int, ids: Sequence[str]) -> list[Request]:
    """One of every operation, each of which is answered 200 where nothing is done to it."""
    vector = [round(0.01 * number, 4) for number in range(1, dim + 1)]
    own = {"vector": vector, "model_fingerprint": fingerprint}
    some = {
        "must": [{"key": "year", "range": {"gte": 1}}],
        "should": [{"key": "title", "match": {"any": ["a", 1]}}],
    }
    boundary = b"boundary-1"
    part = b'--%b\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    form = (
        part % (boundary, b"images", b'; filename="a.png"', image)
        + part % (boundary, b"dimensions", b"", b"8")
        + b"--%b--\r\n" % boundary
    )
    jsons: tuple[tuple[bytes, bytes, Any], ...] = (
        (b"POST", b"/embed/text", {"texts": ["a dog", "a car"], "truncate": "end", "dimensions": 8}),
        (b"POST", b"/v1/embeddings", {"input": ["a dog", {"text": "a"}], "encoding_format": "base64"}),
        (
            b"POST",
            b"/search/text",
            {"query": "a dog", "k": 5, "offset": 1, "in": "texts", "filter": some, "with_vector": True},
        ),
        (b"POST", b"/search/vector", {**own, "k": 3, "score_threshold": 0.1}),
        (b"POST", b"/search/item", {"id": ids[0], "k": 3, "with_payload": False}),
        (b"POST", b"/search/batch", {"queries": [{"text": "a"}, {"id": ids[0]}, own], "k": 2}),
        (
            b"PUT",
            b"/items/odd%20one",
            {**own, "payload": {"title": "odd", "year": 3, "tags": ["a", 2]}, "texts": ["odd"]},
        ),
        (
            b"POST",
            b"/items/batch",
            {"put": [{"id": "odd 2", **own, "payload": {"n": 1}}], "delete": ["odd one"]},
        ),
        (b"POST", b"/release/reload", {}),
    )
    gets = (
        b"/healthz", b"/readyz", b"/metrics", b"/release", b"/drift", b"/fields", b"/duplicates?limit=5",
        b"/v1/models", b"/", b"/static/app.js", b"/openapi.json", b"/items/" + _quoted(ids[0]),
        b"/images/" + _quoted(ids[0]) + b"?side=64",
    )  # fmt: skip
    return [
        *(
            Request(method, path, [_HOST, (b"content-type", JSON)], json.dumps(content).encode())
            for method, path, content in jsons
        ),
        Request(b"POST", b"/embed/image", [_HOST, (b"content-type", IMAGE)], image),
        Request(b"POST", b"/search/image?k=3", [_HOST, (b"content-type", IMAGE)], image),
        Request(
            b"POST",
            b"/embed/image",
            [_HOST, (b"content-type", b"multipart/form-data; boundary=" + boundary)],
            form,
        ),
        Request(b"DELETE", b"/items/odd%202", [_HOST]),
        *(Request(b"GET", path, [_HOST]) for path in gets),
    ]


_HOST = (b"host", b"127.0.0.1")


def _quoted(text: str) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in text.encode())


def odd_request(good: Sequence[Request], seed: int, number: int) -> Request:
    """The request of that number: one to three things are done to a good one."""
    chance = random.Random(f"{seed} {number}")
    names = list(dict.fromkeys(chance.choices(list(ODDITIES), WEIGHTS, k=chance.choice((1, 1, 1, 2, 3)))))
    of_json = [one for one in good if (b"content-type", JSON) in one.headers]
    chosen = chance.choice(of_json if "JSON" in names or "literal" in names else good)
    request = Request(chosen.method, chosen.target, list(chosen.headers), chosen.body, told=names)
    for name in names:
        ODDITIES[name](request, chance)
    return request


def _method(request: Request, chance: random.Random) -> None:
    request.method = chance.choice(METHODS)


def _version(request: Request, chance: random.Random) -> None:
    request.version = chance.choice(VERSIONS)


def _target(request: Request, chance: random.Random) -> None:
    own = request.target + chance.choice(ENDS)
    request.target = chance.choice((chance.choice(TARGETS), own, request.target.upper()))


def _header(request: Request, chance: random.Random) -> None:
    name, values = chance.choice(HEADERS)
    if chance.random() < 0.5:
        request.headers = [one for one in request.headers if one[0] != name]
    request.headers.insert(chance.randint(0, len(request.headers)), (name, chance.choice(values)))


def _no_header(request: Request, chance: random.Random) -> None:
    request.headers.remove(chance.choice(request.headers)) if request.headers else None


def _same_header(request: Request, chance: random.Random) -> None:
    request.headers += [chance.choice(request.headers)] * chance.choice((1, 1, 50)) if request.headers else []


def _json(request: Request, chance: random.Random) -> None:
    """Another value at a place of the JSON, or a name more, less, or for another."""
    try:
        content = json.loads(request.body)
    except (ValueError, RecursionError):
        return
    content = _with_oddity(content, chance)
    request.body = json.dumps(content, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def _with_oddity(content: Any, chance: random.Random) -> Any:
    if isinstance(content, dict) and content and chance.random() < 0.8:
        name = chance.choice(list(content))
        return chance.choice((
            {**content, name: _with_oddity(content[name], chance)},
            {**content, chance.choice(NAMES): chance.choice(VALUES)},
            {other: value for other, value in content.items() if other != name},
            {chance.choice(NAMES) if other == name else other: value for other, value in content.items()},
        ))  # fmt: skip
    if isinstance(content, list) and content and chance.random() < 0.6:
        place = chance.randrange(len(content))
        return chance.choice((
            [*content[:place], _with_oddity(content[place], chance), *content[place + 1 :]],
            content * chance.choice((0, 2, 300)),
        ))  # fmt: skip
    return chance.choice(VALUES)


def _literal(request: Request, chance: random.Random) -> None:
    """Something that is no JSON, or that few take for it, in place of a value."""
    colons = [place for place, byte in enumerate(request.body) if byte in b":["]
    if colons:
        place = chance.choice(colons) + 1
        request.body = (
            request.body[:place] + chance.choice(LITERALS) + request.body[place + chance.randint(0, 6) :]
        )


def _spoiled(request: Request, chance: random.Random) -> None:
    body = bytearray(request.body)
    for _ in range(chance.choice((1, 1, 8)) if body else 0):
        body[chance.randrange(len(body))] = chance.randrange(256)
    request.body = bytes(body)


def _short(request: Request, chance: random.Random) -> None:
    request.body = request.body[: chance.randint(0, len(request.body))]


def _encoded(request: Request, chance: random.Random) -> None:
    text = request.body.decode("utf-8", "replace")
    request.body = chance.choice((
        b"\xef\xbb\xbf" + request.body, text.encode("utf-16"), text.encode("utf-32"), text.encode("utf-7"),
        request.body + b"\x00", b" " * 70_000 + request.body, request.body + request.body,
        b"\x1f\x8b" + request.body, request.body.replace(b'"', b"'"),
    ))  # fmt: skip


def _large(request: Request, chance: random.Random) -> None:
    request.body = chance.choice(
        (
            request.body * 400,
            bytes(2 << 20),
            b"[" * 300_000,
            b'{"texts": [' + b'"",' * 300_000,
            request.body + b" " * (1 << 20),
        )
    )


def _chunks(request: Request, chance: random.Random) -> None:
    """A body in chunks: good ones, odd ones, and what are none."""
    request.chunked = True
    size = chance.choice((1, 7, 1000))
    pieces = [request.body[start : start + size] for start in range(0, min(len(request.body), 20_000), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    request.after = chunks + chance.choice(LAST_CHUNKS)
    request.body = b""


def _cut(request: Request, chance: random.Random) -> None:
    request.cut = chance.randint(1, max(1, len(request.to_bytes())))


def _ahead(request: Request, chance: random.Random) -> None:
    """Another request, or something else, behind this one."""
    request.after += chance.choice(AHEAD)


ODDITIES: Mapping[str, Callable[[Request, random.Random], None]] = {
    "method": _method,
    "version": _version,
    "target": _target,
    "header": _header,
    "no header": _no_header,
    "same header": _same_header,
    "JSON": _json,
    "literal": _literal,
    "spoiled body": _spoiled,
    "short body": _short,
    "encoded body": _encoded,
    "large body": _large,
    "chunks": _chunks,
    "cut": _cut,
    "ahead": _ahead,
}
WEIGHTS = [{"JSON": 8, "header": 4, "target": 2}.get(name, 1) for name in ODDITIES]
