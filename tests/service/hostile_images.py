"""Hundreds of files that a decoder should fear, and what the service must say to each.

All are made by code, the same every time; none is kept as a file.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import hostile_files as make
import numpy as np
from hostile_files import ANY, LARGE, LONG, NARROW, OK, RATIONAL, SHORT, SMALL, Hostile
from hostile_formats import chunks, containers, directories, flipped, frames, segments, truncated
from PIL import Image

MARKER = "twinlens-postscript-ran"  # what a PostScript interpreter would write into the temporary folder


def all_hostile(folder: Path) -> list[Hostile]:
    """`folder` is where PostScript would write, if anything ran it."""
    families = (
        truncated(), bombs(), hidden_bombs(), directories(), polyglots(), unwanted(folder), markup(),
        orientations(), modes(), sizes(), nonsense(), chunks(), segments(), frames(), containers(), flipped(),
    )  # fmt: skip
    return [hostile for family in families for hostile in family]


def bombs() -> Iterator[Hostile]:
    """Headers that promise gigabytes."""
    jpeg, side = make.saved(make.noise(), "JPEG"), 65_535
    yield Hostile("png header", make.PNG_HEAD + make.png_header(side, side) + make.chunk(b"IDAT", b"x"), LARGE)
    yield Hostile(
        "png of 2³¹ pixels", make.PNG_HEAD + make.png_header(2**31 - 1, 1) + make.chunk(b"IDAT", b"x"), LARGE
    )
    yield Hostile("png, a pixel row more than taken", make.png(2016, 2000, rows=b""), LARGE)
    yield Hostile("jpeg header", make.patched_frame(jpeg, 5, struct.pack(">HH", side, side)), LARGE)
    yield Hostile("gif canvas", make.gif(side, side), LARGE)
    yield Hostile("gif frame larger than its canvas", make.gif(16, 16, frame=make.gif_frame(side, side)), LARGE)
    yield Hostile("webp canvas", make.riff(make.webp_canvas(16_384, 16_384), (b"VP8 ", bytes(20))), ANY)
    yield Hostile("webp canvas of 2⁴⁸", make.riff(make.webp_canvas(2**24, 2**24), (b"VP8 ", bytes(20))), LARGE)
    yield Hostile("tiff", make.small_tiff(t256=(LONG, [side]), t257=(LONG, [side])), LARGE)
    yield Hostile("tiff of 2⁶² pixels", make.small_tiff(t256=(LONG, [2**31]), t257=(LONG, [2**31])), ANY)
    yield Hostile("bmp", make.bmp(side, side), LARGE)
    yield Hostile("bmp upside down", make.bmp(side, -side), LARGE)
    yield Hostile("bmp run-length coded", make.bmp(side, side, bits=8, compression=1), LARGE)
    yield Hostile("ppm", b"P6 65535 65535 255\n", LARGE)
    yield Hostile("ppm of as many as fit in a line", b"P6 9999999999 9999999999 255\n", ANY)
    yield Hostile("plain ppm", b"P3 65535 65535 255\n1 2 3", LARGE)
    size = struct.pack(">IIHBBBB", side, side, 3, 7, 7, 0, 0)
    colour = make.box(b"colr", b"\x01\x00\x00" + struct.pack(">I", 16))
    jp2 = make.box(b"jP  ", b"\r\n\x87\n") + make.box(b"ftyp", b"jp2 \x00\x00\x00\x00jp2 ")
    yield Hostile(
        "jpeg 2000",
        jp2 + make.box(b"jp2h", make.box(b"ihdr", size) + colour) + make.box(b"jp2c", b"\xff\x4f"),
        LARGE,
    )
    avif = make.saved(make.noise(), "AVIF")
    at = avif.find(b"ispe") + 8
    yield Hostile("avif", avif[:at] + struct.pack(">II", side, side) + avif[at + 8 :], ANY)


def hidden_bombs() -> Iterator[Hostile]:
    """Small files that unpack to much, beside the pixels or in them; and more frames than anyone needs."""
    zeros = zlib.compress(bytes(80 << 20), 9)
    yield Hostile("png zTXt of 80 MB", make.png(before=make.chunk(b"zTXt", b"Comment\x00\x00" + zeros)), ANY)
    yield Hostile(
        "png iTXt of 80 MB", make.png(before=make.chunk(b"iTXt", b"XML\x00\x01\x00\x00\x00" + zeros)), ANY
    )
    yield Hostile("png profile of 80 MB", make.png(before=make.chunk(b"iCCP", b"icc\x00\x00" + zeros)), ANY)
    yield Hostile("png of 80 MB in 16 rows", make.png(rows=bytes(80 << 20)), ANY)
    yield Hostile("png, many texts", make.png(before=make.chunk(b"tEXt", b"k\x00" + bytes(50)) * 20_000), ANY)
    yield Hostile(
        "png, many empty parts", make.PNG_HEAD + make.png_header(16, 16) + make.chunk(b"IDAT") * 100_000
    )
    still = make.noise(16, 16).convert("P")
    yield Hostile("gif of 3000 frames", make.gif(frame=make.gif_frame(16, 16) * 3000), OK)
    frames = [make.noise(16, 16, seed=number) for number in range(60)]
    for kind in ("PNG", "WEBP", "AVIF", "TIFF"):
        many = make.saved(frames[0], kind, save_all=True, append_images=frames[1:])
        yield Hostile(f"{kind.lower()} of 60 frames", many, OK)
    yield Hostile(
        "gif with 5 MB of comments",
        make.gif(tail=b"\x21\xfe" + (b"\xff" + bytes(255)) * 20_000 + b"\x00\x3b"),
        ANY,
    )
    yield Hostile("gif without an end", make.saved(still, "GIF")[:-1] + b"\x21\xfe" + b"\x01\x00" * 50_000, ANY)
    jpeg = make.saved(make.noise(), "JPEG")
    yield Hostile(
        "jpeg with 2.6 MB of profiles", make.after_start(jpeg, *[_profile(n) for n in range(40)]), ANY
    )
    yield Hostile("jpeg with a megabyte of fill", jpeg[:2] + b"\xff" * (1 << 20) + jpeg[3:], ANY)
    yield Hostile("jpeg with 5000 comments", make.after_start(jpeg, make.segment(0xFE, b"x" * 60) * 5000), OK)
    yield Hostile("xmp of 64 kB", make.after_start(jpeg, make.segment(0xE1, _XMP + b" " * 65_000)), OK)
    yield Hostile("xmp that never ends", make.after_start(jpeg, make.segment(0xE1, _XMP + b"<a>" * 20_000)), OK)
    entities = b'<!DOCTYPE x [<!ENTITY a "' + b"&b;" * 9 + b'">]>'
    yield Hostile("xmp of entities", make.after_start(jpeg, make.segment(0xE1, _XMP + entities)), OK)
    yield Hostile("exif of 64 kB", make.with_exif(jpeg, b"II*\x00\x08\x00\x00\x00" + b"\x01" * 65_000), OK)


_XMP = b"http://ns.adobe.com/xap/1.0/\x00"


def _profile(number: int) -> bytes:
    return make.segment(0xE2, b"ICC_PROFILE\x00" + bytes([number + 1, 40]) + b"\x07" * 65_000)


def polyglots() -> Iterator[Hostile]:
    """Images that are something else as well: the image counts, the rest is never looked at."""
    jpeg, pngs = make.saved(make.noise(), "JPEG"), make.saved(make.noise(), "PNG")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("evil.py", "raise SystemExit")
    script = b"<script>alert(1)</script>"
    yield Hostile("jpeg and zip", jpeg + buffer.getvalue(), OK)
    yield Hostile("png and zip", pngs + buffer.getvalue(), OK)
    yield Hostile("jpeg with a script in its comment", make.after_start(jpeg, make.segment(0xFE, script)), OK)
    yield Hostile("png with a script in its text", make.png(before=make.chunk(b"tEXt", b"a\x00" + script)), OK)
    yield Hostile("jpeg and jpeg", jpeg + jpeg, OK)
    yield Hostile(
        "jpeg of two images",
        make.saved(make.noise(), "MPO", save_all=True, append_images=[make.noise(seed=6)]),
        OK,
    )
    yield Hostile("jpeg and php", jpeg + b"<?php system($_GET[0]); ?>", OK)
    yield Hostile("gif and javascript", b"GIF89a/*" + make.gif()[8:] + b"*/=1;alert(1)", ANY)
    yield Hostile("bmp and javascript", b"BM/*" + make.bmp(4, 4, data=bytes(48))[4:] + b"*/=1", ANY)
    yield Hostile("pdf and jpeg", b"%PDF-1.4\n" + jpeg)
    yield Hostile("html and png", b"<html>" + pngs)
    yield Hostile("png that is a jpeg", make.PNG_HEAD + jpeg)
    yield Hostile("jpeg that is a png", b"\xff\xd8\xff" + pngs)
    yield Hostile("webp that is a jpeg", make.riff((b"VP8 ", jpeg)))
    yield Hostile("tiff that is a jpeg", b"II*\x00" + jpeg)
    yield Hostile("jpeg after a blank", b" " + jpeg)
    yield Hostile("jpeg as its own base64", b"/9j/4AAQSkZJRgABAQ" * 40)


def unwanted(folder: Path) -> Iterator[Hostile]:
    """What Pillow could open, or start a program for, and the service does not."""
    run = f"({folder / MARKER}) (w) file (ran) writestring"
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n{run}\nshowpage\n".encode()
    yield Hostile("postscript", postscript.replace(b" EPSF-3.0", b""))
    yield Hostile("encapsulated postscript", postscript)
    dos = b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, len(postscript), 0, 0, 0, 0, 0xFFFF) + postscript
    yield Hostile("postscript with a DOS header", dos)
    yield Hostile("postscript that says jpeg", b"\xff\xd8\xff\xe0" + postscript)
    for kind in (
        "ICO",
        "ICNS",
        "TGA",
        "PCX",
        "SGI",
        "DDS",
        "MSP",
        "XBM",
        "SPIDER",
        "QOI",
        "BLP",
        "PDF",
        "EPS",
    ):
        image = make.noise(32, 32)
        modes = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}
        yield Hostile(kind, make.saved(image.convert(modes.get(kind, "RGB")), kind))
    card = b"".join(line.ljust(80) for line in (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 2", b"END"))
    heads = {
        "FITS": card.ljust(2880) + bytes(2880),
        "IPTC": b"\x1c\x03\x3c\x00\x02\x01\x00" * 9,
        "PSD": b"8BPS\x00\x01" + bytes(40),
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40), "EMF": b"\x01\x00\x00\x00" + bytes(36) + b" EMF" + bytes(60),
        "XPM": b'/* XPM */\nstatic char *x[] = {"1 1 1 1"};', "SUN": b"\x59\xa6\x6a\x95" + bytes(40),
        "FLI": struct.pack("<IH", 128, 0xAF12) + bytes(122), "MPEG": b"\x00\x00\x01\xb3" + bytes(40),
        "DCX": struct.pack("<I", 0x3ADE68B1) + bytes(40), "GBR": struct.pack(">II", 20, 1) + bytes(40),
        "IM": b"Image type: RGB image\r\nImage size (x*y): 32*32\r\n" + bytes(600),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(40), "GRIB": b"GRIB\x00\x00\x00\x01", "BUFR": b"BUFR" + bytes(40),
        "PCD": bytes(2048) + b"PCD_IPI" + bytes(1600),
        "PIXAR": b"\x80\xe8\x00\x00" + bytes(600),
        "FTEX": b"FTEX" + bytes(60),
        "MCIDAS": struct.pack(">II", 0, 4) + bytes(300), "CUR": b"\x00\x00\x02\x00\x01\x00" + bytes(40),
    }  # fmt: skip
    yield from (Hostile(kind, data) for kind, data in heads.items())


def markup() -> Iterator[Hostile]:
    """No images at all."""
    files = {
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "svg with entities": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/hosts">]><svg/>',
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "json": b'{"image": "x"}',
        "pickle": b"\x80\x04cos\nsystem\n.",
        "elf": b"\x7fELF\x02\x01\x01" + bytes(57), "exe": b"MZ" + bytes(62), "zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(60), "mp4": make.box(b"ftyp", b"isom\x00\x00\x02\x00isom") + bytes(60),
        "heic": make.box(b"ftyp", b"heic\x00\x00\x00\x00heicmif1") + bytes(60),
        "wav": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28),
        "wasm": b"\x00asm\x01\x00\x00\x00",
        "shell": b"#!/bin/sh\nrm -rf /\n",
        "imagemagick": b"push graphic-context\nimage '|id'",
        "url": b"https://example.com/cat.jpg", "path": b"/etc/passwd", "utf-16": "GIF89a".encode("utf-16"),
    }  # fmt: skip
    yield from (Hostile(name, data) for name, data in files.items())


def orientations() -> Iterator[Hostile]:
    jpeg = make.saved(make.noise(), "JPEG")
    for turn in (0, 1, 3, 6, 8, 9, 255, 65_535):
        yield Hostile(f"orientation {turn}", make.with_exif(jpeg, make.tiff({274: (SHORT, [turn])})), OK)
    yield Hostile("orientation of many", make.with_exif(jpeg, make.tiff({274: (SHORT, [6] * 300)})), OK)
    yield Hostile(
        "orientation as a fraction over 0", make.with_exif(jpeg, make.tiff({274: (RATIONAL, [6, 0])})), OK
    )
    yield Hostile("orientation elsewhere", make.with_exif(jpeg, b"II*\x00\xff\xff\xff\xff"), OK)
    yield Hostile("exif cut", make.with_exif(jpeg, make.tiff({274: (SHORT, [6])})[:13]), OK)
    yield Hostile("exif of one byte", make.with_exif(jpeg, b"M"), OK)
    yield Hostile(
        "exif that points at itself",
        make.with_exif(jpeg, make.tiff({34665: (LONG, [8])}, next_directory=8)),
        OK,
    )
    for number, exif in enumerate((b"", b"\xff" * 99, make.tiff({274: (SHORT, [6])}, counts=9))):
        yield Hostile(f"png with bad exif {number}", make.png(before=make.chunk(b"eXIf", exif)), OK)


def modes() -> Iterator[Hostile]:
    """Every way to say what a pixel is."""
    grey = make.noise().convert("L")
    cmyk = Image.merge("CMYK", [grey] * 4)
    yield Hostile("cmyk", make.saved(cmyk, "JPEG"), OK)
    adobe = b"Adobe\x00\x64\x00\x00\x00\x00"
    for transform in (0, 1, 2, 9):  # 2: YCCK
        marked = make.segment(0xEE, adobe + bytes([transform]))
        yield Hostile(f"cmyk, transform {transform}", make.after_start(make.saved(cmyk, "JPEG"), marked), OK)
        yield Hostile(
            f"rgb, transform {transform}", make.after_start(make.saved(make.noise(), "JPEG"), marked), OK
        )
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        image = Image.new(mode, (32, 32)) if mode == "I;16" else make.noise(32, 32).convert(mode)
        yield Hostile(f"png of {mode}", make.saved(image, "PNG"), OK)
    for mode in ("1", "CMYK", "LAB", "F", "I", "RGBA"):
        yield Hostile(f"tiff of {mode}", make.saved(_in_mode(mode), "TIFF"), OK)
    floats = np.full((16, 16), np.nan, dtype=np.float32)
    floats[0, 0], floats[1, 1], floats[2, 2] = np.inf, -np.inf, 3e38
    yield Hostile("tiff of nan", make.saved(Image.fromarray(floats), "TIFF"), OK)
    row = b"\x00" + bytes(range(240, 256))
    yield Hostile(
        "png, indices beyond its palette", make.png(rows=row * 16, colour=3, palette=b"\x01\x02\x03" * 2), ANY
    )
    yield Hostile("png without its palette", make.png(rows=row * 16, colour=3), ANY)
    yield Hostile("png, empty palette", make.png(rows=row * 16, colour=3, palette=b""), ANY)
    yield Hostile("png, palette of 300", make.png(rows=row * 16, colour=3, palette=bytes(900)), ANY)
    yield Hostile("png, palette of a part", make.png(rows=row * 16, colour=3, palette=b"\x01\x02"), ANY)
    alphas = make.chunk(b"PLTE", bytes(6)) + make.chunk(b"tRNS", bytes(300))
    yield Hostile("png, more alphas than colours", make.png(rows=row * 16, colour=3, before=alphas), ANY)
    yield Hostile("png, alpha of a wrong length", make.png(before=make.chunk(b"tRNS", b"\x01")), ANY)
    yield Hostile("png, 16 bits a channel", make.png(rows=(b"\x00" + bytes(96)) * 16, depth=16), OK)
    yield Hostile("png, all transparent", make.saved(Image.new("RGBA", (32, 32), (9, 9, 9, 0)), "PNG"), OK)


def _in_mode(mode: str) -> Image.Image:
    return Image.new("LAB", (32, 32)) if mode == "LAB" else make.noise(32, 32).convert(mode)


def sizes() -> Iterator[Hostile]:
    for width, height, code in (
        (1, 1, SMALL), (1, 60_000, SMALL), (60_000, 1, SMALL), (2, 401, NARROW), (401, 2, NARROW), (2, 2, OK),
        (2, 400, OK), (1, 2, SMALL),
    ):  # fmt: skip
        yield Hostile(f"{width}×{height}", make.saved(Image.new("RGB", (width, height)), "PNG"), code)
    jpeg = make.saved(make.noise(), "JPEG")
    for width, height in ((0, 0), (0, 16), (16, 0)):
        size = f"of {width}×{height}"
        yield Hostile(
            f"png {size}", make.PNG_HEAD + make.png_header(width, height) + make.chunk(b"IDAT", b"x"), ANY
        )
        yield Hostile(f"gif {size}", make.gif(width, height), ANY)
        yield Hostile(f"bmp {size}", make.bmp(width, height, data=bytes(64)), ANY)
        yield Hostile(f"ppm {size}", b"P6 %d %d 255\n" % (width, height) + bytes(64), ANY)
        yield Hostile(f"jpeg {size}", make.patched_frame(jpeg, 5, struct.pack(">HH", height, width)), ANY)
        yield Hostile(f"tiff {size}", make.small_tiff(t256=(SHORT, [width]), t257=(SHORT, [height])), ANY)


def nonsense() -> Iterator[Hostile]:
    random = np.random.default_rng(11)
    yield Hostile("nothing", b"")
    for length in (1, 2, 3, 4, 8, 16, 64, 1000, 65_536):
        yield Hostile(f"{length} random bytes", b"\x07" + random.bytes(length - 1))
    for value in (0, 0x20, 0xFF):
        yield Hostile(f"{value:02x} for ever", bytes([value]) * 10_000)
    for name, data in make.sound().items():
        yield Hostile(f"the beginning of {name}, then noise", data[:16] + b"\x00" + random.bytes(2000), ANY)
