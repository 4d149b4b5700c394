"""What is the machine's fault is told as such, however a library puts it; what is the file's stays as it is."""

import errno
import os
from pathlib import Path

import pytest

from encoders.errors import CorruptBundle, Unreadable
from encoders.reading import reading


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FAULTS_OF_THE_MACHINE = [
    (OSError(errno.EIO, os.strerror(errno.EIO), "weights"), errno.EIO, "weights cannot be read: Input/output"),
    (OSError(errno.EACCES, os.strerror(errno.EACCES)), errno.EACCES, f"user {os.geteuid()} has no right to it"),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), errno.ENOSPC, "make room"),
    (caused(CorruptBundle("cut"), OSError(errno.ESTALE, "stale")), errno.ESTALE, "here cannot be read"),
    (caused(CorruptBundle("the weights do not fit"), MemoryError()), errno.ENOMEM, "more memory"),
    (CorruptBundle("no tower: DefaultCPUAllocator: can't allocate memory"), errno.ENOMEM, "more memory"),
    (Exception("Too many open files (os error 24)"), errno.EMFILE, "ulimit -n"),  # tokenizers
    (
        RuntimeError("could not open v.faiss for reading: Too many open files"),
        errno.EMFILE,
        "ulimit -n",
    ),  # faiss
    (
        RuntimeError("unable to open file in read-only mode: Too many open files in system (23)"),
        errno.ENFILE,
        "fs.",
    ),
]


@pytest.mark.parametrize(("error", "number", "words"), FAULTS_OF_THE_MACHINE)
def test_what_the_machine_lacks_is_one_error_with_its_number_and_advice(error, number, words):
    with pytest.raises(Unreadable) as told, reading(Path("here")):
        raise error
    assert (told.value.errno, told.value.__cause__) == (number, error)
    assert words in str(told.value)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "none", "here"),
        IsADirectoryError(errno.EISDIR, "a folder", "here"),
        OSError("Corrupt snappy compressed data"),
        CorruptBundle("here was changed"),
        MemoryError("of the device, which says so itself"),
        RuntimeError("CUDA out of memory"),
    ],
)
def test_what_is_wrong_with_the_file_passes_as_it_is(error):
    with pytest.raises(type(error)) as told, reading(Path("here")):
        raise error
    assert told.value is error
