"""Bodies: how large one may be, and all together; and what is read of one that is refused."""

import time

import pytest
from live_service import dialled, image_file, running, wait_until
from pydantic import ValidationError
from test_edge import JSON, PNG

from service.edge.request_body import DISCARD_SECONDS


def test_a_body_over_the_cap_is_413_announced_or_streamed_and_is_never_held(releases, settings_for):
    with running(settings_for(releases, max_body_bytes=100_000)) as service:
        announced = service.client.post("/embed/image", content=bytes(3_000_000), headers=PNG)
        streamed = service.client.post("/embed/image", content=(bytes(50_000) for _ in range(60)), headers=PNG)
        for response in (announced, streamed):
            assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
            assert "100000" in response.json()["error"]["message"]
            assert response.headers["connection"] == "close"
        assert service.client.post("/embed/image", content=image_file(1), headers=PNG).status_code == 200


def test_bodies_that_are_too_much_together_answer_429_and_small_ones_get_through(releases, settings_for):
    settings = settings_for(releases, max_body_bytes=200_000, max_bodies_bytes=200_000)
    with running(settings) as service, dialled(service) as holder:
        serving = service.serving
        holder.sendall(b"POST /embed/image HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n")
        holder.sendall(b"content-length: 199999\r\n\r\n" + bytes(150_000))
        wait_until(lambda: serving.bodies_bytes == 150_000)
        for _ in range(2):
            refused = service.client.post("/embed/image", content=bytes(100_000), headers=PNG)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "bodies_full")
            assert serving.bodies_bytes == 150_000
        small = service.client.post("/embed/text", content=b'{"texts": "a"}' + b" " * 60_000, headers=JSON)
        assert small.status_code == 200


def test_a_request_refused_unread_has_its_body_taken_in_so_that_the_caller_sees_the_answer(service):
    head = b"POST /embed/image HTTP/1.1\r\nhost: x\r\nx-deadline-ms: soon\r\ncontent-length: 3000000\r\n"
    with dialled(service) as caller:
        caller.sendall(head + b"\r\n")
        for _ in range(30):
            caller.sendall(bytes(100_000))
            time.sleep(0.001)
        assert caller.recv(12) == b"HTTP/1.1 422"
    with dialled(service) as caller:
        caller.sendall(head + b"expect: 100-continue\r\n\r\n")
        assert caller.recv(12) == b"HTTP/1.1 422"  # and not 100


def test_bounds_on_bodies_that_contradict_each_other_are_refused(releases, settings_for):
    with pytest.raises(ValidationError, match="max_body_bytes=2000 exceeds max_bodies_bytes=1500"):
        settings_for(releases, max_body_bytes=2000, max_bodies_bytes=1500)


def test_a_body_refused_with_its_last_bytes_is_answered_at_once(releases, settings_for):
    with running(settings_for(releases, max_body_bytes=1024)) as service, dialled(service) as caller:
        head = b"POST /embed/image HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"
        began = time.monotonic()
        caller.sendall(head + b"transfer-encoding: chunked\r\n\r\n7d0\r\n" + bytes(2000) + b"\r\n0\r\n\r\n")
        assert caller.recv(12) == b"HTTP/1.1 413"
        assert time.monotonic() - began < DISCARD_SECONDS / 2  # there is no rest to read and forget
