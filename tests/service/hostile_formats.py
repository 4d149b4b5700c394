"""Files that lie in the ways their own format allows; see hostile_images."""

import struct
import zlib
from collections.abc import Iterator

import hostile_files as make
import numpy as np
from hostile_files import ANY, BAD, LONG, OK, RATIONAL, SHORT, Hostile

CUTS = (1, 9, 24, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99)  # bytes, or parts of the file


def truncated() -> Iterator[Hostile]:
    for kind, data in make.sound().items():
        yield Hostile(f"{kind}, whole", data, OK if kind != "interlaced" else ANY)
        for cut in CUTS:
            end = cut if isinstance(cut, int) else int(len(data) * cut)
            yield Hostile(f"{kind}, cut at {cut}", data[:end], BAD if cut in CUTS[:6] else ANY)
    yield Hostile("icon, cut", make.saved(make.noise(), "ICO")[:60])


def directories() -> Iterator[Hostile]:
    """TIFF: a file of pointers."""
    yield Hostile("tiff, sound", make.small_tiff(), OK)
    yield Hostile("tiff whose next directory is itself", make.small_tiff(next_directory=8), ANY)
    yield Hostile("tiff whose next directory is beyond it", make.small_tiff(next_directory=2**31), ANY)
    yield Hostile("tiff with 65,000 entries promised", make.small_tiff(counts=65_000), ANY)
    chain = b"".join(struct.pack("<HI", 0, 8 + 6 * (number + 1)) for number in range(20_000))
    yield Hostile("tiff, 20,000 empty directories", b"II*\x00" + struct.pack("<I", 8) + chain)
    yield Hostile("tiff, directory in its header", b"II*\x00" + struct.pack("<I", 0) + bytes(64))
    yield Hostile("tiff, directory beyond it", b"II*\x00" + struct.pack("<I", 2**32 - 4))
    yield Hostile("big tiff", b"II+\x00\x08\x00\x00\x00" + struct.pack("<QQ", 16, 2**63) + bytes(64))
    changes = {
        "no strips": {"t273": (LONG, [0])},
        "strips beyond it": {"t273": (LONG, [2**31])},
        "strip of 4 GB": {"t279": (LONG, [2**32 - 1])},
        "100,000 strips": {"t273": (LONG, [8] * 100_000), "t279": (LONG, [1] * 100_000), "t278": (SHORT, [1])},
        "no rows a strip": {"t278": (SHORT, [0])},
        "65,535 samples": {"t277": (SHORT, [65_535])},
        "no samples": {"t277": (SHORT, [0])},
        "0 bits": {"t258": (SHORT, [0])},
        "64 bits": {"t258": (SHORT, [64])},
        "unknown compression": {"t259": (SHORT, [9999])},
        "fax that is none": {"t259": (SHORT, [4]), "t258": (SHORT, [1])},
        "old jpeg": {"t259": (SHORT, [6])},
        "jpeg that is none": {"t259": (SHORT, [7])},
        "zlib that is none": {"t259": (SHORT, [8])},
        "lzw that is none": {"t259": (SHORT, [5])},
        "unknown colours": {"t262": (SHORT, [4711])},
        "no palette": {"t262": (SHORT, [3])},
        "tiles of 0": {"t322": (SHORT, [0]), "t323": (SHORT, [0]), "t324": (LONG, [8]), "t325": (LONG, [9])},
        "tiles of 2³¹": {"t322": (LONG, [2**31]), "t323": (LONG, [2**31]), "t324": (LONG, [8])},
        "resolution over 0": {"t282": (RATIONAL, [1, 0]), "t283": (RATIONAL, [0, 0])},
        "orientation 77": {"t274": (SHORT, [77])},
        "directories below that are itself": {"t330": (LONG, [8] * 2000)},
        "exif that is itself": {"t34665": (LONG, [8])},
        "width of 0": {"t256": (SHORT, [0])},
    }
    for name, change in changes.items():
        yield Hostile(f"tiff, {name}", make.small_tiff(**change), ANY)
    yield Hostile("tiff with nothing", make.tiff({}))


def chunks() -> Iterator[Hostile]:
    """PNG."""
    head, data, end = (
        make.png_header(16, 16),
        make.chunk(b"IDAT", zlib.compress(bytes(49 * 16))),
        make.chunk(b"IEND"),
    )
    animation = make.chunk(b"acTL", struct.pack(">II", 2, 0))
    frame = make.chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 99, 99, 9, 9, 1, 1, 0, 0))
    files = {
        "wrong checksum of the header": head[:-1] + b"\x00" + data + end,
        "no data": head + end,
        "no header": data + end,
        "wrong checksum of the data": head + data[:-1] + b"\x00" + end, "two headers": head + head + data + end,
        "end before data": head + end + data,
        "a chunk of 2 GB": head + make.chunk(b"IDAT", b"x", length=2**31 - 1) + end,
        "a chunk of 4 GB": head + make.chunk(b"tEXt", b"x", length=2**32 - 1) + data + end,
        "data that is none": head + make.chunk(b"IDAT", b"x" * 99) + end,
        "data of another compressor": head + make.chunk(b"IDAT", b"\x1f\x8b\x08\x00" * 20) + end,
        "unknown critical chunk": head + make.chunk(b"EVIL", b"x") + data + end,
        "a name that is none": head + make.chunk(b"\x00\x01\x02\x03", b"x") + data + end,
        "a short header": make.chunk(b"IHDR", bytes(5)) + data + end,
        "frames that never come": head + make.chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + data + end,
        "a frame beyond the canvas": head + animation + frame + data + end,
    }  # fmt: skip
    for name, body in files.items():
        yield Hostile(f"png, {name}", make.PNG_HEAD + body, ANY)
    for field in ({"depth": 3}, {"depth": 0}, {"depth": 255}, {"colour": 5}, {"colour": 255}, {"interlace": 9}):
        yield Hostile(f"png, {field}", make.png(**field), ANY)
    yield Hostile("png, filter 255", make.png(rows=(b"\xff" + bytes(48)) * 16), ANY)


def segments() -> Iterator[Hostile]:
    """JPEG."""
    jpeg = make.saved(make.noise(), "JPEG")
    for marker in (0xC1, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xF7):  # lossless, hierarchical, arithmetic, …
        yield Hostile(f"jpeg of kind {marker:x}", make.patched_frame(jpeg, 1, bytes([marker])), ANY)
    for offset, value in ((4, 12), (4, 0), (9, 0), (9, 255), (11, 0), (11, 0xFF), (11, 0x41), (12, 9)):
        yield Hostile(
            f"jpeg, frame byte {offset} is {value}", make.patched_frame(jpeg, offset, bytes([value])), ANY
        )
    for name, marker in (("tables", 0xC4), ("quantisation", 0xDB), ("scan", 0xDA), ("restart", 0xDD)):
        at = jpeg.find(bytes([0xFF, marker]))
        whole = (
            jpeg[:at] + jpeg[at + 4 :] if at > 0 else make.after_start(jpeg, make.segment(marker, b"\x00\x01"))
        )
        yield Hostile(f"jpeg, {name} spoiled", whole, ANY)
        yield Hostile(
            f"jpeg, {name} too early", make.after_start(jpeg, make.segment(marker, b"\x11" * 40)), ANY
        )
    yield Hostile("jpeg, a segment of no length", make.after_start(jpeg, make.segment(0xE0, length=0)), ANY)
    yield Hostile("jpeg, a segment beyond it", make.after_start(jpeg, make.segment(0xE0, length=65_535)), ANY)
    yield Hostile(
        "jpeg, restarts only", jpeg[: jpeg.find(b"\xff\xda") + 14] + b"\xff\xd0" * 5000 + b"\xff\xd9", ANY
    )
    yield Hostile(
        "jpeg, a multi-image index beyond it",
        make.after_start(jpeg, make.segment(0xE2, b"MPF\x00II*\x00\xff\xff\xff\xff")),
        ANY,
    )


def frames() -> Iterator[Hostile]:
    """GIF."""
    for code_size in (0, 1, 9, 12, 13, 255):
        yield Hostile(f"gif, codes of {code_size} bits", make.gif(code_size=code_size), ANY)
    yield Hostile("gif, a frame outside", make.gif(frame=make.gif_frame(16, 16, left=9000, top=9000)), ANY)
    yield Hostile("gif, no frame", make.gif(frame=b"\x3b"))
    yield Hostile("gif, an extension without end", make.gif(frame=b"\x21\xff\xff"), ANY)
    yield Hostile("gif, unknown blocks", make.gif(frame=b"\x77" * 5000), ANY)
    yield Hostile(
        "gif, local colours that are missing",
        make.gif(frame=b"\x2c" + struct.pack("<HHHHB", 0, 0, 16, 16, 0x87)),
        ANY,
    )


def containers() -> Iterator[Hostile]:
    """WebP, AVIF, JPEG 2000: boxes in boxes."""
    webp, avif, jp2 = make.sound()["webp"], make.sound()["avif"], make.sound()["jpeg 2000"]
    yield Hostile("webp, larger than it says", make.riff((b"VP8 ", webp[20:]), size=12), ANY)
    yield Hostile("webp, smaller than it says", make.riff((b"VP8 ", webp[20:]), size=2**32 - 2), ANY)
    yield Hostile("webp, nothing in it", make.riff())
    yield Hostile(
        "webp, animation without frames", make.riff(make.webp_canvas(16, 16, flags=2), (b"ANIM", bytes(6)))
    )
    frame = struct.pack("<I", 9000)[:3] * 2 + struct.pack("<I", 15)[:3] * 2 + bytes(4) + webp[12:]
    yield Hostile(
        "webp, a frame outside",
        make.riff(make.webp_canvas(16, 16, flags=2), (b"ANIM", bytes(6)), (b"ANMF", frame)),
    )
    yield Hostile("webp, lossless nonsense", make.riff((b"VP8L", b"\x2f" + b"\xff" * 200)), ANY)
    yield Hostile(
        "webp, promises it does not keep",
        make.riff(make.webp_canvas(48, 40, flags=0x3C), (b"VP8 ", webp[20:])),
        ANY,
    )
    yield Hostile("avif, only its type", make.box(b"ftyp", b"avif\x00\x00\x00\x00avif"))
    yield Hostile("avif, a box of no size", avif[:32] + make.box(b"meta", size=0) + avif[32:], ANY)
    yield Hostile(
        "avif, a box of 2⁶³", avif[:32] + make.box(b"meta", b"\x7f" + b"\xff" * 7, size=1) + avif[32:], ANY
    )
    nested = b""
    for _ in range(2000):
        nested = make.box(b"meta", bytes(4) + nested)
    yield Hostile("avif, 2000 boxes deep", make.box(b"ftyp", b"avif\x00\x00\x00\x00avif") + nested)
    yield Hostile("jpeg 2000, a box of no size", jp2[:32] + make.box(b"jp2h", size=0) + jp2[32:], ANY)
    tile = jp2.find(b"\xff\x51") + 4
    for name, patch in (
        ("of no size", bytes(16)),
        ("at 2³²", b"\xff" * 16),
        ("of tiny tiles", b"\x00\x00\x00\x01" * 8),
    ):
        yield Hostile(
            f"jpeg 2000, an image {name}", jp2[: tile + 2] + patch + jp2[tile + 2 + len(patch) :], ANY
        )


def flipped() -> Iterator[Hostile]:
    """Sound files with a few bits turned."""
    random = np.random.default_rng(7)
    for kind, data in make.sound().items():
        for number in range(6):
            spoiled = bytearray(data)
            for place in random.integers(8, len(data), 3 + 2 * number):
                spoiled[place] ^= 1 << int(random.integers(8))
            yield Hostile(f"{kind}, flipped {number}", bytes(spoiled), ANY)
