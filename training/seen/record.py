"""The images that a bundle has seen, by perceptual hash and published photo id: a file in the bundle.

    seen.safetensors
        N.hashes   uint64 (n, 4): the 256-bit hash of every image of the Nth source (training.data.leakage)
        N.photos   uint64 (p,): of each published photo id the first eight bytes of its SHA-256
        metadata   "record": JSON, of each source its name, its set's digest, its role, how many images it has;
                   and from which bundles it comes of which nothing is known

A hash is 32 bytes: 256 signs of an image's coarsest frequencies, of which no face and no word can be read.
Sources of more than `MOST_IMAGES` images keep a sample. It changes no embedding.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from encoders.errors import CorruptBundle
from training.data.leakage import HASH_WORDS, Hashes, hashed_once, photo_id
from training.data.pairs import CaptionedImage, PairSet

if TYPE_CHECKING:  # it brings torch, which a command loads last
    from encoders.bundle import Bundle

SEEN = "seen.safetensors"
MOST_IMAGES = 200_000
"""Of one source: 6.4 MB. A sample of more tells as well whether a set is among them."""

Role = Literal["trained on", "chosen by"]
"""chosen by: validation sets, by which weights were chosen."""

Photos = NDArray[np.uint64]


class SourceRecord(BaseModel):
    """images: how many the source has; the record holds `kept` of their hashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    role: Role
    images: int = Field(ge=0)
    kept: int = Field(ge=0)


@dataclass(frozen=True, eq=False)
class SeenSource:
    record: SourceRecord
    hashes: Hashes
    photos: Photos


@dataclass(frozen=True, eq=False)
class Seen:
    """unknown: names of the bundles that it comes from whose own images nobody recorded."""

    sources: tuple[SeenSource, ...]
    unknown: tuple[str, ...] = ()

    def count(self, role: Role) -> int:
        return sum(source.record.images for source in self.sources if source.record.role == role)


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    sources: tuple[SourceRecord, ...]
    unknown: tuple[str, ...] = ()


def source_of(pairs: PairSet, *, role: Role = "trained on", name: str | None = None) -> SeenSource:
    """Hash a set's images, those that decode."""
    return _source(pairs.images, SourceRecord(
        name=name or pairs.name, digest=pairs.digest, role=role, images=len(pairs.images), kept=0
    ))  # fmt: skip


def merged(records: Iterable[Seen | None], *, unknown: Iterable[str] = ()) -> Seen:
    """All sources of all records, each once."""
    found, known = dict[tuple[str, str, str], SeenSource](), dict[str, None]()
    for record in filter(None, records):
        known.update(dict.fromkeys(record.unknown))
        for source in record.sources:
            found.setdefault((source.record.digest, source.record.name, source.record.role), source)
    known.update(dict.fromkeys(unknown))
    return Seen(tuple(found.values()), tuple(known))


def inherited(parents: Sequence["Bundle"], sources: Iterable[SeenSource] = ()) -> Seen:
    """What a bundle made from others has seen: all that they have, and `sources`. Raises CorruptBundle."""
    records = [read_seen(parent) for parent in parents]
    unknown = [parent.name for parent, record in zip(parents, records, strict=True) if record is None]
    return merged([*records, Seen(tuple(sources))], unknown=unknown)


def seen_file(seen: Seen) -> dict[str, bytes]:
    """By its name in a bundle; nothing where no source is known."""
    return {SEEN: seen_bytes(seen)} if seen.sources else {}


def store_seen(bundle: "Bundle", seen: Seen) -> "Bundle":
    """The same bundle with the record inside."""
    return bundle.with_file(SEEN, seen_bytes(seen))


def seen_bytes(seen: Seen) -> bytes:
    """The file's content."""
    header = _Header(sources=tuple(source.record for source in seen.sources), unknown=seen.unknown)
    tensors: dict[str, NDArray[Any]] = {}
    for at, source in enumerate(seen.sources):
        tensors[f"{at}.hashes"] = np.ascontiguousarray(source.hashes)
        tensors[f"{at}.photos"] = np.ascontiguousarray(source.photos)
    return save(tensors, metadata={"record": header.model_dump_json()})


def read_seen(bundle: "Bundle") -> Seen | None:
    """The record of a bundle; None where it carries none. Raises CorruptBundle."""
    if SEEN not in bundle.config.files:
        return None
    path = bundle.path / SEEN
    try:
        with safe_open(path, framework="numpy") as file:
            header = _Header.model_validate(json.loads((file.metadata() or {})["record"]))
        tensors = load(path.read_bytes())
        return Seen(tuple(_sources(header, tensors)), header.unknown)
    except (SafetensorError, OSError, KeyError, ValueError, ValidationError) as error:
        raise CorruptBundle(f"{path} is no readable record of seen images: {error!r}") from error


def photo_digests(image_ids: Iterable[str]) -> Photos:
    """(p,) sorted, of the names that datasets publish; others have none."""
    photos = {photo for image_id in image_ids if (photo := photo_id(image_id))}
    found = [int.from_bytes(hashlib.sha256(photo.encode()).digest()[:8], "big") for photo in photos]
    return np.array(sorted(found), dtype=np.uint64)


def _source(images: Sequence[CaptionedImage], record: SourceRecord) -> SeenSource:
    chosen = images
    if len(images) > MOST_IMAGES:
        rows = np.random.default_rng(0).choice(len(images), MOST_IMAGES, replace=False)
        chosen = [images[row] for row in np.sort(rows)]
    hashed = hashed_once(tuple(chosen))
    return SeenSource(
        record.model_copy(update={"kept": len(hashed.ids)}),
        hashed.upright,
        photo_digests(image.image_id for image in images),
    )


def _sources(header: _Header, tensors: dict[str, NDArray[Any]]) -> Iterator[SeenSource]:
    """Raises KeyError or ValueError where a tensor is missing or has another shape."""
    for at, record in enumerate(header.sources):
        hashes, photos = tensors[f"{at}.hashes"], tensors[f"{at}.photos"]
        if hashes.shape != (record.kept, HASH_WORDS) or hashes.dtype != np.uint64 or photos.ndim != 1:
            raise ValueError(f"{record.name}: hashes are {hashes.dtype} {hashes.shape}, photos {photos.shape}")
        yield SeenSource(record, hashes, photos)
