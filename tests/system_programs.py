"""What some tests use from the system. They are skipped where it is missing, and named at the end of a run."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

COMMAND = "requirements/system.sh"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))


def _program(*names: str) -> Callable[[], str | None]:
    return lambda: next(filter(None, (shutil.which(name, path=_PATH) for name in names)), None)


def _faketime() -> str | None:
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


PROGRAMS: Mapping[str, Callable[[], str | None]] = {
    "a browser": _program("chromium", "chromium-browser", "google-chrome"),
    "nginx": _program("nginx"),
    "openssl": _program("openssl"),
    "libfaketime": _faketime,
    "strace": _program("strace"),
    "curl": _program("curl"),
}


def path_of(name: str) -> str | None:
    """Where one of PROGRAMS is; None where it is not installed."""
    return PROGRAMS[name]()


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test, or with `pytestmark` a module, where one of PROGRAMS is missing."""
    missing = [name for name in names if path_of(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def left_out(reasons: Iterable[str]) -> str | None:
    """What to say of all skipped tests at the very end of a run; None where nothing was missing."""
    found = [re.fullmatch(r"(?:Skipped: )?not installed: (.+)", reason) for reason in reasons]
    counts = Counter(match[1] for match in found if match)
    if not counts:
        return None
    each = "; ".join(f"{count} for want of {names}" for names, count in sorted(counts.items()))
    return f"{counts.total()} tests were left out: {each}. On Debian this brings all: sudo {COMMAND}"
