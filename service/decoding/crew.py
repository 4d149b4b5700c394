"""A crew of decoding processes: jobs in, answers out, the dead replaced.

Decides whose fault a death is: the image's, which then fails alone, or nobody's, and then the job is given to
another worker, once. Knows nothing of HTTP, tickets or devices.
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
from service.decoding.processes import (
    START_SECONDS,
    Nursery,
    NurseryFailed,
    Worker,
    WorkerLost,
    describe_status,
    was_ended_by,
)
from service.decoding.wire import Answer, Job
from service.decoding.worker import WorkerLimits
from service.errors import Unavailable
from service.watch.telemetry import Telemetry

logger = logging.getLogger(__name__)
TRIES = 2  # of a job whose worker died through no fault of the image
WALL_FACTOR = 3.0  # real seconds an image may take for one of the processor: the machine may be busy
LOOK_SECONDS = 1.0  # how often idle workers are looked after
LOOP_SECONDS = 30.0  # so many deaths within it that no image caused are a crash loop …
LOOP_DEATHS = 5  # … for each worker
RETIRE_JOBS = 5000  # what a codec may leak stays bounded


@dataclass(frozen=True, slots=True)
class CrewSize:
    workers: int
    limits: WorkerLimits


class Crew:
    """`run` may be called by as many threads as there are workers; one thread of its own looks after them."""

    def __init__(self, size: CrewSize, *, environment: Mapping[str, str], telemetry: Telemetry) -> None:
        self._size, self._environment, self._telemetry = size, dict(environment), telemetry
        self._wall_seconds = WALL_FACTOR * size.limits.cpu_seconds
        self._nursery: Nursery | None = None
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._alive: frozenset[Worker] = frozenset()  # replaced whole, so that anyone may read it
        self._alive_lock = threading.Lock()
        self._deaths: deque[tuple[float, str]] = deque(maxlen=LOOP_DEATHS * size.workers)
        self._failure: str | None = "the decoding processes are starting"
        self._begun = threading.Event()  # the first worker is there, or cannot be had
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="decoders", daemon=True)
        telemetry.watch("decoders", "Processes that decode images just now", lambda: len(self._alive))

    def start(self) -> None:
        """Returns at once: they come up meanwhile."""
        self._keeper.start()

    def stop(self) -> None:
        """End all, also those that are busy."""
        self._stopping.set()
        self._wake.set()
        if nursery := self._nursery:
            nursery.stop()
        if self._keeper.is_alive():
            self._keeper.join()
        while (worker := self._pop_idle()) is not None:
            worker.close()

    def wait_until_ready(self) -> None:
        """Block until one worker is there. Raises Unavailable where the first cannot be had."""
        self._begun.wait(START_SECONDS)
        if trouble := self.trouble():
            raise Unavailable(trouble)

    def trouble(self) -> str | None:
        """Why images cannot be decoded just now, or None."""
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
                problem = self._blame(lost, self._bury(worker))
            except BaseException:  # nobody knows what it will answer next
                self._bury(worker)
                raise
            else:
                self._give_back(worker, spent=answer.spent)
                return answer
            if problem is not None:
                raise problem
        raise Unavailable("decoders die before they begin: send this again", retry_after_seconds=1)

    def _take(self) -> Worker:
        until = time.monotonic() + self._wall_seconds
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            try:
                worker = self._idle.get(timeout=min(left, LOOK_SECONDS))
            except queue.Empty:
                continue
            if worker.is_there():
                return worker
            self._died_idle(worker)
        raise Unavailable(self.trouble() or "no decoder is free: send this again", retry_after_seconds=1)

    def _give_back(self, worker: Worker, *, spent: bool) -> None:
        if spent or worker.jobs >= RETIRE_JOBS:
            self._bury(worker)
            self._telemetry.decoder_ended("retired")
        else:
            self._idle.put(worker)

    def _blame(self, lost: WorkerLost, status: int | None) -> TwinlensError | None:
        """The error of the image a worker was lost over; None: it was not the image."""
        seconds = self._size.limits.cpu_seconds
        if self._stopping.is_set():
            return Unavailable("the service is shutting down", code="shutting_down", retry_after_seconds=1)
        if lost.stalled:
            self._ended("stalled", f"a decoder did not answer within {self._wall_seconds:g} s")
            return Unavailable(
                f"decoding did not come back within {self._wall_seconds:g} s: send this again",
                retry_after_seconds=1,
            )
        if not lost.taken or status is None:
            self._note_death(describe_status(status))
            return None
        if was_ended_by(signal.SIGPROF, status):
            self._ended("too_slow", f"an image took more than {seconds:g} s to decode")
            return UndecodableImage(
                f"the image takes more than {seconds:g} s of computing to decode: send a smaller copy"
            )
        if was_ended_by(signal.SIGKILL, status):  # which no codec does to itself
            self._ended("killed", "a decoder was killed with an image in hand: is the machine out of memory?")
            return Unavailable(
                "the decoder was killed, as when the machine runs out of memory: send this again",
                retry_after_seconds=1,
            )
        words = describe_status(status)
        self._ended("crashed", f"the decoder crashed on an image: {words}; {lost}")
        return UndecodableImage(f"the image cannot be decoded: the decoder crashed on it ({words})")

    def _ended(self, cause: str, words: str) -> None:
        logger.warning("%s", words)
        self._telemetry.decoder_ended(cause)

    def _died_idle(self, worker: Worker) -> None:
        self._note_death(describe_status(self._bury(worker)))

    def _note_death(self, words: str) -> None:
        if self._stopping.is_set():
            return
        self._deaths.append((time.monotonic(), words))
        self._ended("idle", f"a decoder died with no image in hand: {words}")

    def _bury(self, worker: Worker) -> int | None:
        worker.close()
        status = nursery.end(worker) if (nursery := self._nursery) else None
        with self._alive_lock:
            self._alive -= {worker}
        self._wake.set()
        return status

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._look_after_the_idle()
                self._hire()
            except NurseryFailed as error:
                self._fail(error)
            except Exception:  # without this thread no dead decoder would ever be replaced
                logger.exception("looking after the decoders met an error")
            self._wake.wait(LOOK_SECONDS)

    def _look_after_the_idle(self) -> None:
        seen = []
        while (worker := self._pop_idle()) is not None:
            seen.append(worker)
        for worker in seen:
            if worker.is_there():
                self._idle.put(worker)
            else:
                self._died_idle(worker)

    def _pop_idle(self) -> Worker | None:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        return None

    def _hire(self) -> None:
        while len(self._alive) < self._size.workers and not self._stopping.is_set():
            worker = self._a_nursery().fork(wall_seconds=self._wall_seconds)
            with self._alive_lock:
                self._alive |= {worker}
            self._failure = None
            self._begun.set()
            self._telemetry.decoder_started()
            self._idle.put(worker)

    def _a_nursery(self) -> Nursery:
        if self._nursery is None:
            self._nursery = Nursery(self._size.limits, environment=self._environment)
            if self._stopping.is_set():  # `stop` may not have seen it
                self._nursery.stop()
        return self._nursery

    def _fail(self, error: NurseryFailed) -> None:
        if self._stopping.is_set():
            return
        if self._failure != str(error):  # else it is tried again every second, and is no news
            logger.error("%s", error)
        self._failure = str(error)
        self._begun.set()
        if self._nursery is not None and error.gone:
            self._nursery.stop()
            self._nursery = None
