"""Ranks of every caption's images and every image's captions, from embeddings.

Scores are float32 inner products (cosines, where rows have length 1). Ties are never resolved by position:
every figure is its expectation over a random order of the items that share a score, so a collapsed model gets
chance, not 100%. Pure NumPy.

Memory: scores exist only in blocks of whole gallery rows, at most `BLOCK_SCORES` float32 (64 MiB), two at
a time, three where the columns of identical items are expanded. Beyond the vectors (and a copy of the
gallery where it has identical rows) nothing grows with captions × images: 100,000 captions × 20,000 images
of 512 dimensions take 190 MiB above the vectors, 420 with identical captions.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.query_bank import QueryBank, penalty_of

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Direction: TypeAlias = Literal["text_to_image", "image_to_text"]

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
BLOCK_SCORES = 16 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """Where the best positive of every query stands; any recall@k follows from it without the vectors.

    All arrays are (queries,). `image` is the image that a query is or belongs to (what a bootstrap draws);
    `above` counts the gallery items that score strictly higher than the best positive, `tied` those that score
    the same (itself included), `tied_positives` the positives among them; `average_precision` is AP@R (Musgrave
    et al., 2020), R being the number of the query's positives, or where `rank_queries` says so AP.
    """

    image: Ints
    above: Ints
    tied: Ints
    tied_positives: Ints
    average_precision: Doubles

    def __len__(self) -> int:
        return len(self.above)

    @property
    def expected_rank(self) -> Doubles:
        """Rank of the first positive, from 1: the mean lowest of `tied_positives` draws out of `tied`."""
        return np.asarray(self.above + (self.tied + 1) / (self.tied_positives + 1), dtype=np.float64)

    @property
    def tied_queries(self) -> int:
        """How many queries have a wrong item with exactly the score of their best positive."""
        return int(np.count_nonzero(self.tied > self.tied_positives))

    def hit_probability(self, k: int) -> Doubles:
        """Chance of a positive in the top k: 1 − C(wrong, r) / C(tied, r), r slots left to tied items."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        slots = np.minimum(k - self.above, self.tied)
        wrong = self.tied - self.tied_positives
        miss = np.ones(len(self))
        for taken in range(min(k, int(slots.max(initial=0)))):
            drawn = slots > taken
            miss[drawn] *= np.maximum(wrong - taken, 0)[drawn] / (self.tied - taken)[drawn]
        return 1.0 - miss


@dataclass(frozen=True, eq=False)
class Retrieval:
    """The ranks of one set of pairs, both ways."""

    text_to_image: QueryRanks
    image_to_text: QueryRanks

    def direction(self, direction: Direction) -> QueryRanks:
        return self.text_to_image if direction == "text_to_image" else self.image_to_text


def rank_pairs(
    image_vectors: ArrayLike,
    caption_vectors: ArrayLike,
    *,
    caption_image: ArrayLike,
    caption_group: ArrayLike | None = None,
    bank: QueryBank | None = None,
) -> Retrieval:
    """Rank every caption's images and every image's captions.

    image_vectors (n, d) and caption_vectors (m, d), finite; caption_image (m,) is the row of each caption's
    image; caption_group (m,) numbers the distinct texts: captions of one group are positives for all the
    images of the group. Images without a caption are distractors: found or not, never asked. `bank` holds hubs
    back, as a release of the bundle with that bank does.
    Raises ValueError on other shapes, non-finite vectors, or rows that do not exist.
    """
    images, captions = checked_vectors(image_vectors, caption_vectors)
    owner = checked_rows(caption_image, captions=len(captions), images=len(images))
    group = np.arange(len(owner)) if caption_group is None else _checked_groups(caption_group, len(owner))
    images_of_group = _Lists.of(group, owner)
    captions_of_group = _Lists.of(group, np.arange(len(owner)))
    groups_of_image = _Lists.of(owner, group)
    asked = np.unique(owner)

    def captions_of_image(query: int) -> Ints:
        return np.concatenate([captions_of_group[int(g)] for g in groups_of_image[int(asked[query])]])

    return Retrieval(
        text_to_image=_rank(
            captions,
            images,
            image=owner,
            positives=lambda q: images_of_group[int(group[q])],
            penalty=penalty_of(bank, "images"),
        ),
        image_to_text=_rank(
            images[asked],
            captions,
            image=asked,
            positives=captions_of_image,
            penalty=penalty_of(bank, "texts"),
        ),
    )


def rank_queries(
    queries: ArrayLike,
    items: ArrayLike,
    *,
    positives: Callable[[int], Ints],
    group: Ints,
    penalty: Callable[[Floats], Floats] | None = None,
) -> QueryRanks:
    """Rank items (n, d) for queries (q, d) by inner product less penalty; `positives(q)` are rows, one or more.

    `group` (q,) numbers what a bootstrap draws together. `average_precision` reaches down to the last positive.
    Raises ValueError for other shapes, or vectors that are not finite.
    """
    gallery, asked = checked_vectors(items, queries)
    return _rank(asked, gallery, image=group, positives=positives, penalty=penalty, whole=True)


@dataclass(frozen=True, eq=False)
class _Lists:
    """Key → its distinct values, ascending; two flat arrays, whatever the number of keys."""

    offsets: Ints
    values: Ints

    @classmethod
    def of(cls, keys: Ints, values: Ints) -> "_Lists":
        pairs = np.unique(np.stack([keys, values], axis=1), axis=0)
        return cls(
            np.searchsorted(pairs[:, 0], np.arange(int(keys.max()) + 2)), np.ascontiguousarray(pairs[:, 1])
        )

    def __getitem__(self, key: int) -> Ints:
        return self.values[self.offsets[key] : self.offsets[key + 1]]


def _rank(
    queries: Floats,
    gallery: Floats,
    *,
    image: Ints,
    positives: Callable[[int], Ints],
    penalty: Callable[[Floats], Floats] | None,
    whole: bool = False,
) -> QueryRanks:
    distinct, column = distinct_rows(gallery)
    penalties = None if penalty is None else penalty(distinct)
    counts = np.empty((len(queries), 3), dtype=np.int64)
    precision = np.empty(len(queries))
    rows_per_block = max(1, BLOCK_SCORES // len(gallery))
    for start in range(0, len(queries), rows_per_block):
        scores = queries[start : start + rows_per_block] @ distinct.T
        if penalties is not None:
            scores -= penalties
        if column is not None:
            scores = scores[:, column]
        for query, row in enumerate(scores, start):
            counts[query], precision[query] = _rank_one(row, positives(query), whole=whole)
    above, tied, tied_positives = counts.T.copy()
    return QueryRanks(image, above, tied, tied_positives, precision)


def _rank_one(scores: Floats, positives: Ints, *, whole: bool) -> tuple[tuple[int, int, int], float]:
    """((above, tied, tied positives) of the best positive, expected AP@R or AP) from one query's scores."""
    levels, members = np.unique(scores[positives], return_counts=True)
    # Nothing below the worst positive matters: a good model sorts a handful instead of the gallery.
    contenders = np.sort(scores[scores >= levels[0]])
    right = np.searchsorted(contenders, levels, side="right")
    tied = (right - np.searchsorted(contenders, levels, side="left"))[::-1]
    above = (len(contenders) - right)[::-1]
    members = members[::-1]
    places = len(contenders) if whole else int(members.sum())
    precision = _average_precision(above, tied=tied, members=members, places=places)
    return (int(above[0]), int(tied[0]), int(members[0])), precision


def _average_precision(above: Ints, *, tied: Ints, members: Ints, places: int) -> float:
    """Expected (1/R) Σ_{i≤places} [item i is positive] · (positives in the top i) / i; AP@R with R places.

    The arguments describe the distinct scores that positives have, best first: items strictly above, items
    of that score, positives of that score. The item at place j of t tied ones, p of them positive, is
    positive with chance p/t, and then has (j − 1)(p − 1)/(t − 1) of its positive peers before it.
    """
    total = int(members.sum())
    place = np.arange(1, places + 1)
    level = np.searchsorted(above, place, side="left") - 1
    inside = (level >= 0) & (place <= above[level] + tied[level])
    place, level = place[inside], level[inside]
    before = (np.cumsum(members) - members)[level]
    peers = (place - above[level] - 1) * (members[level] - 1) / np.maximum(tied[level] - 1, 1)
    return float(np.sum(members[level] / tied[level] * (before + 1 + peers) / place) / total)


def distinct_rows(vectors: Floats) -> tuple[Floats, Ints | None]:
    """(the distinct rows, each row's place among them), or (the rows, None) where all differ.

    A matrix product may round equal columns differently, by where they lie in its tiles: identical items
    are multiplied once and share the score, so that a tie is a tie to the bit.
    """
    first: dict[bytes, int] = {}
    column = np.empty(len(vectors), dtype=np.int64)
    keep: list[int] = []
    for row, vector in enumerate(vectors):
        digest = hashlib.blake2b(vector, digest_size=16).digest()
        column[row] = first.setdefault(digest, len(first))
        if column[row] == len(keep):
            keep.append(row)
    return (vectors, None) if len(keep) == len(vectors) else (vectors[keep], column)


def checked_vectors(image_vectors: ArrayLike, caption_vectors: ArrayLike) -> tuple[Floats, Floats]:
    checked = []
    for name, given in (("image_vectors", image_vectors), ("caption_vectors", caption_vectors)):
        vectors = np.ascontiguousarray(given, dtype=np.float32)
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise ValueError(f"{name} must be (rows, dim) with at least one row, got shape {vectors.shape}")
        if not np.isfinite(vectors.sum(axis=1)).all():
            raise ValueError(f"{name} row {int(np.argmin(np.isfinite(vectors.sum(axis=1))))} is not finite")
        checked.append(vectors)
    images, captions = checked
    if images.shape[1] != captions.shape[1]:
        raise ValueError(f"images have {images.shape[1]} dimensions, captions {captions.shape[1]}")
    return images, captions


def checked_rows(caption_image: ArrayLike, *, captions: int, images: int) -> Ints:
    owner = np.asarray(caption_image)
    if owner.shape != (captions,) or not np.issubdtype(owner.dtype, np.integer):
        raise ValueError(f"caption_image must be {captions} row numbers, got {owner.dtype} {owner.shape}")
    if owner.min() < 0 or owner.max() >= images:
        raise ValueError(f"caption_image names rows {owner.min()} to {owner.max()} of {images} images")
    return owner.astype(np.int64)


def _checked_groups(caption_group: ArrayLike, captions: int) -> Ints:
    group = np.asarray(caption_group)
    if group.shape != (captions,):
        raise ValueError(f"caption_group must have one number a caption ({captions}), got {group.shape}")
    return np.unique(group, return_inverse=True)[1].astype(np.int64)
