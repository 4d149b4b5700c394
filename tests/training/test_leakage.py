"""Leaks between sets, over real image files."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from training.data.leakage import distances, find_leaks, hash_images, perceptual_hash, photo_id, write_leaks
from training.data.pairs import CaptionedImage, ImageSource, PairSet, read_pairs

NEAR_BITS, FAR_BITS = 48, 80


def scene(seed: int) -> Image.Image:
    """A drawing of a dozen coloured shapes, none of it symmetric."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 180), tuple(draw.integers(120, 256, 3).tolist()))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = draw.uniform(0, 200), draw.uniform(0, 140)
        box = (left, top, left + draw.uniform(20, 90), top + draw.uniform(20, 90))
        colour = tuple(draw.integers(0, 256, 3).tolist())
        (canvas.ellipse if draw.random() < 0.5 else canvas.rectangle)(box, fill=colour)
    return image


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


def on_transparent_margin(image: Image.Image) -> Image.Image:
    framed = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    framed.paste(image, (90, 40))
    return framed


def apart(first: Image.Image, second: Image.Image) -> float:
    return float(distances(perceptual_hash(first)[None], perceptual_hash(second)[None])[0, 0])


@pytest.mark.parametrize(
    "copy",
    [
        jpeg,
        lambda image: image.resize((100, 75)),
        lambda image: image.resize((224, 224)),
        lambda image: ImageOps.expand(image, 30, "white"),
        lambda image: ImageOps.expand(image, 30, "black"),
        on_transparent_margin,
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        lambda image: image.point(lambda level: level * 0.8),
    ],
    ids=["jpeg", "small", "squashed", "white border", "black border", "alpha", "blurred", "darker"],
)
def test_copies_stay_near_and_other_images_far(copy: Callable[[Image.Image], Image.Image]) -> None:
    scenes = [scene(seed) for seed in range(6)]
    near = [apart(image, copy(image)) <= NEAR_BITS for image in scenes]
    assert sum(near) >= 5  # where a border ends can tip over: 83% of real copies stay this near
    assert min(apart(scenes[n], copy(scenes[n - 1])) for n in range(6)) >= FAR_BITS


def test_blank_images_match_each_other_and_no_plain_flag() -> None:
    blank, clear = Image.new("RGB", (50, 50), "white"), Image.new("RGBA", (90, 30), (0, 0, 0, 0))
    flag = Image.new("RGB", (60, 40), "white")
    flag.paste("red", (0, 20, 60, 40))
    fade = Image.linear_gradient("L")
    assert apart(blank, clear) == 0
    assert min(apart(blank, flag), apart(blank, fade), apart(flag, fade.rotate(90))) > FAR_BITS


def save(folder: Path, images: dict[str, Image.Image]) -> PairSet:
    folder.mkdir()
    for name, image in images.items():
        image.save(folder / name)
    rows = "".join(f"{name},An image.\n" for name in images)
    (folder / "captions.csv").write_text("image,caption\n" + rows, encoding="utf-8")
    return read_pairs(f"csv:{folder}/captions.csv")


def test_leaks_are_found_by_photo_id_by_image_and_by_mirror_image(tmp_path: Path) -> None:
    train = save(tmp_path / "train", {
        "1000268201_693b08cb0e.jpg": scene(1),
        "copy.png": ImageOps.expand(scene(2), 25, "white"),
        "mirrored.png": ImageOps.mirror(scene(3)),
        "other.png": scene(4),
    })  # fmt: skip
    test = save(tmp_path / "test", {"1000268201.jpg": scene(5), "two.png": scene(2), "three.png": scene(3)})
    leaks = {(leak.train_id, leak.test_id, leak.kind) for leak in find_leaks(train, test)}
    assert leaks == {
        ("1000268201_693b08cb0e.jpg", "1000268201.jpg", "photo id"),
        ("copy.png", "two.png", "image"),
        ("mirrored.png", "three.png", "mirrored image"),
    }


def test_a_written_list_of_leaks_excludes_them(tmp_path: Path) -> None:
    train = save(tmp_path / "train", {"a.png": scene(1), "b.png": scene(2)})
    test = save(tmp_path / "test", {"one.png": scene(1)})
    write_leaks(find_leaks(train, test), tmp_path / "leaks.txt", comment="Why\n\nand how")
    lines = ["# Why", "#", "# and how", "# image, 0 bits: one.png", "a.png"]
    assert (tmp_path / "leaks.txt").read_text(encoding="utf-8").splitlines() == lines
    kept = read_pairs(f"{train.spec}?exclude={tmp_path}/leaks.txt")
    assert [image.image_id for image in kept.images] == ["b.png"]


def test_a_broken_image_is_named_and_takes_no_other_with_it(tmp_path: Path) -> None:
    scene(1).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    names = ("broken.png", "good.png", "gone.png")
    hashed = hash_images([CaptionedImage(name, ("A.",), ImageSource(tmp_path / name)) for name in names])
    assert hashed.ids == ("good.png",)
    assert [image.image_id for image in hashed.unreadable] == ["broken.png", "gone.png"]
    assert (hashed.upright[0] == perceptual_hash(scene(1))).all()


@pytest.mark.parametrize(
    ("image_id", "photo"),
    [
        ("1000268201_693b08cb0e.jpg", "flickr:1000268201"),
        ("flickr30k-images/1000268201.jpg", "flickr:1000268201"),
        ("2258277193_586949ec62.jpg.1", "flickr:2258277193"),
        ("COCO_val2014_000000000139.jpg", "coco:139"),
        ("val2017/000000000139.jpg", "coco:139"),
        ("VG_100K/2407890.jpg", "vg:2407890.jpg"),
        ("images/2407890.png", None),
        ("12.jpg", None),
        ("holiday_2024.jpg", None),
    ],
)
def test_a_photo_is_known_by_the_name_its_dataset_gave_it(image_id: str, photo: str | None) -> None:
    assert photo_id(image_id) == photo
