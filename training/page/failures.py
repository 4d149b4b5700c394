"""Queries that went most wrong: which, by their ranks, and small images of what came instead.

`FailureLog` listens while sets are measured and keeps ids and texts only; images are read for the few that a
page shows.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from encoders.errors import ImageError
from encoders.images import decode_image
from encoders.query_bank import penalty_of
from training.data.pairs import PairSet
from training.errors import UnreadableImage
from training.evaluation.ranks import DIRECTIONS, Direction, Floats
from training.page.inputs import Failure, Shown
from training.shift.condition import Condition
from training.shift.conditions import image_under

if TYPE_CHECKING:  # it brings torch, which a command loads last
    from training.evaluation.evaluate import Ranked

THUMBNAIL_SIDE_PIXELS = 144
WEBP_QUALITY = 60
INSTEAD = 3
KEPT = 6


@dataclass(frozen=True)
class Miss:
    """Image ids and captions: a query, its best right answer, the best wrong ones; `rank` from 1 of `items`."""

    query: str
    right: str
    instead: tuple[str, ...]
    rank: float
    items: int


@dataclass
class FailureLog:
    """The worst misses of one bundle, on every set and condition that it was told of."""

    misses: dict[tuple[str, Condition | None, Direction], list[Miss]] = field(default_factory=dict)

    def __call__(self, ranked: "Ranked") -> None:
        for direction in DIRECTIONS:
            key = (ranked.dataset, ranked.condition, direction)
            self.misses[key] = worst_misses(ranked, direction=direction)


@dataclass
class FailureLogs:
    """A log for each bundle, in the order in which they are measured."""

    logs: list[FailureLog] = field(default_factory=list)

    def of(self, _bundle: object) -> FailureLog:
        self.logs.append(FailureLog())
        return self.logs[-1]


def worst_misses(ranked: "Ranked", *, direction: Direction, at_most: int = KEPT) -> list[Miss]:
    """The queries whose best right answer stands lowest, never at rank 1; one caption an image at most."""
    ranks = ranked.retrieval.direction(direction)
    penalties = _penalties(ranked, direction)
    lowest: list[Miss] = []
    seen: set[int] = set()
    for place in np.argsort(-ranks.expected_rank, kind="stable"):
        image, rank = int(ranks.image[place]), float(ranks.expected_rank[place])
        if rank <= 1 or len(lowest) == at_most:
            break
        if image not in seen:
            seen.add(image)
            query = int(place) if direction == "text_to_image" else image
            lowest.append(_miss(ranked, penalties, direction=direction, query=query, rank=rank))
    return lowest


def image_failures(
    log: FailureLog, pairs: PairSet, *, bundle: str, condition: Condition | None, at_most: int
) -> list[Failure]:
    """What the log has of the set under the condition, at most so many a direction, in words and images."""
    sources = {image.image_id: image.source for image in pairs.images}

    def with_image(image_id: str) -> Shown:
        return Shown(image_id, _thumbnail(sources[image_id].read, image_id=image_id, condition=condition))

    failures = []
    for direction in DIRECTIONS:
        asked, answered = (Shown, with_image) if direction == "text_to_image" else (with_image, Shown)
        for miss in log.misses.get((pairs.name, condition, direction), [])[:at_most]:
            failures.append(
                Failure(
                    bundle=bundle,
                    name=pairs.name,
                    condition=condition,
                    direction=direction,
                    query=asked(miss.query),
                    right=answered(miss.right),
                    rank=miss.rank,
                    items=miss.items,
                    instead=tuple(answered(each) for each in miss.instead),
                )
            )
    return failures


def _penalties(ranked: "Ranked", direction: Direction) -> Floats | float:
    """What the bundle's bank takes off the scores of the items, (items,); 0 without one."""
    embedded = ranked.embedded
    if direction == "text_to_image":
        penalty, items = penalty_of(ranked.bank, "images"), embedded.image_vectors
    else:
        penalty, items = penalty_of(ranked.bank, "texts"), embedded.caption_vectors
    return 0.0 if penalty is None else penalty(items)


def _miss(
    ranked: "Ranked", penalties: Floats | float, *, direction: Direction, query: int, rank: float
) -> Miss:
    embedded, group = ranked.embedded, ranked.group
    if direction == "text_to_image":
        scores = embedded.image_vectors @ embedded.caption_vectors[query] - penalties
        right = np.unique(embedded.caption_image[group == group[query]])
        said, asked, names = np.arange(len(scores)), embedded.captions[query], embedded.image_ids
    else:
        scores = embedded.caption_vectors @ embedded.image_vectors[query] - penalties
        right = np.flatnonzero(np.isin(group, group[embedded.caption_image == query]))
        said, asked, names = group, embedded.image_ids[query], embedded.captions
    order = np.argsort(-scores, kind="stable")
    wrong = order[~np.isin(order, right)]
    # Captions that say the same are one wrong answer.
    firsts = np.sort(np.unique(said[wrong], return_index=True)[1])[:INSTEAD]
    return Miss(
        query=asked,
        right=names[right[scores[right].argmax()]],
        instead=tuple(names[row] for row in wrong[firsts]),
        rank=rank,
        items=len(scores),
    )


def _thumbnail(read: Callable[[], bytes], *, image_id: str, condition: Condition | None) -> str | None:
    """A data URI; None for an image that can no longer be read."""
    try:
        image = decode_image(read())
    except (ImageError, UnreadableImage):
        return None
    shown = image if condition is None else image_under(condition, image, image_id=image_id)
    shown.thumbnail((THUMBNAIL_SIDE_PIXELS, THUMBNAIL_SIDE_PIXELS), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, "WEBP", quality=WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
