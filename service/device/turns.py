"""Whose turn it is: callers one after the other; of one caller the ticket that would be done first, had all of
its tickets shared the device evenly from the moment each came (fair queueing).

So tickets of one size go in the order they came, and what was promised when they were admitted holds; a small
one passes a large one, until that has had its share. Knows no threads: its owner locks.
"""

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from service.device.tickets import Item, Ticket


@dataclass(eq=False, slots=True)
class Share:
    """What waits of one ticket. Shares are served by `done_at`: on its caller's clock, which counts rounds."""

    ticket: Ticket
    done_at: int
    number: int  # of those that would be done at once the first that came
    items: deque[Item] = field(default_factory=deque)

    def __lt__(self, other: "Share") -> bool:
        return (self.done_at, self.number) < (other.done_at, other.number)


@dataclass(eq=False, slots=True)
class _Caller:
    """`clock`: how many items each of its tickets has had that still waits. The next one starts from there."""

    shares: list[Share] = field(default_factory=list)  # a heap
    clock: int = 0


class Turns:
    """Items that wait, by caller and ticket. A share taken out by `first` must come in by `back` or `front`."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, _Caller] = OrderedDict()  # only those of whom something waits
        self._out: dict[Share, _Caller] = {}
        self._shares: dict[Ticket, Share] = {}
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __iter__(self) -> Iterator[Item]:
        for share in self._shares.values():
            yield from share.items

    def oldest_at(self) -> float | None:
        """When the item was put that has waited longest, in time.perf_counter() seconds."""
        return min((share.items[0].put_at for share in self._shares.values() if share.items), default=None)

    def put(self, ticket: Ticket, items: Iterable[Item]) -> None:
        share = self._shares.get(ticket)
        if share is None:
            caller = self._callers.setdefault(ticket.caller, _Caller())
            share = Share(ticket, caller.clock + max(1, ticket.missing), next(self._numbers))
            self._shares[ticket] = share
            heapq.heappush(caller.shares, share)
        share.items.extend(items)

    def first(self) -> Share:
        """The share whose turn it is, taken out; its caller goes behind the others. Something must wait."""
        name, caller = self._callers.popitem(last=False)
        share = heapq.heappop(caller.shares)
        self._out[share] = caller
        if caller.shares:
            self._callers[name] = caller
        return share

    def back(self, share: Share) -> None:
        """In again after something was taken of it; forgotten when nothing of it waits any more."""
        caller = self._out.pop(share)
        caller.clock = max(caller.clock, share.done_at - len(share.items))
        if share.items:
            self._callers.setdefault(share.ticket.caller, caller)
            heapq.heappush(caller.shares, share)
        else:
            del self._shares[share.ticket]

    def front(self, share: Share) -> None:
        """In again, as the one whose turn it is."""
        caller = self._out.pop(share)
        self._callers.setdefault(share.ticket.caller, caller)
        heapq.heappush(caller.shares, share)
        self._callers.move_to_end(share.ticket.caller, last=False)

    def next_item(self) -> Item | None:
        """The item whose turn it is, taken out; None when nothing waits."""
        if not self:
            return None
        share = self.first()
        item = share.items.popleft()
        self.back(share)
        return item

    def drop(self, ticket: Ticket) -> list[Item]:
        """All that waits of a ticket, taken out."""
        share = self._shares.pop(ticket, None)
        if share is None:
            return []
        caller = self._callers[ticket.caller]
        caller.shares.remove(share)
        heapq.heapify(caller.shares)
        if not caller.shares:
            del self._callers[ticket.caller]
        return list(share.items)
