"""What was replaced is freed at once, whatever became of the requests that it served."""

import base64
import gc
import shutil
import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_service import Running, device_held, image_file, publish, running, wait_until

from encoders.bundle import Bundle

PNG = {"content-type": "image/png"}
SPOILED = image_file(1)[:60]


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, gallery: Path, tiny_bundle: Path, settings_for: Callable
) -> Iterator[tuple[Running, list[str]]]:
    """A service, and two releases that it can serve, each with an encoder of its own."""
    folder = tmp_path_factory.mktemp("freed")
    releases, other = folder / "releases", shutil.copytree(tiny_bundle, folder / "other")
    Bundle.open(other).with_file("README.md", b"another")
    ids = [publish(releases, gallery, bundle) for bundle in (tiny_bundle, other)]
    with running(settings_for(releases, live_changes=True)) as started:
        yield started, ids


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Nothing is freed but what nothing refers to any more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def text_fails(service: Running) -> None:
    assert service.client.post("/embed/text", json={"texts": [" "]}).status_code == 422


def image_fails(service: Running) -> None:
    assert service.client.post("/embed/image", content=SPOILED, headers=PNG).status_code == 400


def one_image_of_two_fails(service: Running) -> None:
    files = [("images", ("a", SPOILED)), ("images", ("b", image_file(2)))]
    assert service.client.post("/embed/image", files=files).status_code == 200


def search_fails(service: Running) -> None:
    assert service.client.post("/search/image", content=SPOILED, headers=PNG).status_code == 400
    assert service.client.post("/search/item", json={"id": "nothing"}).status_code == 404
    assert service.client.post("/search/text", json={"query": " "}).status_code == 422


def queries_fail(service: Running) -> None:
    wrong = [{"text": " "}, {"id": "nothing"}, {"text": "a", "filter": {"key": "a"}}]
    for queries, status in ((wrong, 400), ([*wrong, {"text": "a"}], 200)):
        assert service.client.post("/search/batch", json={"queries": queries}).status_code == status


def changes_fail(service: Running) -> None:
    assert service.client.put("/items/a.png", content=SPOILED, headers=PNG).status_code == 400
    assert service.client.delete("/items/nothing").status_code == 404
    spoiled = base64.b64encode(SPOILED).decode()
    puts = [{"id": "a.png", "image": spoiled}, {"id": "b.png"}, {"id": "../c.png", "image": spoiled}]
    body = {"put": puts, "delete": ["nothing"]}
    assert service.client.post("/items/batch", json=body).status_code == 200
    assert service.client.post("/items/batch", json={"put": puts}).status_code == 400


def deadline_passes(service: Running) -> None:
    in_time = {"x-deadline-ms": "200"}
    with device_held(service):
        late = service.client.post("/embed/text", json={"texts": ["a dog"]}, headers=in_time)
        assert late.status_code == 504
        late = service.client.post("/embed/image", content=image_file(3), headers=PNG | in_time)
        assert late.status_code == 504


def caller_leaves(service: Running) -> None:
    body = b'{"query": "a dog"}'
    head = f"POST /search/text HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    address = ("127.0.0.1", service.client.base_url.port)
    serving = service.serving
    with device_held(service), socket.create_connection(address) as caller:
        caller.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        wait_until(lambda: serving.in_flight)
        caller.close()
        wait_until(lambda: not serving.in_flight)


@pytest.mark.parametrize(
    "fails",
    [
        text_fails,
        image_fails,
        one_image_of_two_fails,
        search_fails,
        queries_fail,
        changes_fail,
        deadline_passes,
        caller_leaves,
    ],
)
def test_requests_that_failed_keep_no_release(service, fails, without_collector):
    started, ids = service
    fails(started)
    served = started.serving.state.release.id
    kept = [weakref.ref(started.serving.state.release), weakref.ref(started.serving.state.encoder)]
    (other,) = {*ids} - {served}
    (started.serving.settings.releases / "CURRENT").write_text(other + "\n")
    assert started.client.post("/release/reload").json() == {"release": other, "swapped": True}
    wait_until(lambda: all(one() is None for one in kept), seconds=10)


def test_the_encoder_goes_on_where_a_release_holds_the_same_bundle(
    tmp_path, gallery, tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder)) as service:
        encoder = service.serving.state.encoder
        second = publish(folder, gallery, tiny_bundle)
        assert service.client.post("/release/reload").json() == {"release": second, "swapped": True}
        assert service.serving.state.encoder is encoder
        other = shutil.copytree(tiny_bundle, tmp_path / "other")
        Bundle.open(other).with_file("README.md", b"another")
        third = publish(folder, gallery, other)
        assert service.client.post("/release/reload").json() == {"release": third, "swapped": True}
        assert service.serving.state.encoder is not encoder
