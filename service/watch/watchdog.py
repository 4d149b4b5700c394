"""Ends the process when it can no longer serve and will not recover, so that its supervisor starts a new one.

A thread of its own: it goes on when the event loop is blocked. Should even the interpreter be blocked (native
code that keeps its lock), a timer of faulthandler's, which needs no Python, does the same. All threads' stacks
go to standard error first.
"""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)
EXIT_STATUS = 70  # EX_SOFTWARE; what the timer ends, ends with 1
LOOK_SECONDS = 1.0
StalledSeconds = Callable[[], float]
"""How many seconds a part has been unable to serve; 0: it is well."""


class Watchdog:
    """Looks at the parts by name, and at the event loop, for as long as that runs."""

    def __init__(self, parts: Mapping[str, StalledSeconds], *, limit_seconds: float) -> None:
        self._parts = parts
        self._limit_seconds = limit_seconds
        self._heard_at = time.monotonic()  # of the event loop
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is the event loop to listen for."""
        self._loop = loop
        self._thread.start()

    def _watch(self) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker
        self._heard_at = time.monotonic()
        pause = min(LOOK_SECONDS, self._limit_seconds / 4)
        while not self._loop.is_closed():
            # Later than this thread would: it tells more.
            faulthandler.dump_traceback_later(self._limit_seconds + 5 * pause, exit=True)
            try:
                self._loop.call_soon_threadsafe(self._hear)
            except RuntimeError:  # closed meanwhile
                break
            time.sleep(pause)
            self._look()
        faulthandler.cancel_dump_traceback_later()

    def _hear(self) -> None:
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        stalled = {name: seconds() for name, seconds in self._parts.items()}
        stalled["the event loop"] = time.monotonic() - self._heard_at
        name, seconds = max(stalled.items(), key=lambda entry: entry[1])
        if seconds <= self._limit_seconds:
            return
        logger.critical(
            "%s has not come back for %.0f s and exit_after_stall_seconds is %g: exiting with status %d",
            name,
            seconds,
            self._limit_seconds,
            EXIT_STATUS,
        )
        faulthandler.dump_traceback(all_threads=True)
        sys.stderr.flush()
        os._exit(EXIT_STATUS)
