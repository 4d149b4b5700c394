"""What an adaptation gained on the target and cost on the source, paired and with intervals; and the verdict.

Every difference is adapted − parent over the same queries, bootstrapped over images; over several splits its
interval is Nadeau and Bengio's. Both sides are judged by their intervals, so that chance neither rejects a
harmless change nor accepts a harmful one; where they do not tell, that is the verdict. Pure, but for asking
candidates for their embeddings.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from training.adapt.methods import Candidate
from training.data.captions import group_captions
from training.evaluation.hits import Hits, hits_of
from training.evaluation.metrics import DEFAULT_KS, Estimate, bootstrap_draws, estimate, images_for
from training.evaluation.ranks import DIRECTIONS, Direction, Doubles, Retrieval, rank_pairs

MOST_SOURCE_LOSS = 0.02
"""R@1 that the source may lose, either way: two points."""

Side = Literal["target", "source"]
Way = Direction | Literal["both_ways"]
"""both_ways: the mean of the two directions."""
State = Literal["accepted", "rejected", "undecided"]

WAY_TITLES: dict[Way, str] = {
    "text_to_image": "text→image", "image_to_text": "image→text", "both_ways": "both ways",
}  # fmt: skip


class Row(BaseModel):
    """One line of the acceptance table: recalls from 0 to 1, and their difference with its 95% interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side
    direction: Way
    k: int
    images: int
    before: float
    after: float
    difference: Estimate


@dataclass(frozen=True)
class Verdict:
    """`reason`: why it was not accepted, or what an accepted one rests on."""

    state: State
    reason: str

    @property
    def accepted(self) -> bool:
        return self.state == "accepted"


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


def hits_on(candidate: Candidate, part: str) -> Hits:
    """What the candidate finds of a part."""
    images = len(candidate.towers.embedded(part).image_ids)
    return hits_of(retrieval_of(candidate, part), images, dataset=part, condition=None, ks=DEFAULT_KS)


def rows_between(before: Hits, after: Hits, *, side: Side, samples: int = 1000, seed: int = 0) -> list[Row]:
    """Every figure of one set, each way and both ways on average, with the interval of its difference."""
    sums = np.concatenate([hits.sums[way] for hits in (before, after) for way in DIRECTIONS], axis=1)
    counts = np.repeat(np.stack([before.counts[way] for way in DIRECTIONS] * 2, axis=1), len(before.ks), axis=1)
    columns = sums.shape[1] // 2
    draws = bootstrap_draws(sums, counts, kinds=[0] * columns + [1] * columns, samples=samples, seed=seed)
    recalls = sums.sum(axis=0) / counts.sum(axis=0)
    found = (recalls[:columns], recalls[columns:], draws[:, columns:] - draws[:, :columns])
    return [
        Row(side=side, direction=way, k=k, images=len(sums), before=old, after=new, difference=difference)
        for way, k, old, new, difference in _figures(*found, ks=before.ks)
    ]


def _figures(
    before: Doubles, after: Doubles, draws: Doubles, *, ks: Sequence[int]
) -> Iterator[tuple[Way, int, float, float, Estimate]]:
    """Of columns by direction and k: (way, k, before, after, difference), the mean of both ways last."""
    places: dict[Way, list[int]] = {"text_to_image": [0], "image_to_text": [1], "both_ways": [0, 1]}
    for way, halves in places.items():
        for at, k in enumerate(ks):
            columns = [half * len(ks) + at for half in halves]
            old, new = float(before[columns].mean()), float(after[columns].mean())
            yield way, k, old, new, estimate(new - old, draws[:, columns].mean(axis=1))


def over_splits(tables: Sequence[Sequence[Row]], *, shares: dict[Side, float]) -> list[Row]:
    """The means of tables of several splits, with intervals that know how much splits have in common.

    Halves drawn from one set overlap, so that their t-interval is far too narrow: Nadeau and Bengio (2003) put
    1/splits + measured/learned in place of 1/splits. shares: measured over learned images, by side.
    """
    return [_over_splits(rows, share=shares[rows[0].side]) for rows in zip(*tables, strict=True)]


def _over_splits(rows: Sequence[Row], *, share: float) -> Row:
    values = np.array([row.difference.value for row in rows])
    mean, count = float(values.mean()), len(rows)
    half = t_quantile(count - 1) * float(values.std(ddof=1)) * math.sqrt(1 / count + share)
    return rows[0].model_copy(
        update={
            "before": float(np.mean([row.before for row in rows])),
            "after": float(np.mean([row.after for row in rows])),
            "difference": Estimate(mean, mean - half, mean + half),
        }
    )


def t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t, by the trapezoidal rule over its density: 2.26 for 9 degrees."""
    at = np.linspace(0.0, 20.0, 200_001)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = scale * (1 + at**2 / freedom) ** (-(freedom + 1) / 2)
    area = 0.5 + np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * (at[1] - at[0]))])
    return float(np.interp(0.975, area, at))


def judge(rows: Sequence[Row]) -> Verdict:
    """The source first: accepted where no R@1 can have lost more than two points, rejected where one has.

    Then the target's R@10, both ways on average: accepted where it rises and neither way falls, rejected where
    it falls. All by the intervals; where they leave it open, "undecided", with how many images would tell.
    """
    source = [row for row in rows if row.side == "source" and row.k == 1 and row.direction != "both_ways"]
    worst = min(source, key=lambda row: row.difference.low)
    if lost := [row for row in source if row.difference.high < -MOST_SOURCE_LOSS]:
        return Verdict("rejected", f"source {_told(lost[0])}; at most {_points(MOST_SOURCE_LOSS)} may go")
    if worst.difference.low < -MOST_SOURCE_LOSS:
        told = f"whether the source keeps within {_points(MOST_SOURCE_LOSS)} is open: {_told(worst)}"
        return Verdict("undecided", told + _enough(worst, room=worst.difference.value + MOST_SOURCE_LOSS))
    return _judge_target([row for row in rows if row.side == "target" and row.k == 10])


def _judge_target(rows: Sequence[Row]) -> Verdict:
    if not rows:
        return Verdict(
            "accepted",
            "the source is kept; what the target gained cannot be known without captions: give a --target that "
            "has some, if only for a few hundred images",
        )
    [both] = [row for row in rows if row.direction == "both_ways"]
    if both.difference.high < 0:
        return Verdict("rejected", f"target {_told(both)}: it falls")
    if both.difference.low <= 0:
        told = f"whether the target gains is open: {_told(both)}"
        return Verdict("undecided", told + _enough(both, room=both.difference.value))
    if lost := [row for row in rows if row.difference.high < 0]:
        return Verdict("undecided", f"the target gains one way and loses the other: {_told(lost[0])}")
    return Verdict(
        "accepted", f"target {_told(both)}; source R@1 keeps within {_points(MOST_SOURCE_LOSS)} points"
    )


def _enough(row: Row, *, room: float) -> str:
    """How many images would tell, where the figure itself lies on the right side."""
    if room <= 0:
        return ""
    enough = images_for(row.images, (row.difference.high - row.difference.low) / 2, room)
    return f"; about {enough:,} images to measure on would tell, {row.images:,} there are"


def _told(row: Row) -> str:
    return f"R@{row.k} {WAY_TITLES[row.direction]} {_interval(row.difference)}"


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
