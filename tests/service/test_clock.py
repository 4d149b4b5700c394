"""The clock is set forward and back under a running service and a rebuild, by Debian's libfaketime."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from live_service import ROOT, image_file, spawned, until_it_serves, wait_until
from system_programs import needs, path_of

from index.catalog import current_release_id, read_manifest, release_ids
from service.access.keys import create_key

LIBRARY = path_of("libfaketime")
pytestmark = needs("libfaketime")


def faked(clock: Path) -> dict[str, str]:
    """The environment in which the date is off by what the file says; clocks that only run stay as they are."""
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),  # read again each second
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@dataclass(frozen=True)
class Timed:
    """A service whose clock can be set, and who calls it."""

    client: httpx.Client
    clock: Path
    releases: Path
    key: str

    def set_clock(self, days: int) -> None:
        """So many days from now; returns once the service's answers are dated so."""
        self.clock.write_text(f"{days:+}d")
        wait_until(lambda: abs(self._days_off() - days) < 0.5)

    def _days_off(self) -> float:
        told = parsedate_to_datetime(self.client.get("/healthz").headers["date"])
        return (told - datetime.now(UTC)) / timedelta(days=1)

    def release(self, key: str) -> httpx.Response:
        return self.client.get("/release", headers={"x-api-key": key})

    def search_and_put(self) -> str:
        """Both succeed, well before a deadline; returns the id of what was found."""
        headers = {"x-api-key": self.key, "x-deadline-ms": "20000"}
        found = self.client.post("/search/text", json={"query": "a dog"}, headers=headers)
        headers["content-type"] = "image/png"
        assert self.client.put("/items/put.png", content=image_file(3), headers=headers).status_code == 200
        assert self.client.get("/readyz").status_code == 200
        return str(found.json()["results"][0]["id"])

    def pass_for_images(self) -> str:
        given = self.client.post("/images/pass", headers={"x-api-key": self.key})
        self.client.cookies.clear()
        return given.headers["set-cookie"].partition(";")[0]

    def opens(self, cookie: str, item: str) -> bool:
        answer = self.client.get(f"/images/{quote(item)}?side=1", headers={"cookie": cookie})
        assert answer.status_code in (200, 401)
        return answer.status_code == 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory, releases) -> Path:
    """A copy of the releases, and files of keys and clocks beside them."""
    folder = tmp_path_factory.mktemp("clock")
    shutil.copytree(releases, folder / "releases")
    (folder / "clock").write_text("+0")
    (folder / "set back").write_text("-400d")
    return folder


@pytest.fixture(scope="module")
def rebuilding(folder, gallery, tiny_bundle) -> Iterator["subprocess.Popen[bytes]"]:
    """A rebuild that thinks that it is last year."""
    command = [sys.executable, "-m", "index", "rebuild", "--engine", "torch", "--gallery", gallery]
    with subprocess.Popen(
        [*command, "--bundle", tiny_bundle, "--releases", folder / "releases"],
        cwd=ROOT,
        env={**os.environ, **faked(folder / "set back")},
        stdout=subprocess.DEVNULL,
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def timed(folder, rebuilding) -> Iterator[Timed]:
    """Starts beside the rebuild, which takes as long."""
    keys = folder / "keys.json"
    staying = create_key(keys, "staying", scopes=("write",))
    service = spawned(
        "--releases", str(folder / "releases"), "--port", "0", "--device", "cpu", "--engine", "torch",
        TWINLENS_KEYS_FILE=str(keys), TWINLENS_DECODE_WORKERS="1", TWINLENS_LIVE_CHANGES="1",
        **faked(folder / "clock"),
    )  # fmt: skip
    with service as process, httpx.Client(timeout=60, trust_env=False) as client:
        client.base_url = httpx.URL(until_it_serves(process)[0])
        yield Timed(client, folder / "clock", folder / "releases", staying)
        process.terminate()
        assert process.wait(30) == 0


def test_a_clock_that_jumps_ends_keys_and_passes_and_nothing_else(timed, folder):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    ending = create_key(folder / "keys.json", "ending", scopes=("read",), expires=tomorrow)
    wait_until(lambda: timed.release(ending).status_code == 200)
    item = timed.search_and_put()
    early = timed.pass_for_images()
    assert timed.opens(early, item)

    timed.set_clock(2)
    timed.search_and_put()
    late = timed.pass_for_images()
    assert timed.release(ending).json()["error"]["code"] == "expired_key"
    assert (timed.opens(early, item), timed.opens(late, item)) == (False, True)

    timed.set_clock(-400)
    timed.search_and_put()
    assert timed.release(ending).status_code == 200
    assert (timed.opens(early, item), timed.opens(late, item)) == (False, False)
    assert timed.opens(timed.pass_for_images(), item)


def test_a_rebuild_whose_clock_was_set_back_is_newest_and_served(timed, rebuilding, releases):
    assert rebuilding.wait(120) == 0
    newest = current_release_id(timed.releases)
    assert release_ids(timed.releases) == [current_release_id(releases), newest]
    assert read_manifest(timed.releases / newest).created < datetime.now(UTC) - timedelta(days=399)
    wait_until(lambda: timed.release(timed.key).json()["release"] == newest)
    timed.search_and_put()
