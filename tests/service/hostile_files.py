"""WholeImage files put together byte by byte, so that any part of them can be a lie."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

OK = ""
BAD = "undecodable_image"
LARGE = "image_too_large"
SMALL = "image_too_small"
NARROW = "image_too_narrow"
ANY = "any"  # a sound answer or any 4xx: decoders differ in what they forgive
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
_LENGTHS = {SHORT: 2, LONG: 4, RATIONAL: 8, LONG8: 8}


@dataclass(frozen=True)
class Hostile:
    """`code`: the error the service must answer with, OK, or ANY."""

    name: str
    data: bytes
    code: str = BAD


def noise(width: int = 48, height: int = 40, *, seed: int = 5) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 or 1, width // 8 or 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound() -> dict[str, bytes]:
    """A small image in every format and kind of compression that is taken."""
    image = noise()
    return {
        "jpeg": saved(image, "JPEG"),
        "progressive": saved(image, "JPEG", progressive=True),
        "png": saved(image, "PNG"),
        "interlaced": png(rows=b"".join(b"\x00" + bytes(3 * 2) for _ in range(200)), interlace=1),
        "gif": saved(image, "GIF"),
        "webp": saved(image, "WEBP"),
        "lossless": saved(image, "WEBP", lossless=True),
        "tiff": saved(image, "TIFF"),
        "deflated": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "jpeg in tiff": saved(image, "TIFF", compression="jpeg"),
        "bmp": saved(image, "BMP"),
        "ppm": saved(image, "PPM"),
        "avif": saved(image, "AVIF"),
        "jpeg 2000": saved(image, "JPEG2000"),
    }


def chunk(kind: bytes, data: bytes = b"", *, length: int | None = None, checksum: int | None = None) -> bytes:
    """One chunk of a PNG, its length and checksum right unless given."""
    crc = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", crc)


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(
    width: int = 16,
    height: int = 16,
    *,
    before: bytes = b"",
    rows: bytes | None = None,
    palette: bytes | None = None,
    **header: int,
) -> bytes:
    """RGB unless `header` says otherwise; `before`: chunks before the pixels, `rows`: what is compressed."""
    pixels = (b"\x00" + bytes(range(48)) * (width // 16)) * height if rows is None else rows
    parts = [PNG_HEAD, png_header(width, height, **header), before]
    parts += [] if palette is None else [chunk(b"PLTE", palette)]
    return b"".join([*parts, chunk(b"IDAT", zlib.compress(pixels, 9)), chunk(b"IEND")])


def segment(marker: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """One marker segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2 if length is None else length) + data


def after_start(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with more segments right after its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    return after_start(jpeg, segment(0xE1, b"Exif\x00\x00" + exif))


def patched_frame(jpeg: bytes, offset: int, patch: bytes) -> bytes:
    """The JPEG with bytes of its frame header (SOF0 or SOF2, from its marker on) replaced."""
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: at + offset] + patch + jpeg[at + offset + len(patch) :]


def scan_bomb(scans: int) -> bytes:
    """A sound JPEG of 2000×2000 pixels whose last pass comes `scans` times: 14 bytes cost some 3 ms each."""
    jpeg = saved(Image.new("L", (2000, 2000), 77), "JPEG", progressive=True)
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def gif(
    width: int = 16, height: int = 16, *, code_size: int = 8, frame: bytes = b"", tail: bytes = b"\x3b"
) -> bytes:
    """A GIF of two colours; `frame` instead of a sound one of 16×16."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    return head + (frame or gif_frame(16, 16, code_size=code_size)) + tail


def gif_frame(width: int, height: int, *, left: int = 0, top: int = 0, code_size: int = 8) -> bytes:
    """16×16 black pixels, whatever size it claims."""
    made = saved(Image.new("P", (16, 16)), "GIF", optimize=False)
    blocks = made[made.index(b"\x2c\x00\x00\x00\x00\x10\x00\x10\x00") + 11 : -1]
    return b"\x2c" + struct.pack("<HHHHBB", left, top, width, height, 0, code_size) + blocks


def tiff(
    tags: Mapping[int, tuple[int, Sequence[int]]],
    *,
    data: bytes = b"",
    next_directory: int = 0,
    counts: int = 0,
) -> bytes:
    """Little-endian, one directory at byte 8, then the values that do not fit into it, then `data`.

    A value of -1 becomes the offset of `data`; `counts` is added to the number of entries.
    """
    base = 8 + 2 + 12 * len(tags) + 4
    spilled, offset = b"", base + sum(_size(entry) for entry in tags.values() if _size(entry) > 4)
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = b"".join(_packed(kind, offset if value == -1 else value) for value in values)
        count = len(values) // 2 if kind == RATIONAL else len(values)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, kind, count, base + len(spilled))
            spilled += packed
        else:
            entries += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\x00")
    head = b"II*\x00" + struct.pack("<IH", 8, len(tags) + counts)
    return head + entries + struct.pack("<I", next_directory) + spilled + data


def small_tiff(*, next_directory: int = 0, counts: int = 0, **changes: tuple[int, Sequence[int]]) -> bytes:
    """16×16 grey, uncompressed; `changes` as t256=(SHORT, [9])."""
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (SHORT, [16]), 257: (SHORT, [16]), 258: (SHORT, [8]), 259: (SHORT, [1]), 262: (SHORT, [1]),
        273: (LONG, [-1]), 277: (SHORT, [1]), 278: (SHORT, [16]), 279: (LONG, [256]),
    }  # fmt: skip
    tags |= {int(name[1:]): value for name, value in changes.items()}
    return tiff(tags, data=bytes(range(256)), next_directory=next_directory, counts=counts)


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    """A WebP container."""
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def webp_canvas(width: int, height: int, *, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", struct.pack("<I", flags) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[
        :3
    ]


def box(name: bytes, data: bytes = b"", *, size: int | None = None) -> bytes:
    """One box of an ISO file (AVIF, JPEG 2000)."""
    return struct.pack(">I", len(data) + 8 if size is None else size) + name + data


def bmp(
    width: int, height: int, *, bits: int = 24, compression: int = 0, colours: int = 0, data: bytes = b""
) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def _size(entry: tuple[int, Sequence[int]]) -> int:
    kind, values = entry
    return len(values) * (4 if kind == RATIONAL else _LENGTHS[kind])


def _packed(kind: int, value: int) -> bytes:
    return struct.pack({SHORT: "<H", LONG8: "<Q"}.get(kind, "<I"), value)
