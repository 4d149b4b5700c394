"""Changes of a gallery: an upsert or a delete of one item, what is committed together, and a change's row."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import CorruptJournal

Row = tuple[int, str, bytes | None, bytes | None, bytes | None, int]
"""sequence, id, digest, fields (JSON), vectors, checksum; the three in the middle are NULL for a delete."""
_NOTHING = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Upsert:
    """An item that was added, or that replaces one of the same id.

    `vector` (dim,) is its image's, `text_vectors` (texts, dim) its texts', all of the encoder `fingerprint`.
    `digest`: SHA-256 of the image's file; None where there is no image, only a vector.
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

    def without_vectors(self) -> "Upsert":
        """As it is kept in memory by who needs no vectors."""
        return replace(self, vector=_NOTHING, text_vectors=_NOTHING)


@dataclass(frozen=True, slots=True)
class Delete:
    """An item that is gone, and stays so in every rebuild until its id is put again."""

    id: str
    sequence: int = 0

    def without_vectors(self) -> "Delete":
        return self


Change = Upsert | Delete


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image's file as it was sent, and its thumbnail (WebP)."""

    data: bytes
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What tells a request that must be carried out once from others.

    `name`: SHA-256 of who sent it and the key that it bears; `content`: SHA-256 of what it asks for.
    """

    name: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes that are made together or not at all; `images` has those that its upserts name, by digest.

    With a `key` they are made once, and what `answer` makes of the changes with their numbers is kept.
    """

    changes: Sequence[Change]
    images: Mapping[bytes, NewImage] = field(default_factory=dict)
    key: RequestKey | None = None
    answer: Callable[[Sequence[Change]], bytes] = lambda _: b""

    @property
    def only_deletes(self) -> bool:
        return all(isinstance(change, Delete) for change in self.changes)


@dataclass(frozen=True, slots=True)
class Committed:
    """The changes of a set with their numbers, and the answer that is kept where it has a key.

    `replayed`: the request was carried out before, so that there are no changes and the answer is the earlier
    one.
    """

    changes: Sequence[Change]
    answer: bytes | None = None
    replayed: bool = False


def describe_change(change: Change) -> dict[str, Any]:
    """As JSON has it."""
    if not isinstance(change, Upsert):
        return {"sequence": change.sequence, "change": "delete", "id": change.id}
    return {
        "sequence": change.sequence,
        "change": "put",
        "id": change.id,
        "image": change.digest and change.digest.hex(),
        "model_fingerprint": change.fingerprint,
        "texts": change.texts,
        "payload": change.payload,
    }


def to_row(change: Change) -> Row:
    if isinstance(change, Delete):
        return (
            change.sequence,
            change.id,
            None,
            None,
            None,
            _checksum(change.sequence, change.id, b"", b"", b""),
        )
    fields = {
        "payload": change.payload,
        "texts": change.texts,
        "fingerprint": change.fingerprint,
        "dim": len(change.vector),
        "size": [change.width_pixels, change.height_pixels],
    }
    head = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    vectors = b"".join(np.asarray(row, dtype="<f4").tobytes() for row in (change.vector, *change.text_vectors))
    checksum = _checksum(change.sequence, change.id, change.digest or b"", head, vectors)
    return change.sequence, change.id, change.digest, head, vectors, checksum


def from_row(row: Sequence[Any]) -> Change:
    """Raises CorruptJournal for a row that `to_row` did not make."""
    try:
        sequence, item_id, digest, head, vectors, checksum = row
        if _checksum(sequence, item_id, digest or b"", head or b"", vectors or b"") != checksum:
            raise CorruptJournal(f"change {sequence} is damaged: its checksum does not fit")
        if head is None:
            return Delete(item_id, sequence)
        return _upsert(sequence, item_id, digest, json.loads(head), vectors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptJournal(f"change {row[0]!r} cannot be read: {error!r}") from error


def _upsert(
    sequence: int, item_id: str, digest: bytes | None, fields: Mapping[str, Any], vectors: bytes
) -> Upsert:
    rows = np.frombuffer(vectors, dtype="<f4").reshape(-1, fields["dim"])
    if len(rows) != 1 + len(fields["texts"]):
        raise ValueError(f"{len(rows)} vectors for an image and {len(fields['texts'])} texts")
    return Upsert(
        id=item_id,
        payload=fields["payload"],
        vector=rows[0],
        fingerprint=fields["fingerprint"],
        texts=tuple(fields["texts"]),
        text_vectors=rows[1:],
        digest=digest,
        width_pixels=fields["size"][0],
        height_pixels=fields["size"][1],
        sequence=sequence,
    )


def _checksum(sequence: int, item_id: str, *parts: bytes) -> int:
    return checksum_of(b"%d" % sequence, item_id.encode(), *parts)


def checksum_of(*parts: bytes) -> int:
    """CRC-32 over the parts and their lengths."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, zlib.crc32(b"%d:" % len(part), value))
    return value
