"""Whose turn it is: callers one after the other, and of each caller its tickets one after the other.

Whoever asks for a thousand waits for his own thousand, and nobody else does. Knows no threads: its owner locks.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from service.tickets import Item, Ticket


@dataclass(eq=False, slots=True)
class Share:
    """What waits of one ticket."""

    ticket: Ticket
    items: deque[Item] = field(default_factory=deque)


class Turns:
    """Items that wait, by caller and ticket. A share taken out by `first` must come in by `back` or `front`."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, deque[Share]] = OrderedDict()
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
            share = self._shares[ticket] = Share(ticket)
            self._callers.setdefault(ticket.caller, deque()).append(share)
        share.items.extend(items)

    def first(self) -> Share:
        """The share whose turn it is, taken out; its caller goes behind the others. Something must wait."""
        caller, shares = self._callers.popitem(last=False)
        share = shares.popleft()
        if shares:
            self._callers[caller] = shares
        return share

    def back(self, share: Share) -> None:
        """In again, behind the caller's other tickets; forgotten when nothing of it waits any more."""
        if share.items:
            self._callers.setdefault(share.ticket.caller, deque()).append(share)
        else:
            del self._shares[share.ticket]

    def front(self, share: Share) -> None:
        """In again, as the one whose turn it is."""
        self._callers.setdefault(share.ticket.caller, deque()).appendleft(share)
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
        shares = self._callers[ticket.caller]
        shares.remove(share)
        if not shares:
            del self._callers[ticket.caller]
        return list(share.items)
