"""What a run unlearns: held-out sets before its first step and after its last, and which of them fell.

Both times the whole towers see plain images. The figures from before the first step are kept in the run's
folder, for a run that is taken up again starts from other weights. It does not train.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import DEFAULT_KS, Estimate, bootstrap_differences
from training.evaluation.ranks import Retrieval
from training.files import replacing
from training.fit.towers.learner import Feed, Learner
from training.fit.validate import HeldOut, retrievals

SHORT = {"t2i": "T→I", "i2t": "I→T"}
WORTH_TELLING = 0.02
"""A fall of more is told whatever its interval, a smaller one when its 95% interval lies below 0."""

Hits = dict[str, NDArray[np.float64]]
"""By figure, "t2i@10": (queries,) the chance that each query finds a positive."""


@dataclass(frozen=True)
class Standing:
    """How a set stands at one moment; owners: "t2i" and "i2t", the image of each query."""

    name: str
    hits: Hits
    owners: dict[str, NDArray[np.int64]]

    @property
    def score(self) -> float:
        """Mean of R@1, R@5, R@10 both ways."""
        return float(np.mean([hits.mean() for hits in self.hits.values()]))


@dataclass(frozen=True)
class Change:
    """One figure of one set before and after, from 0 to 1; difference: paired, over the same images."""

    name: str
    figure: str
    before: float
    after: float
    difference: Estimate

    @property
    def fell(self) -> bool:
        return self.difference.high < 0 or self.difference.value < -WORTH_TELLING

    def __str__(self) -> str:
        direction, _, k = self.figure.partition("@")
        low, high = 100 * self.difference.low, 100 * self.difference.high
        chance = ", which chance may explain" if self.difference.low < 0 <= self.difference.high else ""
        return (
            f"{self.name} {SHORT[direction]} R@{k} {100 * self.before:.1f} → {100 * self.after:.1f} "
            f"({100 * self.difference.value:+.1f}, 95% {low:+.1f} to {high:+.1f}{chance})"
        )


def standings(learner: Learner, sets: Sequence[HeldOut], feed: Feed) -> list[Standing]:
    """How the sets stand by the weights as they are; the feed gives plain images to whole towers."""
    learner.whole()
    return [
        _standing(one.name, retrieval)
        for one, retrieval in zip(sets, retrievals(learner, sets, feed), strict=True)
    ]


def save_standings(path: Path, standing: Sequence[Standing], *, digest: str) -> None:
    """Replace `path` whole; `digest` names the run."""
    arrays = {
        f"{place} {kind} {name}": values
        for place, one in enumerate(standing)
        for kind, named in (("hits", one.hits), ("owners", one.owners))
        for name, values in named.items()
    }
    names = json.dumps([digest, [one.name for one in standing]])
    with replacing(path) as file:
        np.savez(file, names=names, **arrays)  # type: ignore[arg-type] # its stub takes a flag there


def load_standings(path: Path, *, digest: str) -> list[Standing] | None:
    """What `save_standings` kept; None where there is nothing, part of it, or another run's."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            run, names = json.loads(str(arrays["names"]))
            if run != digest:
                return None
            return [_loaded(name, place, arrays) for place, name in enumerate(names)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def changes_between(before: Sequence[Standing], after: Sequence[Standing], *, seed: int = 0) -> list[Change]:
    """Every figure of every set, in order; intervals by a paired bootstrap over images."""
    return [
        change for one, other in zip(before, after, strict=True) for change in _changes_of_set(one, other, seed)
    ]


def forgotten(changes: Sequence[Change]) -> list[str]:
    """One warning for each set that fell."""
    names = dict.fromkeys(change.name for change in changes)
    fallen = {name: [str(one) for one in changes if one.name == name and one.fell] for name in names}
    return [
        f"forgetting: {'; '.join(told)}: lower rates, fewer epochs, or interpolate with the start "
        "(python -m training interpolate)"
        for told in fallen.values()
        if told
    ]


def records_of(changes: Sequence[Change]) -> list[dict[str, str | float]]:
    """For a bundle's provenance."""
    return [
        {
            "set": one.name, "figure": one.figure, "before": round(one.before, 6), "after": round(one.after, 6),
            "low": round(one.difference.low, 6), "high": round(one.difference.high, 6),
        }
        for one in changes
    ]  # fmt: skip


def _changes_of_set(before: Standing, after: Standing, seed: int) -> list[Change]:
    estimates = bootstrap_differences(
        [after.hits[figure] for figure in before.hits],
        list(before.hits.values()),
        [before.owners[figure.partition("@")[0]] for figure in before.hits],
        seed=seed,
    )
    return [
        Change(before.name, figure, float(hits.mean()), float(after.hits[figure].mean()), estimate)
        for (figure, hits), estimate in zip(before.hits.items(), estimates, strict=True)
    ]


def _standing(name: str, retrieval: Retrieval) -> Standing:
    directions = {"t2i": retrieval.text_to_image, "i2t": retrieval.image_to_text}
    return Standing(
        name,
        {f"{short}@{k}": ranks.hit_probability(k) for short, ranks in directions.items() for k in DEFAULT_KS},
        {short: ranks.image for short, ranks in directions.items()},
    )


def _loaded(name: str, place: int, arrays: "np.lib.npyio.NpzFile") -> Standing:
    def of(kind: str) -> dict[str, NDArray[np.generic]]:
        prefix = f"{place} {kind} "
        return {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}

    hits = {figure: values.astype(np.float64) for figure, values in of("hits").items()}
    return Standing(name, hits, {short: rows.astype(np.int64) for short, rows in of("owners").items()})
