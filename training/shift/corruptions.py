"""Damage to images, at five severities: resolution, light, colour, noise, blur and compression.

Pure and size-free: an RGB image of any size and a generator in, an image of the same size out. What has a grain
(noise, blur, pixelate) scales it by the short side, 224 pixels being the reference, so that a large and a small
copy of one photo look alike afterwards. Memory is the image's, twice, plus a strip: nothing is computed on all
pixels as floats at once.

Kinds and strengths follow ImageNet-C (Hendrycks & Dietterich 2019) and MMRobustness (Qiu et al. 2022).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageStat

from training.shift.light import light_of_temperature, to_linear, to_srgb

Floats: TypeAlias = NDArray[np.float32]
Damage: TypeAlias = Callable[[Image.Image, float, np.random.Generator], Image.Image]

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SIDE = 224
"""Short side in pixels at which noise has a grain, and blur a σ, of as many pixels as its strength says."""
DAYLIGHT_KELVIN = 6500
FULL_WELL_ELECTRONS = 1000
READ_NOISE_ELECTRONS = 2
"""A small sensor's, for each of the reference's pixels."""
LARGEST_JPEG_SIDE = 65_500
PIXELS_PER_STRIP = 1 << 18
_VALUES = np.arange(256) / 255.0


@dataclass(frozen=True)
class ImageCorruption:
    """`damage` at each of five `strengths`, ever stronger."""

    damage: Damage
    strengths: tuple[float, float, float, float, float]


def corrupt_image(
    image: Image.Image, corruption: str, *, severity: int, rng: np.random.Generator
) -> Image.Image:
    """The RGB image under a corruption of `IMAGE_CORRUPTIONS` at a severity from 1 to 5; of the same size."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}: it must be one of {SEVERITIES}")
    if corruption not in IMAGE_CORRUPTIONS:
        raise ValueError(f"no image corruption {corruption!r}: there are {', '.join(IMAGE_CORRUPTIONS)}")
    kind = IMAGE_CORRUPTIONS[corruption]
    return kind.damage(image, kind.strengths[severity - 1], rng)


def _low_resolution(upwards: Image.Resampling) -> Damage:
    def lower(image: Image.Image, long_side: float, _: np.random.Generator) -> Image.Image:
        scale = long_side / max(image.size)
        if scale >= 1:
            return image
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(small, Image.Resampling.BICUBIC).resize(image.size, upwards)

    return lower


def _expose(image: Image.Image, stops: float, _: np.random.Generator) -> Image.Image:
    return _looked_up(image, to_srgb(np.clip(to_linear(_VALUES) * 2.0**stops, 0, 1)))


def _bend(image: Image.Image, gamma: float, _: np.random.Generator) -> Image.Image:
    return _looked_up(image, _VALUES**gamma)


def _light_by(image: Image.Image, kelvin: float, _: np.random.Generator) -> Image.Image:
    """As a camera balanced for daylight sees it under a light of another temperature."""
    gains = light_of_temperature(kelvin) / light_of_temperature(DAYLIGHT_KELVIN)
    light = np.clip(to_linear(_VALUES) * gains[:, None], 0, 1)
    return _looked_up(image, *to_srgb(light))


def _darken(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Linear light times `share`, with shot noise (its Gaussian limit) and read noise, in 8 bits again."""
    grain, linear = _Grain.over(image, rng), to_linear(_VALUES).astype(np.float32) * share
    read = READ_NOISE_ELECTRONS / FULL_WELL_ELECTRONS

    def dark(rows: NDArray[np.uint8], top: int) -> NDArray[np.floating]:
        light = linear[rows]
        noise = grain.rows(top, len(rows)) * np.sqrt(light / FULL_WELL_ELECTRONS + read**2)
        return to_srgb(np.clip(light + noise, 0, 1))

    return _by_strips(image, dark)


def _add_noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    grain = _Grain.over(image, rng)
    return _by_strips(image, lambda rows, top: rows / 255.0 + deviation * grain.rows(top, len(rows)))


def _brighten(image: Image.Image, added: float, _: np.random.Generator) -> Image.Image:
    """HSV value + `added`; hue and saturation stay."""

    def brighter(rows: NDArray[np.uint8], _: int) -> NDArray[np.floating]:
        colours = rows.astype(np.float32) / 255.0
        value = colours.max(axis=2, keepdims=True)
        raised = np.minimum(value + added, 1.0)
        return np.asarray(np.where(value > 0, colours * (raised / np.maximum(value, 1e-6)), raised))

    return _by_strips(image, brighter)


def _saturate(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    """HSV saturation × `factor`, at most 1; hue and value stay."""

    def saturated(rows: NDArray[np.uint8], _: int) -> NDArray[np.floating]:
        colours = rows.astype(np.float32) / 255.0
        value = colours.max(axis=2, keepdims=True)
        chroma = value - colours.min(axis=2, keepdims=True)
        scale = np.minimum(factor, value / np.maximum(chroma, 1e-6))
        return np.asarray(value - (value - colours) * scale)

    return _by_strips(image, saturated)


def _flatten(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    """Contrast about each channel's mean."""
    means = np.array(ImageStat.Stat(image).mean) / 255.0
    return _looked_up(image, *(means[:, None] + (_VALUES - means[:, None]) * factor))


def _blur(image: Image.Image, deviation: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(deviation * min(image.size) / REFERENCE_SIDE))


def _compress(image: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    fitting = (min(image.width, LARGEST_JPEG_SIDE), min(image.height, LARGEST_JPEG_SIDE))
    buffer = io.BytesIO()
    (image if fitting == image.size else image.resize(fitting)).save(buffer, "JPEG", quality=int(quality))
    compressed = Image.open(buffer).convert("RGB")
    return compressed if fitting == image.size else compressed.resize(image.size)


def _pixelate(image: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    """Squares as large as those of an image of the reference size shrunk to `share` of its side."""
    scale = share * min(REFERENCE_SIDE, *image.size) / min(image.size)
    small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


IMAGE_CORRUPTIONS: dict[str, ImageCorruption] = {
    "resolution_bicubic": ImageCorruption(_low_resolution(Image.Resampling.BICUBIC), (160, 112, 80, 56, 32)),
    "resolution_bilinear": ImageCorruption(_low_resolution(Image.Resampling.BILINEAR), (160, 112, 80, 56, 32)),
    "over_exposure": ImageCorruption(_expose, (0.5, 1, 1.5, 2, 3)),
    "under_exposure": ImageCorruption(_expose, (-0.5, -1, -1.5, -2, -3)),
    "gamma_darker": ImageCorruption(_bend, (1.25, 1.6, 2, 2.5, 3.2)),
    "gamma_lighter": ImageCorruption(_bend, (0.8, 0.63, 0.5, 0.4, 0.31)),
    "low_light": ImageCorruption(_darken, (0.5, 0.25, 0.15, 0.1, 0.05)),
    "warm": ImageCorruption(_light_by, (5000, 4200, 3500, 3000, 2500)),
    "cool": ImageCorruption(_light_by, (7500, 8500, 10_000, 12_000, 15_000)),
    "brightness": ImageCorruption(_brighten, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": ImageCorruption(_flatten, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "desaturate": ImageCorruption(_saturate, (0.5, 0.3, 0.2, 0.1, 0)),
    "oversaturate": ImageCorruption(_saturate, (1.5, 2, 3, 5, 20)),
    "noise": ImageCorruption(_add_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": ImageCorruption(_blur, (1, 2, 3, 4, 6)),
    "jpeg": ImageCorruption(_compress, (25, 18, 15, 10, 7)),
    "pixelate": ImageCorruption(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}


@dataclass(frozen=True, eq=False)
class _Grain:
    """Standard normal noise on a grid of the reference's pixels, at most as fine as the image's own."""

    grid: Floats
    height: int
    width: int

    @classmethod
    def over(cls, image: Image.Image, rng: np.random.Generator) -> "_Grain":
        scale = min(1.0, REFERENCE_SIDE / min(image.size))
        shape = (max(1, round(image.height * scale)), max(1, round(image.width * scale)), 3)
        return cls(rng.standard_normal(shape, dtype=np.float32), image.height, image.width)

    def rows(self, top: int, count: int) -> Floats:
        """Noise (count, width, 3) of the image's rows from `top` on."""
        down = np.arange(top, top + count) * len(self.grid) // self.height
        across = np.arange(self.width) * self.grid.shape[1] // self.width
        return np.asarray(self.grid[down[:, None], across])


def _looked_up(image: Image.Image, *tables: NDArray[np.floating]) -> Image.Image:
    """Each channel through its own table (256,) of values, or all through the one; clipped to [0, 1]."""
    channels = tables * 3 if len(tables) == 1 else tables
    return image.point(np.rint(np.clip(np.concatenate(channels), 0, 1) * 255).astype(int).tolist())


def _by_strips(
    image: Image.Image, change: Callable[[NDArray[np.uint8], int], NDArray[np.floating]]
) -> Image.Image:
    """`change` gets (rows, width, 3) and the first row's number, and gives values; clipped to [0, 1]."""
    changed = Image.new("RGB", image.size)
    height = max(1, PIXELS_PER_STRIP // image.width)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(image.height, top + height)))
        values = np.clip(change(np.asarray(strip), top), 0, 1)
        changed.paste(Image.fromarray(np.rint(values * 255).astype(np.uint8)), (0, top))
    return changed
