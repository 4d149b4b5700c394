"""Changes with an idempotency key are made once, however often they are sent, and answered alike each time."""

import base64
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from live_service import Running, image_file, running

from service.access.access import Caller
from service.access.keys import create_key
from service.settings import Settings
from service.wire.idempotency import request_key

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, releases: Path, settings_for: Callable[..., Settings]
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("idempotency") / "releases"
    shutil.copytree(releases, folder)
    with running(settings_for(folder, live_changes=True)) as started:
        yield started


def coded(seed: int) -> str:
    return base64.b64encode(image_file(seed)).decode()


def send(
    client: httpx.Client, method: str, path: str, key: str, *, headers: dict | None = None, **options: object
) -> httpx.Response:
    return client.request(method, path, headers={**(headers or {}), "idempotency-key": key}, **options)


REQUESTS = {
    "image": {"content": image_file(1), "headers": PNG, "params": {"payload": '{"n": 1}'}},
    "form": {"files": {"image": ("a.png", image_file(1))}, "data": {"payload": '{"n": 1}'}},
    "json": {"json": {"image": coded(1), "payload": {"n": 1}, "texts": ["a red dog"]}},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_put_sent_again_is_answered_alike_and_made_once(client, service, kind):
    """A form has another boundary each time it is sent."""
    first, again = (send(client, "PUT", f"/items/{kind}", f"put-{kind}", **REQUESTS[kind]) for _ in range(2))
    assert first.status_code == 200, first.text
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == "application/json"
    assert service.serving.live.sequence == first.json()["sequence"]


def test_a_delete_sent_again_is_answered_alike_and_without_a_key_404(client):
    assert client.put("/items/going", content=image_file(2), headers=PNG).status_code == 200
    first, again = (send(client, "DELETE", "/items/going", "delete") for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert client.delete("/items/going").status_code == 404


def test_a_batch_sent_again_is_answered_alike_with_its_errors(client, service):
    asked = {"put": [{"id": "b1", "image": coded(3)}, {"id": "b2", "image": "!"}], "delete": ["never was"]}
    first, again = (send(client, "POST", "/items/batch", "batch", json=asked) for _ in range(2))
    assert first.status_code == 200, first.text
    assert [set(one) for one in first.json()["put"]] == [{"id", "sequence"}, {"id", "error"}]
    assert again.content == first.content
    assert service.serving.live.sequence == first.json()["put"][0]["sequence"]


def test_what_changed_nothing_is_not_kept(client):
    for content, status in ((b"no image", 400), (image_file(4), 200)):
        answer = send(client, "PUT", "/items/retried", "failed", content=content, headers=PNG)
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("PUT", "/items/used", {"content": image_file(6), "headers": PNG}),
        ("PUT", "/items/used", {"content": image_file(5), "headers": PNG, "params": {"payload": '{"n": 2}'}}),
        ("PUT", "/items/other", {"content": image_file(5), "headers": PNG}),
        ("DELETE", "/items/used", {}),
        ("POST", "/items/batch", {"json": {"delete": ["used"]}}),
    ],
)
def test_a_key_of_another_request_is_422_and_changes_nothing(client, service, method, path, options):
    send(client, "PUT", "/items/used", "used", content=image_file(5), headers=PNG)
    before = service.serving.live.sequence
    refused = send(client, method, path, "used", **options)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert refused.json()["error"]["param"] == "idempotency-key"
    assert service.serving.live.sequence == before


def test_many_at_once_with_one_key_make_one_change(client, service):
    def one(_: int) -> httpx.Response:
        return send(client, "PUT", "/items/once", "at-once", content=image_file(7), headers=PNG)

    before = service.serving.live.sequence
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert service.serving.live.sequence == before + 1


def test_a_quoted_key_is_the_same_key(client):
    """The draft has it as a string of structured fields; most clients leave the quotes out."""
    for key in ("plain", '"plain"'):
        answer = send(client, "PUT", "/items/quoted", key, content=image_file(8), headers=PNG)
    assert answer.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("keys", [[""], ["a b"], ["x" * 256], ["a", "b"]])
def test_a_key_that_is_none_is_422(client, keys):
    refused = client.delete("/items/x", headers=[("idempotency-key", key) for key in keys])
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "idempotency-key")


def test_answers_outlast_a_restart_and_are_told_to_nobody_else(
    tmp_path, releases, settings_for: Callable[..., Settings]
):
    folder, keys = tmp_path / "releases", tmp_path / "keys.json"
    shutil.copytree(releases, folder)
    one, other = (
        {"authorization": f"Bearer {create_key(keys, name, scopes=('write',))}"} for name in ("one", "other")
    )
    settings = settings_for(folder, live_changes=True, keys_file=keys)
    with running(settings) as service:
        first = send(service.client, "PUT", "/items/a", "shared", content=image_file(1), headers=PNG | one)
        assert first.json()["sequence"] == 1
    with running(settings) as service:
        again = send(service.client, "PUT", "/items/a", "shared", content=image_file(1), headers=PNG | one)
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
        theirs = send(service.client, "PUT", "/items/b", "shared", content=image_file(2), headers=PNG | other)
        assert (theirs.status_code, theirs.json()["sequence"]) == (200, 2)


def test_others_go_on_while_a_large_request_is_told_from_others():
    """One call that wrote it as JSON would hold the interpreter's lock from beginning to end."""
    vector = [number / 7 for number in range(400_000)]
    done, longest = threading.Event(), 0.0

    def work() -> None:
        request_key("key", Caller(""), b"PUT", {"vector": vector, "payload": {"a": [{"b": vector}]}})
        done.set()

    began = last = time.perf_counter()
    threading.Thread(target=work).start()
    while not done.is_set():
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    longest = max(longest, time.perf_counter() - last)
    assert longest < (time.perf_counter() - began) / 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [[1], 2]),
        ([[1, 2]], [[1], [2]]),
        ({"a": 1}, {"a": "1"}),
        ({"a": {}}, {"a": []}),
        (["ab"], ["a", "b"]),
        ([2**64], [2**64 + 1]),
        ({"a": [1]}, {"a": 1}),
    ],
)
def test_requests_that_differ_have_keys_that_differ(one, other):
    keys = [request_key("key", Caller(""), b"PUT", content).content for content in (one, other)]
    assert keys[0] != keys[1]


def test_the_order_of_fields_makes_no_other_request():
    one, other = {"a": [{"b": 1, "c": 2.5}], "d": None}, {"d": None, "a": [{"c": 2.5, "b": 1}]}
    assert request_key("key", Caller(""), one) == request_key("key", Caller(""), other)
