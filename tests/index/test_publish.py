"""Switching, pruning and locking a folder of releases."""

import fcntl
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from index.catalog import current_release_id, find_problems, read_manifest, release_ids
from index.errors import CorruptRelease, NoRelease, ReleasesBusy, UnknownRelease
from index.publish import new_release_id, prune, publish, rebuild_lock, rollback, staging_folder
from index.release import Release


@pytest.fixture
def three(published, tmp_path):
    """Three releases of the same files, the last one current."""
    releases = tmp_path / "releases"
    releases.mkdir()
    source = published / current_release_id(published)
    for year in (2001, 2002, 2003):
        with staging_folder(releases) as staging:
            shutil.copytree(source, staging, dirs_exist_ok=True)
            manifest = read_manifest(source).model_copy(update={"id": f"{year}0101T000000Z-abcdef"})
            publish(releases, staging, manifest=manifest)
    return releases


def test_last_published_is_current_and_nothing_else_lies_about(three):
    assert current_release_id(three) == release_ids(three)[-1] == "20030101T000000Z-abcdef"
    assert {path.name for path in three.iterdir()} == {*release_ids(three), "CURRENT", ".change.lock"}


def test_rollback_goes_one_back_each_time_and_forward_by_name(three):
    first, second, third = release_ids(three)
    assert rollback(three) == second
    assert rollback(three) == first
    with pytest.raises(UnknownRelease, match="older"):
        rollback(three)
    assert rollback(three, third) == current_release_id(three) == third
    with pytest.raises(UnknownRelease):
        rollback(three, "../published")


def test_rollback_to_a_damaged_release_is_refused(three):
    (three / release_ids(three)[1] / "items.parquet").write_bytes(b"")
    with pytest.raises(CorruptRelease, match=r"items\.parquet has 0 bytes"):
        rollback(three)
    assert current_release_id(three) == release_ids(three)[-1]


def test_prune_keeps_the_newest_and_never_takes_the_current_one(three):
    first, second, third = release_ids(three)
    rollback(three, first)
    assert prune(three, keep=1) == [second]
    assert release_ids(three) == [first, third]
    assert prune(three, keep=5) == []


def test_prune_leaves_a_release_in_use_readable(three, published):
    old = Release.load(three, release_ids(three)[0])
    thumbnail, vector = old.thumbnail(0), old.images.reconstruct(0)
    prune(three, keep=1)
    assert not old.path.exists()
    assert old.thumbnail(0) == thumbnail
    assert (old.images.reconstruct(0) == vector).all()


def test_where_nothing_is_published_there_is_nothing_to_change(tmp_path):
    for change in (rollback, lambda folder: prune(folder, keep=1)):
        with pytest.raises(NoRelease):
            change(tmp_path)
        with pytest.raises(UnknownRelease, match="no folder"):
            change(tmp_path / "none")


def test_second_rebuild_is_refused_and_named_while_the_first_runs(tmp_path):
    with rebuild_lock(tmp_path), pytest.raises(ReleasesBusy, match=str(os.getpid())), rebuild_lock(tmp_path):
        pass
    with rebuild_lock(tmp_path):
        pass


def test_rebuild_starts_beside_a_prune_that_deletes(tmp_path):
    trash = tmp_path / ".staging-pruned-x"
    for _ in range(3):
        trash.mkdir(exist_ok=True)
        for number in range(1500):
            (trash / str(number)).touch()
        pruning = threading.Thread(target=shutil.rmtree, args=(trash,), kwargs={"ignore_errors": True})
        pruning.start()
        with rebuild_lock(tmp_path), staging_folder(tmp_path) as staging:
            assert staging.is_dir()
        pruning.join()


def test_rollback_holds_nobody_up_while_it_hashes(three):
    """With the lock held by another it still finds damage; only a sound release waits for it."""
    (three / release_ids(three)[1] / "items.parquet").write_bytes(b"")
    with (three / ".change.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CorruptRelease):
            rollback(three)


def test_staging_is_gone_after_a_failure_and_leftovers_of_the_killed_go_first(tmp_path):
    (tmp_path / ".staging-1/bundle").mkdir(parents=True)

    def fail():
        with staging_folder(tmp_path) as staging:
            (staging / "x").write_text("x")
            assert not (tmp_path / ".staging-1").exists()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_publishing_the_same_content_twice_in_a_second_makes_two_releases(table, index_gallery, tmp_path):
    ids = [index_gallery(table, tmp_path).release_id for _ in range(3)]
    assert len(set(ids)) == 3
    assert release_ids(tmp_path) == ids
    assert len({name[-6:] for name in ids}) == 1  # the same files, the same suffix


def test_edit_of_the_source_bundle_in_place_changes_no_release(tmp_path, table, tiny_bundle, index_gallery):
    source = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    releases = tmp_path / "releases"
    first = index_gallery(table, releases, bundle=source).release_id
    second = index_gallery(table, releases, bundle=source).release_id
    for file in filter(Path.is_file, source.rglob("*")):
        with file.open("r+b") as opened:
            opened.write(b"EDITED")
    for release_id in (first, second):
        assert find_problems(releases / release_id, read_manifest(releases / release_id)) == []
    weights = [releases / release_id / "bundle/model.safetensors" for release_id in (first, second)]
    assert weights[0].samefile(weights[1])  # shared among releases, so that keeping many costs little


def test_bundle_file_that_went_bad_in_a_release_is_not_passed_on(tmp_path, table, tiny_bundle, index_gallery):
    first = index_gallery(table, tmp_path).release_id
    (tmp_path / first / "bundle/model.safetensors").write_bytes(b"")
    second = index_gallery(table, tmp_path).release_id
    assert find_problems(tmp_path / second, read_manifest(tmp_path / second)) == []


def test_every_file_of_a_published_release_is_in_its_manifest(published):
    path = published / current_release_id(published)
    manifest = read_manifest(path)
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert found == {*manifest.files, "manifest.json"}
    assert find_problems(path, manifest) == []


def test_a_new_release_sorts_last_within_a_second_and_after_the_clock_was_set_back(tmp_path):
    (tmp_path / "20991231T235959Z-ffffff").mkdir()
    name, created = new_release_id(tmp_path, {})
    assert name.startswith("21000101T000000Z-")
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)  # when it was made, whatever its name
    (tmp_path / name).mkdir()
    assert new_release_id(tmp_path, {})[0].startswith("21000101T000001Z-")
