"""Vectors that only ever grow, and views of them that stay what they were when they were taken.

Knows nothing of items or texts. One thread extends; any thread reads what it was given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Penalty = Callable[[Floats], Floats]
"""Rows (n, dim) to what is taken off their scores for being hubs (n,)."""


class _Room:
    """Memory for rows, of which the first `used` are written and never written again."""

    def __init__(self, capacity: int, dim: int) -> None:
        self.vectors: Floats = np.empty((capacity, dim), dtype=np.float32)
        self.penalties: Floats = np.zeros(capacity, dtype=np.float32)
        self.used = 0


@dataclass(frozen=True, eq=False)
class Layer:
    """`count` rows of unit vectors with their penalties; extending gives another layer, and copies little."""

    dim: int
    penalty: Penalty | None
    count: int = 0
    _room: _Room | None = None

    @property
    def vectors(self) -> Floats:
        """(count, dim)."""
        if self._room is None:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._room.vectors[: self.count]

    @property
    def penalties(self) -> Floats:
        """(count,); zeros where nothing corrects."""
        return np.empty(0, dtype=np.float32) if self._room is None else self._room.penalties[: self.count]

    def extended(self, rows: Floats) -> "Layer":
        """This layer with `rows` (n, dim) behind it."""
        if not len(rows):
            return self
        total = self.count + len(rows)
        room = self._room
        if room is None or room.used != self.count or len(room.vectors) < total:  # full, or extended by another
            room = _Room(max(64, 2 * total), self.dim)
            room.vectors[: self.count], room.penalties[: self.count] = self.vectors, self.penalties
        room.vectors[self.count : total] = rows
        if self.penalty is not None:
            room.penalties[self.count : total] = self.penalty(np.ascontiguousarray(rows, dtype=np.float32))
        room.used = total
        return Layer(self.dim, self.penalty, total, room)
