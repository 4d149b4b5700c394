"""Releases on file systems that lack what most have: hard links, locks, syncing folders, being written to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from index.catalog import current_release_id, find_problems, read_manifest, release_ids
from index.publish import prune, rollback
from index.release import Release

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def index_where(calls, fails, *arguments, of=None):
    """`python -m index …` where system calls fail: all of them, or those on one path."""
    injected = ("-e", f"trace={calls}", "-e", f"inject={calls}:error={fails}")
    narrowed = ("-P", of) if of else ("--seccomp-bpf",)
    command = [STRACE, "-f", "-qq", "-o", os.devnull, *narrowed, *injected, sys.executable, "-m", "index"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


def assert_all_whole(releases, *, count):
    assert len(release_ids(releases)) == count
    for release_id in release_ids(releases):
        path = releases / release_id
        assert find_problems(path, read_manifest(path)) == []


@needs_strace
def test_without_hard_links_every_release_has_a_bundle_of_its_own(tmp_path, table, tiny_bundle, index_gallery):
    releases = tmp_path / "releases"
    index_gallery(table, releases)
    made = index_where(
        "link,linkat", "EPERM",
        "rebuild", "--gallery", table, "--bundle", tiny_bundle, "--releases", releases, "--engine", "torch",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert_all_whole(releases, count=2)
    newest = releases / current_release_id(releases) / "bundle"
    links = lambda: max(path.stat().st_nlink for path in newest.rglob("*") if path.is_file())  # noqa: E731
    assert links() == 1
    index_gallery(table, releases)  # with links again, which the third shares with the second
    assert links() == 2


@needs_strace
def test_where_a_folder_cannot_be_synced_releases_are_changed_all_the_same(published, tmp_path):
    releases = shutil.copytree(published, tmp_path / "releases")
    current = current_release_id(releases)
    changed = index_where("fsync", "EINVAL", "rollback", current, "--releases", releases, of=releases)
    assert (changed.returncode, changed.stdout) == (0, f"current is now {current}\n")


@needs_strace
def test_where_there_are_no_locks_nothing_is_changed_and_it_is_said(published):
    refused = index_where("flock", "ENOLCK", "prune", "--keep", "1", "--releases", published)
    assert refused.returncode == 1
    assert f"{published} is on a file system that gives no locks (No locks available)" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bundle_that_cannot_be_written_makes_releases_that_can(
    tmp_path, table, tiny_bundle, index_gallery, held_by_modes
):
    bundle, releases = shutil.copytree(tiny_bundle, tmp_path / "bundle"), tmp_path / "releases"
    forbid_writing(bundle)
    for _ in range(2):
        index_gallery(table, releases, bundle=bundle)
    assert_all_whole(releases, count=2)
    first, second = release_ids(releases)
    assert rollback(releases).release == first
    assert rollback(releases, second).release == second
    assert prune(releases, keep=1) == [first]


def test_releases_that_cannot_be_written_are_loaded_and_searched(published, tmp_path, held_by_modes):
    releases = shutil.copytree(published, tmp_path / "releases")
    forbid_writing(releases)
    release = Release.load(releases)
    _, rows = release.images.search(release.images.reconstruct(0)[None], 1)
    assert rows[0, 0] == 0
    assert release.thumbnail(0)


def forbid_writing(folder):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
