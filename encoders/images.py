"""Bytes to upright RGB images, and images to the pixels a tower reads: one implementation for all.

Training, indexing and serving decode and resize through this module alone, and the whole specification is part
of a bundle's fingerprint.
"""

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from encoders.errors import ImageTooLarge, UndecodableImage

DEFAULT_MAX_PIXELS = 64_000_000
"""Twice a 32-megapixel camera; at most some 190 MB of RGB while an image is decoded."""

Pixels = NDArray[np.uint8]
"""(height, width, 3), or (n, height, width, 3), RGB."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is decoded; JPEG opens MPO too. Pillow knows more, some of which start another program (EPS:
Ghostscript) or hold images larger than their header says (ICO): not for bytes that strangers send."""

_EXIF_ORIENTATION = 0x0112

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAX_RESIZED_PIXELS = 16_000_000
"""Where only the part that a crop keeps is resized: a 1×10000 strip would fill gigabytes before its crop."""

_STRIP_ROWS = 64
"""Rows that are converted at a time where that takes several copies, so that memory stays bounded."""

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(BaseModel):
    """How an image becomes the (height, width, 3) pixels of a tower. Antialiased, as Pillow always is.

    resize: "squash" to exactly height × width; "shortest": just large enough to cover it, then the centre;
    "letterbox": just small enough to fit into the size, centred on `fill`.
    crop_rounding: where an odd margin goes. "even" is torchvision's and open_clip's `round`, "floor" is
    transformers'; the difference alone moves an embedding by up to 0.004.
    mean, std: per channel, of values in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(default=224, ge=1, le=4096)
    width: int = Field(default=224, ge=1, le=4096)
    resize: Literal["squash", "shortest", "letterbox"] = "squash"
    shortest_side: int | None = Field(default=None, ge=1, le=8192)
    """For "shortest": the short side before the crop, where it is not the crop's own."""
    crop_rounding: Literal["even", "floor"] = "even"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    fill: int = Field(default=0, ge=0, le=255)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """An RGB image: first frame, turned upright by its EXIF tag, alpha over white.

    Raises UndecodableImage (not an image, or cut short) or ImageTooLarge (before any pixel is decoded).
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > max_pixels:
            raise ImageTooLarge(
                f"image of {image.width}×{image.height} pixels is over the cap of {max_pixels}: "
                "send a smaller copy, or raise the cap"
            )
        image.load()
        return _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(str(error)) from error
    except (ImageTooLarge, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        raise UndecodableImage(f"cannot decode {len(data)} bytes as an image: {_cause(error, data)}") from error


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """The (height, width, 3) uint8 pixels that `preprocessing` makes of an RGB image of any size."""
    resized = _RESIZERS[preprocessing.resize](image, preprocessing)
    return np.asarray(resized, dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(int(image.getexif().get(_EXIF_ORIENTATION, 1)))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged EXIF block must not cost a sound image
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """In strips: a whole image's intermediate copies would be five times its size."""
    canvas = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(image.height, top + _STRIP_ROWS))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        canvas.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return canvas


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit and float greyscale to 8 bit; Pillow's own convert clips at 255 and turns all white.

    16-bit files use their whole range. 32-bit integers and floats say nothing of theirs: white is 1 (floats),
    255 or 65535, the least that holds the brightest value, or that value where it is larger still.
    """
    values = np.asarray(image)
    white = 65535.0 if image.mode.startswith("I;16") else _white_level(values)
    grey = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _STRIP_ROWS):
        rows = _finite(values[start : start + _STRIP_ROWS])
        grey[start : start + _STRIP_ROWS] = np.clip(rows / white * 255.0 + 0.5, 0, 255)
    return Image.fromarray(grey).convert("RGB")


def _white_level(values: NDArray[np.int32] | NDArray[np.float32]) -> float:
    chunks = (values[start : start + _STRIP_ROWS] for start in range(0, len(values), _STRIP_ROWS))
    top = max((float(_finite(rows).max(initial=0.0)) for rows in chunks), default=0.0)
    if top <= 1.0 and np.issubdtype(values.dtype, np.floating):
        return 1.0
    return 255.0 if top <= 255.0 else max(65535.0, top)


def _finite(rows: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.nan_to_num(rows.astype(np.float64), copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _cause(error: Exception, data: bytes) -> str:
    text = str(error) or type(error).__name__
    if "cannot identify image file" not in text:
        return text
    if data.lstrip()[:1] == b"<":
        return "it is markup (SVG, HTML or XML), not pixels; send a PNG, JPEG or WebP of it"
    return f"none of the formats {', '.join(_FORMATS)}"


def _squash(image: Image.Image, spec: Preprocessing) -> Image.Image:
    return _resize(image, spec.width, spec.height, spec)


def _shortest_then_centre(image: Image.Image, spec: Preprocessing) -> Image.Image:
    width, height = _covering_size(image, spec)
    if width * height <= _MAX_RESIZED_PIXELS:
        return _centre(_resize(image, width, height, spec), spec)
    return _resize_centre_only(image, width, height, spec)


def _covering_size(image: Image.Image, spec: Preprocessing) -> tuple[int, int]:
    """(width, height) before the crop."""
    if spec.shortest_side is None and spec.height != spec.width:
        # open_clip's ResizeKeepRatio(longest=0), which it uses where the size is no square
        ratio = min(image.height / spec.height, image.width / spec.width)
        return round(image.width / ratio), round(image.height / ratio)
    # torchvision's Resize(int): the long side is cut to an int, not rounded
    side = spec.shortest_side or spec.height
    if image.width <= image.height:
        return side, int(side * image.height / image.width)
    return int(side * image.width / image.height), side


def _resize_centre_only(image: Image.Image, width: int, height: int, spec: Preprocessing) -> Image.Image:
    """What `_centre` keeps of the image resized to width × height, without the rest of it."""
    left, top, right, bottom = _crop_box(width, height, spec)
    across, down = image.width / width, image.height / height
    part = image.resize(
        (right - left, bottom - top),
        _INTERPOLATIONS[spec.interpolation],
        box=(left * across, top * down, min(right * across, image.width), min(bottom * down, image.height)),
    )
    return _centre(part, spec)


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
    pad_left, pad_top = (max(0, spec.width - image.width) // 2, max(0, spec.height - image.height) // 2)
    crop = image.crop(_crop_box(image.width, image.height, spec))
    if crop.size == (spec.width, spec.height):
        return crop
    canvas = Image.new("RGB", (spec.width, spec.height), (spec.fill,) * 3)
    canvas.paste(crop, (pad_left, pad_top))
    return canvas


def _crop_box(width: int, height: int, spec: Preprocessing) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the centre that is kept of a width × height image."""
    margin = round if spec.crop_rounding == "even" else math.floor
    left = margin(max(0, width - spec.width) / 2.0)
    top = margin(max(0, height - spec.height) / 2.0)
    return left, top, min(width, left + spec.width), min(height, top + spec.height)
