"""What happens to the folder of releases, or to the clock, under a running service."""

import os
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from live_service import Running, files_left, image_file, publish, running, wait_until

from encoders.errors import Unreadable
from index.manifest import MANIFEST_NAME
from service.load_failure import reason_of
from service.state import ServingState

QUERY = {"query": "a red dog", "k": 5}
PNG = {"content-type": "image/png"}


def hits(service: Running) -> list[tuple[str, float]]:
    answer = service.client.post("/search/text", json=QUERY)
    assert answer.status_code == 200, answer.text
    return [(hit["id"], hit["score"]) for hit in answer.json()["results"]]


def files_of(release: Path) -> list[Path]:
    return sorted(path for path in release.rglob("*") if path.is_file() and path.stat().st_size)


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.unlink()  # never through a hard link into another release, or into the bundle it was made from
    path.write_bytes(content)


def test_a_folder_of_releases_that_is_deleted_goes_on_being_searched(tmp_path, releases, settings_for):
    folder = shutil.copytree(releases, tmp_path / "releases")
    with running(settings_for(folder)) as service:
        before = hits(service)
        shutil.rmtree(folder)
        assert hits(service) == before
        assert service.client.post("/embed/image", content=image_file(1), headers=PNG).status_code == 200
        assert service.client.get("/readyz").status_code == 200
        reload = service.client.post("/release/reload")
        assert (reload.status_code, reload.json()["error"]["code"]) == (500, "reload_failed")
        assert hits(service) == before


def test_one_flipped_bit_in_any_file_of_a_new_release_is_refused_by_name(
    tmp_path, gallery, tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder)) as service:
        served, before = service.serving.state.release.id, hits(service)
        whole = folder / publish(folder, gallery, tiny_bundle)
        names = [path.relative_to(whole) for path in files_of(whole)]
        assert len(names) > 8
        kept = shutil.copytree(whole, tmp_path / "kept")
        for name in names:
            flip_one_bit(whole / name)
            reload = service.client.post("/release/reload")
            assert reload.status_code == 500, name
            told = reload.json()["error"]["message"]
            assert name.name in told or name.name == MANIFEST_NAME, (name, told)
            assert (service.serving.state.release.id, hits(service)) == (served, before)
            shutil.copyfile(kept / name, whole / name)
        assert service.client.post("/release/reload").status_code == 200
        assert service.serving.state.release.id == whole.name


def test_for_want_of_descriptors_no_release_is_told_to_be_corrupt(releases, settings_for):
    failures = []
    for left in range(20):  # each time one more is opened: CURRENT, the bundle, its weights …
        with files_left(left):
            try:
                ServingState.load(settings_for(releases))
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at below
                failures.append(error)
    assert len(failures) >= 2
    for error in failures:
        assert type(error) is Unreadable, repr(error)
        assert (reason_of(error), "ulimit -n" in str(error)) == ("too_many_open_files", True)


def test_a_release_that_no_descriptor_was_left_for_is_taken_up_once_there_is(
    tmp_path, gallery, tiny_bundle, other_tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder, watch_seconds=0.05)) as service:
        item = service.serving.state.release.items.id(0)
        assert service.client.get(f"/images/{quote(item)}").status_code == 200  # by a connection that is kept
        new = publish(tmp_path / "elsewhere", gallery, other_tiny_bundle)
        (tmp_path / "elsewhere" / new).rename(folder / new)
        with files_left(0):
            (tmp_path / "elsewhere" / "CURRENT").rename(folder / "CURRENT")
            wait_until(lambda: service.client.get("/release").json()["refused"] is not None)
            refused = service.client.get("/release").json()["refused"]
            assert (refused["reason"], "ulimit -n" in refused["message"]) == ("too_many_open_files", True)
            reload = service.client.post("/release/reload").json()["error"]
            assert (reload["code"], "Too many open files" in reload["message"]) == ("reload_failed", True)
            image = service.client.get(f"/images/{quote(item)}")
            assert (image.status_code, image.json()["error"]["code"]) == (503, "image_unreadable")
        wait_until(lambda: service.client.get("/release").json()["release"] == new)
        assert service.client.get("/release").json()["refused"] is None
        assert service.client.get(f"/images/{quote(item)}").status_code == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the folder read-only")
def test_a_folder_that_can_only_be_read_is_served(tmp_path, releases, settings_for):
    folder = tmp_path / "releases"
    folder.mkdir()
    if os.system(f"mount --bind -o ro '{releases}' '{folder}' 2>/dev/null"):  # noqa: S605 - paths of our own
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (folder / "note").touch()
        with running(settings_for(folder)) as service:
            assert len(hits(service)) == 5
    finally:
        os.system(f"umount --lazy '{folder}'")  # noqa: S605 - vectors may still be mapped


def test_a_clock_that_is_set_back_by_a_day_stops_nothing(releases, settings_for, monkeypatch):
    with running(settings_for(releases, watch_seconds=0.05)) as service:
        before, now = hits(service), time.time
        monkeypatch.setattr(time, "time", lambda: now() - 86_400)
        assert hits(service) == before
        assert service.client.post("/embed/image", content=image_file(2), headers=PNG).status_code == 200
        assert service.client.post("/release/reload").status_code == 200
        assert service.client.get("/readyz").status_code == 200
        assert service.client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    ],
)
def test_a_release_for_which_no_memory_is_left_is_refused_for_that(error):
    assert reason_of(error) == "out_of_memory"
