"""What passes between the service and its decoding processes: a header in JSON, then raw bytes.

Nothing is ever unpickled: a process that a hostile picture has taken over can only send wrong pixels, or
what does not parse. Knows neither processes nor what a job does.
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
from service.decoding import ImageLimits, ImageSource
from service.errors import EncodingFailed, InvalidField

TAKEN = b"\x01"
"""Sent as soon as a job's first bytes are in: whoever dies after it died of the job."""
FRAME = struct.Struct("!II")  # bytes of JSON, bytes of payload
MAX_JSON_BYTES = 65_536
_ERRORS: dict[str, type[TwinlensError]] = {
    kind.__name__: kind for kind in (UndecodableImage, ImageTooLarge, InvalidField, EncodingFailed)
}

Kind = Literal["pixels", "picture"]


class Lost(Exception):
    """The other side is gone, or sends what is no message. `received`: bytes of what was waited for."""

    def __init__(self, message: str, *, received: int = 1) -> None:
        super().__init__(message)
        self.received = received


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to decode; `source` as the caller sent it."""

    kind: Kind
    source: ImageSource
    preprocessing: Preprocessing
    limits: ImageLimits


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a job: `error`, or pixels (with the rest of a picture, where that was asked for)."""

    payload: bytes | bytearray | memoryview = b""
    error: TwinlensError | None = None
    shape: tuple[int, int, int] | None = None
    size_pixels: tuple[int, int] | None = None  # (width, height) of the whole picture
    digest: bytes = b""
    spent: bool = False  # the worker should be replaced


def send_job(peer: socket.socket, job: Job) -> None:
    is_text = isinstance(job.source, str)
    payload = job.source.encode("utf-8", "surrogatepass") if isinstance(job.source, str) else job.source
    header = {"kind": job.kind, "text": is_text, "limits": asdict(job.limits)}
    head = json.dumps(header).encode()[:-1] + b', "preprocessing": ' + _as_json(job.preprocessing) + b"}"
    _send(peer, head, payload)


def receive_job(peer: socket.socket) -> Job:
    """The next job, once it is there. Raises Lost when there will be none."""
    lengths = _receive(peer, FRAME.size)
    peer.sendall(TAKEN)
    head, payload = _receive_parts(peer, lengths)
    limits = ImageLimits(**head["limits"])
    source = payload.decode("utf-8", "surrogatepass") if head["text"] else bytes(payload)
    return Job(head["kind"], source, _preprocessing(json.dumps(head["preprocessing"])), limits)


def send_answer(peer: socket.socket, answer: Answer) -> None:
    head: dict[str, Any] = {"shape": answer.shape, "size": answer.size_pixels, "digest": answer.digest.hex()}
    if answer.error is not None:
        words = str(answer.error)[: MAX_JSON_BYTES // 8]
        code = getattr(answer.error, "code", None)
        head = {"error": type(answer.error).__name__, "message": words, "code": code}
    head["spent"] = answer.spent
    _send(peer, json.dumps(head).encode(), answer.payload)


def receive_answer(peer: socket.socket, *, until: float, max_payload_bytes: int) -> Answer:
    """The answer by `until` (time.monotonic() seconds). Raises Lost for whatever is none; BlockingIOError.

    Where nothing was received, the job had not been taken.
    """
    opening = _receive(peer, len(TAKEN) + FRAME.size, until=until)
    head, payload = _receive_parts(
        peer, opening[len(TAKEN) :], until=until, max_payload_bytes=max_payload_bytes
    )
    try:
        spent = bool(head["spent"])
        if "error" in head:
            return Answer(error=_error(head["error"], str(head["message"]), head["code"]), spent=spent)
        height, width, channels = map(int, head["shape"])
        size = head["size"] and (int(head["size"][0]), int(head["size"][1]))
        return Answer(payload, None, (height, width, channels), size, bytes.fromhex(head["digest"]), spent)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Lost(f"an answer that is none: {error!r}") from error


def _error(name: str, message: str, code: str | None) -> TwinlensError:
    kind = _ERRORS[name]
    return InvalidField(message, code=code) if kind is InvalidField else kind(message)


@lru_cache(maxsize=8)
def _as_json(preprocessing: Preprocessing) -> bytes:
    return preprocessing.model_dump_json().encode()


@lru_cache(maxsize=8)
def _preprocessing(text: str) -> Preprocessing:
    return Preprocessing.model_validate_json(text)


def _send(peer: socket.socket, head: bytes, payload: bytes | bytearray | memoryview) -> None:
    peer.sendall(FRAME.pack(len(head), len(payload)) + head)
    if payload:
        peer.sendall(payload)


def _receive_parts(
    peer: socket.socket, lengths: bytearray, *, until: float = math.inf, max_payload_bytes: float = math.inf
) -> tuple[dict[str, Any], bytearray]:
    json_bytes, payload_bytes = FRAME.unpack(lengths)
    if json_bytes > MAX_JSON_BYTES or payload_bytes > max_payload_bytes:
        raise Lost(f"a message of {json_bytes} and {payload_bytes} bytes")
    try:
        head = json.loads(_receive(peer, json_bytes, until=until))
    except (ValueError, RecursionError) as error:
        raise Lost(f"a message that is not JSON: {error}") from error
    if not isinstance(head, dict):
        raise Lost(f"a message that is a {type(head).__name__}")
    return head, _receive(peer, payload_bytes, until=until)


def _receive(peer: socket.socket, length: int, *, until: float = math.inf) -> bytearray:
    """Exactly so many bytes. Raises Lost at their end, BlockingIOError where the socket has a time limit."""
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        # MSG_WAITALL: one call into the kernel, and so one wait for the interpreter's lock, for all of it
        try:
            count = peer.recv_into(view[done:], length - done, socket.MSG_WAITALL)
        except ConnectionResetError:
            count = 0
        if count == 0:
            raise Lost(f"the end after {done} of {length} bytes", received=done)
        done += count
        if done < length and time.monotonic() > until:
            raise BlockingIOError(f"{done} of {length} bytes are in, and the time is over")
    return data
