"""How much of one queue each caller holds: never more than it leaves free, so there is room for the next one.

A caller alone gets half of the queue, two get a third each.
"""

import math
from collections import Counter


class Quotas:
    """Counts by caller. Nobody in particular (the empty name) may hold everything, as without keys."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    def held(self, caller: str) -> int:
        return self._held[caller]

    def excess(self, caller: str, size: int, *, free: int) -> int:
        """How many must be answered before `caller` may have `size` more; 0: none.

        One request is taken wherever there is room for it, however large.
        """
        held = self._held[caller]
        if not caller or not held:
            return 0
        return max(0, math.ceil((held + size - free) / 2))  # each answered is one held less, and one free more

    def take(self, caller: str, size: int) -> None:
        self._held[caller] += size

    def give_back(self, caller: str, size: int) -> None:
        self._held[caller] -= size
        if not self._held[caller]:
            del self._held[caller]
