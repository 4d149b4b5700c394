"""The control groups that this process is in, of version 1 or 2: what memory they let it have. Linux only."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 62  # version 1 says so with the largest number of pages


def memory_groups(root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """Folders of the groups that count this process's memory, the innermost first, as far as they are seen.

    A container may see its own group as the root, under whatever name it has outside.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        group = top / name.lstrip("/")
        yield from (each for each in (group, *group.parents) if each == top or top in each.parents)


def memory_limit_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """The tightest limit; None where there is none."""
    numbers = (
        read_number(group / name)
        for group in memory_groups(root, own)
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    return min((number for number in numbers if number is not None and number < _NO_LIMIT), default=None)


def read_number(file: Path) -> int | None:
    """The number in one of the kernel's files; None where there is no such file, or it says "max"."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
