"""Recall of an index against exact search: what it finds of what NumPy finds by comparing everything.

Pure measurement.
"""

import numpy as np
from numpy.typing import NDArray

from index.manifest import MeasuredRecall
from index.vectors import VectorIndex

TIE_TOLERANCE = 1e-5  # two sums of products in another order differ by less; equal scores are equally right


def measure_recall(
    searched: VectorIndex, sampled: VectorIndex, *, queries: str, query_count: int = 200, k: int = 10
) -> MeasuredRecall:
    """recall@k of `searched` for queries drawn (seeded) from `sampled`, whose modality `queries` names.

    Queries of the other modality are searched as they are served: corrected, where there is a correction.
    """
    chosen = np.random.default_rng(0).permutation(len(sampled))[:query_count]
    vectors = np.stack([sampled.reconstruct(int(row)) for row in chosen])
    depth = min(k, len(searched))
    return MeasuredRecall(
        queries=queries,
        query_count=len(vectors),
        k=depth,
        recall=recall_at(searched, vectors, k=depth, corrected=searched is not sampled),
    )


def recall_at(index: VectorIndex, queries: NDArray[np.float32], *, k: int, corrected: bool = False) -> float:
    """The share of the k best that the index returns, ties counted as equally right."""
    penalties = _penalties(index, corrected)
    bounds = exact_bounds(index, queries, k=k, penalties=penalties)
    _, rows = index.search(queries, k, corrected=corrected)
    found = 0
    for query, bound, returned in zip(queries, bounds, rows, strict=True):
        slack = TIE_TOLERANCE * max(1.0, abs(float(bound)))
        distinct = {int(row) for row in returned if row >= 0}
        found += sum(
            float(index.reconstruct(row) @ query - penalties[row]) >= bound - slack for row in distinct
        )
    return found / (k * len(queries))


def exact_bounds(
    index: VectorIndex, queries: NDArray[np.float32], *, k: int, penalties: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The k-th best score less penalty (n,) of each query over all rows, by brute force in blocks."""
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start, block in index.blocks():
        scores = np.concatenate([best, queries @ block.T - penalties[start : start + len(block)]], axis=1)
        best = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    bounds: NDArray[np.float32] = best.min(axis=1)
    return bounds


def _penalties(index: VectorIndex, corrected: bool) -> NDArray[np.float32]:
    if corrected and index.penalties is not None:
        return index.penalties
    return np.zeros(len(index), dtype=np.float32)
