"""Exact vector search alone, in this process: what a search over HTTP is compared with."""

import time
from pathlib import Path

import numpy as np

from benchmarks.encoder import Rate
from index.release import Release

NEIGHBOURS = 10


def search_alone(releases: Path, queries: np.ndarray, seconds: float) -> tuple[Rate, list[float]]:
    """One query (dim,) at a time for their ten nearest images: the rate, and sorted latencies in seconds."""
    images = Release.load(releases, search_device="cpu").images
    images.search(queries[:1], NEIGHBOURS)
    latencies: list[float] = []
    started, cpu_before = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        row = len(latencies) % len(queries)
        before = time.perf_counter()
        images.search(queries[row : row + 1], NEIGHBOURS)
        latencies.append(time.perf_counter() - before)
    rate = Rate(len(latencies), time.perf_counter() - started, time.process_time() - cpu_before)
    return rate, sorted(latencies)
