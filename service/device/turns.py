"""Whose turn it is: callers one after the other; of one caller the ticket that came first, but a small one
passes larger ones as long as those have patience: none of them waits by more than half as long again for it.

So tickets of one size go in the order they came, a short request does not wait for a long one, and what was
promised to a long one when it was admitted holds however many short ones come. Knows no threads: its owner
locks.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from service.device.tickets import Item, Ticket

PATIENCE = 0.5  # of the items that go before a ticket and its own: as many that come later may pass it


@dataclass(eq=False, slots=True)
class Share:
    """What waits of one ticket. `patience`: how many items of later tickets may still go before it."""

    ticket: Ticket
    patience: float
    items: deque[Item] = field(default_factory=deque)


@dataclass(eq=False, slots=True)
class _Caller:
    """The shares in the order they will be served."""

    shares: deque[Share] = field(default_factory=deque)

    def line_up(self, ticket: Ticket) -> Share:
        """A new share, as far before the last one as those before let it."""
        size = max(1, ticket.missing)
        before = sum(len(share.items) for share in self.shares)
        place = len(self.shares)
        while place and _lets_pass(self.shares[place - 1], size):
            place -= 1
            self.shares[place].patience -= size
        share = Share(ticket, PATIENCE * (before + size))
        self.shares.insert(place, share)
        return share


def _lets_pass(share: Share, size: int) -> bool:
    return share.ticket.missing > size and share.patience >= size


class Turns:
    """Items that wait, by caller and ticket. A share taken out by `first` must come in by `back` or `front`."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, _Caller] = OrderedDict()  # only those of whom something waits
        self._out: dict[Share, _Caller] = {}
        self._shares: dict[Ticket, Share] = {}

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
            share = self._callers.setdefault(ticket.caller, _Caller()).line_up(ticket)
            self._shares[ticket] = share
        share.items.extend(items)

    def first(self) -> Share:
        """The share whose turn it is, taken out; its caller goes behind the others. Something must wait."""
        name, caller = self._callers.popitem(last=False)
        share = caller.shares.popleft()
        self._out[share] = caller
        if caller.shares:
            self._callers[name] = caller
        return share

    def back(self, share: Share) -> None:
        """In again after something was taken of it; forgotten when nothing of it waits any more."""
        caller = self._out.pop(share)
        if share.items:
            self._callers.setdefault(share.ticket.caller, caller)
            caller.shares.appendleft(share)
        else:
            del self._shares[share.ticket]

    def front(self, share: Share) -> None:
        """In again, as the one whose turn it is."""
        caller = self._out.pop(share)
        self._callers.setdefault(share.ticket.caller, caller)
        caller.shares.appendleft(share)
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
        if not caller.shares:
            del self._callers[ticket.caller]
        return list(share.items)
