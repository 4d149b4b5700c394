"""Rebuilds and rollbacks on a full disk: told with the folder and what to do, and nothing half published."""

import shutil
import subprocess
from contextlib import suppress

import pytest

from index.catalog import current_release_id, release_ids
from index.errors import DiskFull
from index.publish import rollback
from index.release import Release


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 8 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("may not mount a file system here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(disk, *, leave_bytes):
    with suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
        for _ in range((shutil.disk_usage(disk).free - leave_bytes) // 4096):
            file.write(bytes(4096))


def test_a_rebuild_that_finds_no_room_anywhere_leaves_what_was_current(disk, table, index_gallery):
    """More and more room, until it is enough: it ends at each of the files that it writes."""
    index_gallery(table, disk, use_cache=False)
    current, refused, leave_bytes = current_release_id(disk), 0, 0
    while release_ids(disk) == [current]:
        fill(disk, leave_bytes=leave_bytes)
        told = None
        try:
            index_gallery(table, disk, use_cache=False)
        except DiskFull as error:
            told, refused = str(error), refused + 1
        if told is not None:
            assert f"there is no room in {disk}" in told
            assert "index prune" in told
            assert release_ids(disk) == [current]
            assert current_release_id(disk) == current
        assert not list(disk.glob(".staging-*"))
        assert not list(disk.glob(".CURRENT*"))
        Release.load(disk)
        (disk / "filling").unlink()
        leave_bytes += 4096
    assert refused > 6
    assert current_release_id(disk) != current


def test_a_first_rebuild_that_finds_no_room_leaves_nothing(disk, table, index_gallery):
    fill(disk, leave_bytes=100_000)  # less than the encoder takes
    with pytest.raises(DiskFull, match=f"there is no room in {disk}"):
        index_gallery(table, disk, use_cache=False)
    assert release_ids(disk) == []


def test_a_rollback_that_finds_no_room_leaves_what_was_current(disk, table, index_gallery):
    for _ in range(2):
        index_gallery(table, disk, use_cache=False)
    before = current_release_id(disk)
    fill(disk, leave_bytes=0)
    with pytest.raises(DiskFull, match=f"there is no room in {disk}"):
        rollback(disk)
    assert current_release_id(disk) == before
    (disk / "filling").unlink()
    assert rollback(disk) != before
