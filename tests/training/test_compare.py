"""Differences between bundles and between clean and shifted sets, from hits that are known."""

import json
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from training.errors import EvaluationError
from training.evaluation.compare import compare, paired_difference
from training.evaluation.comparison import Comparison, write_comparison
from training.evaluation.comparison_tables import comparison_markdown, comparison_tables
from training.evaluation.hits import Hits, hits_of
from training.evaluation.ranks import DIRECTIONS, rank_pairs
from training.shift.condition import Condition
from training.shift.conditions import FAMILIES, GROUPS, corrupted_conditions

BLUR, DARK = Condition(corruption="blur", severity=3), Condition(corruption="low_light", severity=3)
IMAGES = 200


def hits(
    shares: dict[Condition | None, float], *, dataset: str = "photos", seed: int = 0, images: int = IMAGES
) -> list[Hits]:
    """Five captions an image; the easiest `share` of the images are found, in an order that the seed gives."""
    order = np.random.default_rng(seed).permutation(images)
    found = []
    for condition, share in shares.items():
        hit = (order < round(share * images)).astype(float)[:, None]
        sums = {"text_to_image": 5 * hit, "image_to_text": hit}
        counts = {"text_to_image": np.full(images, 5.0), "image_to_text": np.ones(images)}
        found.append(Hits(dataset, condition, (10,), sums, counts))
    return found


def shift_of(comparison: Comparison, subject: str, bundle: str = "a"):
    return next(s for s in comparison.shifts if (s.subject, s.bundle) == (subject, bundle))


def test_a_paired_difference_is_sharper_than_the_figures_and_shows_what_they_cannot() -> None:
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(300), 5)
    easy = rng.random(300)[images]
    a, b = (easy < 0.55).astype(float), (easy < 0.50).astype(float)
    difference = paired_difference(a, b, groups=images)
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert 0 < difference.low < difference.value < difference.high < 0.1
    unpaired = paired_difference(a, rng.permutation(b), groups=images)
    assert difference.high - difference.low < 0.7 * (unpaired.high - unpaired.low)


def test_a_paired_difference_draws_images_not_captions() -> None:
    rng = np.random.default_rng(1)
    by_image = rng.integers(2, size=60).astype(float)
    wide = paired_difference(np.repeat(by_image, 5), np.zeros(300), groups=np.repeat(np.arange(60), 5))
    narrow = paired_difference(np.repeat(by_image, 5), np.zeros(300), groups=np.arange(300))
    assert wide.high - wide.low == pytest.approx(5**0.5 * (narrow.high - narrow.low), rel=0.15)


def test_arrays_of_different_queries_are_no_pair() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        paired_difference([1, 0, 1], [1, 0], groups=[0, 1, 2])


def test_hits_add_up_to_the_recall_that_the_ranks_give() -> None:
    rng = np.random.default_rng(2)
    images, captions = rng.standard_normal((30, 4)), rng.standard_normal((90, 4))
    retrieval = rank_pairs(images, captions, caption_image=np.repeat(np.arange(30), 3))
    found = hits_of(retrieval, 30, dataset="x", condition=None, ks=(1, 5))
    for direction in DIRECTIONS:
        recall = found.sums[direction].sum(axis=0) / found.counts[direction].sum()
        expected = [retrieval.direction(direction).hit_probability(k).mean() for k in (1, 5)]
        assert recall == pytest.approx(expected)


def test_retention_and_difference_are_against_the_clean_figure_of_the_same_bundle() -> None:
    shift = shift_of(compare({"a": hits({None: 0.8, BLUR: 0.6})}), "blur")
    assert (shift.clean, shift.recall.value) == (0.8, 0.6)
    assert shift.difference.value == pytest.approx(-0.2)
    assert shift.retention is not None
    assert shift.retention.value == pytest.approx(0.75)
    assert shift.difference.low < -0.2 < shift.difference.high < 0
    assert shift.retention.low < 0.75 < shift.retention.high < 1


def test_a_bundle_that_finds_nothing_when_clean_has_no_retention() -> None:
    comparison = compare({"a": hits({None: 0.0, BLUR: 0.1})})
    assert shift_of(comparison, "blur").retention is None
    assert "10.0 (–)" in comparison_markdown(comparison)


def test_the_mean_over_a_group_averages_what_each_corruption_keeps() -> None:
    conditions = corrupted_conditions(GROUPS["resolution"], (3,))
    shares = dict(zip(conditions, (0.8, 0.6, 0.4), strict=True))
    mean = shift_of(compare({"a": hits({None: 0.8, **shares})}), "mean of resolution")
    assert mean.retention is not None
    assert mean.retention.value == pytest.approx((1 + 0.75 + 0.5) / 3)
    assert mean.recall.value == pytest.approx(0.6)


def test_bundles_are_compared_clean_and_shifted_with_a_verdict() -> None:
    comparison = compare(
        {"a": hits({None: 0.8, BLUR: 0.6, DARK: 0.5}), "b": hits({None: 0.8, BLUR: 0.7, DARK: 0.4})}
    )
    verdicts = {d.subject: d.verdict for d in comparison.differences if d.direction == "text_to_image"}
    assert verdicts == {"clean": "no difference shown", "blur": "better", "low_light": "worse"}
    [blur] = [d for d in comparison.differences if (d.subject, d.direction) == ("blur", "image_to_text")]
    assert (blur.bundle, blur.against) == ("b", "a")
    assert blur.retention is not None
    assert blur.retention.value == pytest.approx(0.1 / 0.8)


def test_the_mean_corruption_score_is_the_ratio_of_errors_against_the_baseline() -> None:
    weak = {None: 0.8, BLUR: 0.6, DARK: 0.5}
    strong = {None: 0.9, BLUR: 0.8, DARK: 0.8}
    comparison = compare({"strong": hits(strong), "weak": hits(weak)}, baseline="weak")
    score = comparison.scores[0]
    assert (score.bundle, score.baseline, score.corruptions) == ("strong", "weak", 2)
    assert score.score is not None
    assert score.relative is not None
    assert score.score.value == pytest.approx((0.2 / 0.4 + 0.2 / 0.5) / 2)
    assert score.relative.value == pytest.approx((0.1 / 0.2 + 0.1 / 0.3) / 2)
    assert {d.against for d in comparison.differences} == {"weak"}


def test_what_costs_the_baseline_nothing_is_no_part_of_the_relative_score() -> None:
    weak = {None: 0.8, BLUR: 0.6, DARK: 0.8}
    strong = {None: 0.9, BLUR: 0.8, DARK: 0.5}
    score = compare({"strong": hits(strong), "weak": hits(weak)}, baseline="weak").scores[0]
    assert score.relative is not None
    assert score.relative.value == pytest.approx(0.1 / 0.2)
    assert 0 < score.relative.low < score.relative.high < 2


def test_the_unseen_gap_is_home_minus_elsewhere_with_the_noise_of_both() -> None:
    sets = [*hits({None: 0.8}, dataset="home"), *hits({None: 0.5}, dataset="away", images=50, seed=1)]
    gap = compare({"a": sets}, in_domain="home").gaps[0]
    assert (gap.dataset, gap.in_domain) == ("away", "home")
    assert gap.gap.value == pytest.approx(0.3)
    alone = (0.5 * 0.5 / 50) ** 0.5
    assert gap.gap.high - gap.gap.low > 2 * 1.96 * alone  # at least the small set's own


def test_an_unknown_home_or_other_images_are_refused() -> None:
    with pytest.raises(EvaluationError, match="'nowhere' is none of the sets: photos"):
        compare({"a": hits({None: 0.8})}, in_domain="nowhere")
    with pytest.raises(EvaluationError, match=r"different images: \[100, 200\]"):
        compare({"a": hits({None: 0.8}), "b": hits({None: 0.8}, images=100)})


def test_tables_give_absolute_recall_beside_what_is_kept(tmp_path: Path) -> None:
    shares = {None: 0.8, BLUR: 0.6, Condition(input_size=(160, 160)): 0.7}
    comparison = compare(
        {"a": hits(shares), "b": hits(shares)}, baseline="a", in_domain="photos", held_out={"a": ("blur",)}
    )
    markdown, shown = comparison_markdown(comparison), printed(comparison)
    assert "| photos | a | blur (*) | T→I | 80.0 | – | – | 60.0 (75) | – | – |" in markdown
    with_kin = compare({"a": hits(shares)}, held_out={"a": FAMILIES[-1]})
    assert "| photos | a | blur * | T→I |" in comparison_markdown(with_kin)
    assert "| photos | b | blur | T→I |" in markdown
    assert "| photos | a | input 160×160 | T→I | 80.0 | 70.0 (" in markdown
    assert re.search(r"\| photos \| b \| blur 3 \| T→I \| \+0\.0 \(−\d\.\d to \+\d\.\d\) \|", markdown)
    assert "60.0 (75)" in shown
    write_comparison(comparison, tmp_path / "comparison.json")
    assert Comparison.model_validate(json.loads((tmp_path / "comparison.json").read_text())) == comparison


def printed(comparison: Comparison) -> str:
    console = Console(file=StringIO(), width=160)
    tables: Sequence[object] = comparison_tables(comparison)
    for table in tables:
        console.print(table)
    return console.file.getvalue()
