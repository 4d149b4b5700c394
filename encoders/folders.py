"""Files and whole folders that appear on disk at once or not at all, also through a kill or a power cut."""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says where a disk, a quota or the largest allowed file is full."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})  # what network file systems say of a folder


def write_durably(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(path, content) as replace:
        replace()


@contextlib.contextmanager
def staged_file(path: Path, content: bytes) -> Iterator[Callable[[], None]]:
    """The content beside `path`, durable; calling what is given puts it in its place, which needs no more room.

    Not called, or killed, it leaves what was there.
    """
    temporary = path.with_name(f".{path.name}.tmp")

    def replace() -> None:
        temporary.replace(path)
        sync(path.parent)

    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield replace
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name: a hard link where the file system has them, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def replace_folder(staging: Path, path: Path) -> None:
    """Put the folder `staging` where `path` is, and drop what was there. Both lie in one parent folder.

    On Linux the two are exchanged in one step, so that `path` always holds the one or the other; elsewhere
    (and on file systems without it) `path` is away for an instant between two renames.
    """
    staging.chmod(0o755)
    for entry in [*staging.rglob("*"), staging]:
        sync(entry)
    if not path.exists():
        staging.rename(path)
    elif _exchanged(staging, path):
        shutil.rmtree(staging)
    else:
        retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
        path.rename(retired / path.name)
        staging.rename(path)
        shutil.rmtree(retired)
    sync(path.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the kernel swapped the two paths; Python has no name for renameat2(2)."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(
            rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0,
        )
    return False


def sync(path: Path) -> None:
    """Make what a file or folder holds by now outlast a power cut; folders only where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
