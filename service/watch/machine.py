"""What the machine lends: memory of the device, and which of the service's threads live. For metrics.

Reads counters only.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from service.control_groups import memory_limit_bytes

THREADS = (
    "device",
    "prepare",
    "search",
    "gather",
    "decode",
    "decoders",
    "tokenize",
    "digest",
    "aside",
    "load",
    "live",
    "watchdog",
    "traces",
)
"""Names, or beginnings of names, of the threads that do the service's work."""
_CPU_TABLES = Path("/proc/self")


def memory_bytes(device: torch.device) -> dict[str, int]:
    """Bytes by state. CUDA: allocated (by tensors), reserved (by this process), free, total.

    CPU: resident (of this process) and total, which is what its container may take where that is less.
    """
    if device.type == "cuda":
        held = {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
        }
        try:
            free, total = torch.cuda.mem_get_info(device)
        except RuntimeError:  # a device that has failed: all other metrics are wanted now
            return held
        return held | {"free": free, "total": total}
    if not _CPU_TABLES.is_dir():  # not Linux
        return {}
    return {"resident": _resident_bytes(), "total": _total_bytes()}


def threads_alive() -> dict[str, int]:
    """How many threads of each of `THREADS` are alive in this process."""
    beginnings = Counter(thread.name.split("_")[0] for thread in threading.enumerate() if thread.is_alive())
    return {name: beginnings[name] for name in THREADS}


def machine_metrics(device: torch.device) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "twinlens_memory_bytes", "Memory of the device that encodes, by state", labels=("device", "state")
    )
    for state, size_bytes in memory_bytes(device).items():
        memory.add_metric((str(device), state), size_bytes)
    yield memory
    threads = GaugeMetricFamily("twinlens_threads", "Threads that are alive, by their work", labels=("name",))
    for name, count in threads_alive().items():
        threads.add_metric((name,), count)
    yield threads


def _resident_bytes() -> int:
    return _kibibytes(Path("/proc/self/status"), "VmRSS") * 1024


def _total_bytes() -> int:
    """Of the machine, or of the container where that is less."""
    total = _kibibytes(Path("/proc/meminfo"), "MemTotal") * 1024
    return min(total, memory_limit_bytes() or total)


def _kibibytes(table: Path, name: str) -> int:
    """A line `name:  123 kB` of one of the kernel's tables."""
    lines = table.read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
