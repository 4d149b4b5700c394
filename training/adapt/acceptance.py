"""What an adaptation gained on the target and cost on the source, paired and with intervals; and the verdict.

Every difference is adapted − parent over the same queries, bootstrapped over images. Pure, but for asking
candidates for their embeddings. It does NOT know methods or bundles.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from training.adapt.methods import Candidate
from training.data.captions import group_captions
from training.evaluate.compare import paired_difference
from training.evaluate.metrics import DEFAULT_KS, Estimate
from training.evaluate.ranks import DIRECTIONS, Direction, Retrieval, rank_pairs

MOST_SOURCE_LOSS = 0.02
"""R@1 that the source may lose, either way: two points."""

Side = Literal["target", "source"]


class Row(BaseModel):
    """One line of the acceptance table: recalls from 0 to 1, and their difference with its 95% interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side
    direction: Direction
    k: int
    images: int
    before: float
    after: float
    difference: Estimate


@dataclass(frozen=True)
class Verdict:
    """`reason`: why it was rejected, or what an accepted one rests on."""

    accepted: bool
    reason: str


def retrieval_of(candidate: Candidate, part: str) -> Retrieval:
    """A part's ranks, as a release of the candidate would give them: with the bank, where it has one."""
    embedded = candidate.towers.embedded(part)
    return rank_pairs(
        candidate.images(part),
        candidate.texts(part),
        caption_image=embedded.caption_image,
        caption_group=group_captions(embedded.captions),
        bank=candidate.bank,
    )


def compare_on(parent: Candidate, adapted: Candidate, *, side: Side, part: str) -> list[Row]:
    """Both candidates on one part, both ways."""
    images = len(parent.towers.embedded(part).image_ids)
    before, after = retrieval_of(parent, part), retrieval_of(adapted, part)
    return [
        _row(before, after, side=side, direction=direction, k=k, images=images)
        for direction in DIRECTIONS
        for k in DEFAULT_KS
    ]


def judge(rows: list[Row]) -> Verdict:
    """Rejected when the source's R@1 falls by more than two points, either way, or the target gains nothing.

    The source's loss is judged by its value, as the rule has it; a target gain counts when no interval of R@10
    lies wholly below zero and at least one lies wholly above.
    """
    worst = min(
        (row for row in rows if row.side == "source" and row.k == 1), key=lambda row: row.difference.value
    )
    if worst.difference.value < -MOST_SOURCE_LOSS:
        return Verdict(
            False,
            f"source R@1 {_arrow(worst.direction)} falls by {_points(-worst.difference.value)} points "
            f"({worst.before:.1%} to {worst.after:.1%}); at most {_points(MOST_SOURCE_LOSS)} may go",
        )
    return _judge_target([row for row in rows if row.side == "target" and row.k == 10])


def _judge_target(rows: list[Row]) -> Verdict:
    if not rows:
        return Verdict(
            True,
            "the source is kept; what the target gained cannot be known without captions: give a --target that "
            "has some, if only for a few hundred pictures",
        )
    if lost := [row for row in rows if row.difference.high < 0]:
        return Verdict(False, f"target R@10 {_arrow(lost[0].direction)} falls: {_interval(lost[0].difference)}")
    gained = [row for row in rows if row.difference.low > 0]
    if not gained:
        shown = "; ".join(f"{_arrow(row.direction)} {_interval(row.difference)}" for row in rows)
        return Verdict(False, f"no gain on the target whose interval is above zero: R@10 {shown}")
    shown = "; ".join(f"{_arrow(row.direction)} {_interval(row.difference)}" for row in gained)
    return Verdict(True, f"target R@10 rises: {shown}; source R@1 keeps within two points")


def _row(before: Retrieval, after: Retrieval, *, side: Side, direction: Direction, k: int, images: int) -> Row:
    old, new = before.direction(direction), after.direction(direction)
    hits = new.hit_probability(k), old.hit_probability(k)
    return Row(
        side=side,
        direction=direction,
        k=k,
        images=images,
        before=float(hits[1].mean()),
        after=float(hits[0].mean()),
        difference=paired_difference(*hits, groups=old.image),
    )


def _arrow(direction: Direction) -> str:
    return "text→image" if direction == "text_to_image" else "image→text"


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
