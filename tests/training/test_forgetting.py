"""Held-out sets before and after a run."""

from pathlib import Path

import numpy as np
import pytest

from training.fit.forgetting import (
    Standing,
    changes_between,
    forgotten,
    load_standings,
    records_of,
    save_standings,
)


def standing(name: str, share: float, *, images: int = 200, seed: int = 0) -> Standing:
    """Every image asked once each way; the first `share` of a random order of them is found."""
    found = np.zeros(images)
    found[np.random.default_rng(seed).permutation(images)[: round(share * images)]] = 1.0
    return Standing(
        name, {"t2i@10": found, "i2t@10": found.copy()}, {"t2i": np.arange(images), "i2t": np.arange(images)}
    )


def test_a_fall_beyond_its_interval_or_two_points_is_warned_of_and_a_gain_is_not() -> None:
    before = [standing("fell", 0.9), standing("rose", 0.5), standing("same", 0.7)]
    after = [standing("fell", 0.7), standing("rose", 0.6), standing("same", 0.7)]
    changes = changes_between(before, after)
    (warning,) = forgotten(changes)
    assert "fell T→I R@10 90.0 → 70.0 (-20.0, 95% -2" in warning
    assert "interpolate" in warning
    fell = records_of(changes)[0]
    assert (fell["set"], fell["before"], fell["after"]) == ("fell", 0.9, 0.7)
    assert -0.3 < float(fell["low"]) < -0.2 < float(fell["high"]) < -0.1


@pytest.mark.parametrize(
    ("images", "lost", "told"),
    [(4000, 40, True), (400, 7, True), (400, 4, False), (4000, 2, False), (200, 2, False), (100, 3, True)],
)
def test_a_small_fall_is_told_when_chance_does_not_explain_it(images: int, lost: int, told: bool) -> None:
    """Queries that were found and are lost, none the other way: four are all on one side by chance, too."""
    before, after = standing("s", 0.5, images=images), standing("s", 0.5, images=images)
    after.hits["t2i@10"][np.flatnonzero(after.hits["t2i@10"])[:lost]] = 0.0
    assert bool(forgotten(changes_between([before], [after]))) is told


def test_what_was_measured_before_is_read_back_by_the_same_run_alone(tmp_path: Path) -> None:
    path, kept = tmp_path / "before.npz", [standing("a", 0.4), standing("b c", 0.8, images=30)]
    assert load_standings(path, digest="run") is None
    save_standings(path, kept, digest="run")
    found = load_standings(path, digest="run")
    assert found is not None
    assert [one.name for one in found] == ["a", "b c"]
    for one, other in zip(kept, found, strict=True):
        for figure, hits in one.hits.items():
            np.testing.assert_array_equal(other.hits[figure], hits)
        np.testing.assert_array_equal(other.owners["i2t"], one.owners["i2t"])
    assert load_standings(path, digest="another") is None
    path.write_bytes(path.read_bytes()[:100])
    assert load_standings(path, digest="run") is None
