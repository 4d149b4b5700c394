"""What to do where the system refuses a file: whose it is, who asks, and the command that lets them in."""

import errno
import os
from pathlib import Path

_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def advice_on(error: BaseException) -> str | None:
    """One sentence on the refused file that lies beneath an error; None where no file was refused."""
    refusal = _refusal_beneath(error)
    if refusal is None or not isinstance(refusal.filename, str | bytes):
        return None
    path = Path(os.fsdecode(refusal.filename)).resolve()
    if refusal.errno == errno.EROFS:
        return f"{path} lies on a read-only file system: mount it so that it can be written to"
    barrier = _barrier(path)
    advice = reading_advice(barrier) if _is_closed(barrier) else _writing_advice(barrier)
    status = barrier.stat()
    owner = f"{status.st_uid}:{status.st_gid}"
    return f"{barrier} belongs to {owner} with mode {status.st_mode & 0o7777:04o}; {advice}"


def reading_advice(path: Path) -> str:
    """Who could not read a file, or all that lies in a folder, and the commands that let them."""
    user = os.geteuid()
    return (
        f"user {user} may not read what is in {path}: let everybody (chmod -R a+rX {path}) or this user "
        f"(setfacl -R -m u:{user}:rX {path}); for a container, on the folder that is mounted there"
    )


def _writing_advice(path: Path) -> str:
    user = os.geteuid()
    return (
        f"user {user} may not write to it: give it to this user (chown -R {user} {path}) or run as its owner; "
        "for a container, on the folder that is mounted there"
    )


def _refusal_beneath(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        error = error.__cause__
    return None


def _barrier(path: Path) -> Path:
    """The first folder on the way that cannot be entered; else the file, or the folder that it was to be in."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return path if os.path.lexists(path) else path.parent


def _is_closed(path: Path) -> bool:
    needed = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    return not os.access(path, needed, effective_ids=True)
