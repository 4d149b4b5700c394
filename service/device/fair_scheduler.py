"""Whose turn it is: callers one after the other; of one caller the ticket that came first, but a small one
passes larger ones within their overtake budgets: none of them waits by more than half as long again for it.

So tickets of one size go in the order they came, a short request does not wait for a long one, and what was
promised to a long one when it was admitted holds however many short ones come.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from service.device.tickets import Item, Ticket

OVERTAKE_SHARE = 0.5  # of the items that go before a ticket and its own: as many that come later may pass it


@dataclass(eq=False, slots=True)
class Waiting:
    """What waits of one ticket. `overtake_budget`: how many items of later tickets may still go before it."""

    ticket: Ticket
    overtake_budget: float
    items: deque[Item] = field(default_factory=deque)


@dataclass(eq=False, slots=True)
class _Caller:
    """What waits of a caller's tickets, in the order in which it is served."""

    line: deque[Waiting] = field(default_factory=deque)

    def line_up(self, ticket: Ticket) -> Waiting:
        """Give a ticket its place, as far before the last one as the budgets of those before allow."""
        size = max(1, ticket.missing)
        before = sum(len(waiting.items) for waiting in self.line)
        place = len(self.line)
        while place and _lets_pass(self.line[place - 1], size):
            place -= 1
            self.line[place].overtake_budget -= size
        waiting = Waiting(ticket, OVERTAKE_SHARE * (before + size))
        self.line.insert(place, waiting)
        return waiting


def _lets_pass(waiting: Waiting, size: int) -> bool:
    return waiting.ticket.missing > size and waiting.overtake_budget >= size


class FairScheduler:
    """Items that wait, by caller and ticket. What `first` takes out must come in by `back` or `front`."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, _Caller] = OrderedDict()  # only those of whom something waits
        self._out: dict[Waiting, _Caller] = {}
        self._waiting: dict[Ticket, Waiting] = {}

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __iter__(self) -> Iterator[Item]:
        for waiting in self._waiting.values():
            yield from waiting.items

    def oldest_at(self) -> float | None:
        """When the item was put that has waited longest, in time.perf_counter() seconds."""
        return min(
            (waiting.items[0].put_at for waiting in self._waiting.values() if waiting.items), default=None
        )

    def put(self, ticket: Ticket, items: Iterable[Item]) -> None:
        waiting = self._waiting.get(ticket)
        if waiting is None:
            waiting = self._callers.setdefault(ticket.caller, _Caller()).line_up(ticket)
            self._waiting[ticket] = waiting
        waiting.items.extend(items)

    def first(self) -> Waiting:
        """What is next, taken out; its caller goes behind the others. Something must wait."""
        name, caller = self._callers.popitem(last=False)
        waiting = caller.line.popleft()
        self._out[waiting] = caller
        if caller.line:
            self._callers[name] = caller
        return waiting

    def back(self, waiting: Waiting) -> None:
        """In again after something was taken of it; forgotten when nothing of it waits any more."""
        caller = self._out.pop(waiting)
        if waiting.items:
            self._callers.setdefault(waiting.ticket.caller, caller)
            caller.line.appendleft(waiting)
        else:
            del self._waiting[waiting.ticket]

    def front(self, waiting: Waiting) -> None:
        """In again, as the one whose turn it is."""
        caller = self._out.pop(waiting)
        self._callers.setdefault(waiting.ticket.caller, caller)
        caller.line.appendleft(waiting)
        self._callers.move_to_end(waiting.ticket.caller, last=False)

    def next_item(self) -> Item | None:
        """The item whose turn it is, taken out; None when nothing waits."""
        if not self:
            return None
        waiting = self.first()
        item = waiting.items.popleft()
        self.back(waiting)
        return item

    def drop(self, ticket: Ticket) -> list[Item]:
        """All that waits of a ticket, taken out."""
        waiting = self._waiting.pop(ticket, None)
        if waiting is None:
            return []
        caller = self._callers[ticket.caller]
        caller.line.remove(waiting)
        if not caller.line:
            del self._callers[ticket.caller]
        return list(waiting.items)
