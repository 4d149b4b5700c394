"""The Encoder: pictures or texts in, float32 unit rows out; device and precision chosen once.

It is not thread-safe: one thread owns it; `tokenize` alone may be called from any. It does not know files of
pictures, HTTP or indexes.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from encoders.adaptation import ADAPTATION, Adaptation, read_adaptation
from encoders.bundle import WEIGHTS, Bundle
from encoders.causal import shortened_text
from encoders.errors import CorruptBundle, DeviceUnavailable
from encoders.images import Pixels, Preprocessing, to_pixels
from encoders.modalities import Modality
from encoders.passes import passes
from encoders.query_bank import QueryBank, read_query_bank
from encoders.staging import PixelStage
from encoders.texts import TokenBatch, TokenRow, open_tokenizer, padded
from encoders.towers import build_towers, unit_rows
from encoders.weights import load_weights

Precision = Literal["fp32", "bf16"]

CPU_IMAGES_AT_ONCE = 4
"""On a CPU the activations of more images than fit its cache cost memory traffic and page faults, which take
more than a larger batch saves."""

PASS_PRICE_TOKENS = {"cpu": 32, "cuda": 2048}
"""What a pass of the text tower costs by itself, in tokens: LOG 2026-11-23. A GPU waits for its launches."""

Vectors = NDArray[np.float32]
"""(n, dim), rows of length 1."""


@dataclass(frozen=True)
class TextEmbeddings:
    """vectors: float32 (n, dim) unit rows; truncated: (n,) whether the text was cut to the context length."""

    vectors: Vectors
    truncated: NDArray[np.bool_]


class Encoder:
    """Both towers of one bundle, ready to embed.

    Every method takes any number of inputs and runs them in batches of at most `max_batch`, so memory stays
    bounded by the batch, not by the call.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: torch.nn.Module,
        *,
        device: torch.device,
        precision: Precision,
        max_batch: int,
    ) -> None:
        self.bundle = bundle
        self.name = bundle.name
        self.fingerprint = bundle.fingerprint
        self.dim = bundle.config.towers.embed_dim
        self.preprocessing: Preprocessing = bundle.config.preprocessing
        self.context_length = bundle.config.tokenizer.context_length
        self.device = device
        self.precision = precision
        self.max_batch = max_batch
        # Rows (h, w, 3) of a batch are a channels-last tensor as they lie: convolutions run fastest that way.
        self._model = model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._encode_image: Callable[[torch.Tensor], torch.Tensor] = cast("Any", self._model).encode_image
        self._encode_text: Callable[[torch.Tensor], torch.Tensor] = cast("Any", self._model).encode_text
        self._tokenizer = open_tokenizer(bundle.config.tokenizer, bundle.path)
        self._encode_shortened = self._shortened()
        self._image_batch = min(max_batch, CPU_IMAGES_AT_ONCE) if device.type == "cpu" else max_batch
        self._normalise = normaliser(self.preprocessing, device)
        self._adaptation = {modality: each.to(device) for modality, each in load_adaptation(bundle).items()}
        self.query_bank: QueryBank | None = read_query_bank(
            bundle.path, fingerprint=self.fingerprint, dim=self.dim
        )

    @classmethod
    def load(
        cls,
        bundle: Bundle | Path | str,
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        max_batch: int = 32,
    ) -> "Encoder":
        """Open a bundle's towers. device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".

        Raises BundleError, or DeviceUnavailable.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if max_batch < 1:
            raise ValueError(f"max_batch is {max_batch}: it must be at least 1")
        return cls(
            opened,
            load_towers(opened),
            device=choose_device(device),
            precision=check_precision(precision),
            max_batch=max_batch,
        )

    @property
    def model(self) -> torch.nn.Module:
        """The towers themselves, for those that change them; nothing of `adaptation` is in them."""
        return self._model

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """(n, dim) unit rows of RGB pictures (see `images.decode_image`) of any size."""
        rows = [
            self._embed_pixels(np.stack([to_pixels(image, self.preprocessing) for image in chunk]))
            for chunk in _chunks(images, self._image_batch)
        ]
        return _stacked(rows, self.dim)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """(n, dim) unit rows of uint8 (n, height, width, 3) pixels that `images.to_pixels` made."""
        expected = (self.preprocessing.height, self.preprocessing.width, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected:
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 (n, *{expected})")
        return _stacked([self._embed_pixels(chunk) for chunk in _chunks(pixels, self._image_batch)], self.dim)

    def stage_pixels(self, capacity: int) -> PixelStage:
        """Room for a batch that another thread may fill while this encoder is at work."""
        spec = self.preprocessing
        return PixelStage(capacity, height=spec.height, width=spec.width, device=self.device)

    def encode_staged(self, stage: PixelStage) -> Vectors:
        """(n, dim) unit rows of the pixels in a stage of this encoder's."""
        chunks = torch.split(stage.tensor(), self._image_batch) if len(stage) else ()
        return _stacked([self._embed_tensor(chunk) for chunk in chunks], self.dim)

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Token ids of any number of texts, cut to the context length."""
        return self._tokenizer(texts)

    def encode_tokens(self, tokens: TokenBatch) -> Vectors:
        """(n, dim) unit rows, in the order given; texts of like length share a pass: padding costs little."""
        vectors = np.empty((len(tokens), self.dim), dtype=np.float32)
        needs_context = self.bundle.config.tokenizer.pad_to == "context" and self._encode_shortened is None
        encode = self._encode_shortened or self._encode_text
        price = PASS_PRICE_TOKENS.get(self.device.type, PASS_PRICE_TOKENS["cuda"])
        lengths = np.full_like(tokens.lengths, tokens.ids.shape[1]) if needs_context else tokens.lengths
        for rows in passes(lengths, most_rows=self.max_batch, price_tokens=price):
            ids = torch.from_numpy(tokens.ids[rows][:, : max(1, int(lengths[rows[-1]]))])
            vectors[rows] = self._run(encode, ids.to(self.device), modality="texts")
        return vectors

    def encode_rows(self, rows: Sequence[TokenRow]) -> Vectors:
        """(n, dim) unit rows of texts that were tokenized apart from each other."""
        return self.encode_tokens(padded(rows, self.bundle.config.tokenizer))

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit rows of texts, and which of them were cut."""
        tokens = self.tokenize(texts)
        return TextEmbeddings(vectors=self.encode_tokens(tokens), truncated=tokens.truncated)

    def _shortened(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Where texts are padded to the context: the tower that does without, if that is exact."""
        if self.bundle.config.tokenizer.pad_to != "context":
            return None
        sample = self.tokenize(["a"])
        return shortened_text(self._model, torch.from_numpy(sample.ids), length=int(sample.lengths[0]))

    def _embed_pixels(self, pixels: Pixels) -> Vectors:
        return self._embed_tensor(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))

    def _embed_tensor(self, pixels: torch.Tensor) -> Vectors:
        return self._run(lambda chunk: self._encode_image(self._normalise(chunk)), pixels, modality="images")

    def _run(
        self, tower: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, *, modality: Modality
    ) -> Vectors:
        low = self.precision == "bf16"
        with torch.inference_mode():
            with _autocast(self.device) if low else contextlib.nullcontext():
                rows = unit_rows(tower(batch))
            if adapt := self._adaptation.get(modality):
                rows = adapt(rows)
            vectors: Vectors = rows.cpu().numpy()
        return vectors


def load_towers(bundle: Bundle) -> torch.nn.Module:
    """The towers of a bundle with its weights, on the CPU in float32. Raises CorruptBundle."""
    model = build_towers(bundle.config.towers, bundle.path)
    try:
        model.load_state_dict(load_weights(bundle.path / WEIGHTS), strict=True)
    except RuntimeError as error:
        raise CorruptBundle(f"{bundle.path}: the weights do not fit the towers: {error}") from error
    return model


def load_adaptation(bundle: Bundle) -> Adaptation:
    """What the bundle does to its towers' embeddings; empty for most. Raises CorruptBundle."""
    if bundle.config.adaptation is None:
        return {}
    return read_adaptation(bundle.path / ADAPTATION, dim=bundle.config.towers.embed_dim)


def normaliser(preprocessing: Preprocessing, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 (n, h, w, 3) pixels to float32 (n, 3, h, w), (value / 255 − mean) / std, channels last."""
    mean = torch.tensor(preprocessing.mean, device=device) * 255.0
    scale = 1.0 / (torch.tensor(preprocessing.std, device=device) * 255.0)
    return lambda pixels: ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)


def choose_device(name: str) -> torch.device:
    """A device by name; "auto" takes CUDA where there is one. Raises DeviceUnavailable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{name!r} names no device: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(f"{name} was asked for, {torch.cuda.device_count()} CUDA devices are here")
    return device


def check_precision(name: str) -> Precision:
    """Raises DeviceUnavailable for a precision that is not offered."""
    if name not in ("fp32", "bf16"):
        raise DeviceUnavailable(f"precision {name!r} is not offered: use fp32 or bf16")
    return "bf16" if name == "bf16" else "fp32"


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _chunks(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _stacked(rows: list[Vectors], dim: int) -> Vectors:
    return np.concatenate(rows) if rows else np.empty((0, dim), dtype=np.float32)
