"""Views of images as the trained part of a tower sees them: decoded, augmented, through the frozen stem.

View 0 is the plain image, every other view one fixed draw of the augmentation. What a stem makes of a view
never changes while the stem is frozen, so it is computed once and kept (`activations`), keyed by the digests of
image and settings: runs that share stem, augmentation and seed share the work.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from encoders.choices import Precision
from encoders.encoder import normaliser
from encoders.errors import ImageError
from encoders.images import Pixels, Preprocessing, decode_image, to_pixels
from training.augmentation.augment import Augmentation, augmented_pixels
from training.data.pairs import ImageSource
from training.errors import UnreadableImage
from training.fit.towers.stems import channels_first, channels_last
from training.fit.views.activations import KEY_BYTES, Activations, ActivationStore

BATCH = 32


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """Where an image's bytes are, their digest, and whether a mirrored view fits its captions."""

    source: ImageSource
    digest: bytes
    flippable: bool


@dataclass(frozen=True)
class ViewSettings:
    """What a view depends on besides the image; `seed` draws the augmentation."""

    preprocessing: Preprocessing
    augmentation: Augmentation
    seed: int

    def pixels(self, seen: TrainingImage, view: int) -> Pixels:
        """uint8 (height, width, 3). Raises UnreadableImage or ImageError."""
        try:
            image = decode_image(seen.source.read())
        except ImageError as error:
            raise UnreadableImage(f"{seen.source.path} decoded before and no longer does: {error}") from error
        if view == 0:
            return to_pixels(image, self.preprocessing)
        return augmented_pixels(
            image,
            self.preprocessing,
            augmentation=self.augmentation,
            rng=np.random.default_rng([self.seed, view, int.from_bytes(seen.digest[:8], "big")]),
            flippable=seen.flippable,
        )


Wanted = Sequence[tuple[TrainingImage, int]]
"""(image, view) for each row of a batch."""


class LiveViews:
    """Normalised pixels of views, decoded afresh for each batch, the next batch's while this one runs.

    A batch may be read in parts and more than once; its pixels (uint8) are kept until the next `turn`.
    """

    def __init__(self, settings: ViewSettings, *, device: torch.device, threads: int) -> None:
        self._settings = settings
        self._device = device
        self._normalise = normaliser(settings.preprocessing, device)
        self._pool = ThreadPoolExecutor(threads)
        self._current: dict[tuple[bytes, int], Future[Pixels]] = {}
        self._next: dict[tuple[bytes, int], Future[Pixels]] = {}

    def turn(self, following: Wanted = ()) -> None:
        """Go on to the next batch, and begin to decode the one that follows it."""
        self._current, self._next = self._next, {}
        for image, view in following:
            self._next[image.digest, view] = self._decode(image, view)

    def read(self, wanted: Wanted) -> torch.Tensor:
        """(n, 3, h, w) float32 on the device. Raises UnreadableImage or ImageError."""
        for image, view in wanted:
            if (image.digest, view) not in self._current:
                self._current[image.digest, view] = self._decode(image, view)
        pixels = np.stack([self._current[image.digest, view].result() for image, view in wanted])
        return self._normalise(torch.from_numpy(pixels).to(self._device))

    def _decode(self, image: TrainingImage, view: int) -> Future[Pixels]:
        return self._pool.submit(self._settings.pixels, image, view)


class StemViews:
    """Activations of views behind a frozen stem, computed on demand and kept under `cache`."""

    def __init__(self, stem: nn.Module, settings: ViewSettings, *, cache: Path, precision: Precision) -> None:
        self._settings = settings
        self._stem = stem.eval().requires_grad_(False)
        self._device = next(stem.parameters()).device
        self._precision = precision
        self._normalise = normaliser(settings.preprocessing, self._device)
        height, width = settings.preprocessing.height, settings.preprocessing.width
        shape = self._run(np.zeros((1, height, width, 3), dtype=np.uint8)).shape[1:]
        self._store = ActivationStore(cache / self._identity(), shape)

    def missing(self, wanted: Wanted) -> list[tuple[TrainingImage, int]]:
        """Those (image, view) that are not kept yet, without repeats."""
        absent: dict[bytes, tuple[TrainingImage, int]] = {}
        for image, view in wanted:
            if (key := view_key(image, view)) not in self._store:
                absent.setdefault(key, (image, view))
        return list(absent.values())

    def compute(self, wanted: Wanted, *, threads: int, on_batch: Callable[[int], None]) -> None:
        """Compute and keep what is missing; `on_batch` hears how many views each step added."""
        with self._store.writing(), ThreadPoolExecutor(threads) as pool:
            todo = self.missing(wanted)
            for batch, pixels in _prefetched(todo, pool, lambda job: self._settings.pixels(*job)):
                records = self._run(np.stack(pixels))
                self._store.append([view_key(*job) for job in batch], records)
                on_batch(len(batch))

    def turn(self, following: Wanted = ()) -> None:
        """Nothing to do: what is kept is read where it lies."""

    def read(self, wanted: Wanted) -> torch.Tensor:
        """(n, …) float32 activations, channels first, on the stem's device."""
        records = self._store.read([view_key(image, view) for image, view in wanted])
        return channels_first(torch.from_numpy(records).to(self._device).float())

    def _run(self, pixels: Pixels) -> Activations:
        low = self._precision == "bf16"
        with torch.inference_mode(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=low):
            output = self._stem(self._normalise(torch.from_numpy(pixels).to(self._device)))
        records: Activations = channels_last(output).half().cpu().numpy()
        return records

    def _identity(self) -> str:
        """Digest of all that an activation depends on besides the image and the view's number."""
        state = {name: tensor.contiguous() for name, tensor in self._stem.state_dict().items()}
        settings = {
            "preprocessing": self._settings.preprocessing.model_dump(mode="json"),
            "augmentation": self._settings.augmentation.model_dump(mode="json"),
            "seed": self._settings.seed,
            "precision": self._precision,
        }
        digest = hashlib.sha256(save({f"{index}": tensor for index, tensor in enumerate(state.values())}))
        if self._device.type != "cpu":
            settings["device"] = self._device.type
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return digest.hexdigest()[:32]


def view_key(image: TrainingImage, view: int) -> bytes:
    """16 bytes that name (image, view); whether it may be mirrored matters to augmented views only."""
    flippable = image.flippable and view > 0
    return hashlib.sha256(image.digest + bytes([flippable]) + view.to_bytes(4, "big")).digest()[:KEY_BYTES]


def image_digest(source: ImageSource) -> bytes:
    """SHA-256 of the file's bytes, once they were seen to decode. Raises UnreadableImage, ImageError."""
    data = source.read()
    decode_image(data)
    return hashlib.sha256(data).digest()


def _prefetched(
    todo: Sequence[tuple[TrainingImage, int]],
    pool: ThreadPoolExecutor,
    decode: Callable[[tuple[TrainingImage, int]], Pixels],
) -> Iterator[tuple[Sequence[tuple[TrainingImage, int]], list[Pixels]]]:
    """Batches with their pixels; the next batch decodes while this one runs."""
    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
    ahead = [pool.submit(decode, job) for job in batches[0]] if batches else []
    for index, batch in enumerate(batches):
        current = ahead
        following = batches[index + 1] if index + 1 < len(batches) else []
        ahead = [pool.submit(decode, job) for job in following]
        yield batch, [future.result() for future in current]
