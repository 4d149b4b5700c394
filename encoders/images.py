"""Bytes to upright RGB pictures, and pictures to the pixels a tower reads: one implementation for all.

Training, indexing and serving decode and resize through this module alone, and the whole specification
is part of a bundle's fingerprint. It does not know towers, tensors or devices: pixels are uint8, and the
encoder normalises them with the mean and deviation given here.
"""

import io
import math
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from encoders.errors import ImageTooLarge, UndecodableImage

DEFAULT_MAX_PIXELS = 64_000_000
"""Twice a 32-megapixel camera; at most some 190 MB of RGB while an image is decoded."""

Pixels = NDArray[np.uint8]
"""(height, width, 3), or (n, height, width, 3), RGB."""

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(BaseModel):
    """How a picture becomes the (height, width, 3) pixels of a tower. Antialiased, as Pillow always is.

    resize: "squash" to exactly height × width; "shortest": the short side to the size, then the centre;
    "letterbox": the long side to the size, centred on `fill`.
    crop_rounding: where an odd margin goes. "even" is torchvision's and open_clip's `round`, "floor" is
    transformers'; the difference alone moves an embedding by up to 0.004.
    mean, std: per channel, of values in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(default=224, ge=1, le=4096)
    width: int = Field(default=224, ge=1, le=4096)
    resize: Literal["squash", "shortest", "letterbox"] = "squash"
    shortest_side: int | None = Field(default=None, ge=1, le=8192)
    """For "shortest": the side before the crop, when it is larger than the crop."""
    crop_rounding: Literal["even", "floor"] = "even"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    fill: int = Field(default=0, ge=0, le=255)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """An RGB picture: first frame, turned upright by its EXIF tag, alpha over white.

    Raises UndecodableImage (not an image, or cut short) or ImageTooLarge (before any pixel is decoded).
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of decompression bombs, odd EXIF and the like; the cap below is what decides.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > max_pixels:
                raise ImageTooLarge(
                    f"image of {image.width}×{image.height} pixels is over the cap of {max_pixels}: "
                    "send a smaller copy, or raise the cap"
                )
            image.load()
            return _to_rgb(_upright(image))
    except (ImageTooLarge, Image.DecompressionBombError) as error:
        raise ImageTooLarge(str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        raise UndecodableImage(f"cannot decode {len(data)} bytes as an image: {_cause(error)}") from error


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """The (height, width, 3) uint8 pixels that `preprocessing` makes of an RGB picture of any size."""
    resized = _RESIZERS[preprocessing.resize](image, preprocessing)
    return np.asarray(resized, dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - a damaged EXIF block must not cost a sound picture
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit and float greyscale to 8 bit; Pillow's own convert clips at 255 and turns all white."""
    values = np.asarray(image, dtype=np.float64)
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = finite.max(initial=0.0)
    ceiling = 1.0 if image.mode == "F" and top <= 1.0 else 255.0 if top <= 255.0 else max(65535.0, top)
    return Image.fromarray(np.clip(finite / ceiling * 255.0 + 0.5, 0, 255).astype(np.uint8)).convert("RGB")


def _cause(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "no format that Pillow knows" if "cannot identify image file" in text else text


def _squash(image: Image.Image, spec: Preprocessing) -> Image.Image:
    return _resize(image, spec.width, spec.height, spec)


def _shortest_then_centre(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """torchvision's Resize(int) then CenterCrop: the long side is cut to an int, not rounded."""
    side = spec.shortest_side or max(spec.height, spec.width)
    if image.width <= image.height:
        size = (side, max(1, int(side * image.height / image.width)))
    else:
        size = (max(1, int(side * image.width / image.height)), side)
    return _centre(_resize(image, *size, spec), spec)


def _letterbox(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """open_clip's ResizeKeepRatio(longest=1) then CenterCropOrPad."""
    ratio = max(image.height / spec.height, image.width / spec.width)
    size = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
    return _centre(_resize(image, *size, spec), spec)


_RESIZERS = {"squash": _squash, "shortest": _shortest_then_centre, "letterbox": _letterbox}


def _resize(image: Image.Image, width: int, height: int, spec: Preprocessing) -> Image.Image:
    if image.size == (width, height):
        return image
    return image.resize((width, height), _INTERPOLATIONS[spec.interpolation])


def _centre(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """Crop or pad to the size, centred. Padding puts the odd pixel right and below, as open_clip does."""
    if image.size == (spec.width, spec.height):
        return image
    margin = round if spec.crop_rounding == "even" else math.floor
    pad_left, pad_top = (max(0, spec.width - image.width) // 2, max(0, spec.height - image.height) // 2)
    left = margin(max(0, image.width - spec.width) / 2.0)
    top = margin(max(0, image.height - spec.height) / 2.0)
    crop = image.crop((left, top, min(image.width, left + spec.width), min(image.height, top + spec.height)))
    if crop.size == (spec.width, spec.height):
        return crop
    canvas = Image.new("RGB", (spec.width, spec.height), (spec.fill,) * 3)
    canvas.paste(crop, (pad_left, pad_top))
    return canvas
