"""The augmentation pipeline: an image in, the pixels of one random view of it out.

Every step is drawn from the generator that is passed in, so a view is a pure function of (image, settings,
seed). Steps run as light meets a camera: framing, light, colour, lens and sensor, resolution, compression.
White balance, blur and noise are off unless asked for: robustness is tested with them, and a test on what was
trained on measures memory (see `presets`).
"""

import io
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from encoders.images import Pixels, Preprocessing, to_pixels
from training.shift.light import to_linear, to_srgb

HELD_OUT_CORRUPTIONS = ("low_light", "warm", "cool", "oversaturate", "noise", "blur", "pixelate")
"""Kinds of corruption that a recipe keeps out of training unless it says otherwise."""

REFERENCE_SIDE = 224
"""Blur is given in pixels of a view whose short side is this."""

_SIDED = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def _ordered(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError(f"the lower end {given[0]:g} is above the upper end {given[1]:g}")
    return given


def _positive(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] <= 0:
        raise ValueError(f"the lower end {given[0]:g} must be above 0")
    return given


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
PositiveRange = Annotated[Range, AfterValidator(_positive)]
Share = Annotated[float, Field(ge=0, le=1)]
"""A probability."""


class Augmentation(BaseModel):
    """Strengths and probabilities; the defaults are EVALUATION's "what is known to help"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_area: PositiveRange = (0.5, 1.0)
    """Share of the image's area that a view shows."""
    crop_aspect: PositiveRange = (3 / 4, 4 / 3)
    zoom_out: Share = 0.0
    """Probability that a view is the whole image, smaller, on white: cut-outs come at any scale."""
    flip: Share = 0.5
    """Mirrored with this probability, unless a caption says left or right."""
    exposure: Share = 0.3
    exposure_stops: Range = (-1.5, 1.5)
    """In linear light; 1 stop doubles it."""
    gamma: Share = 0.3
    gamma_range: PositiveRange = (0.5, 2.0)
    jitter: Share = 0.8
    jitter_strength: Share = 0.4
    """Brightness, contrast and saturation factors lie within 1 ± this."""
    grey: Share = 0.1
    resolution: Share = 0.3
    resolution_side: PositiveRange = (48, 160)
    """Long side in pixels that the view is shrunk to and enlarged from."""
    jpeg: Share = 0.2
    jpeg_quality: PositiveRange = (20, 80)
    white_balance: Share = 0.0
    white_balance_range: PositiveRange = (0.5, 2.0)
    """Gain of red over blue in linear light: above 1 warmer, below cooler."""
    blur: Share = 0.0
    blur_sigma: PositiveRange = (0.5, 2.0)
    """In pixels of a view of 224."""
    noise: Share = 0.0
    noise_sigma: PositiveRange = (0.02, 0.1)
    """Gaussian, of each channel, where white is 1."""

    @model_serializer(mode="wrap")
    def _without_unused_additions(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Kept activations are named by this: what a later version added changes no name while it is unused."""
        given: dict[str, Any] = dumped(self)
        fields = type(self).model_fields
        unused = {name for name in _ADDED if getattr(self, name) == fields[name].default}
        return {name: value for name, value in given.items() if name not in unused}

    @field_validator("jpeg_quality")
    @classmethod
    def _up_to_95(cls, given: tuple[float, float]) -> tuple[float, float]:
        if given[1] > 95:
            raise ValueError(f"quality {given[1]:g} is over 95, where JPEG files grow and gain nothing")
        return given

    @field_validator("crop_area")
    @classmethod
    def _up_to_1(cls, given: tuple[float, float]) -> tuple[float, float]:
        if given[1] > 1:
            raise ValueError(f"a view cannot show {given[1]:g} of an image: at most 1")
        return given


_ADDED = (
    "white_balance", "white_balance_range", "blur", "blur_sigma", "noise", "noise_sigma",
)  # fmt: skip

NO_AUGMENTATION = Augmentation(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0, exposure=0, gamma=0, jitter=0, grey=0,
    resolution=0, jpeg=0,
)  # fmt: skip


def may_flip(captions: Iterable[str]) -> bool:
    """Whether a mirrored image still fits all its captions."""
    return not any(_SIDED.search(caption) for caption in captions)


def augmented_pixels(
    image: Image.Image,
    preprocessing: Preprocessing,
    *,
    augmentation: Augmentation,
    rng: np.random.Generator,
    flippable: bool,
) -> Pixels:
    """(height, width, 3) uint8 pixels of one random view of an RGB image."""
    view = _framed(image, preprocessing, augmentation, rng)
    if flippable and rng.random() < augmentation.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = _lit(view, augmentation, rng)
    view = _balanced(view, augmentation, rng)
    view = _coloured(view, augmentation, rng)
    view = _sensed(view, augmentation, rng)
    view = _resampled(view, augmentation, rng)
    return to_pixels(_compressed(view, augmentation, rng), preprocessing)


def _framed(
    image: Image.Image, spec: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> Image.Image:
    """A random crop at the tower's size; the whole image is shown as the specification shows it."""
    if rng.random() < augmentation.zoom_out:
        return _zoomed_out(image, spec, rng)
    if augmentation.crop_area[0] >= 1.0:
        return Image.fromarray(to_pixels(image, spec))
    area = rng.uniform(*augmentation.crop_area)
    aspect = math.exp(rng.uniform(math.log(augmentation.crop_aspect[0]), math.log(augmentation.crop_aspect[1])))
    width = min(1.0, math.sqrt(area * aspect)) * image.width
    height = min(1.0, math.sqrt(area / aspect)) * image.height
    left = rng.uniform(0, image.width - width)
    top = rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize((spec.width, spec.height), Image.Resampling.BICUBIC, box=box)


def _zoomed_out(image: Image.Image, spec: Preprocessing, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.4, 1.0)
    width, height = max(1, int(spec.width * scale)), max(1, int(spec.height * scale))
    canvas = Image.new("RGB", (spec.width, spec.height), (255, 255, 255))
    corner = (int(rng.uniform(0, spec.width - width + 1)), int(rng.uniform(0, spec.height - height + 1)))
    canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), corner)
    return canvas


def _lit(view: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    values = np.arange(256) / 255.0
    lit: NDArray[np.floating] = values
    if rng.random() < augmentation.exposure:
        lit = to_srgb(np.clip(to_linear(lit) * 2.0 ** rng.uniform(*augmentation.exposure_stops), 0, 1))
    if rng.random() < augmentation.gamma:
        low, high = augmentation.gamma_range
        lit = lit ** math.exp(rng.uniform(math.log(low), math.log(high)))
    if lit is values:
        return view
    return view.point(np.rint(lit * 255).astype(int).tolist() * 3)


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draws nothing for a step that is off: views made before it existed stay what they are."""
    return probability > 0 and rng.random() < probability


def _balanced(view: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    if not _happens(augmentation.white_balance, rng):
        return view
    low, high = augmentation.white_balance_range
    warmth = math.exp(rng.uniform(math.log(low), math.log(high)))
    light = to_linear(np.arange(256) / 255.0)
    curves = [to_srgb(np.clip(light * gain, 0, 1)) for gain in (math.sqrt(warmth), 1.0, 1 / math.sqrt(warmth))]
    return view.point(np.rint(np.concatenate(curves) * 255).astype(int).tolist())


def _sensed(view: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Through a lens out of focus, onto a noisy sensor."""
    sensed = view
    if _happens(augmentation.blur, rng):
        sigma = rng.uniform(*augmentation.blur_sigma) * min(view.size) / REFERENCE_SIDE
        sensed = sensed.filter(ImageFilter.GaussianBlur(sigma))
    if _happens(augmentation.noise, rng):
        values = np.asarray(sensed, dtype=np.float32)
        noisy = values + 255 * rng.uniform(*augmentation.noise_sigma) * rng.standard_normal(values.shape)
        sensed = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return sensed


def _coloured(view: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    coloured = view
    if rng.random() < augmentation.jitter:
        low, high = 1 - augmentation.jitter_strength, 1 + augmentation.jitter_strength
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            coloured = enhance(coloured).enhance(rng.uniform(low, high))
    if rng.random() < augmentation.grey:
        coloured = coloured.convert("L").convert("RGB")
    return coloured


def _resampled(view: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    if rng.random() >= augmentation.resolution:
        return view
    scale = rng.uniform(*augmentation.resolution_side) / max(view.size)
    if scale >= 1:
        return view
    small = (max(1, round(view.width * scale)), max(1, round(view.height * scale)))
    up = Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.BILINEAR
    return view.resize(small, Image.Resampling.BICUBIC).resize(view.size, up)


def _compressed(view: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    if rng.random() >= augmentation.jpeg:
        return view
    buffer = io.BytesIO()
    view.save(buffer, "JPEG", quality=int(rng.uniform(*augmentation.jpeg_quality)))
    return Image.open(buffer).convert("RGB")
