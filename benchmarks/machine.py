"""What the figures were measured on, and the clocks of other processes. Linux: it reads /proc.

Imports nothing heavy: the load generator uses it too.
"""

import contextlib
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

MEBIBYTE = 1 << 20
PACKAGES = ("torch", "timm", "transformers", "faiss-gpu", "faiss-cpu", "pillow", "uvicorn", "fastapi")


@dataclass(frozen=True)
class Machine:
    """`busy_cores`: how many of the cores other work kept busy just before the measurements."""

    processor: str
    cores: int
    memory_gibibytes: float
    system: str
    python: str
    packages: dict[str, str]
    busy_cores: float


def describe() -> Machine:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        memory_gibibytes=round(pages / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        busy_cores=round(os.getloadavg()[0], 1),
    )


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that it started so far, those that ended too: user and kernel mode."""
    ticks = 0
    for each in process_tree(pid):
        with contextlib.suppress(OSError):  # it ended meanwhile, and its parent has its time
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def process_tree(pid: int) -> list[int]:
    """The process, and what it and its own started and that still runs."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                parents[int(folder.name)] = int(_stat(int(folder.name))[1])
    tree = [pid]
    for each in tree:  # grows while it is walked
        tree += [child for child, parent in parents.items() if parent == each]
    return tree


def _stat(pid: int) -> list[str]:
    """Fields from the state on. 11 to 14 are CPU ticks: user, kernel, and both of children that ended."""
    stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    return stat.rpartition(")")[2].split()  # the name before may hold anything


def own_cpu_seconds() -> float:
    """CPU time of this process so far: all its threads, in user and kernel mode."""
    return time.process_time()  # in nanoseconds; `os.times` ticks a hundred times a second


def peak_memory_mebibytes(pid: int | str = "self") -> float:
    """The most memory that was resident at once since the program started.

    Not `ru_maxrss`, which a program inherits from the one that started it.
    """
    return _memory_mebibytes(pid, "VmHWM")


def resident_memory_mebibytes(pid: int | str = "self") -> float:
    """The memory that is resident now."""
    return _memory_mebibytes(pid, "VmRSS")


def anonymous_memory_mebibytes(pid: int | str = "self") -> float:
    """Resident memory that no file backs, shared memory too; what processes share is divided among them.

    Raises OSError where the process has ended.
    """
    found = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
            found += int(line.split()[1])
    return found * 1024 / MEBIBYTE


def _memory_mebibytes(pid: int | str, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MEBIBYTE
    raise RuntimeError(f"/proc/{pid}/status says nothing of {field}: has the process ended?")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
