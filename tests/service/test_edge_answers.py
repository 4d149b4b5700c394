"""What becomes of answers on real sockets: in order, whole on a thin line, and never one taken for another."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from live_service import device_held, dialled, running, wait_until
from starlette.types import Receive, Scope, Send
from test_edge_connections import JSON, everything_from

from service.edge.connections import ConnectionTracker
from service.settings import Settings


def test_a_caller_that_does_not_take_its_answer_is_dropped(releases, settings_for):
    with running(settings_for(releases, send_seconds=0.3)) as service, dialled(service) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(0.2)
        wait_until(lambda: not went_out(caller, b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 20))
        wait_until(lambda: service.serving.in_flight == 0)
        assert service.client.get("/healthz").status_code == 200


def went_out(caller: socket.socket, data: bytes) -> bool:
    """Whether the connection is still there; waits while the other side takes nothing."""
    while data:
        try:
            data = data[caller.send(data) :]
        except TimeoutError:
            continue
        except OSError:
            return False
    return True


def test_requests_sent_ahead_are_answered_in_order(service):
    with dialled(service) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /nope HTTP/1.1\r\nhost: x\r\n\r\n" * 10)
        received = b""
        while received.count(b"HTTP/1.1 ") < 20 or not received.endswith(b"}}"):
            received += caller.recv(65_536)
        statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"200", b"404"] * 10


def test_nonsense_sent_ahead_is_not_told_as_the_answer_to_what_is_being_worked_on(service):
    body = b'{"texts": "a"}'
    with dialled(service) as caller:
        with device_held(service):
            head = b"POST /embed/text HTTP/1.1\r\nhost: x\r\n" + JSON
            caller.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: service.serving.in_flight == 1)
            caller.sendall(b"nonsense\r\n\r\n")
        answers = everything_from(caller)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 ") == 1


@contextmanager
def bare_server(settings: Settings, *, answer_bytes: int, keep_alive_seconds: int = 5) -> Iterator[int]:
    """The same connections over an application that answers so many bytes at once; its port."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(answer_bytes)})

    protocol = ConnectionTracker(settings, turned_away=lambda cause: None).protocol()
    options = {"http": protocol, "ws": "none", "lifespan": "off", "log_config": None}
    server = uvicorn.Server(uvicorn.Config(answer, port=0, timeout_keep_alive=keep_alive_seconds, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])  # closed after the answer, and kept
def test_a_large_answer_on_a_thin_line_is_not_cut(releases, settings_for, version):
    size = 24_000_000  # more than the system's own buffers
    settings = settings_for(releases, send_seconds=0.8)
    with bare_server(settings, answer_bytes=size) as port:
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        with caller:
            caller.connect(("127.0.0.1", port))
            caller.settimeout(30)
            caller.sendall(b"GET / HTTP/%s\r\nhost: x\r\n\r\n" % version)
            begun, received = time.monotonic(), 0
            while received < size:
                part = caller.recv(400_000)
                assert part, f"cut after {received} bytes"
                received += len(part)
                time.sleep(max(0.0, begun + 2 * received / size - time.monotonic()))  # two seconds for all


def test_a_caller_answered_before_its_body_came_is_as_idle_as_any_other_afterwards(releases, settings_for):
    with (
        bare_server(settings_for(releases), answer_bytes=1, keep_alive_seconds=1) as port,
        socket.create_connection(("127.0.0.1", port), timeout=8) as caller,
    ):
        caller.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n1")
        assert caller.recv(12) == b"HTTP/1.1 200"
        caller.sendall(b"2")
        everything_from(caller)  # ends, since the connection is closed
