"""Live changes of the running service: made durable together, laid over what is served and what comes after.

Changes queue while the disk is busy with those before, and then share one write. Each group becomes a new
overlay, and so a new state of what is served, before anybody is told that it is in. Belongs to the event loop;
the disk has a thread of its own. Knows nothing of HTTP.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from encoders.errors import TwinlensError
from index.errors import JournalFailed, JournalFull
from index.live.journal import Journal
from index.live.pictures import PictureStore
from index.live.reading import LIVE_NAME, LiveReader
from index.live.records import Change, Delete, Put
from index.staging import last_live_sequence
from service.errors import StorageFull, Unavailable
from service.live.overlay import Overlay
from service.settings import Settings

logger = logging.getLogger(__name__)
GROUP_CHANGES = 1024  # written at once, at most
LAPS = 3  # behind the changes that are made while a release is made ready; each is shorter than the one before


class StaleVector(Exception):
    """A put was embedded with an encoder that has been replaced since: it must be embedded again."""


Refresh = Callable[[Sequence[Put]], Awaitable[list[Put | TwinlensError]]]
"""Puts of another encoder, embedded anew with the one that is to be served, or why they cannot be."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    changes: Sequence[Change]
    done: "asyncio.Future[list[Change]]"


def open_live(settings: Settings) -> "LiveChanges | None":
    """None where they are off. Raises JournalBusy, CorruptJournal or JournalFailed."""
    folder = settings.releases / LIVE_NAME
    if settings.live_changes:
        return LiveChanges(settings.releases, max_items=settings.max_live_items)
    if folder.is_dir():
        logger.warning("%s holds live changes, which are not served: live_changes is off", folder)
    return None


class LiveChanges:
    """Owns the journal, and the order in which changes are made."""

    def __init__(self, releases: Path, *, max_items: int) -> None:
        """Open the journal. Raises JournalBusy, CorruptJournal, or JournalFailed where it cannot be written."""
        floor = last_live_sequence(releases)
        self._folder = releases / LIVE_NAME
        try:
            self._journal = Journal(self._folder, floor=floor)
        except OSError as error:
            raise JournalFailed(f"live changes cannot be kept in {self._folder}: {error.strerror}") from error
        self._max_items = max_items
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="live")
        self._turn = asyncio.Lock()  # held while changes are written, and while a release is swapped
        self._queue: deque[_Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None
        self.left_out: dict[str, str] = {}
        """Items that were put and cannot be shown with this encoder → why."""

    @property
    def pictures(self) -> PictureStore:
        return self._journal.pictures

    @property
    def sequence(self) -> int:
        """The number of the last change."""
        return self._journal.sequence

    def summary(self, overlay: Overlay) -> dict[str, int]:
        """Of what is laid over a release: the last change in it, items added and hidden, those left out."""
        return {
            "sequence": overlay.sequence,
            "added": len(overlay.row_of),
            "hidden": overlay.hidden_count,
            "left_out": len(self.left_out),
        }

    async def commit(
        self, changes: Sequence[Change], *, serving: "Showing", held: ExitStack | None = None
    ) -> list[Change]:
        """Durable and searchable once it returns: the changes with their numbers, all of them or none.

        Raises StaleVector, StorageFull, Unavailable. A caller that leaves does not take its changes back, so
        `held`, which keeps their pictures on the disk, is closed here, once they are in or refused.
        """
        waiting = _Waiting(changes, asyncio.get_running_loop().create_future())
        if held is not None:
            waiting.done.add_done_callback(lambda _: held.close())
        self._queue.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all(serving))
        return await asyncio.shield(waiting.done)

    async def stop(self) -> None:
        """Write what waits, then let go of the journal."""
        if self._committing is not None:
            await self._committing
        self._disk.shutdown(wait=True)
        self._journal.close()

    @asynccontextmanager
    async def laid_over(
        self, overlay: Overlay, *, fingerprint: str, refresh: Refresh
    ) -> AsyncIterator[Overlay]:
        """All changes that a release does not hold, laid over it; none is made until the context is left.

        `overlay`: the release's own, without any; `fingerprint`: of its encoder.
        """
        left_out: dict[str, str] = {}
        catch_up = partial(self._caught_up, fingerprint=fingerprint, refresh=refresh, left_out=left_out)
        ahead = overlay
        for _ in range(LAPS):
            ahead = await catch_up(ahead)
        async with self._turn:
            yield await catch_up(ahead)
            self.left_out = left_out

    async def _commit_all(self, serving: "Showing") -> None:
        while self._queue:
            async with self._turn:
                group = self._next_group()
                try:
                    await self._commit(group, serving)
                except Exception as error:  # nobody may wait for ever, whatever breaks
                    logger.exception("live changes could not be made")
                    for waiting in group:
                        _fail(waiting, error)

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        count = 0
        while self._queue and (not group or count + len(self._queue[0].changes) <= GROUP_CHANGES):
            group.append(self._queue.popleft())
            count += len(group[-1].changes)
        return group

    async def _commit(self, group: Sequence[_Waiting], serving: "Showing") -> None:
        overlay, fingerprint = serving.shown()
        room = self._max_items - len(overlay.row_of)
        fit: list[_Waiting] = []
        for waiting in group:
            puts = [change for change in waiting.changes if isinstance(change, Put)]
            fresh = sum(put.id not in overlay.row_of for put in puts)
            if any(put.fingerprint != fingerprint for put in puts):
                _fail(waiting, StaleVector())
            elif fresh > room:
                _fail(waiting, _too_many(self._max_items))
            else:
                room -= fresh
                fit.append(waiting)
        if fit and not await self._written(fit, overlay, serving) and len(fit) > 1:
            for waiting in fit:  # what is too large for the room that is left must not take others with it
                await self._written([waiting], serving.shown()[0], serving)

    async def _written(self, group: Sequence[_Waiting], overlay: Overlay, serving: "Showing") -> bool:
        """False where there was no room for all of them together; one alone is then told."""
        changes = [change for waiting in group for change in waiting.changes]
        loop = asyncio.get_running_loop()
        try:
            done = await loop.run_in_executor(self._disk, self._journal.append, changes)
        except JournalFull as error:
            if len(group) > 1:
                return False
            logger.error("a live change was refused: %s", error)
            words = "there is no room on the disk for this change, and nothing was changed: free some"
            _fail(group[0], StorageFull(words))
            return True
        except JournalFailed as error:
            logger.error("a live change failed: %s", error)
            problem = Unavailable("the disk takes no changes; searches go on", code="journal_failed")
            for waiting in group:
                _fail(waiting, problem)
            return True
        serving.show(await loop.run_in_executor(self._disk, overlay.applied, done))
        for change in done:
            self.left_out.pop(change.id, None)
        for waiting in group:
            own, done = done[: len(waiting.changes)], done[len(waiting.changes) :]
            if not waiting.done.done():
                waiting.done.set_result(own)
        return True

    async def _caught_up(
        self, overlay: Overlay, *, fingerprint: str, refresh: Refresh, left_out: dict[str, str]
    ) -> Overlay:
        """With all changes so far; `left_out` is kept up with them."""
        if overlay.sequence >= self._journal.sequence:
            return overlay
        loop = asyncio.get_running_loop()
        changes, sequence = await loop.run_in_executor(
            self._disk, partial(_changes_after, self._folder, overlay.sequence)
        )
        for change in changes:
            left_out.pop(change.id, None)
        fresh = await _of_this_encoder(changes, fingerprint, refresh, left_out)
        return replace(await loop.run_in_executor(self._disk, overlay.applied, fresh), sequence=sequence)


async def _of_this_encoder(
    changes: Sequence[Change], fingerprint: str, refresh: Refresh, left_out: dict[str, str]
) -> list[Change]:
    """What cannot be shown is hidden, so that nothing old comes up in its place."""
    others = [change for change in changes if isinstance(change, Put) and change.fingerprint != fingerprint]
    if not others:
        return list(changes)
    logger.info("embedding %d live items anew, with %s", len(others), fingerprint)
    renewed: dict[str, Change] = {}
    for put, outcome in zip(others, await refresh(others), strict=True):
        if isinstance(outcome, Put):
            renewed[put.id] = outcome
        else:
            logger.warning("the live item %r is not shown: %s", put.id, outcome)
            left_out[put.id] = str(outcome)
            renewed[put.id] = Delete(put.id, put.sequence)
    return [renewed.get(change.id, change) for change in changes]


class Showing(Protocol):
    """Whoever keeps what is served."""

    def shown(self) -> tuple[Overlay, str]:
        """The overlay that is served just now, and the fingerprint of its encoder."""
        ...

    def show(self, overlay: Overlay) -> None: ...


def _changes_after(folder: Path, sequence: int) -> tuple[list[Change], int]:
    """The last change of every id after a number, and the last number there is."""
    reader, changes = LiveReader(folder), dict[str, Change]()
    for change in reader:
        changes.pop(change.id, None)
        if change.sequence > sequence:
            changes[change.id] = change
    return list(changes.values()), reader.sequence


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def _too_many(limit: int) -> StorageFull:
    return StorageFull(
        f"{limit} items were put since the release was built, which is all that is taken: "
        "`python -m index rebuild` takes them in",
        code="too_many_live_items",
    )
