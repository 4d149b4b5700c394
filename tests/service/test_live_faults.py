"""Live changes under kill -9, full disks, and swaps of releases and encoders while they are made."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from live_service import ITEM_COUNT, image_file, publish, running, spawned, until_it_serves, wait_until

from index.catalog import current_release_id, release_ids
from index.errors import CorruptJournal, JournalBusy
from index.journal.journal import Journal
from index.journal.snapshot import open_snapshot
from service.app import create_app
from service.settings import Settings

PNG = {"content-type": "image/png"}


@contextmanager
def started(releases: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A process that takes live changes, and a client of it."""
    arguments = ("--releases", str(releases), "--port", "0", "--device", "cpu")
    with spawned(*arguments, TWINLENS_LIVE_CHANGES="1", TWINLENS_DECODE_WORKERS="1") as process:
        url, _ = until_it_serves(process)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield process, client


@pytest.fixture
def folder(tmp_path: Path, releases: Path) -> Path:
    shutil.copytree(releases, tmp_path / "releases")
    return tmp_path / "releases"


def put(client: httpx.Client, item_id: str, seed: int, **payload: object) -> httpx.Response:
    return client.put(
        f"/items/{item_id}", content=image_file(seed), headers=PNG, params={"payload": json.dumps(payload)}
    )


def held_ids(client: httpx.Client) -> list[str]:
    answer = client.post("/search/text", json={"query": "a cat", "k": 1000})
    assert answer.status_code == 200, answer.text
    return sorted(hit["id"] for hit in answer.json()["results"])


class Writers:
    """Threads that put until the service is gone; what was sent, and what was answered (item → seed)."""

    def __init__(self, client: httpx.Client) -> None:
        self._url = client.base_url
        self.sent: set[str] = set()
        self.answered: dict[str, int] = {}
        self.threads = [threading.Thread(target=self._write, args=(writer,)) for writer in range(8)]
        for thread in self.threads:
            thread.start()

    def _write(self, writer: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            for number in range(1000):
                name = f"new {writer}/{number}"
                self.sent.add(name)
                try:
                    assert put(client, name, number).status_code == 200
                except httpx.HTTPError:
                    return
                self.answered[name] = number


def test_kill_9_under_writers_loses_nothing_and_doubles_nothing(folder):
    with started(folder) as (process, client):
        for number in range(4):
            assert put(client, f"new/{number}", number).status_code == 200
        assert client.delete("/items/new/0").status_code == 200
        writers = Writers(client)
        wait_until(lambda: len(writers.answered) >= 40)
        process.send_signal(signal.SIGKILL)
        for thread in writers.threads:
            thread.join()
    with started(folder) as (_, client):
        everything = held_ids(client)
        held = [name for name in everything if name.startswith("new ")]
        first = ["new/1", "new/2", "new/3"]
        assert [name for name in everything if name.startswith("new/")] == first
        assert len(set(everything)) == len(everything) == ITEM_COUNT + len(first) + len(held)
        assert set(writers.answered) <= set(held) <= writers.sent
        for name in list(writers.answered)[-3:]:
            assert client.get(f"/images/{name}").content == image_file(writers.answered[name])
    with open_snapshot(folder) as snapshot:
        found = {change.id for change in snapshot.changes()}
    assert found == {"new/0", *first, *held}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("may not mount a file system here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def image_count(folder: Path) -> int:
    return len(list((folder / "live" / "images").iterdir()))


def test_on_a_full_disk_puts_are_507_deletes_work_and_searches_go_on(folder, small_disk, settings_for):
    (folder / "live").symlink_to(small_disk, target_is_directory=True)
    with running(settings_for(folder, live_changes=True)) as service:
        client, accepted = service.client, []
        for number in range(100):
            response = put_large(client, f"{number}")
            if response.status_code != 200:
                break
            accepted.append(str(number))
        assert len(accepted) > 5
        problem = response.json()["error"]
        assert (response.status_code, problem["code"]) == (507, "storage_full")
        assert f"{folder.name}/live" in problem["message"]
        assert str(folder) not in problem["message"]
        assert image_count(folder) == len(accepted)
        assert sorted(name for name in held_ids(client) if name.isdigit()) == sorted(accepted)
        with suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        answer = client.post("/items/batch", json={"delete": accepted[1:]})
        assert answer.status_code == 200, answer.text
        assert client.delete(f"/items/{accepted[0]}").status_code == 200
        wait_until(lambda: image_count(folder) == 0)
        assert put_large(client, "again").status_code == 200
        assert [name for name in held_ids(client) if name.isdigit()] == []
    assert shutil.disk_usage(small_disk).free > 2 << 20


def put_large(client: httpx.Client, item_id: str) -> httpx.Response:
    filling = image_file(len(item_id), width=480, height=480) + os.urandom(400_000)
    return client.put(f"/items/{item_id}", content=filling, headers=PNG)


def test_a_refused_put_leaves_no_image_behind(folder, settings_for):
    with running(settings_for(folder, live_changes=True, max_live_items=1)) as service:
        assert put(service.client, "a", 1).status_code == 200
        assert put(service.client, "b", 2).json()["error"]["code"] == "too_many_live_items"
        assert put(service.client, "a", 3).status_code == 200
        assert service.client.put("/items/c", content=b"no image", headers=PNG).status_code == 400
        wait_until(lambda: image_count(folder) == 1)
        assert service.client.get("/images/a").content == image_file(3)


def test_a_change_whose_caller_leaves_is_made_whole(folder, settings_for):
    """The disk is busy when it is put."""
    with running(settings_for(folder, live_changes=True)) as service:
        live, go_on = service.serving.live, threading.Event()
        live._disk.submit(go_on.wait, 30)
        leaving = http.client.HTTPConnection(service.url.removeprefix("http://"))
        leaving.request("PUT", "/items/left", body=image_file(7), headers=PNG)
        wait_until(lambda: live._committing is not None)
        leaving.close()
        wait_until(lambda: service.serving.in_flight == 0)
        go_on.set()
        wait_until(lambda: service.client.get("/items/left").status_code == 200)
        assert service.client.get("/images/left").content == image_file(7)


def test_a_504_may_be_in_and_its_idempotency_key_tells(folder, settings_for):
    """The disk is busy for longer than the caller waits; sent again, the change is not made twice."""
    with running(settings_for(folder, live_changes=True)) as service:
        client, go_on = service.client, threading.Event()
        service.serving.live._disk.submit(go_on.wait, 30)
        headers = {**PNG, "idempotency-key": "4f0c", "x-deadline-ms": "300"}
        late = client.put("/items/late", content=image_file(7), headers=headers)
        assert late.status_code == 504
        go_on.set()
        del headers["x-deadline-ms"]
        again = client.put("/items/late", content=image_file(7), headers=headers)
        assert (again.status_code, again.json()["sequence"]) == (200, 1)
        assert client.get("/images/late").content == image_file(7)


def test_an_image_replaced_while_it_is_asked_for_is_answered(folder, settings_for, monkeypatch):
    """Its request began with the state before, whose image is gone by the time it is read."""
    with running(settings_for(folder, live_changes=True)) as service:
        assert put(service.client, "a", 1).status_code == 200
        store, began, go_on = service.serving.live.images, threading.Event(), threading.Event()
        read, answers = store.read, []

        def slowly(digest: bytes) -> bytes:
            began.set()
            assert go_on.wait(30)
            return read(digest)

        monkeypatch.setattr(store, "read", slowly)
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{service.url}/images/a", timeout=60))
        )
        asking.start()
        assert began.wait(30)
        assert put(service.client, "a", 2).status_code == 200
        wait_until(lambda: image_count(folder) == 1)
        go_on.set()
        asking.join()
        assert (answers[0].status_code, answers[0].content) == (200, image_file(2))


def test_live_moved_away_stops_changes_and_nothing_else(folder, settings_for):
    with running(settings_for(folder, live_changes=True)) as service:
        client = service.client
        assert put(client, "before", 1).status_code == 200
        (folder / "live").rename(folder / "elsewhere")
        for response in (put(client, "lost", 2), client.delete("/items/before")):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "journal_failed")
        assert len(held_ids(client)) == ITEM_COUNT + 1
        with pytest.raises(JournalBusy, match=f"process {os.getpid()}"):
            Journal(folder)
        (folder / "elsewhere").rename(folder / "live")
        assert put(client, "after", 3).status_code == 200
        assert client.get("/images/before").content == image_file(1)
    with open_snapshot(folder) as snapshot:
        assert [change.id for change in snapshot.changes()] == ["before", "after"]


def test_a_release_with_changes_that_the_journal_lacks_is_not_swapped_in(
    folder, gallery, tiny_bundle, settings_for
):
    """Changes to come would have the numbers of those that the release holds."""
    other = shutil.copytree(folder, folder.with_name("other"))
    with running(settings_for(other, live_changes=True)) as service:
        for number in range(3):
            assert put(service.client, f"{number}", number).status_code == 200
    published = publish(other, gallery, tiny_bundle)
    with running(settings_for(folder, live_changes=True)) as service:
        assert put(service.client, "own", 1).status_code == 200
        shutil.copytree(other / published, folder / published)
        (folder / "CURRENT").write_text(published + "\n")
        refused = service.client.post("/release/reload")
        assert refused.status_code == 500
        assert "change 3 was acknowledged" in refused.text
        assert "own" in held_ids(service.client)
    with pytest.raises(CorruptJournal, match="--accept-loss"):
        create_app(settings_for(folder, live_changes=True))


class Changing:
    """Threads that put, replace and delete until stopped; `state`: what must be there (item → seed)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.state: dict[str, int] = {}
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._change, args=(writer,)) for writer in range(3)]
        for thread in self._threads:
            thread.start()

    def _change(self, writer: int) -> None:
        number = 0
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                name, seed = f"w{writer}/{number % 4}", 1000 * (writer + 1) + number
                if number % 4 == 3 and name in self.state:
                    response = client.delete(f"/items/{name}")
                    del self.state[name]
                else:
                    response = put(client, name, seed, title=f"a {'abcd'[number % 4]} dog")
                    self.state[name] = seed
                if response.status_code != 200:
                    self.problems.append(response.text)
                number += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def two_releases(tmp_path: Path, gallery: Path, tiny_bundle: Path, other_tiny_bundle: Path) -> Path:
    """Of one gallery, by two encoders; the first is current."""
    folder = tmp_path / "two"
    publish(folder, gallery, tiny_bundle)
    first = current_release_id(folder)
    publish(folder, gallery, other_tiny_bundle)
    (folder / "CURRENT").write_text(first + "\n")
    return folder


def swap(folder: Path, client: httpx.Client) -> None:
    """Serve the one of the two releases that is not served."""
    (target,) = set(release_ids(folder)) - {current_release_id(folder)}
    (folder / "CURRENT").write_text(target + "\n")
    assert client.post("/release/reload").json() == {"release": target, "swapped": True}


def test_changes_go_on_while_releases_and_encoders_are_swapped(two_releases, settings_for):
    """Every answered change is served after every swap, with vectors of the encoder that is served."""
    with running(settings_for(two_releases, live_changes=True)) as service:
        changing = Changing(service.url)
        for _ in range(5):
            swap(two_releases, service.client)
        changing.stop()
        assert not changing.problems
        held = [name for name in held_ids(service.client) if name.startswith("w") and "/" in name]
        assert held == sorted(changing.state)
        for name, seed in changing.state.items():
            answer = service.client.post("/search/image?k=1", content=image_file(seed), headers=PNG).json()
            best = answer["results"][0]
            assert (best["id"], best["score"]) == (name, pytest.approx(1.0, abs=1e-4))


def test_a_bare_vector_is_hidden_while_another_encoder_is_served(two_releases, settings_for):
    with running(settings_for(two_releases, live_changes=True)) as service:
        client, state = service.client, service.serving.state
        replaced = state.release.items.id(0)
        bare = {"vector": [1.0] + [0.0] * 15, "model_fingerprint": state.encoder.fingerprint}
        for name in ("bare", replaced):
            assert client.put(f"/items/{quote(name)}", json=bare).status_code == 200
        swap(two_releases, client)
        for name in ("bare", replaced):
            assert client.get(f"/items/{quote(name)}").status_code == 404
        assert list(service.serving.live.left_out) == ["bare", replaced]
        assert len(held_ids(client)) == ITEM_COUNT - 1
        swap(two_releases, client)
        assert client.get("/items/bare").status_code == 200
        assert len(held_ids(client)) == ITEM_COUNT + 1


def test_a_damaged_journal_refuses_the_start_and_is_told(folder, settings_for: Callable[..., Settings]):
    with running(settings_for(folder, live_changes=True)) as service:
        for number in range(3):
            assert put(service.client, str(number), number).status_code == 200
    journal = folder / "live" / "journal.sqlite"
    journal.write_bytes(journal.read_bytes().replace(b'"payload"', b'"pxyload"', 1))
    with pytest.raises(CorruptJournal, match=f"{journal}.*bring it back from a copy"):
        create_app(settings_for(folder, live_changes=True))
