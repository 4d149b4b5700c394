"""Changing the folder of releases: one rebuild at a time, whole releases only, `CURRENT` in one step.

A kill at any byte leaves what was current before: everything is written into a staging folder, made durable,
renamed, and only then named in `CURRENT`.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from encoders.folders import NO_ROOM, sync
from index.catalog import (
    CURRENT_NAME,
    current_release_id,
    find_problems,
    read_manifest,
    release_ids,
    release_path,
)
from index.errors import (
    CorruptRelease,
    DiskFull,
    ReleaseError,
    ReleasesBusy,
    UnknownRelease,
    UnsupportedRelease,
)
from index.history import History, make_current, next_current, read_history
from index.manifest import FileEntry, Manifest, content_digest, describe_file

STAGING_PREFIX = ".staging-"
_REBUILD_LOCK = ".rebuild.lock"  # held for a whole rebuild
_CHANGE_LOCK = ".change.lock"  # held for moments, so that a rollback need not wait for a rebuild


@contextmanager
def full_disk_told(releases: Path) -> Iterator[None]:
    """Raises DiskFull for what finds no room within: the folder, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        free_bytes = shutil.disk_usage(releases).free
        raise DiskFull(
            f"there is no room in {releases} ({error.strerror}): more is needed than the "
            f"{free_bytes / 1e6:,.1f} MB that are free. Free some on that disk, or delete old releases with "
            "`python -m index prune --keep 1`. What was current stays, and nothing half written is left"
        ) from error


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
        ids = (*read_history(releases).ids, manifest.id)
        with next_current(releases, ids) as switch:
            staging.rename(target)  # the last thing that could want room is written by now
            sync(releases)
            switch()
    return target


@dataclass(frozen=True, slots=True)
class Rollback:
    """`release` is current now. `passed_over`: what would have come first and is not whole, with why."""

    release: str
    passed_over: dict[str, str]


def rollback(releases: Path, release_id: str | None = None) -> Rollback:
    """Make another release current: the one named, or what was current before.

    Before means in the order of having been current, not of having been built. Each rollback goes further
    back, and over releases that are not whole. A named one counts as a publication, and the next rollback
    undoes it.
    Raises `UnknownRelease` where there is none, `CorruptRelease` where none is whole, `ReleasesBusy` where
    `CURRENT` was changed meanwhile, `DiskFull`.
    """
    _check_folder(releases)
    with full_disk_told(releases):
        if release_id is None:
            return _roll_back(releases)
        _make_named_current(releases, release_id)
    return Rollback(release_id, {})


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


def _roll_back(releases: Path) -> Rollback:
    history = read_history(releases)
    ids, passed_over = _back_to_whole(releases, history)
    with _locked(releases / _CHANGE_LOCK, wait=True):
        release_path(releases, ids[-1])  # a prune may have taken it meanwhile
        if read_history(releases) != history:
            raise ReleasesBusy(f"{releases / CURRENT_NAME} was changed meanwhile: look at it, and try again")
        make_current(releases, ids)
    return Rollback(ids[-1], passed_over)


def _make_named_current(releases: Path, release_id: str) -> None:
    if problems := _problems(release_path(releases, release_id)):  # before the lock: hashing may take long
        raise CorruptRelease(f"{releases / release_id} cannot be made current: {problems}")
    with _locked(releases / _CHANGE_LOCK, wait=True):
        release_path(releases, release_id)  # a prune may have taken it meanwhile
        history = read_history(releases)
        if release_id != history.current:
            make_current(releases, (*history.ids, release_id))


def _back_to_whole(releases: Path, history: History) -> tuple[tuple[str, ...], dict[str, str]]:
    """The history back to the last release that is whole, and those passed over.

    Those that were pruned are passed over without a word.
    """
    passed_over: dict[str, str] = {}
    for count in range(len(history.ids), 0, -1):
        candidate = history.ids[count - 1]
        if candidate == history.current or candidate in passed_over or not (releases / candidate).is_dir():
            continue
        problems = _problems(releases / candidate)
        if not problems:
            return history.ids[:count], passed_over
        passed_over[candidate] = problems
    if passed_over:
        told = "; ".join(f"{each}: {problems}" for each, problems in passed_over.items())
        raise CorruptRelease(f"nothing that was current before {history.current} is whole: {told}")
    current = current_release_id(releases)  # NoRelease where nothing ever was
    raise UnknownRelease(
        f"no release in {releases} was current before {current}: name one that `python -m index list` shows"
    )


def _problems(path: Path) -> str:
    """What is wrong with a release's files; empty where nothing is."""
    try:
        return "; ".join(find_problems(path, read_manifest(path)))
    except (CorruptRelease, UnsupportedRelease) as error:
        return str(error)


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
