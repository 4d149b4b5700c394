"""Why a file cannot be read: because of what it is, or for want of something that the machine lacks just now.

Libraries tell the second in many ways, some as a broken or a missing file: for want of a descriptor safetensors
knows no such file. What is not the file's fault is one error here, `Unreadable`, and may be tried again.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.errors import TwinlensError, Unreadable

_DESCRIPTORS = (errno.ENFILE, errno.EMFILE)  # the first in words is the second and more
_RIGHTS = (errno.EACCES, errno.EPERM)
_ROOM = (errno.ENOSPC, errno.EDQUOT)
_DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)
_NUMBERS = (*_DESCRIPTORS, errno.ENOMEM, *_RIGHTS, *_ROOM, *_DISK)
_NO_MEMORY = ("can't allocate memory", "out of memory")  # PyTorch's words


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise `Unreadable` for what fails inside for want of something; all other errors pass as they are."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        number = errno_behind(error) or _no_descriptor_left()
        says_so_itself = number == errno.ENOMEM and not isinstance(error, TwinlensError | OSError)
        if number is None or says_so_itself:
            raise
        file = next(
            (each.filename for each in _chain(error) if isinstance(each, OSError) and each.filename), path
        )
        raise Unreadable(
            f"{os.fsdecode(file)} cannot be read: {os.strerror(number)}: {_advice(number)}", errno=number
        ) from error


def errno_behind(error: BaseException) -> int | None:
    """The system's number for what is lacking, of the error or what caused it; None: nothing is."""
    for each in _chain(error):
        if isinstance(each, MemoryError):
            return errno.ENOMEM
        if isinstance(each, OSError) and each.errno in _NUMBERS:
            return each.errno
        words = str(each)
        for number in _NUMBERS:
            if os.strerror(number) in words:
                return number
        if any(said in words for said in _NO_MEMORY):
            return errno.ENOMEM
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _no_descriptor_left() -> int | None:
    """Some libraries do not say why they could not open a file; this is the likeliest reason of all."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno if error.errno in _DESCRIPTORS else None
    return None


def _advice(number: int) -> str:
    if number == errno.EMFILE:
        return "this process has as many files and connections open as it may: raise `ulimit -n`"
    if number == errno.ENFILE:
        return "the whole machine has as many files open as it may: raise fs.file-max"
    if number == errno.ENOMEM:
        return "give the process more memory, or close others"
    if number in _RIGHTS:
        return f"user {os.geteuid()} has no right to it"
    if number in _ROOM:
        return "make room on the disk"
    return "look at the disk, or the machine that serves it"
