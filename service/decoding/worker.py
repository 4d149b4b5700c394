"""`python -m service.decoding.worker`: the fork_server, which forks the processes that decode images.

It imports what decoding needs once, and never touches an image itself, so a new worker is a fork away
(milliseconds, where a fresh interpreter takes half a second) and starts clean. A worker has one descriptor that
matters, its end of a socket pair, and can open none; limits on memory and time hold in the kernel. All end when
the service does, however it ends.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import io
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import AvifImagePlugin, Image

from encoders.errors import ImageTooLarge, TwinlensError
from encoders.images import Preprocessing
from service.decoding.images import ImageLimits, decode_pixels, decode_whole_image
from service.decoding.protocol import Answer, Job, PeerLost, receive_job, send_answer
from service.errors import EncodingFailed

COMMAND = struct.Struct("!ci")  # FORK or END, and of which process
REPLY = struct.Struct("!i")  # a process id with its socket, or -errno; or a status as waitpid gives it
FORK, END = b"F", b"E"
READY = 0  # the first reply, unasked; or the errno of what keeps decoders from being the first to go

NICENESS = 1  # the event loop and the encoder go first; more would keep the encoder waiting for images
OOM_SCORE = 1000
"""When memory runs out, a decoder is the process to lose. The kernel ends the process with the most points: the
memory it holds, and the score in thousandths of all there is. With 1000 no other can have more, however large;
with 500 a service of more than half of its container went first."""
RETIRE_BYTES = 256 << 20  # what a codec has once taken, the allocator mostly keeps; a new worker starts small
_BLOCK_BYTES = 4 << 20
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Of one worker: all memory it may map, processor seconds an image may take, and what it weighs more."""

    memory_bytes: int
    cpu_seconds: float
    ballast_bytes: int = 0


def main() -> None:
    descriptor, memory_bytes, cpu_seconds, ballast_bytes = sys.argv[1:]
    control = socket.socket(fileno=int(descriptor))
    limits = WorkerLimits(int(memory_bytes), float(cpu_seconds), int(ballast_bytes))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent to all of a group; the service finishes what it has first
    os.nice(NICENESS)
    ready = _raise_oom_score()
    _load_codecs()
    if limits.ballast_bytes:
        with contextlib.suppress(OSError, AttributeError):  # a system without memfd
            _ballast_block()
    gc.freeze()  # a worker's collections then leave the pages that all share as they are
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the service is gone: all end
        control.sendall(REPLY.pack(ready))
        _run_commands(control, limits)


def _raise_oom_score() -> int:
    """Be what the kernel ends first when memory runs out, and with it what is forked from here.

    Returns READY, or the errno of what kept it from that: a /proc that may not be written, for example.
    """
    if sys.platform != "linux":
        return READY
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), "ascii")
    except OSError as error:
        return error.errno or errno.EIO
    return READY


def _load_codecs() -> None:
    """Pillow imports its parts when an image first needs them; a worker could not open their files."""
    for name in ("ImageCms", "ImageColor", "ImageFile", "ImageFilter", "ImagePalette", "MpoImagePlugin"):
        with contextlib.suppress(ImportError):  # a Pillow built without it
            importlib.import_module(f"PIL.{name}")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker is one core's, and may start no thread
    blank = Image.new("RGB", (8, 8))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"):
        with contextlib.suppress(OSError, KeyError):  # a Pillow built without it
            buffer = io.BytesIO()
            blank.save(buffer, kind)
            decode_whole_image(buffer.getvalue(), Preprocessing(height=8, width=8), limits=ImageLimits(64, 1))


def _run_commands(control: socket.socket, limits: WorkerLimits) -> None:
    """Fork and bury at the service's word; when that side closes, all end."""
    alive: set[int] = set()
    while len(command := control.recv(COMMAND.size, socket.MSG_WAITALL)) == COMMAND.size:
        action, number = COMMAND.unpack(command)
        if action == FORK:
            _fork(control, limits, alive)
        else:
            control.sendall(REPLY.pack(_end(number) if number in alive else 0))
            alive.discard(number)
    for number in alive:
        _end(number)


def _fork(control: socket.socket, limits: WorkerLimits, alive: set[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fork_server = os.getpid()
        try:
            number = os.fork()
        except OSError as error:
            control.sendall(REPLY.pack(-(error.errno or 1)))
            return
        if number == 0:
            _become_worker(theirs, limits, fork_server=fork_server, others=(control, ours))
        alive.add(number)
        socket.send_fds(control, [REPLY.pack(number)], [ours.fileno()])


def _end(number: int) -> int:
    """The status of a child, which is killed first where it still runs: its number is not free until then."""
    os.kill(number, signal.SIGKILL)
    return os.waitpid(number, 0)[1]


def _become_worker(
    jobs: socket.socket, limits: WorkerLimits, *, fork_server: int, others: tuple[socket.socket, ...]
) -> NoReturn:
    try:
        for other in others:
            other.close()
        os.dup2(0, 2)  # the null device: what a codec says of a hostile file belongs in no log
        _take_ballast(limits.ballast_bytes)
        _restrict(limits)
        if os.getppid() == fork_server:  # else it died before its death could be a signal to us
            _serve(jobs, limits)
    except (PeerLost, OSError):
        pass  # the service is gone
    finally:
        os._exit(0)


def _take_ballast(size_bytes: int) -> None:
    """Hold so many bytes as the kernel counts them: one small block, mapped again and again.

    In a container, pages of files that were first read outside of it count for the service, and not towards
    the limit that OOM_SCORE is a share of: those of PyTorch alone are half a gigabyte. With as much on this
    side the score decides. It costs the page tables, 2 MB a gigabyte, and 50 ms.
    """
    if sys.platform != "linux" or not size_bytes:
        return
    libc = ctypes.CDLL(None)
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    with contextlib.suppress(OSError):  # a sandbox without memfd
        block = _ballast_block()
        for _ in range(size_bytes // _BLOCK_BYTES):
            libc.mmap(None, _BLOCK_BYTES, mmap.PROT_READ, mmap.MAP_SHARED | mmap.MAP_POPULATE, block, 0)
        os.close(block)  # what is mapped stays


@cache
def _ballast_block() -> int:
    """A descriptor. The fork_server makes it before it forks, so that all workers share its memory."""
    block = os.memfd_create("ballast")
    os.ftruncate(block, _BLOCK_BYTES)
    return block


def _restrict(limits: WorkerLimits) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, limit in (
        (resource.RLIMIT_AS, limits.memory_bytes + limits.ballast_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),  # what is open stays so; nothing else can be, files and sockets alike
    ):
        with contextlib.suppress(OSError, ValueError):  # a system that does not know it
            resource.setrlimit(kind, (limit, limit))


def _serve(jobs: socket.socket, limits: WorkerLimits) -> None:
    while True:
        try:
            job = receive_job(jobs)
        except MemoryError:  # the rest of it is still to come, and would not be understood
            send_answer(jobs, replace(_too_much_memory(limits), retire=True))
            return
        # The kernel's clock, not Python's: SIGPROF ends the process inside whatever library it is in.
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        answer = _perform(job, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send_answer(jobs, replace(answer, retire=_peak_bytes() > RETIRE_BYTES + limits.ballast_bytes))


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _perform(job: Job, limits: WorkerLimits) -> Answer:
    try:
        return _decoded(job)
    except MemoryError:
        return _too_much_memory(limits)
    except TwinlensError as error:
        return Answer(error=error)
    except Exception as error:  # noqa: BLE001 - a hostile file costs its own item, whatever it makes Pillow do
        return Answer(error=EncodingFailed(f"the image could not be decoded: {error!r}"))


def _too_much_memory(limits: WorkerLimits) -> Answer:
    return Answer(
        error=ImageTooLarge(
            f"the image takes more than the {limits.memory_bytes >> 20} MiB of memory that it may: "
            "send a smaller or simpler copy"
        )
    )


def _decoded(job: Job) -> Answer:
    if job.kind == "pixels":
        pixels = decode_pixels(job.source, job.preprocessing, limits=job.limits)
        return Answer(np.ascontiguousarray(pixels).data.cast("B"), shape=pixels.shape)
    found = decode_whole_image(job.source, job.preprocessing, limits=job.limits)
    size = found.width_pixels, found.height_pixels
    return Answer(found.pixels.tobytes() + found.thumbnail, None, found.pixels.shape, size, found.digest)


if __name__ == "__main__":
    main()
