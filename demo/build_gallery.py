"""Draw the images of the demo gallery from the Debian package openclipart-png 0.18.

`demo/gallery/items.jsonl` says which drawings are in the gallery (`source`, a path below the package's `png`
folder) and what each one is called; this turns every one of them into `demo/gallery/images/<id>.webp`, where
that is not there yet. It decides nothing about titles.

    apt-get download openclipart-png && dpkg-deb -x openclipart-png_*.deb package
    python demo/build_gallery.py package/usr/share/openclipart/png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image

GALLERY = Path(__file__).resolve().parent / "gallery"
SIDE_PIXELS = 184
MARGIN = 0.04  # of the drawing's longer side, on each of its sides
WEBP_QUALITY = 64
Image.MAX_IMAGE_PIXELS = None  # a few of the package's files are 170 megapixels, and all are trusted
VISIBLE_ALPHA = 16  # fainter than this is the tail of a soft shadow, not the drawing


def content_box(drawing: Image.Image) -> tuple[int, int, int, int]:
    """The smallest box around what can be seen of an RGBA drawing: many sit in a corner of an empty page."""
    visible = drawing.getchannel("A").point(lambda alpha: 255 if alpha >= VISIBLE_ALPHA else 0)
    return visible.getbbox() or (0, 0, *drawing.size)


def on_white_square(drawing: Image.Image) -> Image.Image:
    """RGB square of at most SIDE_PIXELS, the RGBA drawing whole in its middle, never enlarged.

    White, because most of these drawings have black outlines on nothing and would vanish on a dark page;
    square, because the encoder and the page then show all of a long drawing, and none of it squashed.
    """
    cut = drawing.crop(content_box(drawing))
    side = round(max(cut.size) * (1 + 2 * MARGIN))
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    image = square.convert("RGB")
    image.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS)
    return image


def build(package: Path) -> int:
    """Write every image that is not there yet, remove those of no item; returns the bytes of all."""
    images = GALLERY / "images"
    images.mkdir(exist_ok=True)
    lines = (GALLERY / "items.jsonl").read_text("utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    for stale in set(images.iterdir()) - {GALLERY / item["image"] for item in items}:
        stale.unlink()
    for item in items:
        if (GALLERY / item["image"]).exists():
            continue
        with Image.open(package / item["source"]) as drawing:
            image = on_white_square(drawing.convert("RGBA"))
        image.save(GALLERY / item["image"], "WEBP", quality=WEBP_QUALITY, method=6)
    return sum((GALLERY / item["image"]).stat().st_size for item in items)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw demo/gallery/images from openclipart-png 0.18.")
    parser.add_argument("package", type=Path, help="the package's png folder, .../usr/share/openclipart/png")
    package: Path = parser.parse_args().package
    if not (package / "animals").is_dir():
        print(f"{package} holds no openclipart drawings: name the package's png folder", file=sys.stderr)
        return 2
    print(f"{build(package) / 1e6:.2f} MB of images in {GALLERY / 'images'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
