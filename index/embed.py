"""Gallery items to vectors: decode on a pool of threads, encode on this one, in order, in bounded memory.

A bad item becomes a `Failure` and takes no other with it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import ImageTooLarge, UndecodableImage
from encoders.images import DEFAULT_MAX_PIXELS, Pixels, Preprocessing, decode_image, to_pixels
from index.cache import EmbeddingCache, SeenImage, SeenText
from index.errors import ImageMissing
from index.gallery import Failure, GalleryItem
from index.image_files import digest_of
from index.thumbnails import make_thumbnail

BATCHES_AHEAD = 3  # how far reading and decoding may run ahead of the encoder


@dataclass(frozen=True, slots=True)
class EmbeddedItem:
    """An item with what the encoder made of its image; `reused` when it came from the cache."""

    item: GalleryItem
    seen: SeenImage
    reused: bool


@dataclass(frozen=True, slots=True)
class _Decoded:
    item: GalleryItem
    digest: bytes
    width_pixels: int
    height_pixels: int
    pixels: Pixels
    thumbnail: bytes


_Prepared = _Decoded | EmbeddedItem | Failure


@dataclass(frozen=True)
class Embedder:
    """Embeds with one encoder, which the calling thread owns."""

    encoder: Encoder
    cache: EmbeddingCache
    root: Path
    decode_threads: int
    max_pixels: int = DEFAULT_MAX_PIXELS
    live_images: Path | None = None

    def embed_images(self, entries: Iterable[GalleryItem | Failure]) -> Iterator[EmbeddedItem | Failure]:
        """One result for each entry, in order; at most `BATCHES_AHEAD` batches of entries are held."""
        size = self.encoder.max_batch
        with ThreadPoolExecutor(self.decode_threads, thread_name_prefix="decode") as pool:
            source = iter(entries)
            waiting: deque[Future[_Prepared]] = deque()
            try:
                while True:
                    missing = BATCHES_AHEAD * size - len(waiting)
                    waiting.extend(pool.submit(self._prepare, entry) for entry in islice(source, missing))
                    if not waiting:
                        return
                    yield from self._finish(
                        [waiting.popleft().result() for _ in range(min(size, len(waiting)))]
                    )
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def embed_texts(self, texts: Sequence[str]) -> list[SeenText]:
        """Vectors of the texts, in order; those not seen before in one call of the encoder.

        What the encoder makes of a text may be not finite; that is given back, and not remembered.
        """
        digests = [digest_of(text.encode()) for text in texts]
        known = {digest: seen for digest in digests if (seen := self.cache.text(digest)) is not None}
        fresh = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        if fresh:
            made = self.encoder.encode_texts(list(fresh.values()))
            cut = made.truncated
            added = [SeenText(digest, bool(cut[row]), made.vectors[row]) for row, digest in enumerate(fresh)]
            self.cache.add_texts([seen for seen in added if np.isfinite(seen.vector).all()])
            known.update((seen.digest, seen) for seen in added)
        return [known[digest] for digest in digests]

    def _prepare(self, entry: GalleryItem | Failure) -> _Prepared:
        if isinstance(entry, Failure):
            return entry
        try:
            data = entry.source.read(self.root, live=self.live_images)
            digest = digest_of(data)
            seen = self.cache.image(digest)
            if seen is not None:
                return self._reused(entry, seen)
            return _decode(entry, data, digest, self.encoder.preprocessing, max_pixels=self.max_pixels)
        except ImageMissing as error:
            return Failure(entry.id, error.code, str(error))
        except ImageTooLarge as error:
            return Failure(entry.id, "image_too_large", str(error))
        except UndecodableImage as error:
            return Failure(entry.id, "undecodable_image", str(error))
        except Exception as error:  # noqa: BLE001 - whatever one image sets off must not end the job
            return Failure(entry.id, "unexpected", f"{type(error).__name__}: {error}")

    def _reused(self, item: GalleryItem, seen: SeenImage) -> EmbeddedItem:
        if seen.width_pixels * seen.height_pixels > self.max_pixels:
            size = f"{seen.width_pixels}×{seen.height_pixels}"
            raise ImageTooLarge(
                f"image of {size} pixels is over the cap of {self.max_pixels}"
            )  # as when decoding
        return EmbeddedItem(item, seen, reused=True)

    def _finish(self, batch: list[_Prepared]) -> list[EmbeddedItem | Failure]:
        decoded = [entry for entry in batch if isinstance(entry, _Decoded)]
        finished = dict(zip(map(id, decoded), self._encode(decoded), strict=True))
        return [finished[id(entry)] if isinstance(entry, _Decoded) else entry for entry in batch]

    def _encode(self, decoded: list[_Decoded]) -> list[EmbeddedItem | Failure]:
        if not decoded:
            return []
        vectors = self.encoder.encode_pixels(np.stack([entry.pixels for entry in decoded]))
        results = [_embedded(entry, vector) for entry, vector in zip(decoded, vectors, strict=True)]
        self.cache.add_images([result.seen for result in results if isinstance(result, EmbeddedItem)])
        return results


def _decode(
    item: GalleryItem, data: bytes, digest: bytes, preprocessing: Preprocessing, *, max_pixels: int
) -> _Decoded:
    image = decode_image(data, max_pixels=max_pixels)
    pixels = to_pixels(image, preprocessing)
    return _Decoded(item, digest, image.width, image.height, pixels, make_thumbnail(image))


def _embedded(entry: _Decoded, vector: np.ndarray) -> EmbeddedItem | Failure:
    if not np.isfinite(vector).all():
        return Failure(entry.item.id, "not_finite", "the encoder's vector for it is not finite")
    seen = SeenImage(entry.digest, entry.width_pixels, entry.height_pixels, vector, entry.thumbnail)
    return EmbeddedItem(entry.item, seen, reused=False)
