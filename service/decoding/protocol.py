"""What passes between the service and its decoding processes: a header in JSON, then raw bytes.

Nothing is ever unpickled: a process that a hostile image has taken over can only send wrong pixels, or what
does not parse.
"""

import json
import math
import socket
import struct
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from encoders.errors import ImageTooLarge, TwinlensError, UndecodableImage
from encoders.images import Preprocessing
from service.decoding.images import ImageLimits, ImageSource, pieces_of
from service.errors import EncodingFailed, InvalidField

TAKEN = b"\x01"
"""Sent as soon as a job's first bytes are in: whoever dies after it died of the job."""
FRAME = struct.Struct("!II")  # bytes of JSON, bytes of payload
MAX_JSON_BYTES = 65_536
_ERRORS: dict[str, type[TwinlensError]] = {
    kind.__name__: kind for kind in (UndecodableImage, ImageTooLarge, InvalidField, EncodingFailed)
}

Kind = Literal["pixels", "image"]


class PeerLost(Exception):
    """The other side is gone, or sends what is no message. `received`: bytes of what was waited for."""

    def __init__(self, message: str, *, received: int = 1) -> None:
        super().__init__(message)
        self.received = received


@dataclass(frozen=True, slots=True)
class Job:
    """One image to decode; `source` as the caller sent it, ASCII where it is text."""

    kind: Kind
    source: ImageSource
    preprocessing: Preprocessing
    limits: ImageLimits


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a job: `error`, or pixels (with the rest of an image, where that was asked for)."""

    payload: bytes | bytearray | memoryview = b""
    error: TwinlensError | None = None
    shape: tuple[int, int, int] | None = None
    size_pixels: tuple[int, int] | None = None  # (width, height) of the whole image
    digest: bytes = b""
    retire: bool = False  # the worker should be replaced


def send_job(peer: socket.socket, job: Job) -> None:
    is_text = isinstance(job.source, str)
    pieces = pieces_of(job.source) if isinstance(job.source, str) else iter((job.source,))
    head = _job_head(job.kind, job.limits, job.preprocessing, is_text=is_text)
    _send(peer, head, next(pieces, b""), payload_bytes=len(job.source))
    for piece in pieces:
        peer.sendall(piece)


def receive_job(peer: socket.socket) -> Job:
    """The next job, once it is there. Raises PeerLost when there will be none."""
    lengths = _receive(peer, FRAME.size)
    peer.sendall(TAKEN)
    head, payload = _receive_parts(peer, lengths)
    kind, limits, preprocessing, is_text = _parse_job_head(bytes(head))
    source = str(payload, "ascii") if is_text else bytes(payload)
    return Job(kind, source, preprocessing, limits)


@lru_cache(maxsize=8)  # all jobs of an encoder have the same few heads
def _job_head(kind: Kind, limits: ImageLimits, preprocessing: Preprocessing, *, is_text: bool) -> bytes:
    spec = preprocessing.model_dump(mode="json")
    return json.dumps({"kind": kind, "text": is_text, "limits": asdict(limits), "spec": spec}).encode()


@lru_cache(maxsize=8)
def _parse_job_head(head: bytes) -> tuple[Kind, ImageLimits, Preprocessing, bool]:
    parts = json.loads(head)
    return parts["kind"], ImageLimits(**parts["limits"]), Preprocessing(**parts["spec"]), parts["text"]


def send_answer(peer: socket.socket, answer: Answer) -> None:
    head: dict[str, Any] = {"shape": answer.shape, "size": answer.size_pixels, "digest": answer.digest.hex()}
    if answer.error is not None:
        words = str(answer.error)[: MAX_JSON_BYTES // 8]
        code = getattr(answer.error, "code", None)
        head = {"error": type(answer.error).__name__, "message": words, "code": code}
    head["retire"] = answer.retire
    _send(peer, json.dumps(head).encode(), answer.payload, payload_bytes=len(answer.payload))


def receive_answer(peer: socket.socket, *, until: float, max_payload_bytes: int) -> Answer:
    """The answer by `until` (time.monotonic() seconds). Raises PeerLost for whatever is none; BlockingIOError.

    Where nothing was received, the job had not been taken.
    """
    opening = _receive(peer, len(TAKEN) + FRAME.size, until=until)
    lengths = opening[len(TAKEN) :]
    head, payload = _receive_parts(peer, lengths, until=until, max_payload_bytes=max_payload_bytes)
    try:
        return _parse_answer(json.loads(str(head, "utf-8")), payload)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise PeerLost(f"an answer that is none: {error!r}") from error


def _parse_answer(head: dict[str, Any], payload: memoryview) -> Answer:
    retire = bool(head["retire"])
    if "error" in head:
        return Answer(error=_error(head["error"], str(head["message"]), head["code"]), retire=retire)
    height, width, channels = map(int, head["shape"])
    size = head["size"] and (int(head["size"][0]), int(head["size"][1]))
    return Answer(payload, None, (height, width, channels), size, bytes.fromhex(head["digest"]), retire)


def _error(name: str, message: str, code: str | None) -> TwinlensError:
    kind = _ERRORS[name]
    return InvalidField(message, code=code) if kind is InvalidField else kind(message)


def _send(
    peer: socket.socket, head: bytes, payload: bytes | bytearray | memoryview, *, payload_bytes: int
) -> None:
    """`payload` may be the first of several pieces, which have `payload_bytes` together."""
    opening = FRAME.pack(len(head), payload_bytes) + head
    sent = peer.sendmsg([opening, payload])  # mostly all of it, in one call into the kernel
    if sent < len(opening):
        peer.sendall(opening[sent:])
    if sent < len(opening) + len(payload):
        peer.sendall(memoryview(payload)[max(0, sent - len(opening)) :])


def _receive_parts(
    peer: socket.socket, lengths: bytearray, *, until: float = math.inf, max_payload_bytes: float = math.inf
) -> tuple[memoryview, memoryview]:
    """Head and payload."""
    head_bytes, payload_bytes = FRAME.unpack(lengths)
    if head_bytes > MAX_JSON_BYTES or payload_bytes > max_payload_bytes:
        raise PeerLost(f"a message of {head_bytes} and {payload_bytes} bytes")
    parts = memoryview(_receive(peer, head_bytes + payload_bytes, until=until))
    return parts[:head_bytes], parts[head_bytes:]


def _receive(peer: socket.socket, length: int, *, until: float = math.inf) -> bytearray:
    """Read so many bytes. Raises PeerLost at their end, BlockingIOError where the socket has a time limit."""
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        # MSG_WAITALL: one call into the kernel, and so one wait for the interpreter's lock, for all of it
        try:
            count = peer.recv_into(view[done:], length - done, socket.MSG_WAITALL)
        except ConnectionResetError:
            count = 0
        if count == 0:
            raise PeerLost(f"the end after {done} of {length} bytes", received=done)
        done += count
        if done < length and time.monotonic() > until:
            raise BlockingIOError(f"{done} of {length} bytes are in, and the time is over")
    return data
