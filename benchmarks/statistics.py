"""What 95% intervals cover, and how often verdicts err, on simulated retrieval whose truth is known.

`python -m benchmarks.statistics` prints the tables of docs/generalisation.md, in some minutes on one core. An
image has a chance of its own to be found by its captions (beta about the truth), so that these are alike:
`icc` is their correlation. A second bundle loses some hits of the first and gains others.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from training.adapt.acceptance import Row, Side, State, judge, rows_between
from training.evaluation.compare import paired_difference
from training.evaluation.hits import Hits as SetHits
from training.evaluation.metrics import Estimate, bootstrap_means
from training.evaluation.ranks import Direction

IMAGES = (40, 80, 1000)
CAPTIONS = ((1, 0.0), (5, 0.0), (5, 0.3), (5, 0.7))
"""(captions of an image, icc)"""
BANDS = ((0.0, 0.05), (0.05, 0.2), (0.2, 0.8), (0.8, 0.95), (0.95, 1.0))
"""Of the true recall, which is drawn evenly."""
CHANGES = ((0.5, 0.10, 0.0), (0.5, 0.10, -0.05), (0.9, 0.04, 0.0), (0.9, 0.04, -0.02), (0.99, 0.01, 0.0))
"""(recall, share of queries on which two bundles differ, true difference)"""
MEASURED = (150, 500, 1000, 3000)
"""Images of each side that an adaptation is measured on."""
VERDICTS = ((0.0, 0.0), (0.0, 0.03), (0.0, 0.06), (-0.02, 0.06), (-0.05, 0.06))
"""True change of (the source's R@1, the target's R@10), both ways."""
DIFFERING = 0.1
"""Share of queries that come out otherwise after an adaptation."""
SAMPLES = 400

Hits = NDArray[np.float64]

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Gallery:
    """So many images of so many captions each, whose hits correlate by `icc`."""

    images: int
    captions: int
    icc: float

    @property
    def owners(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.images), self.captions)

    def hits(self, recall: float, rng: np.random.Generator) -> Hits:
        """(queries,) of 0 and 1, whose mean is `recall` in the long run."""
        if self.icc == 0 or not 0 < recall < 1:
            chance = np.full(self.images, recall)
        else:
            about = (1 - self.icc) / self.icc
            chance = rng.beta(recall * about, (1 - recall) * about, self.images)
        return (rng.random(self.images * self.captions) < np.repeat(chance, self.captions)).astype(np.float64)


def changed(hits: Hits, *, recall: float, differing: float, change: float, rng: np.random.Generator) -> Hits:
    """The hits of another bundle: `differing` of all queries come out otherwise, by `change` on balance."""
    lose, gain = (differing - change) / 2 / recall, (differing + change) / 2 / (1 - recall)
    drawn = rng.random(len(hits))
    return np.where(hits > 0, drawn >= lose, drawn < gain).astype(np.float64)


def recall_coverage(gallery: Gallery, band: tuple[float, float], *, draws: int, seed: int = 0) -> float:
    """Share of draws whose interval holds the true recall."""
    rng = np.random.default_rng(seed)

    def covered() -> bool:
        truth = float(rng.uniform(*band))
        seed = int(rng.integers(2**31))
        [found] = bootstrap_means([gallery.hits(truth, rng)], [gallery.owners], samples=SAMPLES, seed=seed)
        return _holds(found, truth)

    return _share(covered, draws)


def difference_coverage(
    gallery: Gallery, change: tuple[float, float, float], *, draws: int, seed: int = 0
) -> float:
    """Share of draws whose interval holds the true difference."""
    rng, (recall, differing, truth) = np.random.default_rng(seed), change

    def covered() -> bool:
        before = gallery.hits(recall, rng)
        after = changed(before, recall=recall, differing=differing, change=truth, rng=rng)
        seed = int(rng.integers(2**31))
        found = paired_difference(after, before, groups=gallery.owners, samples=SAMPLES, seed=seed)
        return _holds(found, truth)

    return _share(covered, draws)


def verdict_shares(
    images: int, *, source_change: float, target_change: float = 0.0, draws: int, seed: int = 0
) -> dict[State, float]:
    """How often `adapt` accepts, rejects or leaves open a change of R@1 and R@10 by so much, both ways.

    Source and target have `images` to measure on, of five captions each and of one; a tenth of all queries come
    out otherwise.
    """
    rng = np.random.default_rng(seed)
    ends: dict[State, int] = {"accepted": 0, "rejected": 0, "undecided": 0}
    for _ in range(draws):
        rows = [
            *_rows("source", Gallery(images, 5, 0.3), recall=0.35, change=source_change, rng=rng),
            *_rows("target", Gallery(images, 1, 0.0), recall=0.5, change=target_change, rng=rng),
        ]
        ends[judge(rows).state] += 1
    return {state: count / draws for state, count in ends.items()}


def _rows(side: Side, gallery: Gallery, *, recall: float, change: float, rng: np.random.Generator) -> list[Row]:
    """Of one simulated set, at ranks 1 and 10 alike."""
    one_each = Gallery(gallery.images, 1, 0.0)
    before: dict[Direction, Hits] = {
        "text_to_image": gallery.hits(recall, rng),
        "image_to_text": one_each.hits(recall, rng),
    }
    after = {
        way: changed(hits, recall=recall, differing=DIFFERING, change=change, rng=rng)
        for way, hits in before.items()
    }
    found = [_hits(gallery, one) for one in (before, after)]
    return rows_between(*found, side=side, samples=SAMPLES, seed=int(rng.integers(2**31)))


def _hits(gallery: Gallery, hits: Mapping[Direction, Hits]) -> SetHits:
    owners = {"text_to_image": gallery.owners, "image_to_text": np.arange(gallery.images)}
    return SetHits(
        dataset="simulated",
        condition=None,
        ks=(1, 10),
        sums={way: np.repeat(np.bincount(owners[way], of)[:, None], 2, axis=1) for way, of in hits.items()},
        counts={way: np.bincount(owners[way]).astype(np.float64) for way in hits},
    )


def _holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def _share(happens: Callable[[], bool], draws: int) -> float:
    return sum(happens() for _ in range(draws)) / draws


def _galleries() -> Iterator[Gallery]:
    for captions, icc in CAPTIONS:
        for images in IMAGES:
            yield Gallery(images, captions, icc)


def coverage_table(draws: int) -> Table:
    """What intervals of recall, and of paired differences, cover; in percent."""
    table = Table(title=f"covered by 95% intervals, in % ({draws:,} draws each)", title_justify="left")
    titles = [f"{100 * low:g}–{100 * high:g}" for low, high in BANDS]
    titles += [f"{100 * recall:g}: {100 * differ:g}, {100 * truth:+g}" for recall, differ, truth in CHANGES]
    for title in ("images", "captions", "icc", *titles):
        table.add_column(title, justify="right")
    for gallery in _galleries():
        figures = [recall_coverage(gallery, band, draws=draws) for band in BANDS]
        figures += [difference_coverage(gallery, change, draws=draws) for change in CHANGES]
        cells = (str(gallery.images), str(gallery.captions), f"{gallery.icc:g}")
        table.add_row(*cells, *(f"{100 * figure:.1f}" for figure in figures))
    return table


def verdict_table(draws: int) -> Table:
    """How often `adapt` accepts, rejects, or says that it cannot tell; in percent."""
    table = Table(title=f"verdicts of adapt, in % ({draws:,} draws each)", title_justify="left")
    for title in ("images measured on", "source R@1", "target R@10", "accepted", "rejected", "undecided"):
        table.add_column(title, justify="right")
    for images in MEASURED:
        for source, target in VERDICTS:
            shares = verdict_shares(images, source_change=source, target_change=target, draws=draws)
            cells = (str(images), f"{100 * source:+g}", f"{100 * target:+g}")
            table.add_row(*cells, *(f"{100 * share:.1f}" for share in shares.values()))
    return table


@command.command()
def simulate(
    draws: Annotated[int, typer.Option(min=10, help="Simulated sets a cell.")] = 1000,
) -> None:
    """Print what intervals cover: recall by its truth, then paired differences (recall: differing, truth)."""
    console = Console(width=160)
    console.print(coverage_table(draws))
    console.print(verdict_table(draws))


if __name__ == "__main__":
    command()
