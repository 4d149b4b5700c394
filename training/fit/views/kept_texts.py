"""Captions as the trained part of a text tower sees them: through the frozen tower once, then kept.

Like `views` for images: while the tower below its head is frozen, what it makes of a caption never changes, so
epochs after the first cost the head alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from training.fit.views.activations import KEY_BYTES, ActivationStore

BATCH = 256

Features = Callable[[Sequence[str]], torch.Tensor]
"""Texts to (n, width) float features of the frozen tower, in their order."""


class KeptTexts:
    """Features of texts, kept under `cache`; `identity` names all that they depend on besides the text."""

    def __init__(self, features: Features, *, cache: Path, identity: str) -> None:
        self._features = features
        sample = features(["a"])
        self._device = sample.device
        self._store = ActivationStore(cache / f"texts-{identity}", sample.shape[1:])

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Those not kept yet, without repeats."""
        return [text for text in dict.fromkeys(texts) if _key(text) not in self._store]

    def compute(self, texts: Iterable[str], *, on_batch: Callable[[int], None]) -> None:
        """Compute and keep what is missing; `on_batch` hears how many each step added."""
        with self._store.writing():
            todo = sorted(self.missing(texts), key=len)
            for start in range(0, len(todo), BATCH):
                batch = todo[start : start + BATCH]
                self._store.append([_key(text) for text in batch], self._features(batch).half().cpu().numpy())
                on_batch(len(batch))

    def read(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, width) float32 on the tower's device. A text that was never computed raises KeyError."""
        records = self._store.read([_key(text) for text in texts])
        return torch.from_numpy(records).to(self._device).float()


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]
