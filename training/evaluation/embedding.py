"""A set of pairs through an encoder, clean and under conditions: embedded in batches, cached on disk.

Memory is the vectors plus a window of decoded images. Broken images are named and left out together with their
captions.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import TextEmbeddings
from encoders.images import Pixels, Preprocessing
from encoders.query_bank import QueryBank
from encoders.short_queries import ShortQueries
from training.data.pairs import CaptionedImage, ImageSource, MissingImage, PairSet
from training.errors import EvaluationError, UnreadableImage
from training.evaluation.decoding import DECODERS, decoded_pixels, in_threads
from training.evaluation.ranks import Floats, Ints
from training.evaluation.vector_cache import NoCache, VectorCache, cache_key
from training.shift.condition import Condition
from training.shift.conditions import captions_under, changes_text

CAPTIONS_PER_CHUNK = 1024
CORRUPTIONS_VERSION = 1
"""Part of the cache's keys: to be raised with any change of what a corruption or a seed does."""

Item = TypeVar("Item")
DIGESTS_PER_STEP = 256
InputSize: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""
OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage ("flickr8k test: images", "flickr8k test, blur 3: images"), how many are done, and how
many there are; first with those that the cache already had, before any work."""


class Embedder(Protocol):
    """What evaluation needs of `encoders.Encoder`."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> object: ...
    @property
    def query_bank(self) -> QueryBank | None: ...
    @property
    def short_queries(self) -> ShortQueries | None: ...

    def encode_pixels(self, pixels: Pixels) -> Floats: ...
    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings: ...


@dataclass(frozen=True, eq=False)
class EmbeddedPairs:
    """image_vectors (n, dim) and caption_vectors (m, dim) unit rows; caption_image (m,) rows of images.

    `image_ids` (n) and `captions` (m) are those that were embedded; `cut` (m,) tells whose end was not read.
    """

    image_vectors: Floats
    caption_vectors: Floats
    caption_image: Ints
    cut: NDArray[np.bool_]
    image_ids: tuple[str, ...]
    captions: tuple[str, ...]
    broken: tuple[MissingImage, ...]

    def captions_by_image(self) -> list[list[str]]:
        """The captions of each image, in the order of the images."""
        by_image: list[list[str]] = [[] for _ in self.image_ids]
        for image, caption in zip(self.caption_image.tolist(), self.captions, strict=True):
            by_image[image].append(caption)
        return by_image


def silent(stage: str, done: int, total: int) -> None:
    """An `OnProgress` that says nothing."""


def embed_pairs(
    encoder: Embedder,
    pairs: PairSet,
    *,
    batch: int = 32,
    cache: Path | None = None,
    on_progress: OnProgress = silent,
) -> EmbeddedPairs:
    """Embed all images that decode, and their captions; see `Embedding` for `cache` and errors."""
    return Embedding(encoder, pairs, batch=batch, cache=cache, on_progress=on_progress).clean


class Embedding:
    """One set through one encoder. What a condition leaves alone is embedded once.

    `cache` is a folder: an image of the same bytes, or the same text, through the same bundle, precision and
    kind of device under the same condition is read from it. `sized`: the encoder at other input sizes.
    All methods raise EvaluationError when no image decodes or a vector is not finite.
    """

    def __init__(
        self,
        encoder: Embedder,
        pairs: PairSet,
        *,
        batch: int = 32,
        cache: Path | None = None,
        sized: Mapping[InputSize, Embedder] | None = None,
        on_progress: OnProgress = silent,
    ) -> None:
        self._encoder, self._pairs, self._batch = encoder, pairs, batch
        self._cache, self._sized, self._on_progress = cache, sized or {}, on_progress

    @cached_property
    def images(self) -> tuple[Floats, list[MissingImage]]:
        """The vectors (n, dim) of the images that decode, in order, and the rest; no caption is embedded."""
        return self._embed_images(self._pairs.images, condition=None)

    @cached_property
    def clean(self) -> EmbeddedPairs:
        """The set as it is."""
        vectors, broken = self.images
        bad = {each.image_id for each in broken}
        kept = [image for image in self._pairs.images if image.image_id not in bad]
        if not kept:
            first = broken[0]
            raise EvaluationError(
                f"{self._pairs.spec}: none of its {len(broken)} images decodes; "
                f"{first.image_id}: {first.reason}"
            )
        captions = tuple(caption for image in kept for caption in image.captions)
        caption_vectors, cut = self._embed_captions(captions, condition=None)
        return EmbeddedPairs(
            image_vectors=vectors,
            caption_vectors=caption_vectors,
            caption_image=np.repeat(np.arange(len(kept)), [len(image.captions) for image in kept]),
            cut=cut,
            image_ids=tuple(image.image_id for image in kept),
            captions=captions,
            broken=tuple(broken),
        )

    def under(self, condition: Condition) -> EmbeddedPairs:
        """The images that decode and their captions, one or the other changed."""
        clean = self.clean
        kept_ids = set(clean.image_ids)
        kept = [image for image in self._pairs.images if image.image_id in kept_ids]
        images, texts, cut, captions = clean.image_vectors, clean.caption_vectors, clean.cut, clean.captions
        if changes_text(condition):
            captions = tuple(
                caption
                for image in kept
                for caption in captions_under(condition, image.captions, image_id=image.image_id)
            )
            texts, cut = self._embed_captions(captions, condition=condition)
        else:
            images, broken = self._embed_images(kept, condition=condition)
            if broken:
                raise EvaluationError(
                    f"{self._pairs.spec}: {broken[0].image_id} decoded at first and no longer does: "
                    f"{broken[0].reason}"
                )
        return EmbeddedPairs(images, texts, clean.caption_image, cut, clean.image_ids, captions, clean.broken)

    def _embed_images(
        self, images: Sequence[CaptionedImage], *, condition: Condition | None
    ) -> tuple[Floats, list[MissingImage]]:
        """(the vectors of those that decode, in order; the rest)."""
        encoder = self._encoder_for(condition)
        vectors = np.empty((len(images), encoder.dim), dtype=np.float32)
        broken: dict[int, MissingImage] = {}
        with self._store() as store:
            keys = self._image_keys(images, condition)
            known = store.get(keys)
            for row, key in enumerate(keys):
                if key in known:
                    vectors[row] = known[key][0]
            missing = [row for row, key in enumerate(keys) if key not in known]
            stage = f"{self._stage(condition)}: images"
            self._on_progress(stage, len(images) - len(missing), len(images))
            for rows, batch, failed in self._decoded_batches(images, missing, condition=condition):
                if rows:
                    vectors[rows] = self._finite(encoder.encode_pixels(batch), of=stage)
                    store.put([keys[row] for row in rows], vectors[rows], flags=[False] * len(rows))
                broken |= failed
                missing = missing[len(rows) + len(failed) :]
                self._on_progress(stage, len(images) - len(missing), len(images))
        return np.delete(vectors, list(broken), axis=0), list(broken.values())

    def _decoded_batches(
        self, images: Sequence[CaptionedImage], rows: Sequence[int], *, condition: Condition | None
    ) -> Iterator[tuple[list[int], Pixels, dict[int, MissingImage]]]:
        """(rows that decode, their pixels, the others of this batch)."""
        spec = self._encoder_for(condition).preprocessing
        wanted = [images[row] for row in rows]
        decoded = decoded_pixels(wanted, spec, condition=condition, window=2 * self._batch)
        for chunk in _batches(zip(rows, decoded, strict=True), self._batch):
            good = {row: each for row, each in chunk if not isinstance(each, MissingImage)}
            failed = {row: each for row, each in chunk if isinstance(each, MissingImage)}
            pixels = (
                np.stack(list(good.values())) if good else np.empty((0, spec.height, spec.width, 3), np.uint8)
            )
            yield list(good), pixels, failed

    def _embed_captions(
        self, captions: Sequence[str], *, condition: Condition | None
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """(vectors, whether each was cut)."""
        vectors = np.empty((len(captions), self._encoder.dim), dtype=np.float32)
        cut = np.empty(len(captions), dtype=np.bool_)
        stage = f"{self._stage(condition)}: captions"
        with self._store() as store:
            self._on_progress(stage, 0, len(captions))
            for start in range(0, len(captions), CAPTIONS_PER_CHUNK):
                chunk = captions[start : start + CAPTIONS_PER_CHUNK]
                rows = slice(start, start + len(chunk))
                vectors[rows], cut[rows] = self._embed_chunk(chunk, store, of=stage)
                self._on_progress(stage, rows.stop, len(captions))
        return vectors, cut

    def _embed_chunk(
        self, captions: Sequence[str], store: NoCache, *, of: str
    ) -> tuple[Floats, NDArray[np.bool_]]:
        keys = [cache_key("text", caption) for caption in captions]
        known = store.get(keys)
        missing = [row for row, key in enumerate(keys) if key not in known]
        if missing:
            embedded = self._encoder.encode_texts([captions[row] for row in missing])
            made, fresh = [keys[row] for row in missing], self._finite(embedded.vectors, of=of)
            store.put(made, fresh, flags=embedded.truncated.tolist())
            known |= {
                key: (vector, bool(cut))
                for key, vector, cut in zip(made, fresh, embedded.truncated, strict=True)
            }
        vectors = np.stack([known[key][0] for key in keys])
        return vectors, np.array([known[key][1] for key in keys], dtype=np.bool_)

    def _encoder_for(self, condition: Condition | None) -> Embedder:
        if condition is None or condition.input_size is None:
            return self._encoder
        return self._sized[condition.input_size]

    def _image_keys(self, images: Sequence[CaptionedImage], condition: Condition | None) -> list[bytes]:
        """Over all that changes a vector beside the cache's own file: bytes, and condition with its seed."""
        if self._cache is None:
            return [row.to_bytes(8, "big") for row in range(len(images))]
        if condition is None:
            return [cache_key("image", self._digests[image.image_id]) for image in images]
        return [
            cache_key(
                "image", self._digests[image.image_id], CORRUPTIONS_VERSION, condition,
                image.image_id if condition.corruption else "",
            )
            for image in images
        ]  # fmt: skip

    @cached_property
    def _digests(self) -> dict[str, bytes]:
        """SHA-256 of every image's bytes, by image id; read once, whatever the number of conditions."""
        images, stage = self._pairs.images, f"{self._pairs.name}: digests"
        digests = {}
        contents = in_threads(_content_digest, (image.source for image in images), window=4 * DECODERS)
        for done, (image, digest) in enumerate(zip(images, contents, strict=True), 1):
            digests[image.image_id] = digest
            if done % DIGESTS_PER_STEP == 0:
                self._on_progress(stage, done, len(images))
        return digests

    def _store(self) -> NoCache:
        if self._cache is None:
            return NoCache()
        encoder = self._encoder
        kind = str(encoder.device).partition(":")[0]
        name = f"features-{encoder.fingerprint}-{encoder.precision}-{kind}.sqlite"
        return VectorCache(self._cache / name, dim=encoder.dim)

    def _stage(self, condition: Condition | None) -> str:
        return self._pairs.name if condition is None else f"{self._pairs.name}, {condition}"

    def _finite(self, vectors: Floats, *, of: str) -> Floats:
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise EvaluationError(
                f"{of}: {self._encoder.name} gives {len(bad)} of {len(vectors)} a vector that is not finite: "
                "its training diverged, or it overflows in this precision (try fp32)"
            )
        return vectors


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _content_digest(source: ImageSource) -> bytes:
    try:
        return hashlib.sha256(source.read()).digest()
    except UnreadableImage:
        return secrets.token_bytes(32)  # should it be readable in a moment, its vector is nobody else's
