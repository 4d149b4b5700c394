"""Callers that are slow, silent, endless or too many, on real sockets: they are closed, nobody else waits."""

import json
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from live_service import dialled, image_file, metric, running, wait_until

JSON = b"content-type: application/json\r\n"


def everything_from(caller: socket.socket) -> bytes:
    """Until the other side closes, politely or not."""
    parts = []
    try:
        while part := caller.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answer_of(received: bytes) -> tuple[int, str]:
    """Status and error code; the shape is the one of every error."""
    head, _, body = received.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message", "param", "type"}
    assert b"connection: close" in head
    return int(head.split()[1]), error["code"]


def is_closed(caller: socket.socket) -> bool:
    if not select.select([caller], [], [], 0)[0]:
        return False
    try:
        return caller.recv(65_536, socket.MSG_PEEK) == b""
    except ConnectionResetError:
        return True


def test_two_hundred_slow_callers_block_nobody_and_do_not_stay(releases, settings_for):
    with running(settings_for(releases, header_seconds=2.0, body_seconds=2.0)) as service, ExitStack() as stack:
        slow = [stack.enter_context(dialled(service)) for _ in range(200)]
        for number, caller in enumerate(slow):
            caller.setblocking(False)
            if number % 2:
                caller.send(
                    b"POST /embed/text HTTP/1.1\r\nhost: x\r\n" + JSON + b"content-length: 999\r\n\r\n{"
                )
            else:
                caller.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-drip: ")
        for _ in range(5):
            assert service.client.post("/embed/text", json={"texts": "a"}).status_code == 200
        open_still = set(slow)
        until = time.monotonic() + 30
        while open_still:  # each goes on dripping, and none is kept for it
            assert time.monotonic() < until, f"{len(open_still)} are still there"
            for caller in tuple(open_still):
                try:
                    caller.send(b"a")
                    caller.recv(65_536)
                except BlockingIOError:
                    continue
                except OSError:
                    open_still.discard(caller)
            time.sleep(0.1)
        assert service.client.get("/readyz").status_code == 200
        wait_until(lambda: service.serving.bodies_bytes == 0)


def test_a_head_that_does_not_end_and_a_body_that_trickles_get_408_in_the_one_shape(releases, settings_for):
    with running(settings_for(releases, header_seconds=0.3, body_seconds=0.3)) as service:
        with dialled(service) as caller:
            caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
            assert answer_of(everything_from(caller)) == (408, "headers_too_slow")
        with dialled(service) as caller:
            caller.sendall(b"\r\n")  # not even a head: but it spoke, so its clock runs
            assert answer_of(everything_from(caller)) == (408, "headers_too_slow")
        with dialled(service) as caller:
            caller.sendall(b"POST /embed/text HTTP/1.1\r\nhost: x\r\n" + JSON + b"content-length: 999\r\n\r\n{")
            assert answer_of(everything_from(caller)) == (408, "body_too_slow")
        with dialled(service) as caller:  # a deadline of the caller's own gives it no longer
            head = b"POST /embed/text HTTP/1.1\r\nhost: x\r\nx-deadline-ms: 3600000\r\n"
            caller.sendall(head + JSON + b"content-length: 999\r\n\r\n{")
            assert answer_of(everything_from(caller)) == (408, "body_too_slow")


def test_a_large_body_on_a_thin_line_gets_the_time_its_bytes_earn(releases, settings_for):
    settings = settings_for(releases, body_seconds=0.2, body_bytes_per_second=100)
    data = image_file(1)
    padded = b"POST /embed/image HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"
    with running(settings) as service, dialled(service) as caller:
        caller.sendall(padded + b"content-length: %d\r\n\r\n" % (len(data) + 2000) + data + bytes(1000))
        time.sleep(0.5)  # longer than any body has, shorter than what a thousand bytes earn
        caller.sendall(bytes(1000))
        assert b"HTTP/1.1 200" in caller.recv(65_536)


@pytest.fixture(scope="module")
def narrow(releases, settings_for):
    """A service that takes 4096 bytes around a body."""
    with running(settings_for(releases, max_header_bytes=4096)) as service:
        yield service


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-big: " + b"a" * 5000 + b"\r\n\r\n"],
        [b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-big: ", *[b"a" * 1000] * 9],  # never ends
        [b"GET /healthz HTTP/1.1\r\nhost: x\r\n", *[b"x-many: 1\r\n" * 100] * 9],
        [b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
        [b"GET /" + b"a" * 1000, *[b"a" * 1000] * 9],
    ],
    ids=["one large", "one endless", "many", "a large path", "an endless path"],
)
def test_heads_beyond_their_bytes_get_431(narrow, parts):
    with dialled(narrow) as caller:
        for part in parts:
            try:
                caller.sendall(part)
            except OSError:
                break
            time.sleep(0.01)
        assert answer_of(everything_from(caller)) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "part",
    [b"x-trailer: 1\r\n" * 500, b"a" * 5000, b"1;" + b"e" * 5000],
    ids=["trailers without end", "a trailer without end", "an extension of a chunk without end"],
)
def test_what_comes_around_a_body_is_bounded_too(narrow, part):
    with dialled(narrow) as caller:
        head = b"POST /embed/text HTTP/1.1\r\nhost: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n"
        start = head if part.startswith(b"1;") else head + b"1\r\n{\r\n0\r\nx-first: "
        caller.sendall(start)
        for _ in range(5):
            try:
                caller.sendall(part)
            except OSError:
                break
            time.sleep(0.02)
        received = everything_from(caller)
        assert b"HTTP/1.1 4" in received or received == b""
        wait_until(lambda: narrow.serving.bodies_bytes == 0)


def test_chunks_of_one_byte_each_are_a_body_like_any_other(narrow):
    body = b'{"texts": "a"}' + b" " * 3000
    with dialled(narrow) as caller:
        caller.sendall(
            b"POST /embed/text HTTP/1.1\r\nhost: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n"
        )
        for start in range(0, len(body), 100):
            caller.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body[start : start + 100]))
            time.sleep(0.001)
        caller.sendall(b"0\r\n\r\n")
        assert b"HTTP/1.1 200" in caller.recv(65_536)


def test_when_connections_are_full_the_one_silent_longest_gives_way(releases, settings_for):
    with running(settings_for(releases, max_connections=5)) as service, ExitStack() as stack:
        assert service.client.get("/healthz").status_code == 200  # keeps its connection, and stays in use
        silent = [stack.enter_context(dialled(service)) for _ in range(4)]
        silent[0].sendall(b"GET /healthz HTTP/1.1\r\n")
        time.sleep(0.1)
        service.client.get("/healthz")
        with dialled(service) as newcomer:
            newcomer.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert newcomer.recv(15) == b"HTTP/1.1 200 OK"
            wait_until(lambda: sum(map(is_closed, silent)) == 1)
        told = service.client.get("/metrics").text
        assert 'twinlens_connections_turned_away_total{cause="made_room"} 1.0' in told
        assert service.client.get("/healthz").status_code == 200


def test_when_all_connections_are_busy_one_more_gets_503(releases, settings_for):
    with running(settings_for(releases, max_connections=2)) as service:
        free = threading.Event()
        service.serving.embedder.device.call(lambda: free.wait(30))
        body = b'{"texts": "a"}'
        ask = (
            b"POST /embed/text HTTP/1.1\r\nhost: x\r\n"
            + JSON
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        with dialled(service) as first, dialled(service) as second:
            try:
                for caller in (first, second):
                    caller.sendall(ask)
                wait_until(lambda: service.serving.in_flight == 2)
                with dialled(service) as third:
                    received = everything_from(third)
                assert answer_of(received) == (503, "too_many_connections")
                assert b"retry-after: 1\r\n" in received
            finally:
                free.set()
            for caller in (first, second):
                assert caller.recv(15) == b"HTTP/1.1 200 OK"
        wait_until(lambda: service.client.get("/healthz").status_code == 200)


def test_what_is_no_http_is_told_so_in_the_one_shape(service):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"HELLO\r\n\r\n"):
        with dialled(service) as caller:
            caller.sendall(data)
            assert answer_of(everything_from(caller)) == (400, "invalid_http")


def test_a_fresh_connection_is_answered_while_the_service_stops(releases, settings_for):
    def refused() -> bool:
        with suppress(ConnectionRefusedError), dialled(service):
            return False
        return True

    def ask_late() -> bytes:
        wait_until(refused)
        caller.sendall(b"GET /release HTTP/1.1\r\nhost: a\r\n\r\n")
        return everything_from(caller)

    with ThreadPoolExecutor(1) as aside, ExitStack() as stack:
        with running(settings_for(releases)) as service:
            caller = stack.enter_context(dialled(service))
            wait_until(lambda: metric(service, "twinlens_connections") == 1)
            told = aside.submit(ask_late)
            service.serving.draining = True
        assert answer_of(told.result()) == (503, "shutting_down")
