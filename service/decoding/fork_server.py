"""The service's handles on its fork_server and on the workers that it forks.

Knows how to start them, talk to them and end them; not how many there should be, nor whose fault a death is.
"""

import contextlib
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from service.decoding.protocol import Answer, Job, PeerLost, receive_answer, send_job
from service.decoding.worker import COMMAND, END, FORK, READY, REPLY, WorkerLimits

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60.0  # of the fork_server, which imports NumPy and Pillow from what may be a cold disk
END_SECONDS = 5.0
SLACK_BYTES = 1 << 20  # of an answer beside its pixels: a thumbnail of 256 px


class ForkServerFailed(Exception):
    """No worker can be had. `gone`: nor will this fork_server fork another."""

    def __init__(self, message: str, *, gone: bool) -> None:
        super().__init__(message)
        self.gone = gone


class WorkerLost(Exception):
    """A worker gave no answer. `taken`: it had begun with the job; `stalled`: it may still be there."""

    def __init__(self, message: str, *, taken: bool, stalled: bool = False) -> None:
        super().__init__(message)
        self.taken, self.stalled = taken, stalled


class Worker:
    """One forked process; used by one thread at a time."""

    def __init__(
        self, process_id: int, peer: socket.socket, *, fork_server_id: int, wall_seconds: float
    ) -> None:
        self.process_id, self.fork_server_id = process_id, fork_server_id
        self.jobs = 0
        self._peer, self._wall_seconds = peer, wall_seconds
        limit = struct.pack("ll", int(wall_seconds), int(wall_seconds % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # waits in the kernel; no poll before each call
            peer.setsockopt(socket.SOL_SOCKET, option, limit)

    def is_alive(self) -> bool:
        """Between jobs: a worker that speaks unasked is as good as dead."""
        try:
            self._peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def ask(self, job: Job) -> Answer:
        """What it makes of the job. Raises WorkerLost."""
        self.jobs += 1
        until = time.monotonic() + self._wall_seconds
        bound = job.preprocessing.height * job.preprocessing.width * 3 + SLACK_BYTES
        try:
            self._send(job)
            return receive_answer(self._peer, until=until, max_payload_bytes=bound)
        except BlockingIOError as error:
            raise WorkerLost("it does not answer", taken=True, stalled=True) from error
        except PeerLost as error:
            raise WorkerLost(str(error), taken=error.received > 0) from error
        except OSError as error:
            raise WorkerLost(str(error), taken=False) from error

    def _send(self, job: Job) -> None:
        # It may have died of the first bytes: what it said before is still there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send_job(self._peer, job)

    def close(self) -> None:
        self._peer.close()


class ForkServer:
    """The process that forks workers; its calls may come from any thread."""

    def __init__(self, limits: WorkerLimits, *, environment: Mapping[str, str]) -> None:
        """Start it; it comes up while other things do. Raises ForkServerFailed."""
        try:
            self._control, theirs = socket.socketpair()
        except OSError as error:
            raise ForkServerFailed(f"the decoding processes cannot be reached: {error}", gone=True) from error
        self._control.settimeout(START_SECONDS)
        self._turn = threading.Lock()
        self._ready = False
        numbers = (theirs.fileno(), limits.memory_bytes, limits.cpu_seconds, limits.ballast_bytes)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and numbers
                [sys.executable, "-m", "service.decoding.worker", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for the service to answer
            )
        except OSError as error:
            self._control.close()
            raise ForkServerFailed(f"the decoding processes cannot be started: {error}", gone=True) from error
        finally:
            theirs.close()
        self.process_id = self._process.pid

    def fork(self, *, wall_seconds: float) -> Worker:
        """A new worker. Raises ForkServerFailed."""
        with self._turn:
            try:
                if not self._ready:
                    _warn_unless_raised(self._reply())
                    self._ready = True
                self._control.sendall(COMMAND.pack(FORK, 0))
                data, descriptors, _, _ = socket.recv_fds(self._control, REPLY.size, 1)
                number = _number_in(data)
            except OSError as error:
                raise ForkServerFailed(
                    f"the process that forks decoders is gone: {error}", gone=True
                ) from error
        if number < 0:
            raise ForkServerFailed(f"no decoder can be forked: {os.strerror(-number)}", gone=False)
        if len(descriptors) != 1:
            raise ForkServerFailed("a decoder came without its socket: are too many files open?", gone=True)
        os.set_inheritable(descriptors[0], False)
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptors[0])
        return Worker(number, peer, fork_server_id=self.process_id, wall_seconds=wall_seconds)

    def end(self, worker: Worker) -> int | None:
        """Its status as waitpid gives it; killed first where it runs. None: nobody can tell."""
        if worker.fork_server_id != self.process_id:
            return None  # its fork_server died before, and it with that
        with self._turn:
            try:
                self._control.sendall(COMMAND.pack(END, worker.process_id))
                return self._reply()
            except OSError:
                self._hang_up()  # a reply that comes late must not be taken for the next one
                return None

    def stop(self) -> None:
        """End it and all its workers, also those that are busy."""
        self._hang_up()
        self._control.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hang_up(self) -> None:
        """It ends, with all its workers; whoever waits for it waits no more."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def _reply(self) -> int:
        return _number_in(self._control.recv(REPLY.size, socket.MSG_WAITALL))


def _warn_unless_raised(status: int) -> None:
    """`status`: the first reply of a fork_server."""
    if status != READY:
        logger.warning(
            "when memory runs out, the kernel may end the service before its decoders: their oom_score_adj "
            "cannot be set (%s); let /proc/self be written, or give the service more memory",
            os.strerror(status),
        )


def _number_in(reply: bytes) -> int:
    if len(reply) < REPLY.size:
        raise ConnectionResetError("it has ended")
    return int(REPLY.unpack(reply)[0])


def describe_status(status: int | None) -> str:
    """`killed by SIGSEGV`, `exit status 1`; for a person."""
    if status is None:
        return "gone"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"killed by {name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def was_ended_by(number: signal.Signals, status: int | None) -> bool:
    return status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == number
