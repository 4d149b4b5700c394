"""When the client tries again, how long it waits, and when it gives up."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scripted_server import BREAK, Scripted, scripted

import twinlens
from twinlens import AsyncClient, Change, Client, ItemError, NewItem, Reload
from twinlens import exchange as exchange_module

GOOD = (200, {}, b'{"data": [], "model": "m", "model_fingerprint": "f", "dim": 2}')


def refusal(status: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
    told = b'{"error": {"code": "queue_full", "message": "wait", "param": null, "type": "x"}}'
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, told


@contextmanager
def asking(*answers: tuple[int, dict[str, str], bytes], **options: Any) -> Iterator[tuple[Scripted, Client]]:
    with scripted(*answers) as server, Client(server.url, **options) as client:
        yield server, client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize("trouble", [refusal(429), refusal(503), (BREAK, {}, b"")])
def test_what_passes_by_itself_is_tried_again_with_the_same_request_and_body(trouble):
    with scripted(trouble, trouble, GOOD) as server, Client(server.url, key="secret-key") as client:
        assert client.embed_images(b"image").dim == 2
    assert len(server.seen) == 3
    assert len({seen["x-request-id"] for seen in server.seen}) == 1
    assert {seen["authorization"] for seen in server.seen} == {"Bearer secret-key"}
    assert all(b"image" in body for body in server.bodies)
    assert "secret-key" not in repr(client._options)


def test_the_awaiting_client_tries_again_too():
    async def ask(url: str) -> twinlens.Embeddings:
        async with AsyncClient(url) as client:
            return await client.embed_texts("a")

    with scripted(refusal(503), (BREAK, {}, b""), GOOD) as server:
        assert asyncio.run(ask(server.url)).dim == 2
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 502, 504])
def test_nothing_else_is_ever_sent_twice(status):
    answers = (refusal(status, x_request_id="theirs"), GOOD)
    with asking(*answers) as (server, client), pytest.raises(twinlens.TwinlensError) as failure:
        client.embed_texts("a")
    assert len(server.seen) == 1
    assert (failure.value.status, failure.value.request_id) == (status, "theirs")


GONE = (404, {}, b'{"error": {"code": "unknown_item", "message": "no item has the id", "param": null}}')
LOST = (BREAK, {}, b"")
PROXYS = (503, {}, b"<h1>Upstream is gone</h1>")


@pytest.mark.parametrize("trouble", [LOST, PROXYS])
def test_a_delete_whose_answer_was_lost_has_succeeded_when_the_item_is_gone(trouble):
    with asking(trouble, GONE) as (server, client):
        assert client.delete_item("a/b") == Change("a/b", None)
    assert len(server.seen) == 2


@pytest.mark.parametrize("before", [(), (refusal(429),), (refusal(503),)])
def test_a_delete_that_was_never_carried_out_finds_no_item(before):
    with asking(*before, GONE) as (server, client), pytest.raises(twinlens.NotFound):
        client.delete_item("a/b")
    assert len(server.seen) == len(before) + 1


def test_an_answer_that_was_lost_makes_no_other_refusal_a_success():
    no_changes = (404, {}, GONE[2].replace(b"unknown_item", b"no_live_changes"))
    with asking(LOST, no_changes) as (_, client), pytest.raises(twinlens.NotFound):
        client.delete_item("a/b")


def test_deletes_of_a_batch_whose_answer_was_lost_have_succeeded_too():
    told = {
        "put": [{"id": "new", "sequence": 9}],
        "delete": [
            {"id": "gone", "error": {"code": "unknown_item", "message": "none"}},
            {"id": "x", "sequence": 8},
        ],
        "release": "r",
        "model_fingerprint": "f",
    }
    answer = (200, {}, json.dumps(told).encode())
    put = [NewItem(id="new", vector=[1.0], model_fingerprint="f")]
    for lost, first in (((LOST,), Change("gone", None)), ((), ItemError("unknown_item", "none"))):
        with asking(*lost, answer) as (_, client):
            changes = client.change_items(put=put, delete=["gone", "x"])
        assert (changes.put, changes.deleted) == ([Change("new", 9)], [first, Change("x", 8)])


def test_a_reload_that_outlasts_its_deadline_is_told_to_be_still_loading():
    told = {"release": "r", "swapped": False, "loading": {"release": "s", "since": "2026-11-30T07:15:00+00:00"}}
    with asking((202, {"location": "/release"}, json.dumps(told).encode())) as (server, client):
        assert client.reload() == Reload("r", swapped=False, still_loading=True)
    assert len(server.seen) == 1


def test_it_waits_as_long_as_the_service_asks():
    with scripted(refusal(429, retry_after="1"), GOOD) as server, Client(server.url) as client:
        began = time.monotonic()
        client.embed_texts("a")
        assert time.monotonic() - began >= 1


def test_after_the_retries_the_refusal_is_told_with_when_to_come_back():
    with asking(refusal(429), retries=2) as (server, client), pytest.raises(twinlens.Overloaded) as refused:
        client.embed_texts("a")
    assert (len(server.seen), refused.value.code, refused.value.retry_after_seconds) == (3, "queue_full", None)
    date = "Wed, 01 Jan 2031 00:00:00 GMT"
    for long in ("3600", date):  # nobody is kept waiting for an hour
        answer = refusal(503, retry_after=long)
        with asking(answer) as (server, client), pytest.raises(twinlens.Unavailable) as refused:
            client.embed_texts("a")
        assert len(server.seen) == 1
        assert refused.value.retry_after_seconds >= 3600


def test_the_deadline_goes_along_shrinks_with_each_try_and_ends_the_retries():
    answers = (refusal(503), refusal(429, retry_after="30"), GOOD)
    with asking(*answers, deadline_seconds=20) as (server, client), pytest.raises(twinlens.Overloaded):
        client.embed_texts("a")  # at once: the 30 s asked for would end after the deadline
    first, second = (int(seen["x-deadline-ms"]) for seen in server.seen)
    assert 20_000 >= first > second > 0


def test_a_deadline_beyond_what_the_service_may_be_told_is_kept_here():
    with asking(GOOD, deadline_seconds=1e6) as (server, client):
        client.embed_texts("a")
    assert server.seen[0]["x-deadline-ms"] == "3600000"


def test_what_no_header_could_carry_is_no_key_and_is_told_to_nobody():
    for key in ("tl_secret\n", "tl_ secret", "tl_secr\u00e9t", ""):
        with pytest.raises(ValueError, match="that is no key") as refused:
            Client("http://127.0.0.1:9", key=key)
        assert "tl_" not in str(refused.value)


def test_a_service_that_never_answers_is_left_when_the_deadline_has_passed(monkeypatch):
    monkeypatch.setattr(exchange_module, "ANSWER_GRACE_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, deadline_seconds=0.2) as client, pytest.raises(twinlens.DeadlineExceeded) as late:
            client.embed_texts("a")
    assert late.value.status is None
    assert late.value.request_id


def test_nobody_listening_is_told_after_the_retries():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url, retries=1) as client, pytest.raises(twinlens.ConnectionFailed, match="Connect"):
        client.embed_texts("a")


def test_an_address_that_is_no_twinlens_service_is_told_as_such():
    page = (200, {"content-type": "text/html"}, b"<h1>It works!</h1>")
    for answer in (page, (200, {}, b'{"data": 5}'), (302, {"location": "/login"}, b"")):
        with asking(answer) as (_, client), pytest.raises(twinlens.BadAnswer):
            client.embed_texts("a")
    broken_proxy = (502, {}, b"<h1>Bad gateway</h1>")
    told = pytest.raises(twinlens.ServerFailed, match="502 and no reason")
    with asking(broken_proxy) as (_, client), told:
        client.embed_texts("a")


def test_not_being_ready_is_an_answer_and_not_an_error():
    with scripted(refusal(503, retry_after="1")) as server, Client(server.url) as client:
        readiness = client.ready()
    assert (bool(readiness), readiness.why_not, len(server.seen)) == (False, "wait", 1)
