"""Vectors and their exact inner-product search, on faiss; the only module that imports it.

Knows nothing of pictures, texts, encoders or releases: rows of float32 in, scores and row numbers out.
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from index.cores import available_cores
from index.errors import BadQuery, CorruptRelease

Device = Literal["auto", "cpu", "gpu"]

GPU_MAX_K = 2048  # faiss's GPU selection kernels stop here; deeper pages are searched on the CPU

_log = logging.getLogger(__name__)
_gpu_lock = threading.Lock()  # faiss on a GPU is not safe under concurrent calls (faiss#4138)


class VectorIndex:
    """Searches float32 vectors by inner product, exactly; for unit rows that is the cosine.

    One search at a time: give the index one owner thread. Each search uses `threads` OpenMP threads, set
    on the calling thread itself, because OpenMP keeps that number per thread.
    """

    def __init__(self, index: Any, *, threads: int | None = None, device: Device = "cpu") -> None:
        """Wrap a faiss index.

        `threads` defaults to the cores this process may use. `device` "auto" takes a GPU where there is
        one with room and else the CPU; "gpu" insists, and raises `RuntimeError` where there is none.
        """
        self._index = index
        self._threads = threads or available_cores()
        self._gpu = _on_gpu(index, device)
        self.dim: int = index.d

    @classmethod
    def read(cls, path: Path, *, threads: int | None = None, device: Device = "cpu") -> "VectorIndex":
        """Open a file that `VectorWriter` wrote, memory-mapped; raises `CorruptRelease` naming it."""
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            reason = str(error).rsplit("Error: ", 1)[-1]
            raise CorruptRelease(f"{path.name} cannot be read as a vector index: {reason}") from error
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptRelease(f"{path.name} is not an inner-product index")
        return cls(index, threads=threads, device=device)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def device(self) -> str:
        """Where searches run: "cpu" or "gpu"."""
        return "cpu" if self._gpu is None else "gpu"

    def search(self, queries: NDArray[Any], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best rows for each query, best first: scores (n, k) and row numbers (n, k).

        Where the index holds fewer than k rows, the rest is row -1 with score -inf. Raises `BadQuery` for a
        matrix that is not (n, dim), is not finite, or a k below 1.
        """
        matrix = self._checked(queries, k)
        reach = min(k, len(self))
        scores = np.full((len(matrix), k), -np.inf, dtype=np.float32)
        rows = np.full((len(matrix), k), -1, dtype=np.int64)
        if reach and len(matrix):
            scores[:, :reach], rows[:, :reach] = self._search(matrix, reach)
        return scores, rows

    def reconstruct(self, row: int) -> NDArray[np.float32]:
        """The vector (dim,) at `row`; raises `IndexError` outside the index."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of an index of {len(self)}")
        vector: NDArray[np.float32] = self._index.reconstruct(row)
        return vector

    def blocks(self, rows_per_block: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Every vector in order, as (first row, matrix) pairs of bounded size."""
        for start in range(0, len(self), rows_per_block):
            yield start, self._index.reconstruct_n(start, min(rows_per_block, len(self) - start))

    def _checked(self, queries: NDArray[Any], k: int) -> NDArray[np.float32]:
        if k < 1:
            raise BadQuery(f"k is {k}; ask for at least one result")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise BadQuery(f"queries have shape {queries.shape}; this index takes (n, {self.dim})")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            matrix = np.ascontiguousarray(queries, dtype=np.float32)
        if not np.isfinite(matrix).all():
            row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
            raise BadQuery(f"query {row} holds a number that is not finite")
        return matrix

    def _search(self, matrix: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._gpu is not None and k <= GPU_MAX_K:
            with _gpu_lock:
                scores, rows = self._gpu.search(matrix, k)
        else:
            faiss.omp_set_num_threads(self._threads)
            scores, rows = self._index.search(matrix, k)
        return scores, rows


class VectorWriter:
    """Collects rows in memory (4 · dim bytes each) and writes them as one exact inner-product index."""

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexFlatIP(dim)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append rows (n, dim); they keep the order in which they come."""
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def write(self, path: Path) -> None:
        """Write the file; raises `OSError` where the disk is full, for example."""
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:
            reason = str(error).rsplit("failed: ", 1)[-1]
            raise OSError(f"{path} cannot be written: {reason}") from error


def _on_gpu(index: Any, device: Device) -> Any | None:
    if device == "cpu" or (device == "auto" and faiss.get_num_gpus() == 0):
        return None
    if faiss.get_num_gpus() == 0:
        raise RuntimeError("search on a GPU was asked for, but faiss sees none; use device auto or cpu")
    try:
        with _gpu_lock:
            return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        if device == "gpu":
            raise
        _log.warning("vectors stay on the CPU, the GPU did not take them: %s", str(error).splitlines()[-1])
        return None
