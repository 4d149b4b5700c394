"""Sets of images with captions, read from a one-line spec: `read_pairs("karpathy:dataset.json:test")`.

    karpathy:<json>[:<split>]      Karpathy's dataset_{coco,flickr8k,flickr30k}.json; train, val, test
    coco:<json>:<folder>           COCO captions_*.json
    flickr:<token file>:<folder>   Flickr8k.token.txt, results_20130124.token
    kaggle:<csv>:<folder>          Flickr30k's results.csv as Kaggle has it
    vg:<folder>                    Visual Genome regions as a retrieval task; sample=, seed=
    csv:<file>  jsonl:<file>       columns image and caption (or captions); a .tsv is split at tabs
    parquet:<file or glob>         the same columns
    webdataset:<pattern>           uncompressed shards, `shard-{000..099}.tar` or a glob

Options follow a `?`, joined by `&`: `images=` folder, `image=` column, `caption=` column or columns,
`split=`, `limit=` images, `only=` and `exclude=` files of image ids (one a line, # starts a comment;
several files separated by commas), `name=` to show in reports.

Specs with ` + ` between them are one set: `csv:photos.csv + jsonl:drawings.jsonl`.

Knows which images are wanted and whether their files exist; nothing of formats (`training.data.readers`), and
never decodes an image.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from training.data.readers.coco import read_coco
from training.data.readers.flickr import read_flickr, read_kaggle
from training.data.readers.karpathy import read_karpathy
from training.data.readers.listed import ImageSource, ListedImage, Listing
from training.data.readers.spec import Spec, lines_of, parse_spec
from training.data.readers.tables import read_csv, read_jsonl, read_parquet
from training.data.readers.visual_genome import read_visual_genome
from training.data.readers.webdataset import read_webdataset
from training.errors import BadSpec, EmptyPairSet, PairsError

__all__ = [
    "CaptionedImage",
    "ImageSource",
    "MissingImage",
    "Pair",
    "PairSet",
    "read_pairs",
    "write_manifest",
]

Reader = Callable[[Spec], Listing]
TABLE_OPTIONS = frozenset({"images", "image", "caption", "split"})
READERS: dict[str, tuple[Reader, frozenset[str]]] = {
    "karpathy": (read_karpathy, frozenset({"images", "split"})),
    "coco": (read_coco, frozenset()),
    "flickr": (read_flickr, frozenset()),
    "kaggle": (read_kaggle, frozenset()),
    "vg": (read_visual_genome, frozenset({"images", "sample", "seed"})),
    "csv": (read_csv, TABLE_OPTIONS),
    "jsonl": (read_jsonl, TABLE_OPTIONS),
    "parquet": (read_parquet, TABLE_OPTIONS),
    "webdataset": (read_webdataset, frozenset({"caption"})),
}
COMMON_OPTIONS = frozenset({"only", "exclude", "limit", "name"})
_JOINED = re.compile(rf"\s\+\s+(?=(?:{'|'.join(READERS)}):)")
# Folders named after their content, not after the dataset they belong to.
PLAIN_FOLDERS = frozenset({"annotations", "images", "data", "shards"})


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    image_id: str
    captions: tuple[str, ...]
    source: ImageSource


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with one of its captions; the captions of one image share its `image_id`."""

    image_id: str
    caption: str
    source: ImageSource


@dataclass(frozen=True, slots=True)
class MissingImage:
    """An image that the dataset lists and nobody can use: counted and named, not fatal."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class PairSet:
    name: str
    spec: str
    images: tuple[CaptionedImage, ...]
    missing: tuple[MissingImage, ...] = ()

    def pairs(self) -> Iterator[Pair]:
        for image in self.images:
            for caption in image.captions:
                yield Pair(image.image_id, caption, image.source)

    @property
    def caption_count(self) -> int:
        return sum(len(image.captions) for image in self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids and captions in their order; where the images lie does not enter it."""
        return digest_of((image.image_id, *image.captions) for image in self.images)


def digest_of(rows: Iterable[Sequence[str]]) -> str:
    """SHA-256 over rows of texts in their order."""
    return hashlib.sha256("\n".join(json.dumps(list(row)) for row in rows).encode()).hexdigest()


def read_pairs(spec: str) -> PairSet:
    """Read the set that `spec` (see the module) names.

    Raises a `PairsError` for a spec, file or row that cannot be read, and for a set that comes out empty;
    an image without its file or without a caption goes to `missing`.
    """
    sets = [_read_one(part.strip()) for part in _JOINED.split(spec)]
    return sets[0] if len(sets) == 1 else joined_sets(sets)


def joined_sets(sets: Sequence[PairSet]) -> PairSet:
    """One set of several; where two have an image of one id, their ids begin with their set's number."""
    ids = Counter(image.image_id for pairs in sets for image in pairs.images)
    unique = all(count == 1 for count in ids.values())
    images = (
        image if unique else replace(image, image_id=f"{number}/{image.image_id}")
        for number, pairs in enumerate(sets, 1)
        for image in pairs.images
    )
    return PairSet(
        " and ".join(pairs.name for pairs in sets),
        " + ".join(pairs.spec for pairs in sets),
        tuple(images),
        tuple(missing for pairs in sets for missing in pairs.missing),
    )


def _read_one(spec: str) -> PairSet:
    parsed = parse_spec(spec)
    if parsed.format not in READERS:
        raise BadSpec(f"{spec}: unknown format {parsed.format!r}; there are {', '.join(READERS)}")
    read, options = READERS[parsed.format]
    if unknown := parsed.options.keys() - options - COMMON_OPTIONS:
        known = ", ".join(f"{name}=" for name in sorted(options | COMMON_OPTIONS))
        raise BadSpec(f"{spec}: {parsed.format} has no option {', '.join(sorted(unknown))}; it has {known}")
    limit = parsed.number("limit", 0)
    images, missing = _present(_wanted(read(parsed), parsed), limit=limit)
    if not images:
        raise EmptyPairSet(f"{spec}: no image is left{_first(missing)}")
    return PairSet(set_name(parsed), spec, tuple(images), tuple(missing))


def write_manifest(pairs: PairSet, path: Path) -> None:
    """Publish the set as JSONL (`image`, `captions`), which `jsonl:<path>?images=<folder>` reads back."""
    lines = (
        json.dumps({"image": image.image_id, "captions": image.captions}, ensure_ascii=False)
        for image in pairs.images
    )
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _wanted(listing: Listing, spec: Spec) -> Listing:
    """The listed images that `only=` and `exclude=` leave."""
    only = _read_ids(spec.options["only"]) if "only" in spec.options else None
    excluded = _read_ids(spec.options["exclude"]) if "exclude" in spec.options else frozenset()
    for image in listing:
        if image.image_id not in excluded and (only is None or image.image_id in only):
            yield image


def _read_ids(paths: str) -> frozenset[str]:
    """Image ids, one a line, from files separated by commas; blank lines and # comments are skipped."""
    lines = (line.strip() for path in paths.split(",") for line in lines_of(path))
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _present(listing: Listing, *, limit: int) -> tuple[list[CaptionedImage], list[MissingImage]]:
    """Part those with a file and a caption from the rest; stops after `limit` images (0: none)."""
    images: list[CaptionedImage] = []
    missing: list[MissingImage] = []
    ids: set[str] = set()
    folders = FolderNames()
    for image in listing:
        if image.image_id in ids:
            raise PairsError(f"the image id {image.image_id!r} comes twice")
        ids.add(image.image_id)
        source = next((place for place in image.places if folders.hold(place)), None)
        if source is None or image.fault or not image.captions:
            missing.append(MissingImage(image.image_id, _reason(image, source)))
            continue
        images.append(CaptionedImage(image.image_id, image.captions, source))
        if len(images) == limit:
            break
    return images, missing


def _reason(image: ListedImage, source: ImageSource | None) -> str:
    if image.fault:
        return image.fault
    return "no caption" if source else f"no file {image.places[0].path}"


def _first(missing: list[MissingImage]) -> str:
    if not missing:
        return ""
    return f"; {len(missing)} cannot be used, the first: {missing[0].image_id} ({missing[0].reason})"


def set_name(spec: Spec) -> str:
    """`name=`, else the dataset's folder, and the split where there is one: "flickr8k test"."""
    if "name" in spec.options:
        return spec.options["name"]
    path = Path(spec.body.partition(":")[0]).expanduser().absolute()
    folders = [path.name] if spec.format in ("vg", "folder") else []
    folders += [parent.name for parent in path.parents if parent.name not in PLAIN_FOLDERS]
    suffix = spec.body.rpartition(":")[2] if spec.format == "karpathy" and ":" in spec.body else ""
    split = spec.options.get("split", suffix)
    return f"{folders[0] or spec.format} {split}".strip()


class FolderNames:
    """Which files exist, at one listing a folder instead of one system call an image."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def hold(self, place: ImageSource) -> bool:
        """True when the place's file exists; slices of shards do, their index was just read."""
        if place.offset is not None:
            return True
        folder, name = os.path.split(os.path.normpath(place.path))
        if folder not in self._names:
            try:
                with os.scandir(folder or ".") as entries:
                    self._names[folder] = frozenset(entry.name for entry in entries)
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]
