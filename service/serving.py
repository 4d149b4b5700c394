"""What is served just now, and how it is replaced without dropping a request.

A request takes the `ServingState` once and keeps it to its end, so it never sees two releases. The old one is
freed when its last request lets go of it.
"""

import asyncio
import contextlib
import logging
import sys
import time
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.memory import give_memory_back
from index.cores import available_cores
from index.release import current_release_id
from service.access.access import Access
from service.backoff import Backoff
from service.decoding.decoders import Decoders
from service.device.batches import probe
from service.device.embedding import Embedder
from service.errors import ReloadFailed
from service.live.commits import LiveChanges, open_live
from service.live.upserts import Upserter
from service.load_failure import LoadFailure
from service.search.delta import Delta
from service.search.thread import Searcher
from service.settings import Settings
from service.state import ServingState
from service.watch.telemetry import Telemetry
from service.watch.watchdog import StalledSeconds

if TYPE_CHECKING:
    from service.watch.tracing import Traces

logger = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_LOOKS = 5  # looks at CURRENT until a release that failed is tried again; then twice as many, …
TRACES_SECONDS = 2.0  # that the last traces may take to be sent when the service stops
HANDOVER_SECONDS = 1e-4
"""Until the device thread gets the interpreter once a compiled batch is back. With the interpreter's own 5 ms
the device stood still meanwhile: one text a request, at 32 clients, went a tenth slower (LOG 2026-11-24)."""
STOP_SECONDS = 5.0  # that the batch on the device may take to finish when the service stops


@dataclass(frozen=True, slots=True)
class Loading:
    """A reload that runs. `release` is None until CURRENT was read; `since` is in seconds since the epoch."""

    release: str | None
    since: float = field(default_factory=time.time)


class Serving:
    """The running service below HTTP: threads, queues, and the state they work on."""

    def __init__(self, settings: Settings) -> None:
        """Load the release; raises TwinlensError when it cannot be served."""
        self.settings = settings
        self.access = Access(settings)
        self.telemetry = Telemetry()
        self.decoders = Decoders(settings, telemetry=self.telemetry)
        with self.decoders.starting():  # their processes come up while the release loads
            # Ready seconds sooner: PyTorch computes until what is faster was compiled.
            self.compiling = settings.engine == "auto"
            self.state = ServingState.load(settings, engine="torch" if self.compiling else None)
            self.live = open_live(settings)
        self.refused: LoadFailure | None = None  # the release that CURRENT names, where it could not be served
        self.loading: Loading | None = None  # the release that is to take the place of the one that is served
        self.draining = False
        self.in_flight = 0  # requests
        self.bodies_bytes = 0  # of the requests in flight
        # Files and large JSON have their own: a page's thumbnails must not wait for a queue of decoding.
        self.pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="aside")
        self.embedder = Embedder(settings, decoders=self.decoders, telemetry=self.telemetry)
        self.searcher = Searcher(
            queue_limit=settings.search_queue,
            telemetry=self.telemetry,
            stall_seconds=settings.stall_seconds,
        )
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._warmed = asyncio.Event()
        self._reload_turn = asyncio.Lock()
        self._waiting: asyncio.Task[bool] | None = None  # the reload that has not begun yet
        self._tasks: set[asyncio.Task[Any]] = set()  # reloads and the watcher; a finished one holds nothing
        self._usual_switch_interval = sys.getswitchinterval()
        self.traces = _traces(settings)
        _announce(self.state, self.telemetry)

    async def start(self) -> None:
        """Start the threads and warm both towers and the index; only then is the service ready."""
        device = self.embedder.device
        device.start()
        await self._warm(self.state)
        await asyncio.to_thread(self.decoders.wait_until_ready)
        await self._swap(self.state)
        device.call(partial(device.adopt, self.state.encoder))
        self._set_switch_interval(self.state.encoder)
        self._warmed.set()
        self._loader.submit(self.state.drift.prepare)  # ready without it, and without the next
        if self.compiling:
            self._loader.submit(self._compile, self.state.encoder)
        if self.access.has_keys:
            self._keep(asyncio.create_task(self.access.watch()))
        if self.settings.watch_seconds and not self.settings.release:
            self._keep(asyncio.create_task(self._watch(self.settings.watch_seconds)))
        logger.info("serving release %s with %s", self.state.release.id, self.state.encoder.name)

    async def stop(self) -> None:
        self.draining = True
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TwinlensError):
                await task
        if self.live:
            await self.live.stop()
        await asyncio.to_thread(self.embedder.stop, timeout_seconds=STOP_SECONDS)
        self.searcher.stop()
        await asyncio.to_thread(self.decoders.stop)
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)
        sys.setswitchinterval(self._usual_switch_interval)
        if self.traces is not None:
            await asyncio.to_thread(self.traces.stop, timeout_seconds=TRACES_SECONDS)

    def unhealthy_reason(self) -> str | None:
        """Say why /readyz is not 200; None while it is."""
        if self.draining:
            return "the service is shutting down"
        if not self._warmed.is_set():
            return "the encoder and the index are being warmed"
        return (
            self.embedder.device.unhealthy_reason()
            or self.searcher.unhealthy_reason()
            or self.decoders.unhealthy_reason()
        )

    def stalled_seconds(self) -> dict[str, StalledSeconds]:
        """Name each part with how many seconds it has been unable to serve."""
        return {"the device": self.embedder.device.unhealthy_seconds, "the search": self.searcher.busy_seconds}

    async def reload(self) -> bool:
        """Serve what is current now: True when that is another release than before.

        Loads beside what is served, warms it, then swaps. Raises ReloadFailed, and what was served stays.
        """
        # Shielded: a caller that leaves must not stop a reload that others wait for.
        return await asyncio.shield(self.begin_reload())

    def begin_reload(self) -> asyncio.Task[bool]:
        """A reload as a task, for callers who wait only so long and must not cancel it.

        Callers that come during a reload share the next one: the one that runs may have looked at CURRENT
        before they published.
        """
        if self._waiting is None:
            self._waiting = self._keep(asyncio.create_task(self._reload_in_turn()))
            self._waiting.add_done_callback(_note_failure)
        return self._waiting

    async def _reload_in_turn(self) -> bool:
        await self._warmed.wait()  # asked for during the start: two may not warm and swap at once
        async with self._reload_turn:
            self._waiting = None
            self.loading = Loading(None)
            try:
                return await self._reload()
            finally:
                self.loading = None

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reload(self) -> bool:
        loop = asyncio.get_running_loop()
        wanted: str | None = None
        try:
            wanted = self.settings.release or await loop.run_in_executor(
                self._loader, current_release_id, self.settings.releases
            )
            if wanted == self.state.release.id:
                self.refused = None
                return False
            self.loading = Loading(wanted)
            load = partial(ServingState.load, self.settings, wanted, served=self.state)
            fresh = await loop.run_in_executor(self._loader, load)
            await self._warm(fresh)
            await loop.run_in_executor(self._loader, fresh.drift.prepare)
            previous = await self._swap(fresh)
        except Exception as error:
            self.telemetry.reload("failed")
            self._refuse(wanted, error)
            raise ReloadFailed(f"release {self.state.release.id} stays served: {error}") from error
        fresh.drift.go_on_from(previous.drift)
        self.refused = None
        device = self.embedder.device
        device.call(partial(device.adopt, fresh.encoder))  # what ailed the previous one is over
        self._set_switch_interval(fresh.encoder)
        weakref.finalize(previous.release, self._freed, previous.release.id)
        self.telemetry.reload("swapped")
        _announce(fresh, self.telemetry)
        logger.info("release %s replaces %s", fresh.release.id, previous.release.id)
        return True

    async def _swap(self, fresh: ServingState) -> ServingState:
        """Serve it, with the live changes that it lacks; returns what was served before."""
        async with self._with_live_changes(fresh) as whole:
            previous, self.state = self.state, whole
        return previous

    @contextlib.asynccontextmanager
    async def _with_live_changes(self, state: ServingState) -> AsyncIterator[ServingState]:
        """The state with all live changes replayed over it; none is made until the context is left."""
        if self.live is None:
            yield state
            return
        refresh = partial(self.upserter(self.live).renewed, encoder=state.encoder)
        fingerprint = state.encoder.fingerprint
        async with self.live.replayed_over(state.delta, fingerprint=fingerprint, refresh=refresh) as delta:
            yield replace(state, delta=delta)

    def upserter(self, live: LiveChanges) -> Upserter:
        return Upserter(self.embedder, live.images, self.pool)

    def _freed(self, release_id: str) -> None:
        logger.info("release %s is freed", release_id)
        with contextlib.suppress(RuntimeError):  # the service stops
            self._loader.submit(give_memory_back)

    def shown(self) -> tuple[Delta, str]:
        """The delta that is served, and the fingerprint of its encoder."""
        return self.state.delta, self.state.encoder.fingerprint

    def show(self, delta: Delta) -> None:
        self.state = replace(self.state, delta=delta)

    def _compile(self, encoder: Encoder) -> None:
        """Let what is fastest here compute, from the next batch on. Loader thread."""
        try:
            encoder.compile(self.settings.engine, threads=self.settings.torch_threads or available_cores())
            logger.info("%s computes %s", encoder.engine, encoder.name)
            self._set_switch_interval(encoder)
        except Exception:  # PyTorch serves on
            logger.exception("%s could not be compiled", encoder.name)
        finally:
            self.compiling = False
            give_memory_back()

    def _set_switch_interval(self, encoder: Encoder) -> None:
        """Short for compiled towers alone: a hundred operators of PyTorch's a batch ask for the interpreter."""
        compiled = encoder.engine == "openvino" and not self.draining
        sys.setswitchinterval(HANDOVER_SECONDS if compiled else self._usual_switch_interval)

    async def _warm(self, state: ServingState) -> None:
        await asyncio.wrap_future(self.embedder.device.call(partial(probe, state.encoder)))
        query = np.zeros((1, state.release.images.dim), dtype=np.float32)
        for vectors in (state.release.images, state.release.texts):
            await self.searcher.call(partial(vectors.search, query, 1))

    async def _watch(self, every_seconds: float) -> None:
        """Reload whenever CURRENT names another release; one that failed again after growing pauses."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(RETRY_LOOKS * every_seconds)
        complaint = ""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                wanted = await loop.run_in_executor(self._loader, current_release_id, self.settings.releases)
            except TwinlensError as error:
                if str(error) != complaint:
                    self._refuse(None, error)
                complaint = str(error)
                continue
            complaint = ""
            if wanted == self.state.release.id:
                self.refused = None  # what was refused is current no more
            if wanted != self.state.release.id and backoff.allows(wanted, time.monotonic()):
                with contextlib.suppress(TwinlensError):  # logged where it was raised
                    await self.reload()

    def _refuse(self, release_id: str | None, error: Exception) -> None:
        """What is served stays; /release, /readyz, the log and a metric tell why."""
        self.refused = LoadFailure.of(release_id, error, before=self.refused)
        self.telemetry.refusal(self.refused.reason)
        fields = {"refused": release_id, "reason": self.refused.reason, "tries": self.refused.tries}
        logger.error("release %s stays: %s", self.state.release.id, error, extra={"fields": fields})


def _note_failure(reload: asyncio.Task[bool]) -> None:
    """Of a reload whose callers may all have left; ReloadFailed was logged where it was raised."""
    if not reload.cancelled() and not isinstance(error := reload.exception(), ReloadFailed | None):
        logger.error("a reload failed: %r", error, exc_info=error)


def _traces(settings: Settings) -> "Traces | None":
    if settings.traces_endpoint is None:
        return None
    from service.watch.tracing import Traces  # with nowhere to send traces it costs nothing

    return Traces(settings.traces_endpoint)


def _announce(state: ServingState, telemetry: Telemetry) -> None:
    """Tell the metrics what is served from now on."""
    manifest = state.release.manifest
    telemetry.serving(
        release=manifest.id,
        model=state.encoder.name,
        fingerprint=state.encoder.fingerprint,
        created=manifest.created.timestamp(),
        loaded=state.loaded_at,
        counts={"images": manifest.counts.images, "texts": manifest.counts.texts},
    )
