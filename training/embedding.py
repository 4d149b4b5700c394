"""A set of pairs through an encoder: decoded by a few threads, embedded in batches, cached on disk.

Memory is the vectors plus a window of decoded pictures. Broken images are named and left out together with
their captions. It does NOT know metrics, nor how an encoder works.
"""

import hashlib
import json
import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import TextEmbeddings
from encoders.errors import ImageError
from encoders.images import Pixels, Preprocessing, decode_image, to_pixels
from training.errors import EvaluationError, UnreadableImage
from training.files import replacing
from training.pairs import CaptionedImage, ImageSource, MissingImage, PairSet
from training.ranks import Floats, Ints

CAPTIONS_PER_CHUNK = 1024
DECODERS = min(4, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")
OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage ("flickr8k test: images"), how many are done, and how many there are."""


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


@dataclass(frozen=True, eq=False)
class _Embeddings:
    """What is cached: `kept` are the rows of the set's images that could be decoded."""

    image_vectors: Floats
    caption_vectors: Floats
    cut: NDArray[np.bool_]
    kept: Ints
    broken: tuple[MissingImage, ...]


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
    """Embed all images that decode, and their captions.

    `cache` is a folder: a set of the same bytes and captions, through the same bundle, precision and kind of
    device, is read from it. Raises EvaluationError when no image decodes or a vector is not finite.
    """
    entry = None if cache is None else cache / f"{_cache_key(encoder, pairs)}.npz"
    embeddings = None if entry is None else _read_cache(entry)
    if embeddings is None:
        embeddings = _embed(encoder, pairs, batch=batch, on_progress=on_progress)
        if entry is not None:
            _write_cache(entry, embeddings)
    kept = [pairs.images[row] for row in embeddings.kept]
    return EmbeddedPairs(
        image_vectors=embeddings.image_vectors,
        caption_vectors=embeddings.caption_vectors,
        caption_image=np.repeat(np.arange(len(kept)), [len(image.captions) for image in kept]),
        cut=embeddings.cut,
        image_ids=tuple(image.image_id for image in kept),
        captions=tuple(caption for image in kept for caption in image.captions),
        broken=embeddings.broken,
    )


def _embed(encoder: Embedder, pairs: PairSet, *, batch: int, on_progress: OnProgress) -> _Embeddings:
    vectors = np.empty((len(pairs.images), encoder.dim), dtype=np.float32)
    kept: list[int] = []
    broken: list[MissingImage] = []
    decoded = _decoded(pairs.images, encoder.preprocessing, window=2 * batch)
    for chunk in _batches(enumerate(decoded), batch):
        good = [(row, pixels) for row, pixels in chunk if not isinstance(pixels, MissingImage)]
        broken += [pixels for _, pixels in chunk if isinstance(pixels, MissingImage)]
        if good:
            vectors[len(kept) : len(kept) + len(good)] = encoder.encode_pixels(np.stack([p for _, p in good]))
        kept += [row for row, _ in good]
        on_progress(f"{pairs.name}: images", len(kept) + len(broken), len(pairs.images))
    if not kept:
        first = broken[0]
        raise EvaluationError(
            f"{pairs.spec}: none of its {len(broken)} images decodes; {first.image_id}: {first.reason}"
        )
    image_vectors = _finite(vectors[: len(kept)], encoder, what=f"images of {pairs.name}")
    captions = [caption for row in kept for caption in pairs.images[row].captions]
    caption_vectors, cut = _embed_captions(
        encoder, captions, lambda done: on_progress(f"{pairs.name}: captions", done, len(captions))
    )
    _finite(caption_vectors, encoder, what=f"captions of {pairs.name}")
    return _Embeddings(image_vectors, caption_vectors, cut, np.array(kept, dtype=np.int64), tuple(broken))


def _embed_captions(
    encoder: Embedder, captions: Sequence[str], on_chunk: Callable[[int], None]
) -> tuple[Floats, NDArray[np.bool_]]:
    vectors = np.empty((len(captions), encoder.dim), dtype=np.float32)
    cut = np.empty(len(captions), dtype=np.bool_)
    for start in range(0, len(captions), CAPTIONS_PER_CHUNK):
        chunk = slice(start, min(start + CAPTIONS_PER_CHUNK, len(captions)))
        embedded = encoder.encode_texts(captions[chunk])
        vectors[chunk], cut[chunk] = embedded.vectors, embedded.truncated
        on_chunk(chunk.stop)
    return vectors, cut


def _decoded(
    images: Sequence[CaptionedImage], preprocessing: Preprocessing, *, window: int
) -> Iterator[Pixels | MissingImage]:
    """Pixels of each image in order, or why there are none; at most `window` are held at a time."""

    def decode(image: CaptionedImage) -> Pixels | MissingImage:
        try:
            return to_pixels(decode_image(image.source.read()), preprocessing)
        except (ImageError, UnreadableImage) as error:
            return MissingImage(image.image_id, str(error))

    return _in_threads(decode, images, window=window)


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item], *, window: int) -> Iterator[Result]:
    """`map` over `DECODERS` threads, in order, running at most `window` items ahead of the reader."""
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _finite(vectors: Floats, encoder: Embedder, *, what: str) -> Floats:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise EvaluationError(
            f"{encoder.name} gives {len(bad)} of {len(vectors)} {what} a vector that is not finite: "
            "its training diverged, or it overflows in this precision (try fp32)"
        )
    return vectors


def _cache_key(encoder: Embedder, pairs: PairSet) -> str:
    """Over all that changes a vector: bundle, precision, kind of device, ids, captions, the images' bytes."""
    kind = str(encoder.device).partition(":")[0]
    digest = hashlib.sha256(f"1 {encoder.fingerprint} {encoder.precision} {kind} {pairs.digest}".encode())
    for each in _in_threads(_content_digest, (image.source for image in pairs.images), window=4 * DECODERS):
        digest.update(each)
    return digest.hexdigest()


def _content_digest(source: ImageSource) -> bytes:
    try:
        return hashlib.sha256(source.read()).digest()
    except UnreadableImage:
        return bytes(32)


def _read_cache(entry: Path) -> _Embeddings | None:
    """What an earlier run kept; None where there is nothing, or only part of a file."""
    try:
        with entry.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _Embeddings(
                image_vectors=arrays["image_vectors"],
                caption_vectors=arrays["caption_vectors"],
                cut=arrays["cut"],
                kept=arrays["kept"],
                broken=tuple(MissingImage(*each) for each in json.loads(str(arrays["broken"]))),
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _write_cache(entry: Path, embeddings: _Embeddings) -> None:
    with replacing(entry) as file:
        np.savez(
            file,
            image_vectors=embeddings.image_vectors,
            caption_vectors=embeddings.caption_vectors,
            cut=embeddings.cut,
            kept=embeddings.kept,
            broken=json.dumps([[each.image_id, each.reason] for each in embeddings.broken]),
        )
