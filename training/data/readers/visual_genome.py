"""Visual Genome's `region_descriptions.json` and `image_data.json`, cut to the retrieval task.

The task: photos that are also in COCO (`coco_id`; half of them) are dropped; of the photos that have five
distinct phrases of at least four words, a seeded 5,000 are taken; their captions are the five phrases with
the largest regions. The choice is by SHA-256 of seed and id, so it is the same on every machine, whichever
images are there. `training.data.pairs.write_manifest` publishes it.

`region_descriptions.json` has some 700 MB: it is streamed, and the memory in use is that of the sample.
"""

import hashlib
import heapq
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from training.data.readers.documents import elements, field
from training.data.readers.listed import ListedImage, Listing, files, normalised
from training.data.readers.spec import Spec, existing_file, existing_folder
from training.errors import BadRow, BadSpec, MissingColumn

SAMPLE = 5_000
CAPTIONS_AN_IMAGE = 5
LEAST_WORDS = 4


def read_visual_genome(spec: Spec) -> Listing:
    folder = existing_folder(spec.body)
    sample, seed = spec.number("sample", SAMPLE), spec.number("seed", 0)
    if sample == 0:
        raise BadSpec(f"{spec.text}: sample= takes at least 1")
    names = _names_outside_coco(existing_file(str(folder / "image_data.json")))
    described = _described(existing_file(str(folder / "region_descriptions.json")), names.keys())
    ranked = ((_rank(seed, key), key, captions) for key, captions in described)
    images = spec.folder("images") or folder
    for _, key, captions in sorted(heapq.nsmallest(sample, ranked), key=lambda chosen: chosen[1]):
        name = names[key]
        yield ListedImage(name, captions, files(images / name, images / PurePosixPath(name).name))


def _rank(seed: int, key: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _names_outside_coco(path: Path) -> dict[int, str]:
    """Image id -> `VG_100K/1.jpg`, the last two parts of its URL, for the photos that COCO lacks."""
    names: dict[int, str] = {}
    number = 0
    for number, image in elements(path, prefix="item"):
        key = _image_id(image, path=path, number=number)
        if "coco_id" not in image:
            raise MissingColumn(f"{path}, row {number}: no 'coco_id': photos of COCO could not be told apart")
        if image["coco_id"] is None:
            parts = PurePosixPath(urlsplit(field(image, "url", str, path=path, number=number)).path).parts
            names[key] = "/".join(parts[-2:]).lstrip("/")
    if not number:
        raise MissingColumn(f"{path}: not a list of images: not Visual Genome's image_data.json")
    return names


def _described(path: Path, wanted: Container[int]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Id and captions of the wanted photos that have enough phrases."""
    number = 0
    for number, image in elements(path, prefix="item"):
        key = _image_id(image, path=path, number=number)
        if key in wanted:
            captions = _captions(
                field(image, "regions", list, path=path, number=number), path=path, number=number
            )
            if len(captions) == CAPTIONS_AN_IMAGE:
                yield key, captions
    if not number:
        raise MissingColumn(f"{path}: not a list of images: not Visual Genome's region_descriptions.json")


def _image_id(image: dict[str, Any], *, path: Path, number: int) -> int:
    """The id, which the older release calls `id`."""
    return int(field(image, "image_id" if "image_id" in image else "id", int, path=path, number=number))


def _captions(regions: list[Any], *, path: Path, number: int) -> tuple[str, ...]:
    """The distinct phrases of enough words, by falling area; at most `CAPTIONS_AN_IMAGE`."""
    largest: dict[str, tuple[float, str]] = {}
    for region in regions:
        try:
            phrase, area = normalised(region["phrase"]), float(region["width"] * region["height"])
        except (TypeError, KeyError, AttributeError) as error:
            raise BadRow(
                path, number, value=region, problem="a region without phrase, width, height"
            ) from error
        if len(phrase.split()) >= LEAST_WORDS and area > largest.get(phrase.casefold(), (-1.0, ""))[0]:
            largest[phrase.casefold()] = (area, phrase)
    ordered = sorted(largest.values(), key=lambda scored: (-scored[0], scored[1]))
    return tuple(phrase for _, phrase in ordered[:CAPTIONS_AN_IMAGE])
