"""A stronger bundle whose similarities a run learns to mimic: its rows of images and captions, kept.

The teacher sees plain images and whole captions, whatever the student is shown, in its own space and size.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from training.augmentation.augment import NO_AUGMENTATION
from training.fit.step.cutmix import Box, followers
from training.fit.step.mixture import Draw, Mixture, caption_id
from training.fit.views.activations import KEY_BYTES, ActivationStore
from training.fit.views.views import TrainingImage, ViewSettings

BATCH = 32
CAPTIONS_AT_ONCE = 512

Item = TypeVar("Item")
OnBatch = Callable[[int], None]


class Teacher:
    """Rows are kept under `cache`, by the fingerprint of the bundle; the encoder is open only to compute."""

    def __init__(self, bundle: Bundle, *, cache: Path, device: torch.device, threads: int) -> None:
        self._bundle, self._device, self._threads = bundle, device, threads
        kind = "" if device.type == "cpu" else f"-{device.type}"
        dim = bundle.config.towers.embed_dim
        folder = cache / f"teacher-{bundle.fingerprint[:32]}{kind}"
        self._images, self._texts = (ActivationStore(folder / name, [dim]) for name in ("images", "texts"))

    def missing(self, mixture: Mixture) -> tuple[list[TrainingImage], list[str]]:
        """The images and the captions that are not kept yet, without repeats."""
        examples = [example for some in mixture.examples for example in some]
        images = {_image_key(example.image): example.image for example in examples}
        captions = {_text_key(caption_id(text)): text for example in examples for text in example.captions}
        return (
            [image for key, image in images.items() if key not in self._images],
            [text for key, text in captions.items() if key not in self._texts],
        )

    def compute(self, mixture: Mixture, *, on_batch: OnBatch) -> None:
        """Compute and keep what is missing. Raises UnreadableImage, BundleError."""
        with self._images.writing(), self._texts.writing():
            images, captions = self.missing(mixture)
            if not images and not captions:
                return
            encoder = Encoder.load(self._bundle, device=str(self._device), max_batch=BATCH)
            settings = ViewSettings(encoder.preprocessing, NO_AUGMENTATION, 0)
            with ThreadPoolExecutor(self._threads) as pool:
                for some in _parts(images, BATCH):
                    pixels = np.stack([*pool.map(lambda image: settings.pixels(image, 0), some)])
                    rows = encoder.encode_pixels(pixels).astype(np.float16)
                    self._images.append([_image_key(image) for image in some], rows)
                    on_batch(len(some))
            for texts in _parts(sorted(captions, key=len), CAPTIONS_AT_ONCE):
                vectors = encoder.encode_texts(texts).vectors.astype(np.float16)
                self._texts.append([_text_key(caption_id(text)) for text in texts], vectors)
                on_batch(len(texts))

    def rows(
        self, draws: Sequence[Draw], box: Box | None, *, part_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, e) unit rows of the images and of the captions of a batch that is read `part_size` at a time.

        An image that shows a box of another is taken for the mean of the two, by the share of the box.
        """
        images = self._read_images(draws)
        if box is not None:
            images = (1 - box.share) * images + box.share * self._read_images(followers(draws, part_size))
        texts = self._texts.read([_text_key(draw.caption_id) for draw in draws])
        return self._unit(images), self._unit(texts)

    def _read_images(self, draws: Sequence[Draw]) -> NDArray[np.float32]:
        kept = self._images.read([_image_key(draw.example.image) for draw in draws])
        return kept.astype(np.float32)

    def _unit(self, rows: NDArray[np.floating]) -> torch.Tensor:
        tensor = torch.from_numpy(rows.astype(np.float32)).to(self._device)
        return torch.nn.functional.normalize(tensor, dim=1)


def _image_key(image: TrainingImage) -> bytes:
    return image.digest[:KEY_BYTES]


def _text_key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big", signed=True)


def _parts(items: Sequence[Item], size: int) -> Iterable[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
