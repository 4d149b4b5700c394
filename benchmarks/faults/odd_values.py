"""What is put into requests to make them odd; see `oddities`."""

from collections.abc import Sequence
from typing import Any

METHODS = (
    b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"BREW", b"post", b"CONNECT",
)  # fmt: skip
VERSIONS = (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b"")
TARGETS = (
    b"", b"/", b"*", b"//", b"/../etc/passwd", b"/%00", b"/%ff%fe", b"/%", b"/a b", b"/\xe4", b"/#a", b"?",
    b"/static/%00", b"/static/..%2f..%2fapp.py", b"/static/" + b"a" * 300, b"/items/", b"/items/%ED%A0%80",
    b"/images/%2e%2e", b"/images/a?side=0", b"/items/" + b"%61" * 2000, b"/v1/models/%F0%9F%98%80",
    b"/duplicates?cursor=%00", b"/duplicates?min_score=nan", b"/duplicates?limit=1e3",
    b"http://elsewhere/release", b"/release?" + b"a=1&" * 900, b"/docs", b"/openapi.json", b"/metrics",
    b"/drift", b"/fields", b"/search/image?k=%C3%A4", b"/search/image?filter={}", b"/search/image?filter=[[",
    b"/embed/image?dimensions=1e999",
)  # fmt: skip
HEADERS: tuple[tuple[bytes, Sequence[bytes]], ...] = (
    (b"host", (b"", b"evil.example", b"a b", b"a,b", b"[::1", b"x:99999999", b"\xff", b"localhost.")),
    (b"content-type", (
        b"", b"text/plain", b"image/", b"image/png; charset=utf-16", b"application/json; charset=latin-1",
        b"application/json; charset=\xff", b"application/json;;;", b"application/vnd.x+json",
        b"multipart/form-data", b"multipart/form-data; boundary=", b'multipart/form-data; boundary="a',
        b"multipart/form-data; boundary=" + b"b" * 300, b"application/x-www-form-urlencoded",
        b"application/json, application/json", b"a" * 5000,
    )),
    (b"content-encoding", (b"gzip", b"identity", b"br, gzip", b"")),
    (b"transfer-encoding", (b"chunked", b"gzip, chunked", b"identity", b"chunked, chunked", b"x")),
    (b"content-length", (
        b"0", b"1", b"-1", b"+5", b"1e3", b"99999999999999999999", b"0x10", b"\xb2", b"5, 5", b"",
    )),
    (b"expect", (b"100-continue", b"200-ok", b"")),
    (b"connection", (b"close", b"upgrade", b"keep-alive, x", b"\x01")),
    (b"upgrade", (b"websocket", b"h2c")),
    (b"accept", (b"application/octet-stream", b"", b"*/*;q=\xff", b"application/octet-stream" * 100)),
    (b"x-deadline-ms", (b"0", b"1", b"2", b"9999999999", b"1.5", b"-1", b"\xb2")),
    (b"x-request-id", (b"", b"a b", b"\xff", b"x" * 129, b"ok")),
    (b"origin", (b"null", b"http://evil.example", b"http://127.0.0.1", b"\xff", b"://", b"http://[")),
    (b"referer", (b"http://evil.example/", b"\xff")),
    (b"sec-fetch-site", (b"cross-site", b"same-origin", b"odd", b"")),
    (b"authorization", (b"Bearer", b"Bearer \xff", b"Basic YTpi", b"")),
    (b"cookie", (b"twinlens_images=", b'twinlens_images="\\\\\\', b"=;=;", b"\xff=\xff")),
    (b"if-none-match", (b"*", b'"', b'W/"x"')),
    (b"range", (b"bytes=0-1", b"bytes=5-1", b"lines=1", b"bytes=-")),
    (b"traceparent", (b"00-0-0-0", b"\xff")),
    (b"x-forwarded-for", (b"a, b, \xff", b"1.2.3.4:x", b"[")),
    (b"x-forwarded-proto", (b"https", b"javascript")),
    (b"x-forwarded-host", (b"evil.example", b"")),
    (b"access-control-request-method", (b"POST", b"\xff")),
    (b"x-" + b"a" * 2000, (b"1",)),
    (b"bad name", (b"1",)),
    (b"", (b"1",)),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e308,
    1e-320, "", " ", "a", "0", "true", "x" * 5000, "ä😀\u2028", "\x00", "\x7f", "a\u0300" * 200,
    "http://a/b.png", "data:image/png;base64,", "data:,", "====", "../..", "é" * 500, [], {}, [[]], [None],
    {"": None}, [1, "1", 1.0, True, None], {"a": {"b": {"c": []}}}, ["x"] * 600, [0.5] * 600, {"value": 1},
    [[[[[[[[]]]]]]]], {"must": {}}, {"key": "year", "range": {"gte": True}},
    {"key": "year", "match": {"any": [2**70, 1e300, "a", None]}}, {"has_id": ["a"] * 50},
)  # fmt: skip
NAMES = (
    "k", "offset", "in", "filter", "vector", "image", "texts", "id", "payload", "queries", "put", "delete", "x",
    "",
)  # fmt: skip
LITERALS = (
    b"NaN", b"-Infinity", b"1e999", b"-0", b"01", b"1.", b"tru", b'"\\ud800"', b'"\\u0000"', b'"\\x"',
    b"1" * 5000, b"\xff", b"'a'", b"[" * 500,
)  # fmt: skip


ENDS = (b"?", b"?k=-1", b"/", b"%00", b"?filter=%7B", b"\xff", b"?a=" + b"b" * 3000)  # of a target
LAST_CHUNKS = (
    b"0\r\n\r\n", b"0\r\n\r\n", b"0;ext=1\r\n\r\n", b"000\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n",
    b"0\r\nhost: y\r\n\r\n", b"-1\r\n\r\n", b"zz\r\n", b"ffffffffffffffffff\r\n", b"5\r\nabc\r\n0\r\n\r\n",
    b"0 \r\n\r\n", b"0\n\n", b"",
)  # fmt: skip
_PROBE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
AHEAD = (
    _PROBE, _PROBE * 5, _PROBE * 400, b"\r\n" * 3 + _PROBE, b"garbage\r\n\r\n", b"\x00" * 50,
    b"GET / HTTP/1.1\r\n",
)  # fmt: skip
