"""Vectors and their exact inner-product search, on faiss; the only module that imports it.

Rows may carry a penalty each, for being hubs: it lies in one more column of the file, `[x, −penalty]`, so that
the query `[q, 1]` is corrected by the same inner product, and `[q, 0]` is not. Nothing of that column is ever
given out: scores are plain inner products, only their order is corrected.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from encoders.errors import DeviceUnavailable
from encoders.folders import NO_ROOM
from index.cores import available_cores
from index.errors import BadQuery, CorruptRelease

Device = Literal["auto", "cpu", "gpu"]

Penalty = Callable[[NDArray[np.float32]], NDArray[np.float32]]

ROWS_PER_PENALTY = 256
ONE_SLICE_NUMBERS = 1 << 21  # read within a millisecond: another thread would not come in time
TOGETHER = 16  # queries, from which on faiss multiplies matrices instead of taking them one by one
GPU_MAX_K = 2048  # faiss's GPU selection kernels stop here; deeper pages are searched on the CPU

_log = logging.getLogger(__name__)
_gpu_lock = threading.Lock()  # faiss on a GPU is not safe under concurrent calls (faiss#4138)


class VectorIndex:
    """Searches float32 vectors by inner product, exactly; for unit rows that is the cosine.

    One search at a time: give the index one owner thread. Each search uses `threads` threads: of OpenMP for
    many queries, else of our own, each with a slice of the rows. (With several OpenMP threads faiss 1.15 takes
    four times the processor time for a single query: LOG.) OpenMP keeps its number per thread.
    """

    def __init__(
        self, index: Any, *, threads: int | None = None, device: Device = "cpu", penalised: bool = False
    ) -> None:
        """Wrap a faiss index; `penalised`: its last column holds its rows' penalties.

        `threads` defaults to the cores this process may use. `device` "auto" takes a GPU where there is
        one with room and else the CPU; "gpu" insists, and raises `DeviceUnavailable` where there is none.
        """
        self._index = index
        self._threads = threads or available_cores()
        self._gpu = _on_gpu(index, device)
        self.dim: int = index.d - penalised
        self.penalties = _last_column(index) if penalised else None

    @classmethod
    def read(
        cls, path: Path, *, threads: int | None = None, device: Device = "cpu", penalised: bool = False
    ) -> "VectorIndex":
        """Open a file that `VectorWriter` wrote, memory-mapped; raises `CorruptRelease` naming it."""
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            reason = str(error).rsplit("Error: ", 1)[-1]
            raise CorruptRelease(f"{path.name} cannot be read as a vector index: {reason}") from error
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptRelease(f"{path.name} is not an inner-product index")
        return cls(index, threads=threads, device=device, penalised=penalised)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def device(self) -> str:
        """Where searches run: "cpu" or "gpu"."""
        return "cpu" if self._gpu is None else "gpu"

    def search(
        self, queries: NDArray[Any], k: int, *, corrected: bool = False, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best rows for each query, best first: scores (n, k) and row numbers (n, k).

        `corrected`: best are those of the largest score less penalty; the scores are plain ones all the same.
        `among`: only these rows, ascending. Where there are fewer than k rows, the rest is row -1 with score
        -inf. Raises `BadQuery` for a matrix that is not (n, dim), is not finite, or a k below 1.
        """
        matrix = self._checked(queries, k)
        reach = min(k, len(self) if among is None else len(among))
        scores = np.full((len(matrix), k), -np.inf, dtype=np.float32)
        rows = np.full((len(matrix), k), -1, dtype=np.int64)
        if reach and len(matrix):
            scores[:, :reach], rows[:, :reach] = self._search(self._widened(matrix, corrected), reach, among)
            if corrected and self.penalties is not None:
                scores[:, :reach] += self.penalties[rows[:, :reach]]
        return scores, rows

    def within(
        self,
        queries: NDArray[Any],
        threshold: float,
        *,
        corrected: bool = False,
        among: NDArray[np.int64] | None = None,
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """For each query all rows of at least that score: (scores, rows), in the order of the rows.

        `corrected`: of at least that score less penalty; the scores are plain ones all the same. Raises
        `BadQuery` as `search` does.
        """
        matrix = self._widened(self._checked(queries, 1), corrected)
        below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))  # faiss gives what is above
        if not len(self) or (among is not None and not len(among)):
            return [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in matrix]
        parts = self._in_slices(partial(_range_search, self._index, matrix, below), among)
        found = []
        for query in range(len(matrix)):
            scores, rows = (np.concatenate([part[query][side] for part in parts]) for side in (0, 1))
            if corrected and self.penalties is not None:
                scores += self.penalties[rows]
            found.append((scores, rows))
        return found

    def reconstruct(self, row: int) -> NDArray[np.float32]:
        """The vector (dim,) at `row`; raises `IndexError` outside the index."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of an index of {len(self)}")
        vector: NDArray[np.float32] = self._index.reconstruct(row)[: self.dim]
        return vector

    def matrix(self, low: int, high: int) -> NDArray[np.float32]:
        """The vectors (high - low, dim) of some rows in a row."""
        block = self._index.reconstruct_n(low, high - low)
        return np.ascontiguousarray(block[:, : self.dim])

    def blocks(self, rows_per_block: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Every vector in order, as (first row, matrix) pairs of bounded size."""
        for start in range(0, len(self), rows_per_block):
            yield start, self.matrix(start, min(start + rows_per_block, len(self)))

    def _widened(self, matrix: NDArray[np.float32], corrected: bool) -> NDArray[np.float32]:
        if self.penalties is None:
            return matrix
        weight = np.full((len(matrix), 1), float(corrected), dtype=np.float32)
        return np.concatenate([matrix, weight], axis=1)

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

    def _search(
        self, matrix: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        if among is None and self._gpu is not None and k <= GPU_MAX_K:
            with _gpu_lock:
                scores, rows = self._gpu.search(matrix, k)
            return scores, rows
        if among is None and len(matrix) >= TOGETHER:
            faiss.omp_set_num_threads(self._threads)
            scores, rows = self._index.search(matrix, k)
            return scores, rows
        parts = self._in_slices(partial(_search_slice, self._index, matrix, k), among)
        scores, rows = (np.concatenate([part[side] for part in parts], axis=1) for side in (0, 1))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def _in_slices(self, work: Callable[[Any], Any], among: NDArray[np.int64] | None) -> list[Any]:
        """What `work` makes of each selector; together they select the rows, in order."""
        count = len(self) if among is None else len(among)
        slices = min(self._threads, max(1, count * self.dim // ONE_SLICE_NUMBERS))
        bounds = [count * place // slices for place in range(slices + 1)]
        selectors = [
            _Selected(low, high) if among is None else _Selected(rows=among[low:high])
            for low, high in pairwise(bounds)
        ]
        if slices == 1:
            return [_alone(work, selectors[0])]
        return list(_slice_threads().map(partial(_alone, work), selectors))


class VectorWriter:
    """Collects rows in memory (4 · dim bytes each) and writes them as one exact inner-product index.

    `penalty` gives the penalties (n,) of rows (n, dim); with it, the file must be read as `penalised`.
    """

    def __init__(self, dim: int, *, penalty: Penalty | None = None) -> None:
        self._index = faiss.IndexFlatIP(dim + (penalty is not None))
        self._penalty = penalty
        self._pending: list[NDArray[np.float32]] = []

    def __len__(self) -> int:
        return int(self._index.ntotal) + sum(map(len, self._pending))

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append rows (n, dim); they keep the order in which they come."""
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if self._penalty is None:
            self._index.add(rows)
            return
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= ROWS_PER_PENALTY:
            self._flush()

    def _flush(self) -> None:
        """One row at a time would read the whole bank for each."""
        if self._penalty is not None and self._pending:
            rows = np.concatenate(self._pending)
            self._index.add(np.concatenate([rows, -self._penalty(rows)[:, np.newaxis]], axis=1))
            self._pending = []

    def write(self, path: Path) -> None:
        """Write the file; raises `OSError` where the disk is full, for example."""
        self._flush()
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:
            reason = str(error).rsplit("failed: ", 1)[-1]
            code = next((code for code in NO_ROOM if os.strerror(code) in reason), errno.EIO)
            raise OSError(code, f"{path} cannot be written: {reason}") from error
        if (
            path.stat().st_size < 4 * self._index.d * self._index.ntotal
        ):  # faiss tells nobody when closing fails
            raise OSError(errno.ENOSPC, f"{path} ends early: the disk is full")


class _Selected:
    """Some rows as faiss takes them; keeps alive what faiss only points at."""

    def __init__(self, low: int = 0, high: int = 0, *, rows: NDArray[np.int64] | None = None) -> None:
        self._rows = rows
        if rows is None:
            self._selector: Any = faiss.IDSelectorRange(low, high)
        else:
            self._selector = faiss.IDSelectorArray(rows)
        self.parameters = faiss.SearchParameters(sel=self._selector)  # type: ignore[call-arg]  # set by name, says faiss

    def of_each(self, count: int) -> Any:
        """The same for a search that asks of each of `count` rows whether it is selected: an array would be
        read through each time."""
        if self._rows is None:
            return self.parameters
        selected = np.zeros(count, dtype=np.bool_)
        selected[self._rows] = True
        self._bitmap: Any = faiss.IDSelectorBitmap(np.packbits(selected, bitorder="little"))  # type: ignore[call-arg, arg-type]
        return faiss.SearchParameters(sel=self._bitmap)  # type: ignore[call-arg]


def _alone(work: Callable[[_Selected], Any], selected: _Selected) -> Any:
    faiss.omp_set_num_threads(1)
    return work(selected)


def _search_slice(
    index: Any, matrix: NDArray[np.float32], k: int, selected: _Selected
) -> tuple[NDArray[Any], NDArray[Any]]:
    scores, rows = index.search(matrix, k, params=selected.parameters)
    return scores, rows


def _range_search(
    index: Any, matrix: NDArray[np.float32], below: float, selected: _Selected
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    limits, scores, rows = index.range_search(matrix, below, params=selected.of_each(index.ntotal))
    bounds = zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True)
    return [(scores[low:high], rows[low:high]) for low, high in bounds]


@cache
def _slice_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="slice")


def _last_column(index: Any, rows_per_block: int = 65_536) -> NDArray[np.float32]:
    """The penalties (n,), whose negatives lie there."""
    starts = range(0, index.ntotal, rows_per_block)
    parts = [-index.reconstruct_n(start, min(rows_per_block, index.ntotal - start))[:, -1] for start in starts]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


def _on_gpu(index: Any, device: Device) -> Any | None:
    if device == "cpu" or (device == "auto" and faiss.get_num_gpus() == 0):
        return None
    if faiss.get_num_gpus() == 0:
        raise DeviceUnavailable("search on a GPU was asked for, but faiss sees none: use auto or cpu")
    try:
        with _gpu_lock:
            return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        if device == "gpu":
            raise DeviceUnavailable(f"the GPU did not take the vectors: {reason}: use auto or cpu") from error
        _log.warning("vectors stay on the CPU, the GPU did not take them: %s", reason)
        return None
