"""What an adaptation reads: target images and queries, a source of pairs; each parted by image.

What is learned from and what is measured on never share an image. A target with captions keeps them for
measuring: what is learned from has none, unless shots were asked for.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.pairs import CaptionedImage, ImageSource, PairSet, read_pairs
from training.errors import AdaptationError, EmptyPairSet, MissingFile, UnreadableImage
from training.evaluation.decoding import in_threads

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
LEAST_IMAGES = 8
"""Fewer images have no mean worth taking."""


@dataclass(frozen=True)
class Parts:
    """One set parted by image: `learn`, then `choose` (empty unless asked for), then `measure`."""

    learn: PairSet
    choose: PairSet
    measure: PairSet


@dataclass(frozen=True)
class Domain:
    """Where a bundle is to go and where it comes from; `shots`: the target's pairs that may be looked at."""

    target: Parts
    source: Parts
    queries: tuple[str, ...]
    shots: PairSet
    labelled: bool

    @property
    def can_measure(self) -> bool:
        return self.labelled and bool(self.target.measure.images)


@dataclass(frozen=True, kw_only=True)
class Split:
    """`holdout`: the share of each set that is measured on; `choose`: whether half of it goes to choosing."""

    holdout: float = 0.5
    choose: bool = False
    shots: int = 0
    seed: int = 0


def read_domain(target: str, source: str, *, queries: Path | None, split: Split) -> Domain:
    """Read and part both sets. Raises PairsError, or AdaptationError: too few images, or one set for both.

    `target` is a folder of images or a set of pairs; its images that stand in the source leave the source.
    """
    target_set, labelled = read_target(target)
    source_set = _without_shared(read_pairs(source), target_set)
    asked = replace(split, choose=split.choose and labelled)  # methods are chosen by the target's captions
    parts = part_set(target_set, asked if labelled else replace(asked, holdout=0.0))
    if len(parts.learn.images) < LEAST_IMAGES:
        raise AdaptationError(
            f"{target}: {len(parts.learn.images)} images to adapt to (of {len(target_set.images)}); "
            f"at least {LEAST_IMAGES} are needed"
        )
    shots = parts.learn.images[: split.shots] if labelled else ()
    if split.shots > len(shots):
        raise AdaptationError(f"{split.shots} captioned images were asked for, {target} gives {len(shots)}")
    return Domain(
        target=replace(parts, learn=_unlabelled(parts.learn)),
        source=part_set(source_set, asked),
        queries=read_queries(queries) if queries is not None else (),
        shots=replace(parts.learn, images=shots),
        labelled=labelled,
    )


def read_target(spec: str) -> tuple[PairSet, bool]:
    """(the target, whether it has captions). A folder has none."""
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        return read_pairs(spec), True
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if not files:
        raise EmptyPairSet(f"{folder}: no image lies there ({', '.join(sorted(IMAGES))})")
    images = tuple(CaptionedImage(path.relative_to(folder).as_posix(), (), ImageSource(path)) for path in files)
    return PairSet(folder.name, spec, images), False


def read_queries(path: Path) -> tuple[str, ...]:
    """One text a line, UTF-8, each once; raises MissingFile, or AdaptationError for a file without any."""
    if not path.is_file():
        raise MissingFile(f"{path}: no such file of queries (one text a line)")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AdaptationError(f"{path}: the queries are not UTF-8: {error}") from error
    texts = tuple(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not texts:
        raise AdaptationError(f"{path}: holds no query; write one text a line")
    return texts


def part_set(pairs: PairSet, split: Split) -> Parts:
    """Part by image, shuffled by the seed over ids, so that the order of the file is no matter."""
    images = sorted(pairs.images, key=lambda image: image.image_id)
    random.Random(split.seed).shuffle(images)
    held = round(len(images) * split.holdout)
    chosen = held // 2 if split.choose else 0
    cut = (len(images) - held, len(images) - held + chosen)
    learn, choose, measure = images[: cut[0]], images[cut[0] : cut[1]], images[cut[1] :]
    return Parts(*(replace(pairs, images=tuple(part), missing=()) for part in (learn, choose, measure)))


def queries_among(queries: Sequence[str], measured: PairSet) -> int:
    """How many of the queries are captions that are measured with: a bank must never be the test set."""
    captions = {" ".join(caption.lower().split()) for image in measured.images for caption in image.captions}
    return sum(" ".join(query.lower().split()) in captions for query in queries)


def _unlabelled(pairs: PairSet) -> PairSet:
    """The same images; nothing that follows can look at a caption by mistake."""
    return replace(pairs, images=tuple(replace(image, captions=()) for image in pairs.images))


def _without_shared(source: PairSet, target: PairSet) -> PairSet:
    """The source without images that are, to the byte, the target's; AdaptationError when none is left."""
    ours = set(_digests(target.images))
    kept = tuple(
        image
        for image, digest in zip(source.images, _digests(source.images), strict=True)
        if digest not in ours
    )
    if not kept:
        raise AdaptationError(
            f"target and source are one: every image of {source.spec} is among those of {target.spec}; "
            "name as --source what the bundle was trained for"
        )
    return source if len(kept) == len(source.images) else replace(source, images=kept)


def _digests(images: Sequence[CaptionedImage]) -> list[bytes]:
    return list(in_threads(_digest, (image.source for image in images), window=32))


def _digest(source: ImageSource) -> bytes:
    try:
        return hashlib.sha256(source.read()).digest()
    except UnreadableImage:
        return hashlib.sha256(f"unreadable {source.path}".encode()).digest()
