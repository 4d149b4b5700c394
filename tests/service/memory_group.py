"""A control group of the kernel with a limit on memory, version 1 or 2, for tests that let memory run out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """What is put into it, and all that this starts, shares one limit."""

    path: Path

    @property
    def _is_first_version(self) -> bool:
        return (self.path / "memory.limit_in_bytes").exists()

    def take(self, process_id: int) -> None:
        (self.path / "cgroup.procs").write_text(str(process_id))

    def used_bytes(self) -> int:
        name = "memory.usage_in_bytes" if self._is_first_version else "memory.current"
        return int((self.path / name).read_text())

    def limit(self, size_bytes: int | None) -> None:
        """None: no limit. Swap, where there is any, would only make it slow."""
        if self._is_first_version:
            (self.path / "memory.limit_in_bytes").write_text(str(size_bytes or -1))
            return
        (self.path / "memory.max").write_text(str(size_bytes or "max"))
        if (self.path / "memory.swap.max").exists():
            (self.path / "memory.swap.max").write_text("0")


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A new group beside or below this process's own; skips the test, with why, where there can be none."""
    path = _parent() / f"twinlens-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        group = MemoryGroup(path)
        if not any((path / name).exists() for name in ("memory.limit_in_bytes", "memory.max")):
            pytest.skip(f"{path} has no limit on memory")
        yield group
    finally:
        path.rmdir()


def _parent() -> Path:
    groups = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    if "memory" in groups:
        return ROOT / "memory" / groups["memory"].lstrip("/")
    own = ROOT / groups.get("", "/").lstrip("/")
    return own if own == ROOT else own.parent  # a group of version 2 with processes has none with limits below
