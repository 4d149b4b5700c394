"""What one change is, and its bytes: JSON, then the vectors as they are.

Knows neither files nor encoders. A vector is never read without the fingerprint of what made it.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import CorruptJournal

_LENGTHS = struct.Struct("<II")  # bytes of JSON, bytes of vectors


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """An item that was added, or that replaces one of the same id.

    `vector` (dim,) is its picture's, `text_vectors` (texts, dim) its texts', all of the encoder `fingerprint`.
    `digest`: SHA-256 of the picture's file; None where there is no picture, only a vector.
    """

    id: str
    payload: dict[str, Any]
    vector: NDArray[np.float32]
    fingerprint: str
    texts: tuple[str, ...] = ()
    text_vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    digest: bytes | None = None
    width_pixels: int = 0
    height_pixels: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """An item that is gone, and stays so in every rebuild until its id is put again."""

    id: str
    sequence: int = 0


Change = Put | Delete


def numbered(changes: Sequence[Change], first: int) -> list[Change]:
    """The changes with the sequence numbers that follow on from `first`."""
    return [replace(change, sequence=first + place) for place, change in enumerate(changes)]


def to_bytes(changes: Sequence[Change]) -> bytes:
    return b"".join(_record(change) for change in changes)


def from_bytes(body: bytes) -> Iterator[Change]:
    """Raises CorruptJournal for bytes that `to_bytes` did not write."""
    offset = 0
    try:
        while offset < len(body):
            json_bytes, vector_bytes = _LENGTHS.unpack_from(body, offset)
            start = offset + _LENGTHS.size
            offset = start + json_bytes + vector_bytes
            fields = json.loads(body[start : start + json_bytes])
            yield _change(fields, body[start + json_bytes : offset])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise CorruptJournal(
            f"a record that cannot be read: {error!r}; was it written by a newer version?"
        ) from error


def _record(change: Change) -> bytes:
    fields: dict[str, Any] = {"id": change.id, "sequence": change.sequence}
    vectors = b""
    if isinstance(change, Put):
        fields |= {
            "payload": change.payload,
            "texts": change.texts,
            "fingerprint": change.fingerprint,
            "dim": len(change.vector),
            "digest": change.digest and change.digest.hex(),
            "size": [change.width_pixels, change.height_pixels],
        }
        rows = (change.vector, *change.text_vectors)
        vectors = b"".join(np.asarray(row, dtype="<f4").tobytes() for row in rows)
    head = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(head), len(vectors)) + head + vectors


def _change(fields: dict[str, Any], vectors: bytes) -> Change:
    if "fingerprint" not in fields:
        return Delete(fields["id"], fields["sequence"])
    rows = np.frombuffer(vectors, dtype="<f4").reshape(-1, fields["dim"])
    if len(rows) != 1 + len(fields["texts"]):
        raise ValueError(f"{len(rows)} vectors for a picture and {len(fields['texts'])} texts")
    return Put(
        id=fields["id"],
        payload=fields["payload"],
        vector=rows[0],
        fingerprint=fields["fingerprint"],
        texts=tuple(fields["texts"]),
        text_vectors=rows[1:],
        digest=bytes.fromhex(fields["digest"]) if fields["digest"] else None,
        width_pixels=fields["size"][0],
        height_pixels=fields["size"][1],
        sequence=fields["sequence"],
    )
