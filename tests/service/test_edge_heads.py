"""Heads that a proxy could read otherwise than the service does: refused, and the connection closed."""

import json

import pytest
from live_service import dialled
from test_edge_connections import everything_from

HOST = b"host: x\r\n"
JSON = b"content-type: application/json\r\n"
GZIP = b"transfer-encoding: gzip\r\n"
BODY = b'{"texts": "a"}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def asked(service, request: bytes) -> tuple[int, str, bool]:
    """Status, error code, and whether the connection was closed by the service."""
    with dialled(service) as caller:
        caller.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += caller.recv(65_536)
        head, _, body = head.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += caller.recv(65_536)
        closed = b"connection: close" in head.lower()
        if closed:
            assert everything_from(caller) == b""
    status = int(head.split()[1])
    return status, json.loads(body)["error"]["code"] if status >= 400 else "", closed


def text_request(*headers: bytes, version: bytes = b"1.1", body: bytes = BODY, length: bool = True) -> bytes:
    lines = [b"POST /embed/text HTTP/" + version + b"\r\n", JSON, *headers]
    if length:
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"".join([*lines, b"\r\n", body])


@pytest.mark.parametrize(
    "request_bytes",
    [
        text_request(),
        b"GET /healthz HTTP/1.1\r\n\r\n",
        text_request(HOST, b"host: y\r\n"),
        text_request(HOST, HOST),
        text_request(b"host: x y\r\n"),
        text_request(b"host: x/y\r\n"),
        text_request(b"host: someone@x\r\n"),
        text_request(b"host: x:port\r\n"),
        text_request(HOST, b"transfer-encoding: gzip, chunked\r\n", body=CHUNKED, length=False),
        text_request(HOST, GZIP, b"transfer-encoding: chunked\r\n", body=CHUNKED, length=False),
        text_request(HOST, *[b"transfer-encoding: chunked\r\n"] * 2, body=CHUNKED, length=False),
        text_request(HOST, b"transfer-encoding: identity\r\n"),
        text_request(HOST, b"transfer-encoding: chunked\r\n", version=b"1.0", body=CHUNKED, length=False),
        text_request(HOST, b"transfer-encoding: chunked\r\n", body=CHUNKED),
        text_request(HOST, b"content-length: 1\r\n"),
    ],
    ids=[
        "no host",
        "no host for a probe",
        "two hosts",
        "the same host twice",
        "a host with a blank",
        "a host with a path",
        "a host with a user",
        "a host with a port that is none",
        "compressed and chunked",
        "compressed and chunked in two headers",
        "chunked twice",
        "identity",
        "chunked in HTTP/1.0",
        "chunked and a length",
        "two lengths",
    ],
)  # fmt: skip
def test_a_head_that_can_be_read_two_ways_is_400_and_closes(service, request_bytes):
    assert asked(service, request_bytes) == (400, "invalid_http", True)


@pytest.mark.parametrize(
    "request_bytes",
    [
        text_request(HOST, b"Transfer-Encoding:  Chunked \r\n", body=CHUNKED, length=False),
        text_request(version=b"1.0"),
        text_request(b"host: [::1]:8000\r\n"),
        text_request(b"host: x:\r\n"),
        text_request(b"host:\r\n"),
        text_request(HOST, b"content-encoding: identity\r\n"),
        text_request(HOST, b"content-encoding: Identity\r\n"),
    ],
)
def test_a_head_that_can_be_read_one_way_is_answered(service, request_bytes):
    assert asked(service, request_bytes)[:2] == (200, "")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "aes128gcm"])
def test_a_compressed_body_is_415_before_it_is_read(client, encoding):
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = client.post("/embed/text", content=b"\x1f\x8b", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "content-encoding" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "rest", [b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", b"\x00"]
)
def test_a_whole_request_is_answered_whatever_follows_it(service, rest):
    with dialled(service) as caller:
        caller.sendall(text_request(HOST) + rest)
        received = everything_from(caller)
    assert received.startswith(b"HTTP/1.1 200")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b'"embedding"' in received


def test_requests_sent_ahead_are_bounded_and_few_are_all_answered(service):
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with dialled(service) as caller:
        caller.sendall(one * 49 + one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert everything_from(caller).count(b"HTTP/1.1 200") == 50
    with dialled(service) as caller:
        caller.sendall(one * 5000)
        assert 50 < everything_from(caller).count(b"HTTP/1.1 200") < 300
    assert service.client.get("/healthz").status_code == 200
    assert 'cause="too_many_ahead"' in service.client.get("/metrics").text
