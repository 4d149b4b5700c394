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
from index.history import HISTORY_NAME
from index.publish import new_release_id, prune, publish, rebuild_lock, rollback, staging_folder
from index.release import Release


@pytest.fixture
def publish_in(published):
    """Publishes the same files once more, as the release of a year, and returns its id."""
    source = published / current_release_id(published)

    def run(releases: Path, year: int) -> str:
        with staging_folder(releases) as staging:
            shutil.copytree(source, staging, dirs_exist_ok=True)
            manifest = read_manifest(source).model_copy(update={"id": f"{year}0101T000000Z-abcdef"})
            return publish(releases, staging, manifest=manifest).name

    return run


@pytest.fixture
def three(publish_in, tmp_path):
    """Three releases of the same files, the last one current."""
    releases = tmp_path / "releases"
    releases.mkdir()
    for year in (2001, 2002, 2003):
        publish_in(releases, year)
    return releases


def spoil(release: Path) -> None:
    (release / "items.parquet").write_bytes(b"")


def test_last_published_is_current_and_nothing_else_lies_about(three):
    assert current_release_id(three) == release_ids(three)[-1] == "20030101T000000Z-abcdef"
    assert {path.name for path in three.iterdir()} == {
        *release_ids(three), "CURRENT", HISTORY_NAME, ".change.lock"
    }  # fmt: skip


def test_rollback_goes_one_back_each_time_and_forward_by_name(three):
    first, second, third = release_ids(three)
    assert rollback(three).release == second
    assert rollback(three).release == first
    with pytest.raises(UnknownRelease, match=f"was current before {first}: name one"):
        rollback(three)
    assert rollback(three, third).release == current_release_id(three) == third
    with pytest.raises(UnknownRelease):
        rollback(three, "../published")


def test_rollback_goes_back_to_what_was_current_and_not_by_date(three, publish_in):
    first, second, third = release_ids(three)
    rollback(three, first)  # as after two bad releases
    fourth = publish_in(three, 2004)
    assert [rollback(three).release for _ in range(4)] == [first, third, second, first]
    assert rollback(three, fourth).release == fourth
    assert rollback(three).release == first


def test_after_releases_that_are_not_whole_rollback_goes_to_the_last_that_was(three, publish_in):
    served = current_release_id(three)
    fourth, fifth = publish_in(three, 2004), publish_in(three, 2005)
    for release_id in (fourth, fifth):
        spoil(three / release_id)
    done = rollback(three)
    assert done.release == current_release_id(three) == served
    assert done.passed_over.keys() == {fourth}
    assert "items.parquet has 0 bytes" in done.passed_over[fourth]
    (three / "CURRENT").write_text("garbage")
    assert rollback(three).release == served


def test_rollback_is_refused_where_nothing_before_is_whole(three):
    for release_id in release_ids(three)[:2]:
        spoil(three / release_id)
    for named in (None, release_ids(three)[1]):
        with pytest.raises(CorruptRelease, match=r"items\.parquet has 0 bytes"):
            rollback(three, named)
    assert current_release_id(three) == release_ids(three)[-1]


def test_rollback_follows_a_current_that_was_changed_by_hand_or_a_kill(three):
    first, second, third = release_ids(three)
    (three / "CURRENT").write_text(first + "\n")  # by hand: it is served after the third
    assert rollback(three).release == third
    (three / HISTORY_NAME).write_text(f"{first}\n{second}\n")  # a rollback, killed before CURRENT
    assert rollback(three).release == second
    (three / HISTORY_NAME).write_text(f"{first}\n{second}\n{third}\n")  # a publication, killed there
    assert rollback(three).release == first
    (three / HISTORY_NAME).unlink()  # as an earlier version leaves it
    (three / "CURRENT").write_text(third + "\n")
    assert rollback(three).release == second


def test_rollback_passes_over_what_was_pruned(three):
    first, second, third = release_ids(three)
    rollback(three, first)
    rollback(three, third)
    shutil.rmtree(three / second)
    assert [rollback(three).release, rollback(three).release] == [first, third]


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
    for release_id in release_ids(three)[:2]:
        spoil(three / release_id)
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
