"""Bytes to upright RGB images, and images to the pixels that the libraries' own transforms give."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageFile
from torchvision import transforms

from encoders.errors import ImageTooLarge, UndecodableImage
from encoders.images import Preprocessing, decode_image, to_pixels
from encoders.importing.preprocessing import from_open_clip
from encoders.importing.published import probe_image

SIZES = [(101, 67), (64, 64), (67, 101), (300, 200), (63, 200), (65, 64), (20, 31), (1, 1), (1, 300), (640, 3)]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """Four differently coloured quarters, so that every turn and flip shows."""
    image = Image.new("RGB", (48, 32), "red")
    image.paste("lime", (24, 0, 48, 16))
    image.paste("blue", (0, 16, 24, 32))
    image.paste("white", (24, 16, 48, 32))
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_by_its_exif_orientation(kind: str, orientation: int) -> None:
    undo = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = corners()
    for turn in undo:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    )
    upright = decode_image(encoded(stored, kind, exif=exif, **options))
    assert upright.size == (48, 32)
    assert np.abs(np.asarray(upright, dtype=int) - np.asarray(corners(), dtype=int)).max() <= 12


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # so says Pillow, on stderr
def test_a_damaged_exif_block_costs_no_sound_image(exif: bytes) -> None:
    assert decode_image(encoded(corners(), "JPEG", exif=exif)).size == (48, 32)


def with_alpha() -> Image.Image:
    """Left half opaque red, right half of a red that nobody sees."""
    image = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    image.paste((255, 0, 0, 0), (20, 0, 40, 20))
    return image


TRANSPARENT: dict[str, Callable[[], bytes]] = {
    "RGBA PNG": lambda: encoded(with_alpha(), "PNG"),
    "RGBA WebP": lambda: encoded(with_alpha(), "WEBP", lossless=True),
    "palette PNG with transparency": lambda: encoded(with_alpha().quantize(4), "PNG"),
    "GIF with transparency": lambda: encoded(with_alpha(), "GIF"),
    "RGB PNG with a transparent colour": lambda: encoded(transparent_blue(), "PNG", transparency=(0, 0, 255)),
    "LA PNG": lambda: encoded(with_alpha().convert("LA"), "PNG"),
}


def transparent_blue() -> Image.Image:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image


@pytest.mark.parametrize("make", TRANSPARENT.values(), ids=TRANSPARENT.keys())
def test_what_is_transparent_lies_on_white(make: Callable[[], bytes]) -> None:
    image = decode_image(make())
    assert image.mode == "RGB"
    assert image.getpixel((30, 10)) == (255, 255, 255)
    assert image.getpixel((5, 10)) in {(255, 0, 0), (254, 0, 0), (76, 76, 76)}


def test_half_transparent_is_half_white() -> None:
    image = decode_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG"))
    assert image.getpixel((0, 0)) == (127, 127, 127)


def test_transparency_of_a_tall_image_is_that_of_pillow_in_one_go() -> None:
    values = np.random.default_rng(5).integers(0, 256, (201, 30, 4), dtype=np.uint8)
    image = Image.fromarray(values)
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert np.array_equal(np.asarray(decode_image(encoded(image, "PNG"))), np.asarray(whole))


def ramp() -> np.ndarray:
    """0 to 1 from left to right, (16, 256)."""
    return np.tile(np.linspace(0.0, 1.0, 256), (16, 1))


GREYS: dict[str, Callable[[], bytes]] = {
    "8-bit PNG": lambda: encoded(Image.fromarray((ramp() * 255).round().astype(np.uint8)), "PNG"),
    "16-bit PNG": lambda: encoded(Image.fromarray((ramp() * 65535).round().astype(np.uint16)), "PNG"),
    "16-bit TIFF": lambda: encoded(Image.fromarray((ramp() * 65535).round().astype(np.uint16)), "TIFF"),
    "32-bit TIFF": lambda: encoded(Image.fromarray((ramp() * 65535).round().astype(np.int32)), "TIFF"),
    "float TIFF to 1": lambda: encoded(Image.fromarray(ramp().astype(np.float32)), "TIFF"),
    "float TIFF to 255": lambda: encoded(Image.fromarray((ramp() * 255).astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("make", GREYS.values(), ids=GREYS.keys())
def test_grey_of_any_depth_keeps_its_range(make: Callable[[], bytes]) -> None:
    pixels = np.asarray(decode_image(make()), dtype=int)
    assert np.abs(pixels - np.arange(256)[None, :, None]).max() <= 1


def test_a_dark_16_bit_image_stays_dark_and_holes_in_a_float_image_are_black() -> None:
    dark = encoded(Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)), "PNG")
    assert decode_image(dark).getpixel((0, 0)) == (1, 1, 1)
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    holes = decode_image(encoded(Image.fromarray(values), "TIFF"))
    assert [holes.getpixel((x, 0))[0] for x in range(4)] == [0, 0, 0, 128]


def test_cmyk_one_bit_and_animations_become_rgb() -> None:
    cmyk = decode_image(encoded(corners().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(np.asarray(cmyk, dtype=int)[8, 8] - [255, 0, 0]).max() <= 12
    one_bit = decode_image(encoded(corners().convert("1", dither=Image.Dither.NONE), "PNG"))
    assert one_bit.mode == "RGB"
    assert {colour for _, colour in one_bit.getcolors()} == {(0, 0, 0), (255, 255, 255)}
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
        assert decode_image(moving).getpixel((5, 5))[2] == 0, kind


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises width × height pixels, and nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def test_too_many_pixels_are_refused_before_any_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(ImageTooLarge, match=r"8001×8000 pixels is over the cap of 64000000: .*smaller copy"):
        decode_image(png_of(8001, 8000))
    with pytest.raises(ImageTooLarge):
        decode_image(png_of(60_000, 60_000))
    with pytest.raises(ImageTooLarge, match="over the cap of 100"):
        decode_image(encoded(corners(), "PNG"), max_pixels=100)


def test_a_gif_whose_frame_is_larger_than_its_screen_meets_the_cap_too() -> None:
    gif = bytearray(encoded(Image.new("L", (10, 10)), "GIF"))
    frame = gif.index(b",", 13)
    gif[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises((ImageTooLarge, UndecodableImage)):
        decode_image(bytes(gif))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_image_is_refused_and_says_so(kind: str) -> None:
    whole = encoded(probe_image(200, 150), kind)
    with pytest.raises(UndecodableImage, match=r"cannot decode \d+ bytes as an image: \w+"):
        decode_image(whole[: len(whole) // 2])


NO_IMAGES = {
    "nothing": (b"", "cannot decode 0 bytes"),
    "noise": (bytes(range(256)) * 8, "none of the formats JPEG, PNG"),
    "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "markup"),
    "HTML": (b"\n <!doctype html><html></html>", "markup"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "none of the formats"),
    "a header alone": (b"\x89PNG\r\n\x1a\n", "cannot decode 8 bytes"),
}


@pytest.mark.parametrize(("data", "message"), NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_what_is_no_image_is_refused_and_says_so(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        decode_image(data)


def test_many_threads_decode_at_once_and_agree() -> None:
    data = encoded(probe_image(120, 90), "JPEG")
    alone = np.asarray(decode_image(data))
    with ThreadPoolExecutor(8) as pool:
        for image in pool.map(decode_image, [data] * 64):
            assert np.array_equal(np.asarray(image), alone)


OPEN_CLIP: dict[str, dict[str, Any]] = {
    "shortest": {"resize_mode": "shortest"},
    "shortest, bilinear": {"resize_mode": "shortest", "interpolation": "bilinear"},
    "shortest, tall": {"resize_mode": "shortest", "size": (64, 48), "interpolation": "bilinear"},
    "shortest, wide": {"resize_mode": "shortest", "size": (48, 64)},
    "squash": {"resize_mode": "squash"},
    "squash, bilinear, wide": {"resize_mode": "squash", "interpolation": "bilinear", "size": (48, 64)},
    "longest": {"resize_mode": "longest"},
    "longest, filled, tall": {"resize_mode": "longest", "fill_color": 114, "size": (64, 48)},
}


@pytest.mark.parametrize("settings", OPEN_CLIP.values(), ids=OPEN_CLIP.keys())
def test_every_resize_mode_gives_the_pixels_of_open_clips_own_transform(settings: dict[str, Any]) -> None:
    cfg = {"size": 64, **settings, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    theirs = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    spec = from_open_clip(cfg)
    for width, height in SIZES:
        if cfg["resize_mode"] == "longest" and max(width, height) > 50 * min(width, height):
            continue  # open_clip asks Pillow for a side of 0 pixels there, and fails
        image = probe_image(width, height)
        expected = (theirs(image).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        assert np.array_equal(to_pixels(image, spec), expected), (width, height)


@pytest.mark.parametrize("crop", [63, 64, 65])
def test_a_short_side_larger_than_the_crop_gives_the_pixels_of_torchvisions_transforms(crop: int) -> None:
    spec = Preprocessing(height=crop, width=crop, resize="shortest", shortest_side=72, interpolation="bilinear")
    theirs = transforms.Compose([transforms.Resize(72), transforms.CenterCrop(crop)])
    for width, height in SIZES:
        image = probe_image(width, height)
        assert np.array_equal(to_pixels(image, spec), np.asarray(theirs(image))), (width, height)


def test_odd_margins_go_where_the_rounding_says() -> None:
    stripes = Image.fromarray(np.tile(np.arange(67, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    even, floor = (
        to_pixels(stripes, Preprocessing(height=64, width=64, resize="shortest", crop_rounding=rounding))
        for rounding in ("even", "floor")
    )
    assert (even[0, 0, 0], floor[0, 0, 0]) == (2, 1)


def test_a_strip_is_resized_without_the_gigabytes_that_its_crop_throws_away() -> None:
    spec = Preprocessing(resize="shortest")
    code = (
        "import resource; from PIL import Image; from encoders.images import Preprocessing, to_pixels\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for size in ((1, 10_000), (10_000, 1)):\n"
        "    pixels = to_pixels(Image.new('RGB', size, 'red'), Preprocessing(resize='shortest'))\n"
        "    assert pixels.shape == (224, 224, 3)\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    strip = probe_image(800, 2)
    whole = strip.resize((89_600, 224), Image.Resampling.BICUBIC).crop((44_688, 0, 44_912, 224))
    assert np.abs(to_pixels(strip, spec).astype(int) - np.asarray(whole, dtype=int)).max() <= 1


def test_every_mode_gives_its_shape_for_the_narrowest_images() -> None:
    for mode in ("squash", "shortest", "letterbox"):
        spec = Preprocessing(height=48, width=64, resize=mode)
        for width, height in ((1, 1), (1, 2000), (2000, 1)):
            pixels = to_pixels(Image.new("RGB", (width, height), "white"), spec)
            assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
