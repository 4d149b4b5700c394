"""The Encoder: images or texts in, float32 unit rows out; device, engine and precision chosen once.

It is not thread-safe: one thread owns it; `tokenize` and `compile` alone may be called from any. It does not
know files of images, HTTP or indexes.
"""

import contextlib
import logging
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
from encoders.choices import Engine, Precision, check_precision, choose_device
from encoders.compiled import Example, Tower, can_compile, compile_tower
from encoders.errors import CorruptBundle, EngineUnavailable
from encoders.images import Pixels, Preprocessing, to_pixels
from encoders.modalities import Modality
from encoders.passes import PASS_PRICE_TOKENS, passes
from encoders.query_bank import QueryBank, read_query_bank
from encoders.reading import reading
from encoders.short_queries import ShortQueries, read_short_queries
from encoders.staging import PixelStage
from encoders.texts import TokenBatch, TokenRow, open_tokenizer, padded
from encoders.towers import build_towers, unit_rows
from encoders.weights import load_weights

CPU_IMAGES_AT_ONCE = {"torch": 4, "openvino": 8}
"""On a CPU the activations of more images than fit its cache cost memory traffic and page faults, which take
more than a larger batch saves."""

logger = logging.getLogger(__name__)

MANY_TOKENS = 4096
"""As many are in the largest batch of texts that a compiled tower is tried on."""

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
        engine: Engine = "torch",
        threads: int | None = None,
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
        self._tokenizer = open_tokenizer(bundle.config.tokenizer, bundle.path)
        self._encode_shortened = self._shortened()
        # Neither tower refers to this encoder: in a circle its memory would wait for the garbage collector.
        encode_image, encode_text = cast("Any", self._model).encode_image, cast("Any", self._model).encode_text
        normalise = normaliser(self.preprocessing, device)
        images: Tower = lambda pixels: encode_image(normalise(pixels))  # noqa: E731
        self._compute_by("torch", {"images": images, "texts": self._encode_shortened or encode_text})
        self._adaptation = {modality: each.to(device) for modality, each in load_adaptation(bundle).items()}
        self.query_bank: QueryBank | None = read_query_bank(
            bundle.path, fingerprint=self.fingerprint, dim=self.dim
        )
        self.short_queries: ShortQueries | None = read_short_queries(
            bundle.path, fingerprint=self.fingerprint, dim=self.dim
        )
        self.compile(engine, threads=threads)

    @classmethod
    def load(
        cls,
        bundle: Bundle | Path | str,
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        max_batch: int = 32,
        engine: Engine = "torch",
        threads: int | None = None,
    ) -> "Encoder":
        """Open a bundle's towers. device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".

        engine: what computes; "auto" takes OpenVINO on an x86 CPU where it can, which is compiled in seconds.
        Then changes to `model` have no effect. threads: OpenVINO's; by default as many as PyTorch has.
        Raises BundleError, Unreadable, or DeviceUnavailable.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if max_batch < 1:
            raise ValueError(f"max_batch is {max_batch}: it must be at least 1")
        with reading(opened.path):
            return cls(
                opened,
                load_towers(opened),
                device=choose_device(device),
                precision=check_precision(precision),
                max_batch=max_batch,
                engine=engine,
                threads=threads,
            )

    @property
    def model(self) -> torch.nn.Module:
        """The towers themselves, for those that change them; nothing of `adaptation` is in them."""
        return self._model

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """(n, dim) unit rows of RGB images (see `images.decode_image`) of any size."""
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
        price = PASS_PRICE_TOKENS.get(self.device.type, PASS_PRICE_TOKENS["cuda"])
        lengths = np.full_like(tokens.lengths, tokens.ids.shape[1]) if self._needs_context else tokens.lengths
        for rows in passes(lengths, most_rows=self.max_batch, price_tokens=price):
            ids = self._ids(tokens, rows)
            vectors[rows] = self._run(ids.to(self.device), modality="texts")
        return vectors

    def encode_rows(self, rows: Sequence[TokenRow]) -> Vectors:
        """(n, dim) unit rows of texts that were tokenized apart from each other."""
        return self.encode_tokens(padded(rows, self.bundle.config.tokenizer))

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit rows of texts, and which of them were cut."""
        tokens = self.tokenize(texts)
        return TextEmbeddings(vectors=self.encode_tokens(tokens), truncated=tokens.truncated)

    @property
    def _needs_context(self) -> bool:
        """Whether the text tower wants its whole context, padding and all."""
        return self.bundle.config.tokenizer.pad_to == "context" and self._encode_shortened is None

    def _ids(self, tokens: TokenBatch, rows: Any) -> torch.Tensor:
        """(n, length) ids of some rows, cut at the longest of them where the tower does without padding."""
        longest = tokens.ids.shape[1] if self._needs_context else max(1, int(tokens.lengths[rows].max()))
        return torch.from_numpy(np.ascontiguousarray(tokens.ids[rows][:, :longest]))

    def _shortened(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Where texts are padded to the context: the tower that does without, if that is exact."""
        if self.bundle.config.tokenizer.pad_to != "context":
            return None
        sample = self.tokenize(["a"])
        return shortened_text(self._model, torch.from_numpy(sample.ids), length=int(sample.lengths[0]))

    def _embed_pixels(self, pixels: Pixels) -> Vectors:
        return self._embed_tensor(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))

    def _embed_tensor(self, pixels: torch.Tensor) -> Vectors:
        return self._run(pixels, modality="images")

    def compile(self, engine: Engine, *, threads: int | None = None) -> None:
        """Change from PyTorch to compiled towers where they are wanted and can be had, as `load` says.

        Takes seconds, and may be done by another thread than the one that encodes meanwhile: its next batch is
        the compiled towers'. Raises EngineUnavailable for "openvino" alone.
        """
        if engine == "torch" or (engine == "auto" and not (self.device.type == "cpu" and can_compile())):
            return
        if self.device.type != "cpu":
            raise EngineUnavailable(
                f"engine openvino computes on a CPU, the device is {self.device}: use torch"
            )
        threads = threads or torch.get_num_threads()
        try:
            towers = {
                modality: compile_tower(
                    self._towers[modality], self._model, example, precision=self.precision, threads=threads
                )
                for modality, example in self._examples().items()
            }
        except EngineUnavailable as error:
            if engine == "openvino":
                raise
            logger.warning("PyTorch computes %s: %s", self.name, error)
        else:
            self._compute_by("openvino", towers)

    def _compute_by(self, engine: Literal["torch", "openvino"], towers: dict[Modality, Tower]) -> None:
        self.engine = engine
        most = CPU_IMAGES_AT_ONCE[engine] if self.device.type == "cpu" else self.max_batch
        self._image_batch = min(self.max_batch, most)
        self._towers = towers

    def _examples(self) -> dict[Modality, Example]:
        """Three batches a tower, of different sizes: noise, and texts."""
        height, width = self.preprocessing.height, self.preprocessing.width
        noise = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (5, height, width, 3), generator=noise, dtype=torch.uint8)
        texts = ["a dog", "two children and a dog"], ["a cat on a red mat", "a", "the cat and the dog are out"]
        short, long = (self._ids(tokens, slice(None)) for tokens in map(self.tokenize, texts))
        length = short.shape[1] if self._needs_context else -1
        images = min(self.max_batch, CPU_IMAGES_AT_ONCE["openvino"])
        rows = max(1, min(self.max_batch, MANY_TOKENS // self.context_length))
        most = self._ids(self.tokenize(["a " * self.context_length] * rows), slice(None))
        return {
            "images": Example(
                pixels[:2], pixels[2:], pixels[:1].expand(images, -1, -1, -1), (-1, height, width, 3)
            ),
            "texts": Example(short, long, most, (-1, length)),
        }

    def _run(self, batch: torch.Tensor, *, modality: Modality) -> Vectors:
        low = self.precision == "bf16"
        with torch.inference_mode():
            with _autocast(self.device) if low else contextlib.nullcontext():
                rows = unit_rows(self._towers[modality](batch))
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


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _chunks(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _stacked(rows: list[Vectors], dim: int) -> Vectors:
    return np.concatenate(rows) if rows else np.empty((0, dim), dtype=np.float32)
