"""Requests at their limits, good and bad, of every way in that takes a body, a query or headers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.faults.trial import get
from benchmarks.http import post, post_json

KIB, MIB = 1 << 10, 1 << 20
PLAIN, WHOLE = 4 * MIB - 256, 64 * MIB - KIB  # bytes of a body: without images, and with
NUMBER = b"0.1234567890123,"
FIELDS = 240_000  # in one object


Requests = dict[str, Callable[[], bytes]]


@dataclass(frozen=True)
class Kind:
    """A request that is made when its turn comes: some have 64 MiB."""

    name: str
    make: Callable[[], bytes]


def kinds(fingerprint: str, dim: int) -> Iterator[Kind]:
    """`fingerprint`, `dim`: of the encoder that is served."""
    bodies = (
        _texts(),
        _openai(),
        _images(),
        _queries(fingerprint, dim),
        _filters(),
        _changes(fingerprint, dim),
    )
    for made in (*bodies, _forms(), _heads()):
        for name, make in made.items():
            yield Kind(name, make)


def _texts() -> Requests:
    made = partial(_json, "/embed/text")
    units = {"empty strings": b'"",', "numbers": b"1,", "lists": b"[],", "objects": b"{},"}
    return {
        **{f"texts: {name}": partial(made, b'{"texts": [', unit, b"]}", PLAIN) for name, unit in units.items()},
        "texts: 99,000 empty strings": partial(made, b'{"texts": [', b'"",', b"]}", 3 * 99_000),
        "texts: 99,000 numbers": partial(made, b'{"texts": [', b"1,", b"]}", 2 * 99_000),
        "texts: one": partial(made, b'{"texts": "', b"word ", b'"}', PLAIN),
        "texts: one of escapes": partial(made, b'{"texts": "', b"\\u00e4", b'"}', PLAIN),
        "texts: one of backslashes": partial(made, b'{"texts": "', b"\\\\", b'"}', PLAIN),
        "texts: 512 of many commas": lambda: post_json("/embed/text", {"texts": ["a, b, " * 1300] * 512}),
        "texts: 19,000 unknown fields": lambda: _fields("/embed/text", '{"texts": "a"', count=19_000),
        "texts: nested lists": partial(made, b'{"texts": ', b"[", b"}", PLAIN),
        "texts: nested objects": partial(made, b'{"texts": ', b'{"a":', b"}", PLAIN),
        "texts: a number without end": partial(made, b'{"texts": ', b"1", b"}", PLAIN),
        "texts: numbers of 4,000 digits": partial(made, b'{"texts": [', b"1" * 4000 + b",", b"1]}", PLAIN),
    }


def _openai() -> Requests:
    made = partial(_json, "/v1/embeddings")
    objects = b'{"text":"a"},'
    return {
        "OpenAI inputs: empty strings": partial(made, b'{"input": [', b'"",', b"]}", WHOLE),
        "OpenAI inputs: 3.9 million strings": partial(made, b'{"input": [', b'"a",', b"]}", 4 * 3_900_000),
        "OpenAI inputs: 2.4 million strings": partial(made, b'{"input": [', b'"a",', b"]}", 4 * 2_400_000),
        "OpenAI inputs: 2.4 million numbers": partial(made, b'{"input": [', b"1,", b"]}", 2 * 2_400_000),
        "OpenAI inputs: 120,000 objects": partial(made, b'{"input": [', objects, b"]}", len(objects) * 120_000),
        "OpenAI inputs: 1,000 lists of token ids": lambda: post_json(
            "/v1/embeddings", {"input": [list(range(1000, 1200))] * 1000}
        ),
        "OpenAI inputs: an object of unknown fields": lambda: _fields(
            "/v1/embeddings", '{"input": [{"text": "a"', end="}]}"
        ),
        "OpenAI inputs: an image of unknown fields": lambda: _fields(
            "/v1/embeddings", '{"input": [{"image_url": {"url": "a"', end="}}]}"
        ),
        "OpenAI inputs: an object instead": lambda: _fields("/v1/embeddings", '{"input": {"a": 1', end="}}"),
        "OpenAI inputs: a text of 31 MiB": partial(made, b'{"input": "', b"word ", b'"}', 31 * MIB),
        "OpenAI inputs: a model of 31 MiB": partial(
            made, b'{"input": "a", "model": "', b"word ", b'"}', 31 * MIB
        ),
    }


def _images() -> Requests:
    def one(*unit: bytes, size: int) -> Callable[[], bytes]:
        return partial(_json, "/embed/image", b'{"images": "', *unit, b'"}', size)

    many = partial(_json, "/embed/image", b'{"images": [')
    return {
        "images: one of 64 MiB, base64": one(b"QUJD", size=WHOLE),
        "images: one of 31 MiB, base64": one(b"QUJD", size=31 * MIB),
        "images: one of 31 MiB, escaped base64": one(b"QUJ\\/", size=31 * MIB),
        "images: one of 31 MiB, backslashes": one(b"\\\\", size=31 * MIB),
        "images: one of 31 MiB, beyond ASCII": one("ä".encode(), size=31 * MIB),
        "images: 128 of 512 KiB, base64": partial(
            many, b'"' + b"QUJD" * 131_000 + b'",', b"]}", WHOLE - 2 * MIB
        ),
        "images: 3.9 million strings": partial(many, b'"a",', b"]}", 4 * 3_900_000),
        "search: an image of 31 MiB, base64": partial(
            _json, "/search/image", b'{"image": "', b"QUJD", b'"}', 31 * MIB
        ),
        "image: 64 MiB": lambda: post("/embed/image", bytes(WHOLE), media_type="image/png"),
        "image: in chunks of one byte": lambda: _chunked("/embed/image", 1, 2 * MIB),
        "image: in chunks of 64 bytes": lambda: _chunked("/embed/image", 64, 16 * MIB),
    }


def _queries(fingerprint: str, dim: int) -> Requests:
    start = b'{"model_fingerprint": "%s", "vector": [' % fingerprint.encode()
    vector, batch = partial(_json, "/search/vector", start), partial(_json, "/search/batch")
    query = {"vector": _vector(dim), "model_fingerprint": fingerprint}
    return {
        "vector: short numbers": partial(vector, b"1,", b"]}", PLAIN),
        "vector: 99,000 numbers": partial(vector, NUMBER, b"]}", len(NUMBER) * 99_000),
        "vector: long numbers": partial(vector, b"0." + b"1" * 5000 + b",", b"]}", PLAIN),
        "item: an id of 4 MiB": partial(_json, "/search/item", b'{"id": "', b"word ", b'"}', PLAIN),
        "queries: 64 vectors, 10,000 results with vectors": lambda: post_json(
            "/search/batch", {"queries": [query] * 64, "k": 156, "with_vector": True}
        ),
        "queries: 2.4 million numbers": partial(
            batch, b'{"queries": [{"vector": [', NUMBER, b"1]}]}", len(NUMBER) * 2_400_000
        ),
        "queries: 3.9 million strings": partial(batch, b'{"queries": [', b'"a",', b"]}", 4 * 3_900_000),
        "queries: 240,000 empty ones": partial(batch, b'{"queries": [', b"{},", b"]}", 3 * 240_000),
        "queries: unknown fields": lambda: _fields("/search/batch", '{"queries": [{"text": "a"', end="}]}"),
        "queries: an id of 31 MiB": partial(batch, b'{"queries": [{"id": "', b"word ", b'"}]}', 31 * MIB),
    }


def _filters() -> Requests:
    start = b'{"query": "a", "filter": '
    made = partial(_json, "/search/text")
    wrong = {"should": [{"key": "a", "match": {"any": [[]] * 1000}}] * 4}
    largest = {"should": [{"key": "a", "match": {"any": list(range(1000))}}] * 4}
    return {
        "filter: 99,000 numbers": partial(
            made, start + b'{"key": "a", "match": {"any": [', b"1,", b"1]}}}", 2 * 99_000
        ),
        "filter: nested": partial(made, start, b'{"must": ', b"}", PLAIN),
        "filter: nested 60 deep": lambda: post_json("/search/text", {"query": "a", "filter": _nested(60)}),
        "filter: 19,000 unknown keys": lambda: _fields(
            "/search/text", '{"query": "a", "filter": {"must": []', end="}}", count=19_000
        ),
        "filter: a text of 4 MiB": partial(
            made, start + b'{"key": "title", "match": {"value": "', b"word ", b'"}}}', PLAIN
        ),
        "filter: 4,000 wrong values": lambda: post_json("/search/text", {"query": "a", "filter": wrong}),
        "filter: 4,000 values": lambda: post_json("/search/text", {"query": "a", "filter": largest}),
        "queries: 48 filters of 4,000 values": lambda: post_json(
            "/search/batch", {"queries": [{"text": "a", "filter": largest}] * 48}
        ),
        "queries: 60 filters of 4,000 wrong values": lambda: post_json(
            "/search/batch", {"queries": [{"text": "a", "filter": wrong}] * 60}
        ),
    }


def _changes(fingerprint: str, dim: int) -> Requests:
    def puts(count: int, **more: Any) -> dict[str, Any]:
        one = {"vector": _vector(dim), "model_fingerprint": fingerprint, **more}
        return {"put": [{"id": f"limit-{number}", **one} for number in range(count)]}

    made = partial(_json, "/items/batch")
    return {
        "changes: 1,000 items with vectors": lambda: post_json("/items/batch", puts(1000)),
        "changes: 60 items with payloads of 40 KB": lambda: post_json(
            "/items/batch", puts(60, payload={"list": [1] * 20_000})
        ),
        "changes: 3.9 million deletes": partial(made, b'{"delete": [', b'"a",', b"]}", 4 * 3_900_000),
        "changes: 2.4 million numbers": partial(
            made, b'{"put": [{"id": "a", "vector": [', NUMBER, b"1]}]}", len(NUMBER) * 2_400_000
        ),
        "changes: an id of 2.4 million numbers": partial(
            made, b'{"put": [{"id": [', b"1,", b"1]}]}", 2 * 2_400_000
        ),
        "changes: 240,000 objects": partial(made, b'{"put": [', b"{},", b"]}", 3 * 240_000),
        "changes: a payload of 240,000 fields": lambda: _fields(
            "/items/batch", '{"put": [{"id": "a", "payload": {"a": 1', end="}}]}"
        ),
        "changes: an item of unknown fields": lambda: _fields("/items/batch", '{"put": [{"id": "a"', end="}]}"),
        "put: an image of 31 MiB, base64": _put(
            partial(_json, "/items/limit", b'{"image": "', b"QUJD", b'"}', 31 * MIB)
        ),
        "put: a payload of one text": _put(
            partial(_json, "/items/limit", b'{"payload": {"a": "', b"word ", b'"}}', 31 * MIB)
        ),
        "put: a payload of 99,000 numbers": _put(
            partial(_json, "/items/limit", b'{"payload": {"a": [', b"1,", b"1]}}", 2 * 99_000)
        ),
        "put: a text of 31 MiB": _put(
            partial(_json, "/items/limit", b'{"texts": ["', b"word ", b'"]}', 31 * MIB)
        ),
    }


def _forms() -> Requests:
    quotes, semicolons = ';"' * 15_000, ";" * 30_000
    near = b"\r\n--b-" * (2 * MIB // 6)
    payload = '{"a":[' + "1," * 500_000 + "1]}"
    return {
        "form: a file of 64 MiB": lambda: _form([("images", bytes(WHOLE - KIB))]),
        "form: 128 files": lambda: _form([("images", bytes(WHOLE // 129))] * 128),
        "form: 20,000 empty files": lambda: _form([("images", b"")] * 20_000),
        "form: 62 fields of 1 MiB": lambda: _form([(f"f{number}", "x" * (MIB - KIB)) for number in range(62)]),
        "form: 20,000 fields": lambda: _form([(f"f{number}", "") for number in range(20_000)]),
        "form: a file of line ends": lambda: _form([("images", b"\r\n" * (8 * MIB))]),
        "form: a file of near-boundaries": lambda: _form([("images", near)], boundary="b"),
        "form: a put's payload of 1 MB": _put(
            lambda: _form([("image", b"x"), ("payload", payload)], path="/items/limit")
        ),
        "form: a content-type of quotes": lambda: post(
            "/embed/image", b"", media_type=f'multipart/form-data; a="{quotes}'
        ),
        "form: a content-type of semicolons": lambda: post(
            "/embed/image", b"", media_type=f"multipart/form-data; a={semicolons}"
        ),
    }


def _heads() -> Requests:
    others = "&".join(f"a{number}" for number in range(5000))
    return {
        "query: 7,500 times the same": lambda: post(
            "/search/image?" + "a=1&" * 7500, b"", media_type="image/png"
        ),
        "query: 5,000 others": lambda: post(f"/search/image?{others}", b"", media_type="image/png"),
        "query: a filter": lambda: post("/search/image?filter=" + "[" * 30_000, b"", media_type="image/png"),
        "path: 30 KB of escapes": lambda: get("/items/" + "%61" * 10_000),
        "headers: 5,000": lambda: get("/release").removesuffix(b"\r\n") + b"a:\r\n" * 5_000 + b"\r\n",
        "requests: 9,000 sent ahead": lambda: get("/healthz") * 9_000,
    }


def _json(path: str, start: bytes, unit: bytes, end: bytes, size: int) -> bytes:
    """`start`, as many units as fit into `size` bytes, `end`; no comma where a list ends."""
    body = start + unit * ((size - len(start) - len(end)) // len(unit))
    body = body.removesuffix(b",") if end.startswith(b"]") else body
    return post(path, body + end, media_type="application/json")


def _fields(path: str, start: str, *, end: str = "}", count: int = FIELDS) -> bytes:
    fields = "".join(f',"k{number}":1' for number in range(count))
    return post(path, (start + fields + end).encode(), media_type="application/json")


def _nested(depth: int) -> dict[str, Any]:
    return {"must": [_nested(depth - 1)]} if depth else {"key": "a", "match": {"value": 1}}


def _vector(dim: int) -> list[float]:
    return [round(0.001 * number, 6) for number in range(1, dim + 1)]


def _put(make: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: b"PUT" + make().removeprefix(b"POST")


def _chunked(path: str, chunk: int, size: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\n"
    chunks = (b"%x\r\n" % chunk + bytes(chunk) + b"\r\n") * (size // chunk)
    return head.encode() + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def _form(
    parts: list[tuple[str, bytes]] | list[tuple[str, str]] | list[tuple[str, bytes | str]],
    *,
    path: str = "/embed/image",
    boundary: str = "boundary-1",
) -> bytes:
    """Files where bytes are given, else fields."""
    lines: list[bytes] = []
    for name, content in parts:
        file = '; filename="f"' if isinstance(content, bytes) else ""
        lines.append(f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'.encode())
        lines.append((content if isinstance(content, bytes) else content.encode()) + b"\r\n")
    lines.append(f"--{boundary}--\r\n".encode())
    return post(path, b"".join(lines), media_type=f"multipart/form-data; boundary={boundary}")
