"""How texts of different lengths share the text tower's passes. Pure.

A pass costs its rows times its longest row, padding included, and something for itself, whatever is in it.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

PASS_PRICE_TOKENS = {"cpu": 32, "cuda": 2048}
"""What a pass of the text tower costs by itself, in tokens: LOG 2026-11-23. A GPU waits for its launches."""


def passes(lengths: Rows, *, most_rows: int, price_tokens: int) -> list[Rows]:
    """The rows of each pass, shortest first, such that all passes together cost least.

    lengths: (n,) tokens of each row; most_rows: in one pass; price_tokens: what a pass costs by itself, counted
    in tokens. The least over all ways to cut the sorted rows (dynamic programming).
    """
    order: Rows = np.argsort(lengths, kind="stable").astype(np.int64)
    sorted_lengths = lengths[order]
    count = len(order)
    least = np.zeros(count + 1, dtype=np.int64)  # of the first so many rows
    begin = np.zeros(count + 1, dtype=np.int64)  # of their last pass
    for end in range(1, count + 1):
        starts = np.arange(max(0, end - most_rows), end)
        costs = least[starts] + price_tokens + (end - starts) * sorted_lengths[end - 1]
        best = int(np.argmin(costs))
        least[end], begin[end] = costs[best], starts[best]
    cut: list[Rows] = []
    end = count
    while end:
        cut.append(order[begin[end] : end])
        end = int(begin[end])
    return cut[::-1]
