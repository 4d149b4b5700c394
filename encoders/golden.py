"""Golden inputs in a bundle, what they became when it was made, and what they become here and now.

    golden.safetensors   the encoded images; vectors in fp32 of the weights before they were rounded for
                         storage ("reference") and of the stored ones ("stored"); samples of the pixels
    golden.json          texts with their token ids, what each image is, and what the vectors mean

Two kinds of parity follow, with two tolerances. *With the reference*: what storing the weights in few bits
costs; fp32 weights lose nothing, int8 rows a known little, so the limit belongs to the encoding. *With what the
same stored weights gave*: computed here as there in fp32, so only the order of sums may differ; `REPRODUCED` is
the limit whatever the encoding, and a small fault cannot hide in the allowance for rounding. Golden vectors
prove that nothing changed since they were made; whether it was good then, recall on named sets must tell.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from encoders.bundle import Bundle
from encoders.encoder import Encoder, Vectors, normaliser
from encoders.errors import CorruptBundle
from encoders.golden_inputs import GoldenImage, Kind, Shape, golden_images, golden_texts
from encoders.images import Pixels, decode_image, to_pixels
from encoders.modalities import MODALITIES, Modality
from encoders.reference import reference_encoder
from encoders.weights import Encoding

GOLDEN_TENSORS = "golden.safetensors"
GOLDEN_RECORD = "golden.json"
FORMAT = 1

REPRODUCED = 0.9999
"""Least cosine with what the same stored weights gave when the bundle was made, on any machine."""

SAMPLED_PIXELS = 512
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "pillow")
_MEANING = (
    "reference: float32 vectors of the weights as '{reference}', before they were stored as '{stored}'; "
    "stored: of the weights as stored, computed in float32. Cosine with 'stored' must be at least {reproduced} "
    "on any machine (only the order of sums may differ); with 'reference' at least what the policy allows the "
    "encoding: least {images:.6f} (images, flat ones aside) and {texts:.6f} (texts) when it was made."
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRecord(_Frozen):
    name: str
    shape: Shape
    coloured: bool
    kind: Kind


class TextRecord(_Frozen):
    """ids: as the tower read them, padding left out."""

    text: str
    ids: tuple[int, ...]
    truncated: bool


class GoldenRecord(_Frozen):
    """What `golden.json` says. reference: how the weights of the reference vectors were kept; "fp32" is exact.

    normalised: what black and white come to, (2, 3) by channel.
    """

    kind: Literal["twinlens-golden"] = "twinlens-golden"
    format: int = FORMAT
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    reference: Encoding
    stored: Encoding
    meaning: str
    context_length: int
    images: tuple[ImageRecord, ...]
    texts: tuple[TextRecord, ...]
    normalised: tuple[tuple[float, float, float], tuple[float, float, float]]
    libraries: dict[str, str]


@dataclass(frozen=True, eq=False)
class Stages:
    """What inputs become on their way to a vector.

    pixels: uint8 (n, `SAMPLED_PIXELS`, 3) of the pixels that the tower reads; normalised: float32 (2, 3), black
    and white; ids: token ids of every text; vectors: float32 unit rows by modality.
    """

    pixels: NDArray[np.uint8]
    normalised: NDArray[np.float32]
    ids: tuple[tuple[int, ...], ...]
    vectors: Mapping[Modality, Vectors]


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden inputs and all that became of them when they were made. files: the encoded images."""

    record: GoldenRecord
    files: tuple[bytes, ...]
    stages: Stages
    reference: Mapping[Modality, Vectors]


def make_golden(encoder: Encoder, *, reference: Encoder | None = None) -> Golden:
    """Golden inputs through a stored bundle's encoder, and through one with its weights before rounding.

    Both on the CPU or in fp32 elsewhere. Without a `reference` the stored weights are their own.
    """
    spec = encoder.preprocessing
    images = golden_images(spec.height, spec.width)
    texts = golden_texts(
        lambda text: int(encoder.tokenize([text]).full_lengths[0]), context_length=encoder.context_length
    )
    files = tuple(image.data for image in images)
    stages = run_stages(encoder, files, texts)
    exact = stages.vectors if reference is None else run_stages(reference, files, texts).vectors
    stored = encoder.bundle.config.weights
    kept: Encoding = stored if reference is None else "fp32"
    flat_aside = [image.kind != "flat" for image in images]
    record = GoldenRecord(
        reference=kept,
        stored=stored,
        meaning=_MEANING.format(
            reference=kept,
            stored=stored,
            reproduced=REPRODUCED,
            images=cosines(stages.vectors["images"], exact["images"])[flat_aside].min(),
            texts=cosines(stages.vectors["texts"], exact["texts"]).min(),
        ),
        context_length=encoder.context_length,
        images=tuple(_image_record(image) for image in images),
        texts=_text_records(encoder, texts),
        normalised=tuple(tuple(map(float, row)) for row in stages.normalised),  # type: ignore[arg-type]  # (2, 3)
        libraries={name: version(name) for name in _LIBRARIES},
    )
    return Golden(record, files, stages, exact)


def add_golden(bundle: Bundle, *, reference: Mapping[str, torch.Tensor] | None = None) -> Bundle:
    """The bundle with golden inputs inside, embedded on the CPU.

    reference: the towers' fp32 state before it was stored; not needed where weights are stored as fp32.
    Raises ReferenceMismatch where storing it would not give the bundle's weights.
    """
    encoder = Encoder.load(bundle, device="cpu")
    exact = encoder if bundle.config.weights == "fp32" else None
    if reference is not None:
        exact = reference_encoder(bundle, reference)
    golden = make_golden(encoder, reference=exact)
    record = json.dumps(golden.record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    return bundle.with_file(GOLDEN_TENSORS, _tensor_bytes(golden)).with_file(GOLDEN_RECORD, record.encode())


def read_golden(bundle: Bundle) -> Golden | None:
    """The golden inputs of a bundle; None where it carries none. Raises CorruptBundle."""
    if GOLDEN_RECORD not in bundle.files or GOLDEN_TENSORS not in bundle.files:
        return None
    try:
        record = GoldenRecord.model_validate_json((bundle.path / GOLDEN_RECORD).read_bytes())
        tensors = load((bundle.path / GOLDEN_TENSORS).read_bytes())
        return _golden_of(record, tensors)
    except (ValidationError, SafetensorError, KeyError, ValueError) as error:
        raise CorruptBundle(f"{bundle.path}: its golden inputs cannot be read: {error}") from error


def run_stages(encoder: Encoder, files: tuple[bytes, ...], texts: tuple[str, ...]) -> Stages:
    """Encoded images and texts through every stage of an encoder."""
    pixels = golden_pixels(encoder, files)
    tokens = encoder.tokenize(texts)
    ends = np.array([[[[0] * 3]], [[[255] * 3]]], dtype=np.uint8)
    normalised = normaliser(encoder.preprocessing, torch.device("cpu"))(torch.from_numpy(ends))
    return Stages(
        pixels=np.stack([_sampled(each) for each in pixels]),
        normalised=normalised.reshape(2, 3).numpy(),
        ids=tuple(
            tuple(map(int, row[:length])) for row, length in zip(tokens.ids, tokens.lengths, strict=True)
        ),
        vectors={"images": encoder.encode_pixels(pixels), "texts": encoder.encode_tokens(tokens)},
    )


def golden_pixels(encoder: Encoder, files: tuple[bytes, ...]) -> Pixels:
    """uint8 (n, height, width, 3): what the tower reads of encoded images."""
    return np.stack([to_pixels(decode_image(data), encoder.preprocessing) for data in files])


def cosines(one: Vectors, other: Vectors) -> NDArray[np.float64]:
    """(n,) cosines of rows in float64; −1 where either is not finite or the widths differ."""
    if one.shape != other.shape:
        return np.full(len(one), -1.0)
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.asarray(np.nan_to_num(found, nan=-1.0), dtype=np.float64)


def _sampled(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels spread evenly over the image, enough to tell one way of resizing from another."""
    flat = pixels.reshape(-1, 3)
    return flat[np.linspace(0, len(flat) - 1, SAMPLED_PIXELS).astype(np.int64)]


def _image_record(image: GoldenImage) -> ImageRecord:
    return ImageRecord(name=image.name, shape=image.shape, coloured=image.coloured, kind=image.kind)


def _text_records(encoder: Encoder, texts: tuple[str, ...]) -> tuple[TextRecord, ...]:
    tokens = encoder.tokenize(texts)
    return tuple(
        TextRecord(text=text, ids=tuple(map(int, row[:length])), truncated=bool(cut))
        for text, row, length, cut in zip(texts, tokens.ids, tokens.lengths, tokens.truncated, strict=True)
    )


def _tensor_bytes(golden: Golden) -> bytes:
    tensors: dict[str, NDArray[Any]] = {
        f"image.{number:02d}": np.frombuffer(data, dtype=np.uint8) for number, data in enumerate(golden.files)
    }
    for modality in MODALITIES:
        tensors[f"reference.{modality}"] = golden.reference[modality].astype(np.float32)
        tensors[f"stored.{modality}"] = golden.stages.vectors[modality].astype(np.float32)
    tensors["pixels"] = golden.stages.pixels
    # safetensors writes memory as it lies, and takes no notice of strides.
    return save({name: np.ascontiguousarray(values) for name, values in tensors.items()})


def _golden_of(record: GoldenRecord, tensors: Mapping[str, NDArray[Any]]) -> Golden:
    """Raises KeyError or ValueError where a tensor is missing or has another number of rows."""
    counts = {"images": len(record.images), "texts": len(record.texts)}
    for modality in MODALITIES:
        for part in ("reference", "stored"):
            if len(tensors[f"{part}.{modality}"]) != counts[modality]:
                raise ValueError(f"{part}.{modality} does not have {counts[modality]} rows")
    if tensors["pixels"].shape != (counts["images"], SAMPLED_PIXELS, 3):
        raise ValueError(f"pixels are {tensors['pixels'].shape}")
    return Golden(
        record=record,
        files=tuple(tensors[f"image.{number:02d}"].tobytes() for number in range(counts["images"])),
        stages=Stages(
            pixels=tensors["pixels"],
            normalised=np.array(record.normalised, dtype=np.float32),
            ids=tuple(text.ids for text in record.texts),
            vectors={modality: tensors[f"stored.{modality}"] for modality in MODALITIES},
        ),
        reference={modality: tensors[f"reference.{modality}"] for modality in MODALITIES},
    )
