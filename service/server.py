"""uvicorn with our way to stop: SIGTERM and SIGINT finish what is in flight, SIGHUP loads what is current."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from encoders.errors import TwinlensError
from service.edge.connections import ConnectionTracker
from service.serving import Serving
from service.settings import Settings
from service.signals import StartSignals, stop_at_once
from service.watch.watchdog import Watchdog

logger = logging.getLogger(__name__)
HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
POLL_SECONDS = 0.02
KEEP_ALIVE_SECONDS = 75  # more than balancers wait (60 s), so that it is never we who close on their request


class Server(uvicorn.Server):
    """Between the signal and the closing of the socket, new requests get a 503, not a refused connection."""

    def __init__(self, app: FastAPI, settings: Settings, *, start_signals: StartSignals | None = None) -> None:
        self._serving: Serving = app.state.serving
        self._settings = settings
        self._start_signals = start_signals
        self._draining: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._tracker = ConnectionTracker(settings, turned_away=self._serving.telemetry.turned_away)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=self._tracker.protocol(),
                forwarded_allow_ips=list(settings.trusted_proxies),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,  # `drain` has waited already,
                lifespan="on",
                ws="none",
            )
        )
        self._serving.telemetry.watch(
            "connections", "Open connections", lambda: len(self.server_state.connections)
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Our handlers instead of uvicorn's, which exits by the signal itself.

        Set by `signal`, as the loop's own would leave a moment at both ends in which SIGHUP ends the process.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                loop.call_soon_threadsafe(self.reload)
            elif self.started:
                loop.call_soon_threadsafe(self.drain)
            else:
                stop_at_once(number)

        before = {number: signal.signal(number, on_signal) for number in HANDLED_SIGNALS}
        if self._start_signals is not None and self._start_signals.reload_was_asked():
            self.reload()  # what was current when the release was loaded need not be so any more
        if limit := self._settings.exit_after_stall_seconds:
            Watchdog(self._serving.stalled_seconds(), limit_seconds=limit).start(loop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.signal(
                signal.SIGHUP, signal.SIG_IGN
            )  # the interpreter takes Python's handlers away at its end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn; then what was loaded is left out of the search for garbage, which stops every thread.

        Half a million objects came with PyTorch and its company: to go through them takes 0.45 s, every time.
        """
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread():  # else others live in this process
            gc.collect()
            gc.freeze()

    def drain(self) -> None:
        """Refuse what is new, finish what is in flight, exit; asked twice: exit now. Event loop only."""
        if self._serving.draining:
            self.should_exit = self.force_exit = True
            return
        logger.info("shutting down: %d requests in flight", self._serving.in_flight)
        self._serving.draining = True
        self._draining = asyncio.get_running_loop().create_task(self._exit_when_idle())

    def reload(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _exit_when_idle(self) -> None:
        limit = time.monotonic() + self._settings.shutdown_grace_seconds
        while self._serving.in_flight and time.monotonic() < limit:
            await asyncio.sleep(POLL_SECONDS)
        if self._serving.in_flight:
            logger.warning("the grace is over with %d requests in flight", self._serving.in_flight)
        self.should_exit = True

    async def _reload(self) -> None:
        with contextlib.suppress(TwinlensError):  # logged where it was raised; what is served stays
            await self._serving.reload()
