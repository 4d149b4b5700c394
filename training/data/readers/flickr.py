"""Flickr8k and Flickr30k as first published, and Flickr30k as Kaggle has it: lines of text.

Token file (`Flickr8k.token.txt`, `results_20130124.token`): `name.jpg#0<TAB>caption`. Flickr8k's lists the
phantom `2258277193_586949ec62.jpg.1`, a second entry of a photo, for which no file was ever published: it
comes out as a missing image.

Kaggle's `results.csv`: a header, then `image_name| comment_number| comment`. It is no CSV (captions hold
quotes and commas, unescaped), and one row lacks its second delimiter:
`2199200615.jpg| 4   A dog runs across the grass .`
"""

import re
from collections.abc import Iterator
from pathlib import Path

from training.data.readers.listed import ListedImage, Listing, files, normalised
from training.data.readers.spec import Spec, file_and_folder
from training.errors import BadRow, MissingColumn

TOKEN_LINE = re.compile(r"(?P<image>[^\t#]+)#\d+\t(?P<caption>.*)")
KAGGLE_LINE = re.compile(r"(?P<image>[^|]+)\|\s*\d+\s*\|?\s*(?P<caption>.*)")
KAGGLE_HEADER = re.compile(r"image_name\s*\|\s*comment_number\s*\|\s*comment")
PHANTOM = re.compile(r"\.jpe?g\.\d+$", re.IGNORECASE)


def read_flickr(spec: Spec) -> Listing:
    path, folder = file_and_folder(spec)
    return _grouped(_lines(path), path=path, folder=folder, form=TOKEN_LINE)


def read_kaggle(spec: Spec) -> Listing:
    path, folder = file_and_folder(spec)
    lines = _lines(path)
    _, header = next(lines, (0, ""))
    if not KAGGLE_HEADER.fullmatch(header):
        raise MissingColumn(f"{path}: starts with {header!r}, not 'image_name| comment_number| comment'")
    return _grouped(lines, path=path, folder=folder, form=KAGGLE_LINE)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of the lines that are not blank."""
    number = 0
    with path.open(encoding="utf-8-sig", newline=None) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip("\n")
        except UnicodeDecodeError as error:
            raise BadRow(
                path, number + 1, value=error.object[error.start :][:20], problem="not UTF-8"
            ) from error


def _grouped(lines: Iterator[tuple[int, str]], *, path: Path, folder: Path, form: re.Pattern[str]) -> Listing:
    captions: dict[str, list[str]] = {}
    for number, line in lines:
        match = form.fullmatch(line)
        if not match:
            raise BadRow(path, number, value=line, problem="not an image, a number and a caption")
        of_image = captions.setdefault(match["image"].strip(), [])
        if caption := normalised(match["caption"]):
            of_image.append(caption)
    for image, texts in captions.items():
        fault = "a phantom entry: published without a file" if PHANTOM.search(image) else None
        yield ListedImage(image, tuple(texts), files(folder / image), fault)
