"""Makes the lists of ids beside the default encoder's recipe: `python -m training.recipes.lists <data folder>`.

`lite0-minilm.excluded.txt`       training images that are nearly the same image as one of an unseen set
`drawings-dev.openclipart.txt`    drawings held out of training as the dev set,
`drawings-dev.noto-emoji.txt`     and emoji
`drawings-dev.near.txt`           drawings and emoji nearly the same as one of those two lists

Reads the folders flickr8k, openclipart, noto-emoji, coco-val79 and tuxpaint, and the demo's gallery, whose
drawings are Openclipart's too, under better titles. The dev set is chosen by SHA-256 of the id, so it does not
depend on order or on a random generator.
"""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.data.leakage import HashedImages, distances, hash_images, leaks_by_hash, write_leaks
from training.data.pairs import CaptionedImage, PairSet, read_pairs

RECIPES = Path(__file__).parent
GALLERY = RECIPES.parent.parent / "demo" / "gallery" / "items.jsonl"
COMMAND = "python -m training.recipes.lists <data folder>"
NEAR_BITS = 64
"""Wider than the guard-rail's: a ball dropped in vain costs less than a copy left in."""

DEV_COUNTS = {"openclipart": 300, "noto-emoji": 100}
DEV_SEED = "twinlens drawings dev 1"
MOST_NEAR_DUPLICATES = 3
"""A drawing with more is one of a series (cards, clock faces): holding it out would empty the series."""

WORD = re.compile(r"[a-z]{3,}")
STOP_WORDS = frozenset({"the", "and", "with", "for", "from", "svg", "remix", "version", "simple", "icon"})
LEAST_USES = 3


def main(data: Path) -> None:
    photos = read_pairs(f"karpathy:{data}/flickr8k/dataset_flickr8k.json:train")
    drawings = {
        "openclipart": read_pairs(f"jsonl:{data}/openclipart/items.jsonl?caption=title,description,tags"),
        "noto-emoji": read_pairs(f"jsonl:{data}/noto-emoji/items.jsonl?caption=title,tags"),
    }
    unseen = [
        read_pairs(f"coco:{data}/coco-val79/annotations/captions_val2017.json:{data}/coco-val79/val2017"),
        read_pairs(f"csv:{data}/tuxpaint/captions.csv"),
    ]
    hashed = hash_all([image for pairs in drawings.values() for image in pairs.images])
    gallery = hash_all(read_pairs(f"jsonl:{GALLERY}?caption=title").images)
    excluded = write_excluded([hashed, gallery, hash_all(photos.images)], unseen)
    vocabulary = usual_words([photos, *drawings.values()])
    chosen = {
        name: choose_dev(pairs, DEV_COUNTS[name], hashed=hashed, excluded=excluded, vocabulary=vocabulary)
        for name, pairs in drawings.items()
    }
    for name, ids in chosen.items():
        write_dev(name, ids)
    write_near(hashed, gallery, {image_id for ids in chosen.values() for image_id in ids})


def hash_all(images: Sequence[CaptionedImage]) -> HashedImages:
    """Hashes of all the images; a list made without some of them would look complete and not be."""
    hashed = hash_images(images)
    if hashed.unreadable:
        raise SystemExit(
            f"{len(hashed.unreadable)} images cannot be decoded, the first: {hashed.unreadable[0]}"
        )
    return hashed


def write_excluded(train: list[HashedImages], unseen: list[PairSet]) -> set[str]:
    """Write the list of training images near an unseen one, and return their ids."""
    leaks = [
        leak
        for test in unseen
        for test_hashed in [hash_all(test.images)]
        for part in train
        for leak in leaks_by_hash(part, test_hashed, max_distance=NEAR_BITS)
    ]
    write_leaks(
        leaks,
        RECIPES / "lite0-minilm.excluded.txt",
        comment=(
            "Kept out of training: images of flickr8k train, openclipart, noto-emoji and the demo's gallery\n"
            f"whose perceptual hash (on white, cropped, mirrored too) is within {NEAR_BITS} of 256 bits of a\n"
            f"image of an unseen set ({', '.join(test.name for test in unseen)}), named above each. Made by\n"
            f"{COMMAND}"
        ),
    )
    return {leak.train_id for leak in leaks}


def usual_words(sets: Iterable[PairSet]) -> frozenset[str]:
    """Words of at least three letters that stand in the captions of `LEAST_USES` images or more."""
    uses = Counter(
        word
        for pairs in sets
        for image in pairs.images
        for word in set(WORD.findall(" ".join(image.captions).casefold()))
    )
    return frozenset(word for word, count in uses.items() if count >= LEAST_USES) - STOP_WORDS


def choose_dev(
    pairs: PairSet, count: int, *, hashed: HashedImages, excluded: set[str], vocabulary: frozenset[str]
) -> list[str]:
    """The first `count` usable ids in the order of their seeded hash; no two are nearly the same."""
    row_of = {image_id: row for row, image_id in enumerate(hashed.ids)}
    chosen: list[str] = []
    for image in sorted(pairs.images, key=lambda image: _rank(image.image_id)):
        usable = image.image_id in row_of and image.image_id not in excluded and _has_word(image, vocabulary)
        if not usable:
            continue
        row = slice(row_of[image.image_id], row_of[image.image_id] + 1)
        near = near_ids(hashed, row)
        if len(near) <= MOST_NEAR_DUPLICATES + 1 and near.isdisjoint(chosen):
            chosen.append(image.image_id)
        if len(chosen) == count:
            return sorted(chosen)
    raise SystemExit(f"{pairs.name}: only {len(chosen)} of {count} drawings are usable")


def near_ids(hashed: HashedImages, rows: slice) -> set[str]:
    """Ids within `NEAR_BITS` of one of `rows`, as they are or mirrored; those of `rows` among them."""
    upright = distances(hashed.upright[rows], hashed.upright)
    mirrored = distances(hashed.mirrored[rows], hashed.upright)
    near = np.minimum(upright, mirrored).min(axis=0) <= NEAR_BITS
    return {hashed.ids[row] for row in np.flatnonzero(near).tolist()}


def write_dev(name: str, ids: list[str]) -> None:
    header = f"# {len(ids)} of {name} held out of training as the dev set. Made by {COMMAND}"
    (RECIPES / f"drawings-dev.{name}.txt").write_text("\n".join([header, *ids]) + "\n", encoding="utf-8")


def write_near(hashed: HashedImages, gallery: HashedImages, dev: set[str]) -> None:
    """Write the drawings outside the dev set, the gallery's too, that are nearly the same as one inside it."""
    inside = [row for row, image_id in enumerate(hashed.ids) if image_id in dev]
    part = replace(
        hashed,
        ids=tuple(hashed.ids[row] for row in inside),
        upright=hashed.upright[inside],
        mirrored=hashed.mirrored[inside],
    )
    leaks = [
        leak
        for drawings in (hashed, gallery)
        for leak in leaks_by_hash(drawings, part, max_distance=NEAR_BITS)
        if leak.train_id not in dev
    ]
    comment = f"Kept out of training: within {NEAR_BITS} of 256 bits of a dev drawing. Made by {COMMAND}"
    write_leaks(leaks, RECIPES / "drawings-dev.near.txt", comment=comment)


def _rank(image_id: str) -> str:
    return hashlib.sha256(f"{DEV_SEED}:{image_id}".encode()).hexdigest()


def _has_word(image: CaptionedImage, vocabulary: frozenset[str]) -> bool:
    """Whether the title, which is the first caption, holds a usual word."""
    return not vocabulary.isdisjoint(WORD.findall(image.captions[0].casefold()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {COMMAND}")
    main(Path(sys.argv[1]))
