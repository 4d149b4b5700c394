"""Live changes of the running service: made durable together, laid over what is served and what comes after.

Changes queue while the disk is busy with those before, and then share one transaction. Each group becomes a new
delta, and so a new state of what is served, before anybody is told that it is in. Belongs to the event loop;
the disk has a thread of its own, which owns the journal.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from encoders.errors import TwinlensError
from index.catalog import last_live_sequence
from index.errors import IdempotencyKeyReused, JournalFull, ReleaseError
from index.journal.changes import Change, ChangeSet, Committed, Delete, RequestKey, Upsert
from index.journal.images import ImageStore
from index.journal.journal import Journal, Outcome
from index.journal.location import LIVE_NAME, refuse_loss
from service.errors import InvalidField, StorageFull, Unavailable
from service.search.delta import Delta
from service.settings import Settings

logger = logging.getLogger(__name__)
GROUP_CHANGES = 1024  # written at once, at most
LAPS = 3  # behind the changes that are made while a release is made ready; each is shorter than the one before
T = TypeVar("T")


class StaleVector(Exception):
    """An upsert was embedded with an encoder that has been replaced since: it must be embedded again."""


Refresh = Callable[[Sequence[Upsert]], Awaitable[list[Upsert | TwinlensError]]]
"""Upserts of another encoder, embedded anew with the one that is to be served, or why they cannot be."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    changes: ChangeSet
    done: "asyncio.Future[Committed]"


class StateHolder(Protocol):
    """Whoever keeps what is served."""

    def shown(self) -> tuple[Delta, str]:
        """The delta that is served just now, and the fingerprint of its encoder."""
        ...

    def show(self, delta: Delta) -> None: ...


def open_live(settings: Settings) -> "LiveChanges | None":
    """None where they are off. Raises as `Journal`."""
    folder = settings.releases / LIVE_NAME
    if settings.live_changes:
        return LiveChanges(settings.releases, max_items=settings.max_live_items)
    if folder.is_dir():
        logger.warning("%s holds live changes, which are not served: live_changes is off", folder)
    return None


class LiveChanges:
    """Owns the journal, and the order in which changes are made."""

    def __init__(self, releases: Path, *, max_items: int) -> None:
        """Open the journal. Raises as `Journal`."""
        self._journal = Journal(releases, known=last_live_sequence(releases))
        self.images = ImageStore(releases / LIVE_NAME)
        self._place = (
            f"{releases.name}/{LIVE_NAME}"  # as callers are told: the whole path is none of their business
        )
        self._max_items = max_items
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="live")
        self._turn = asyncio.Lock()  # held while changes are written, and while a release is swapped
        self._queue: deque[_Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None
        self.left_out: dict[str, str] = {}
        """Items that were put and cannot be shown with this encoder → why."""

    @property
    def sequence(self) -> int:
        """The number of the last change."""
        return self._journal.sequence

    def summary(self, delta: Delta) -> dict[str, int]:
        """Of what is laid over a release: the last change in it, items added and hidden, those left out."""
        return {
            "sequence": delta.sequence,
            "added": len(delta.row_of),
            "hidden": delta.hidden_count,
            "left_out": len(self.left_out),
        }

    async def commit(self, changes: ChangeSet, *, holder: StateHolder) -> Committed:
        """Durable and searchable once it returns: all of the changes or none. A caller that leaves takes none
        back.

        Raises StaleVector, StorageFull, Unavailable, InvalidField for an idempotency key of another request.
        """
        waiting = _Waiting(changes, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all(holder))
        return await asyncio.shield(waiting.done)

    async def answer_to(self, key: RequestKey) -> Committed | None:
        """What the request was answered before, if it was. Raises InvalidField as `commit`, Unavailable."""
        try:
            outcome = await self._on_disk(partial(self._journal.answer_to, key))
        except ReleaseError as error:
            logger.error("a kept answer cannot be read: %s", error)
            raise _failed() from error
        return None if outcome is None else _accepted(outcome)

    async def stop(self) -> None:
        """Write what waits, then let go of the journal."""
        if self._committing is not None:
            await self._committing
        self._disk.shutdown(wait=True)
        self.images.close()
        self._journal.close()

    @asynccontextmanager
    async def replayed_over(self, delta: Delta, *, fingerprint: str, refresh: Refresh) -> AsyncIterator[Delta]:
        """All changes that a release does not hold, laid over it; none is made until the context is left.

        `delta`: the release's own, without any; `fingerprint`: of its encoder. Raises CorruptJournal where
        the release holds changes that the journal does not: those to come would have their numbers.
        """
        refuse_loss(self._journal.folder, self.sequence, expected=delta.sequence)
        left_out: dict[str, str] = {}
        catch_up = partial(self._caught_up, fingerprint=fingerprint, refresh=refresh, left_out=left_out)
        ahead = replace(delta, store=self.images)
        for _ in range(LAPS):
            ahead = await catch_up(ahead)
        async with self._turn:
            yield await catch_up(ahead)
            self.left_out = left_out

    async def _commit_all(self, holder: StateHolder) -> None:
        while self._queue:
            async with self._turn:
                group = self._next_group()
                try:
                    await self._commit(group, holder)
                    if self._journal.is_untidy:
                        await self._on_disk(self._journal.tidy)
                except Exception as error:  # nobody may wait for ever, whatever breaks
                    logger.exception("live changes could not be made")
                    for waiting in group:
                        _fail(waiting, error)

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        count = 0
        while self._queue and (not group or count + len(self._queue[0].changes.changes) <= GROUP_CHANGES):
            group.append(self._queue.popleft())
            count += len(group[-1].changes.changes)
        return group

    async def _commit(self, group: Sequence[_Waiting], holder: StateHolder) -> None:
        """Limits first: nothing is written for what is refused."""
        delta, fingerprint = holder.shown()
        room = self._max_items - len(delta.row_of)
        fit: list[_Waiting] = []
        for waiting in group:
            upserts = [change for change in waiting.changes.changes if isinstance(change, Upsert)]
            fresh = len({upsert.id for upsert in upserts} - delta.row_of.keys())
            if any(upsert.fingerprint != fingerprint for upsert in upserts):
                _fail(waiting, StaleVector())
            elif fresh > room:
                _fail(waiting, _too_many(self._max_items))
            else:
                room -= fresh
                fit.append(waiting)
        if fit and not await self._written(fit, holder) and len(fit) > 1:
            for waiting in fit:  # what is too large for the room that is left must not take others with it
                await self._written([waiting], holder)

    async def _written(self, group: Sequence[_Waiting], holder: StateHolder) -> bool:
        """False where there was no room for all of them together; one alone is then told."""
        delta, _ = holder.shown()
        write = partial(self._write, [waiting.changes for waiting in group], delta)
        try:
            outcomes, after = await self._on_disk(write)
        except JournalFull as error:
            if len(group) > 1:
                return False
            logger.error("a live change was refused: %s", error)
            _fail(group[0], self._full())
        except ReleaseError as error:
            logger.error("a live change failed: %s", error)
            for waiting in group:
                _fail(waiting, _failed())
        else:
            holder.show(after)
            for waiting, outcome in zip(group, outcomes, strict=True):
                self._tell(waiting, outcome)
        return True

    def _write(self, sets: Sequence[ChangeSet], delta: Delta) -> tuple[list[Outcome], Delta]:
        """What came of each set, and the delta with it. Disk thread."""
        outcomes = self._journal.commit(sets)
        done = [change for one in outcomes if isinstance(one, Committed) for change in one.changes]
        return outcomes, delta.applied(done) if done else delta

    def _tell(self, waiting: _Waiting, outcome: Outcome) -> None:
        try:
            committed = _accepted(outcome)
        except InvalidField as error:
            _fail(waiting, error)
            return
        for change in committed.changes:
            self.left_out.pop(change.id, None)
        if not waiting.done.done():
            waiting.done.set_result(committed)

    async def _caught_up(
        self, delta: Delta, *, fingerprint: str, refresh: Refresh, left_out: dict[str, str]
    ) -> Delta:
        """With all changes so far; `left_out` is kept up with them."""
        if delta.sequence >= self.sequence:
            return delta
        changes, sequence = await self._on_disk(partial(self._journal.changes_after, delta.sequence))
        for change in changes:
            left_out.pop(change.id, None)
        fresh = await _of_this_encoder(changes, fingerprint, refresh, left_out)
        return replace(await self._on_disk(partial(delta.applied, fresh)), sequence=sequence)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _full(self) -> StorageFull:
        return StorageFull(
            f"there is no room on the disk of {self._place} for this change, and nothing was changed: "
            "free some there, or delete items, which always works"
        )


async def _of_this_encoder(
    changes: Sequence[Change], fingerprint: str, refresh: Refresh, left_out: dict[str, str]
) -> list[Change]:
    """What cannot be shown is hidden, so that nothing old comes up in its place."""
    others = [change for change in changes if isinstance(change, Upsert) and change.fingerprint != fingerprint]
    if not others:
        return list(changes)
    logger.info("embedding %d live items anew, with %s", len(others), fingerprint)
    renewed: dict[str, Change] = {}
    for upsert, outcome in zip(others, await refresh(others), strict=True):
        if isinstance(outcome, Upsert):
            renewed[upsert.id] = outcome
        else:
            logger.warning("the live item %r is not shown: %s", upsert.id, outcome)
            left_out[upsert.id] = str(outcome)
            renewed[upsert.id] = Delete(upsert.id, upsert.sequence)
    return [renewed.get(change.id, change) for change in changes]


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def _too_many(limit: int) -> StorageFull:
    return StorageFull(
        f"{limit} items were put since the release was built, which is all that is taken: "
        "`python -m index rebuild` takes them in",
        code="too_many_live_items",
    )


def _failed() -> Unavailable:
    return Unavailable("the disk takes no changes; searches go on", code="journal_failed")


def _accepted(outcome: Outcome) -> Committed:
    if isinstance(outcome, IdempotencyKeyReused):
        raise InvalidField(str(outcome), param="idempotency-key", code="idempotency_key_reused")
    return outcome
