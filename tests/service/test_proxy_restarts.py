"""Services that are replaced, stop, break off or say nothing behind deploy/nginx.conf, with a real nginx."""

import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from live_service import publish, running, spawned, until_it_serves, wait_until
from proxy import HOST, MISSING, Proxy, error_of, free_port, proxied

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} is not installed")
PAUSE_SECONDS = 0.03  # between searches beside a restart: whoever knocks as the socket closes is reset


@contextmanager
def asking(proxy: Proxy) -> Iterator[list[tuple[int, str]]]:
    """Searches one after the other meanwhile; status, and release or an error's code, of each."""
    seen: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(PAUSE_SECONDS):
            answer = proxy.client.post("/search/text", json={"query": "a dog"})
            seen.append((answer.status_code, answer.json().get("release") or answer.json()["error"]["code"]))

    with ThreadPoolExecutor(1) as aside:
        asked = aside.submit(ask)
        try:
            yield seen
        finally:
            done.set()
            asked.result()


@contextmanager
def breaking_off(*, silent: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """A service that takes every request and closes, or says nothing; its address, and what it was sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[bytes] = []
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                taken.append(caller.recv(65536))
                if silent:
                    held.append(caller)
                else:
                    caller.close()

        aside = threading.Thread(target=serve)
        aside.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", taken
        finally:
            server.shutdown(socket.SHUT_RDWR)
            aside.join()
            for caller in held:
                caller.close()


def test_a_swap_behind_the_proxy_drops_nothing(tmp_path, releases, gallery, tiny_bundle, settings_for):
    own = shutil.copytree(releases, tmp_path / "releases")
    with (
        running(settings_for(own, allowed_hosts=(HOST,))) as service,
        proxied(tmp_path / "nginx", service.url.removeprefix("http://")) as proxy,
        asking(proxy) as seen,
    ):
        wait_until(lambda: seen)
        second = publish(own, gallery, tiny_bundle)
        assert proxy.client.post("/release/reload").json()["release"] == second
        wait_until(lambda: seen[-1][1] == second)
    assert {status for status, _ in seen} == {200}
    assert len({release for _, release in seen}) == 2


def test_a_restart_behind_the_proxy_is_503_and_never_502(tmp_path, releases):
    port = free_port()
    start = lambda: spawned(  # noqa: E731
        "--releases", str(releases), "--port", str(port), "--device", "cpu", "--engine", "torch",
        TWINLENS_ALLOWED_HOSTS=HOST, TWINLENS_DECODE_WORKERS="1",
    )  # fmt: skip
    with proxied(tmp_path / "nginx", f"127.0.0.1:{port}") as proxy:
        refused = proxy.client.get("/release")
        assert error_of(refused, 503) == "unreachable"
        assert refused.headers["retry-after"] == "1"
        with start() as process, ExitStack() as later:
            until_it_serves(process)
            with asking(proxy) as seen:
                wait_until(lambda: 200 in {status for status, _ in seen})
                process.send_signal(signal.SIGTERM)
                wait_until(lambda: process.poll() is not None)
                wait_until(lambda: seen[-1] == (503, "unreachable"))
                until_it_serves(later.enter_context(start()))
                wait_until(lambda: seen[-1][0] == 200)
    assert process.returncode == 0
    assert {each for each in seen if each[0] != 200} <= {(503, "unreachable"), (503, "shutting_down")}


def test_only_what_reads_is_sent_to_a_second_service(tmp_path):
    with (
        breaking_off() as (one, first),
        breaking_off() as (other, second),
        proxied(tmp_path / "nginx", one, other) as proxy,
    ):
        for method, path, sent in (
            ("GET", "/release", 2),
            ("POST", "/search/text", 1),
            ("POST", "/items/batch", 1),
            ("PUT", "/items/a", 1),
            ("DELETE", "/items/a", 1),
        ):
            before = len(first) + len(second)
            answer = proxy.client.request(method, path)
            assert error_of(answer, 502) == "broken_off"
            assert "retry-after" not in answer.headers
            assert len(first) + len(second) - before == sent, (method, path)


def test_a_service_that_never_answers_is_504_in_the_one_shape(tmp_path):
    shorter = {"proxy_read_timeout 310s;": "proxy_read_timeout 300ms;"}
    with (
        breaking_off(silent=True) as (silent, taken),
        proxied(tmp_path / "nginx", silent, changes=shorter) as proxy,
    ):
        assert error_of(proxy.client.post("/search/text", json={"query": "a"}), 504) == "gateway_timeout"
        assert len(taken) == 1


def test_connections_to_the_service_are_kept(tmp_path):
    opened = []

    class Kept(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            opened.append(self.client_address)
            super().setup()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Kept) as service:
        aside = threading.Thread(target=service.serve_forever)
        aside.start()
        with proxied(tmp_path / "nginx", f"127.0.0.1:{service.server_port}") as proxy:
            assert {proxy.client.get("/release").status_code for _ in range(100)} == {200}
        service.shutdown()
        aside.join()
    assert len(opened) == 1
