"""A pool of decoding processes: jobs in, answers out, the dead reaped and replaced.

Decides whose fault a death is: the image's, which then fails alone, or nobody's, and then the job is given to
another worker, once.
"""

import contextlib
import logging
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from encoders.errors import TwinlensError, UndecodableImage
from service.decoding.fork_server import (
    START_SECONDS,
    ForkServer,
    ForkServerFailed,
    Worker,
    WorkerLost,
    describe_status,
    was_ended_by,
)
from service.decoding.protocol import Answer, Job
from service.decoding.worker import WorkerLimits
from service.errors import Unavailable
from service.watch.telemetry import Telemetry

logger = logging.getLogger(__name__)
TRIES = 2  # of a job whose worker died through no fault of the image
WALL_FACTOR = 3.0  # real seconds an image may take for one of the processor: the machine may be busy
CHECK_SECONDS = 1.0  # how often idle workers are looked after
LOOP_SECONDS = 30.0  # so many deaths within it that no image caused are a crash loop …
LOOP_DEATHS = 5  # … for each worker
RETIRE_JOBS = 5000  # what a codec may leak stays bounded


@dataclass(frozen=True, slots=True)
class PoolSize:
    workers: int
    limits: WorkerLimits


class WorkerPool:
    """`run` may be called by as many threads as there are workers; one thread of its own looks after them."""

    def __init__(self, size: PoolSize, *, environment: Mapping[str, str], telemetry: Telemetry) -> None:
        self._size, self._environment, self._telemetry = size, dict(environment), telemetry
        self._wall_seconds = WALL_FACTOR * size.limits.cpu_seconds
        self._fork_server: ForkServer | None = None
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._alive: frozenset[Worker] = frozenset()  # replaced whole, so that anyone may read it
        self._alive_lock = threading.Lock()
        self._deaths: deque[tuple[float, str]] = deque(maxlen=LOOP_DEATHS * size.workers)
        self._failure: str | None = "the decoding processes are starting"
        self._first_ready = threading.Event()  # the first worker is there, or cannot be had
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="decoders", daemon=True)
        telemetry.watch("decoders", "Processes that decode images just now", lambda: len(self._alive))

    def start(self) -> None:
        """Returns at once: they come up meanwhile."""
        self._supervisor.start()

    def stop(self) -> None:
        """End all, also those that are busy."""
        self._stopping.set()
        self._wake.set()
        if fork_server := self._fork_server:
            fork_server.stop()
        if self._supervisor.is_alive():
            self._supervisor.join()
        while (worker := self._pop_idle()) is not None:
            worker.close()

    def wait_until_ready(self) -> None:
        """Block until one worker is there. Raises Unavailable where the first cannot be had."""
        self._first_ready.wait(START_SECONDS)
        if reason := self.unhealthy_reason():
            raise Unavailable(reason)

    def unhealthy_reason(self) -> str | None:
        """Say why images cannot be decoded just now; None while they can."""
        if self._failure and not self._alive:
            return self._failure
        deaths = tuple(self._deaths)
        if len(deaths) == self._deaths.maxlen and time.monotonic() - deaths[0][0] < LOOP_SECONDS:
            return (
                f"{len(deaths)} decoders died within {LOOP_SECONDS:g} s with no image in hand, "
                f"the last {deaths[-1][1]}"
            )
        return None

    def process_ids(self) -> tuple[int, ...]:
        return tuple(worker.process_id for worker in self._alive)

    def run(self, job: Job) -> Answer:
        """What a worker makes of it. Raises UndecodableImage where the image ended one, and Unavailable."""
        for _ in range(TRIES):
            worker = self._take()
            try:
                answer = worker.ask(job)
            except WorkerLost as lost:
                problem = self._classify_exit(lost, self._reap(worker))
            except BaseException:  # nobody knows what it will answer next
                self._reap(worker)
                raise
            else:
                self._give_back(worker, retire=answer.retire)
                return answer
            if problem is not None:
                raise problem
        raise Unavailable("decoders die before they begin: send this again", retry_after_seconds=1)

    def _take(self) -> Worker:
        until = time.monotonic() + self._wall_seconds
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            try:
                worker = self._idle.get(timeout=min(left, CHECK_SECONDS))
            except queue.Empty:
                continue
            if worker.is_alive():
                return worker
            self._reap_idle(worker)
        raise Unavailable(
            self.unhealthy_reason() or "no decoder is free: send this again", retry_after_seconds=1
        )

    def _give_back(self, worker: Worker, *, retire: bool) -> None:
        if retire or worker.jobs >= RETIRE_JOBS:
            self._reap(worker)
            self._telemetry.decoder_ended("retired")
        else:
            self._idle.put(worker)

    def _classify_exit(self, lost: WorkerLost, status: int | None) -> TwinlensError | None:
        """The error of the image a worker was lost over; None: it was not the image."""
        seconds = self._size.limits.cpu_seconds
        if self._stopping.is_set():
            return Unavailable("the service is shutting down", code="shutting_down", retry_after_seconds=1)
        if lost.stalled:
            self._record_exit("stalled", f"a decoder did not answer within {self._wall_seconds:g} s")
            return Unavailable(
                f"decoding did not come back within {self._wall_seconds:g} s: send this again",
                retry_after_seconds=1,
            )
        if not lost.taken or status is None:
            self._record_death(describe_status(status))
            return None
        if was_ended_by(signal.SIGPROF, status):
            self._record_exit("too_slow", f"an image took more than {seconds:g} s to decode")
            return UndecodableImage(
                f"the image takes more than {seconds:g} s of computing to decode: send a smaller copy"
            )
        if was_ended_by(signal.SIGKILL, status):  # which no codec does to itself
            self._record_exit(
                "killed", "a decoder was killed with an image in hand: is the machine out of memory?"
            )
            return Unavailable(
                "the decoder was killed, as when the machine runs out of memory: send this again",
                retry_after_seconds=1,
            )
        words = describe_status(status)
        self._record_exit("crashed", f"the decoder crashed on an image: {words}; {lost}")
        return UndecodableImage(f"the image cannot be decoded: the decoder crashed on it ({words})")

    def _record_exit(self, cause: str, words: str) -> None:
        logger.warning("%s", words)
        self._telemetry.decoder_ended(cause)

    def _reap_idle(self, worker: Worker) -> None:
        self._record_death(describe_status(self._reap(worker)))

    def _record_death(self, words: str) -> None:
        if self._stopping.is_set():
            return
        self._deaths.append((time.monotonic(), words))
        self._record_exit("idle", f"a decoder died with no image in hand: {words}")

    def _reap(self, worker: Worker) -> int | None:
        worker.close()
        status = fork_server.end(worker) if (fork_server := self._fork_server) else None
        with self._alive_lock:
            self._alive -= {worker}
        self._wake.set()
        return status

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._check_idle()
                self._spawn()
            except ForkServerFailed as error:
                self._fail(error)
            except Exception:  # without this thread no dead decoder would ever be replaced
                logger.exception("looking after the decoders met an error")
            self._wake.wait(CHECK_SECONDS)

    def _check_idle(self) -> None:
        seen = []
        while (worker := self._pop_idle()) is not None:
            seen.append(worker)
        for worker in seen:
            if worker.is_alive():
                self._idle.put(worker)
            else:
                self._reap_idle(worker)

    def _pop_idle(self) -> Worker | None:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        return None

    def _spawn(self) -> None:
        while len(self._alive) < self._size.workers and not self._stopping.is_set():
            worker = self._running_fork_server().fork(wall_seconds=self._wall_seconds)
            with self._alive_lock:
                self._alive |= {worker}
            self._failure = None
            self._first_ready.set()
            self._telemetry.decoder_started()
            self._idle.put(worker)

    def _running_fork_server(self) -> ForkServer:
        if self._fork_server is None:
            self._fork_server = ForkServer(self._size.limits, environment=self._environment)
            if self._stopping.is_set():  # `stop` may not have seen it
                self._fork_server.stop()
        return self._fork_server

    def _fail(self, error: ForkServerFailed) -> None:
        if self._stopping.is_set():
            return
        if self._failure != str(error):  # else it is tried again every second, and is no news
            logger.error("%s", error)
        self._failure = str(error)
        self._first_ready.set()
        if self._fork_server is not None and error.gone:
            self._fork_server.stop()
            self._fork_server = None
