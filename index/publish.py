"""Changing the folder of releases: one rebuild at a time, whole releases only, `CURRENT` in one step.

A kill at any byte leaves what was current before: everything is written into a staging folder, made durable,
renamed, and only then named in `CURRENT`. Knows nothing of what a release holds beyond its manifest.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from encoders.folders import sync
from index.catalog import (
    CURRENT_NAME,
    current_release_id,
    find_problems,
    read_manifest,
    release_ids,
    release_path,
)
from index.errors import CorruptRelease, ReleaseError, ReleasesBusy, UnknownRelease
from index.manifest import FileEntry, Manifest, content_digest, describe_file

STAGING_PREFIX = ".staging-"
_REBUILD_LOCK = ".rebuild.lock"  # held for a whole rebuild
_CHANGE_LOCK = ".change.lock"  # held for moments, so that a rollback need not wait for a rebuild


@contextmanager
def rebuild_lock(releases: Path) -> Iterator[None]:
    """Be the only rebuild there; raises `ReleasesBusy`. The kernel frees the lock of a killed process."""
    releases.mkdir(parents=True, exist_ok=True)
    with _locked(releases / _REBUILD_LOCK, wait=False):
        yield


@contextmanager
def staging_folder(releases: Path) -> Iterator[Path]:
    """A fresh folder to build a release in, gone afterwards unless it was published. Needs `rebuild_lock`.

    What killed rebuilds and prunes left behind is removed first: with the lock held it has no owner.
    """
    for leftover in releases.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)  # a prune beside this may be deleting the same one
    folder = releases / f"{STAGING_PREFIX}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Sum and size of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): describe_file(path) for path in files}


def new_release_id(releases: Path, files: dict[str, FileEntry]) -> tuple[str, datetime]:
    """An id that sorts behind all others (the time, and the start of a digest over its files), and the time.

    Within a second of the newest release, or after the clock was set back, the id's time is a second after its.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    later = now
    for newest in release_ids(releases)[-1:]:
        stamp = datetime.strptime(newest.split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        later = max(now, stamp + timedelta(seconds=1))
    return f"{later:%Y%m%dT%H%M%SZ}-{content_digest(files)[:6]}", now


def publish(releases: Path, staging: Path, *, manifest: Manifest) -> Path:
    """Make a staged release durable, give it its name and make it current; returns its folder."""
    manifest.write(staging)
    _sync_tree(staging)
    target = releases / manifest.id
    with _locked(releases / _CHANGE_LOCK, wait=True):
        staging.rename(target)
        sync(releases)
        _write_current(releases, manifest.id)
    return target


def rollback(releases: Path, release_id: str | None = None) -> str:
    """Make another release current: the one named, or the newest before the current one.

    Returns its id. Raises `UnknownRelease` where there is none, `CorruptRelease` where it is not whole.
    """
    _check_folder(releases)
    chosen = release_id or _release_before(releases, current_release_id(releases))
    path = release_path(releases, chosen)
    problems = find_problems(path, read_manifest(path))  # before the lock: hashing may take long
    if problems:
        raise CorruptRelease(f"{path} cannot be made current: " + "; ".join(problems))
    with _locked(releases / _CHANGE_LOCK, wait=True):
        release_path(releases, chosen)  # a prune may have taken it meanwhile
        _write_current(releases, chosen)
    return chosen


def prune(releases: Path, *, keep: int) -> list[str]:
    """Delete all but the newest `keep` releases; never the current one. Returns the ids that went."""
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least one release stays")
    with _locked(releases / _CHANGE_LOCK, wait=True):
        current = current_release_id(releases)
        doomed = [release_id for release_id in release_ids(releases)[:-keep] if release_id != current]
        for release_id in doomed:
            # Renamed first, so that no half-deleted release is ever seen; a kill leaves it to the next rebuild.
            trash = releases / f"{STAGING_PREFIX}pruned-{release_id}"
            (releases / release_id).rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
        sync(releases)
    return doomed


def _release_before(releases: Path, current: str) -> str:
    older = [release_id for release_id in release_ids(releases) if release_id < current]
    if not older:
        raise UnknownRelease(f"no release in {releases} is older than {current}, which is current")
    return older[-1]


def _write_current(releases: Path, release_id: str) -> None:
    temporary = releases / f".{CURRENT_NAME}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(release_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(releases / CURRENT_NAME)
    sync(releases)


def _check_folder(releases: Path) -> None:
    if not releases.is_dir():
        raise UnknownRelease(f"no folder of releases at {releases}")


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    _check_folder(path.parent)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read(20).strip() or "unknown"
            raise ReleasesBusy(
                f"another rebuild (process {owner}) works in {path.parent}: wait for it"
            ) from error
        except OSError as error:
            raise ReleaseError(
                f"{path.parent} is on a file system that gives no locks ({error.strerror}): two rebuilds could "
                "spoil each other's, so keep releases on one that does"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
