"""What a person is told to do where the system refuses a file."""

import errno
import os

import pytest

from encoders.errors import TwinlensError
from encoders.permissions import advice_on

OWNER = f"{os.geteuid()}:{os.getegid()}"


def refused(action):
    """The error that an action ends with, wrapped as our own errors wrap it."""
    try:
        action()
    except OSError as cause:
        error = TwinlensError("it failed")
        error.__cause__ = cause
        return error
    raise AssertionError("it was let in")


def test_the_folder_that_bars_the_way_is_named_and_not_what_lies_in_it(tmp_path, held_by_modes):
    (tmp_path / "locked" / "below").mkdir(parents=True)
    (tmp_path / "locked").chmod(0o600)
    told = advice_on(refused((tmp_path / "locked" / "below" / "file").read_bytes))
    (tmp_path / "locked").chmod(0o700)
    assert told.startswith(
        f"{tmp_path / 'locked'} belongs to {OWNER} with mode 0600; user {os.geteuid()} may not read"
    )
    assert f"chmod -R a+rX {tmp_path / 'locked'}" in told
    assert f"setfacl -R -m u:{os.geteuid()}:rX" in told


def test_a_file_that_may_be_read_and_not_written_asks_for_another_owner(tmp_path, held_by_modes):
    file = tmp_path / "file"
    file.touch(mode=0o400)
    told = advice_on(refused(lambda: file.write_text("")))
    assert told.startswith(f"{file} belongs to {OWNER} with mode 0400")
    assert f"chown -R {os.geteuid()} {file}" in told


def test_a_folder_that_takes_no_new_file_is_named_for_it(tmp_path, held_by_modes):
    tmp_path.chmod(0o500)
    told = advice_on(refused((tmp_path / "new").touch))
    tmp_path.chmod(0o700)
    assert told.startswith(f"{tmp_path} belongs to")
    assert "may not write to it" in told


def test_a_read_only_file_system_is_told_as_one():
    told = advice_on(OSError(errno.EROFS, os.strerror(errno.EROFS), "/proc/none"))
    assert told == "/proc/none lies on a read-only file system: mount it so that it can be written to"


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "", "/x"), PermissionError("from a library"), ValueError()]
)
def test_where_no_file_was_refused_there_is_no_advice(error):
    assert advice_on(error) is None
