"""A fresh clone of the last commit, and what a reader of the pages has on their machine."""

import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

IMAGES = 60  # in the reader's folder
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "purple", "orange")
SHAPES = ("triangle", "square", "hexagon", "circle")
OF_THE_ENVIRONMENT = ("requirements/dev.txt", "requirements/install.py", "pyproject.toml")


def make_clone(root: Path, scratch: Path, *, fresh: bool) -> Path:
    """Clone `root` below `scratch`; unless `fresh`, the clone uses the environment of `root`."""
    clone = scratch / "twinlens"
    git = shutil.which("git") or "git"
    status = [git, "-C", str(root), "status", "--porcelain"]
    if subprocess.run(status, check=True, capture_output=True).stdout:  # noqa: S603
        print("docs-check: what is not committed is not in the clone", flush=True)
    subprocess.run([git, "clone", "--quiet", root, clone], check=True)  # noqa: S603
    if not fresh:
        (clone / ".venv").symlink_to(root / ".venv")
        for name in OF_THE_ENVIRONMENT:  # older than the environment, so that make leaves it as it is
            os.utime(clone / name, (0, 0))
    return clone


def give_files(clone: Path, home: Path) -> None:
    """What pages take for granted: some images in ~/Pictures and two in the clone."""
    images = home / "Pictures"
    (images / "animals").mkdir(parents=True)
    (clone / "images").symlink_to(images)
    captions = dict(_draw_images(images))
    for table, folder in (("mine.csv", ""), ("pairs.csv", "images/")):
        rows = "".join(f"{folder}{name},{caption}\n" for name, caption in captions.items())
        (clone / table).write_text(f"image,caption\n{rows}", "utf-8")
    drawings = clone / "demo/gallery/images"
    _convert(drawings / "sleeping-cat.webp", images / "animals/cat.jpg")
    for target in (images / "animals/dog.jpg", clone / "dog.jpg"):
        _convert(drawings / "black-labrador-dog.webp", target)
    shutil.copy(images / next(iter(captions)), clone / "car.png")
    (home / ".curlrc").write_text("fail-with-body\n", "utf-8")  # a refusal is a failure


def environment(clone: Path, scratch: Path, home: Path, *, port: int) -> Mapping[str, str]:
    """A reader's own `python` and `pip`, which know nothing of ours; packages come as the lock pins them."""
    reader = scratch / "reader"
    venv.create(reader, with_pip=True, symlinks=True)
    lock = (clone / "requirements/dev.txt").read_text("utf-8")
    pins = re.findall(r"^([A-Za-z0-9._-]+==\S+)", lock, re.MULTILINE)
    (scratch / "pins.txt").write_text("\n".join(pins), "utf-8")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TWINLENS_", "OTEL_", "MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHONPATH"))
    }
    return (
        kept
        | {
            "PATH": f"{reader / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "CURL_HOME": str(home),
            "PORT": str(port),
            "TWINLENS_PORT": str(port),
            "PIP_CONSTRAINT": str(scratch / "pins.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        | _pip_configuration()
    )


def _pip_configuration() -> dict[str, str]:
    """The user's own, where there is one: HOME is another here."""
    own = (Path.home() / place for place in (".config/pip/pip.conf", ".pip/pip.conf"))
    path = next(filter(Path.exists, own), None)
    return {"PIP_CONFIG_FILE": str(path)} if path else {}


def _draw_images(folder: Path) -> Iterator[tuple[str, str]]:
    """Images that no encoder was trained on, each with what it shows: two coloured shapes on a ground."""
    random = Random(0)
    for number in range(IMAGES):
        (ground, first, second), (left, right) = random.sample(COLOURS, 3), random.sample(SHAPES, 2)
        image = Image.new("RGB", (320, 240), ground)
        pen = ImageDraw.Draw(image)
        for colour, shape, start in ((first, left, 0), (second, right, 160)):
            x, y, side = start + random.randrange(70), random.randrange(120), random.randrange(50, 90)
            sides = {"triangle": 3, "square": 4, "hexagon": 6, "circle": 60}[shape]
            pen.regular_polygon((x + side // 2, y + side // 2, side // 2), sides, fill=colour)
        image.save(folder / f"{number:02}.png")
        yield f"{number:02}.png", f"a {first} {left} and a {second} {right} on {ground}"


def _convert(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        image.convert("RGB").save(target)
