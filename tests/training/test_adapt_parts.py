"""The parts of an adaptation, on shifts whose right answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.statistics import verdict_shares
from training.adapt.acceptance import Row, judge, rows_between, t_quantile
from training.adapt.batchnorm import reestimate
from training.adapt.closed_form import apply_map, centring, coral, whitening
from training.adapt.heads import mutual_neighbours
from training.adapt.methods import Method, parse_methods
from training.adapt.proxies import WEAKNESSES, measure_proxies
from training.adapt.sets import Split, part_set, read_domain, read_queries
from training.data.pairs import read_pairs
from training.errors import AdaptationError, EmptyPairSet, MissingFile
from training.evaluation.hits import hits_of
from training.evaluation.metrics import Estimate
from training.evaluation.ranks import DIRECTIONS, rank_pairs

DIM = 6


def units(count, *, seed=0, dim=DIM):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def normed(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_centring_undoes_a_mean_shift_exactly():
    centred = units(40) - units(40).mean(axis=0)
    shift = np.linspace(-2, 1, DIM, dtype=np.float32)
    mapped = apply_map(centring(centred + shift), centred + shift)
    np.testing.assert_allclose(mapped, normed(centred), atol=1e-5)


def test_whitening_without_shrinkage_levels_the_covariance_and_with_it_does_less():
    scales = np.array([8, 4, 2, 1, 0.5, 0.25], np.float32)
    images, texts = (
        np.random.default_rng(seed).normal(size=(4000, DIM)).astype(np.float32) * scales for seed in (1, 2)
    )
    ranges = []
    for strength in (1.0, 0.5, 1e-9):
        affine = whitening(images, texts, strength=strength)[0]
        spread = ((images - affine.mean.numpy()) @ affine.weight.numpy().T).std(axis=0)
        ranges.append(spread.max() / spread.min())
    assert ranges[0] == pytest.approx(1.0, abs=0.1)
    assert ranges[0] < ranges[1] < ranges[2] == pytest.approx(32, rel=0.1)


def test_coral_without_shrinkage_gives_the_target_the_sources_mean_and_covariance():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(500, DIM)) @ rng.normal(size=(DIM, DIM)) + 3
    target = rng.normal(size=(400, DIM)) @ rng.normal(size=(DIM, DIM)) - 2
    affine = coral(target.astype(np.float32), source.astype(np.float32), strength=1.0)
    moved = (target - affine.mean.numpy()) @ affine.weight.numpy().T
    np.testing.assert_allclose(moved.mean(axis=0), source.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(source.T), atol=0.02 * np.abs(np.cov(source.T)).max())


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.BatchNorm2d(4),
    ]
    return nn.Sequential(*layers).eval()


def test_adabn_undoes_a_change_of_brightness_and_contrast(network):
    images = torch.rand(32, 3, 12, 12)
    dark = images * 0.2 - 0.1
    reestimate(network, images.split(8), run=network)
    plain = network(images)
    assert (network(dark) - plain).abs().max() > 0.5
    reestimate(network, dark.split(8), run=network)
    torch.testing.assert_close(network(dark), plain, atol=2e-2, rtol=0)
    assert not any(module.training for module in network)


def test_adabn_of_half_strength_lies_half_way(network):
    before = network[1].running_mean.clone()
    batches = torch.rand(16, 3, 12, 12).split(8)
    reestimate(network, batches, run=network, strength=0.5)
    half = network[1].running_mean.clone()
    network[1].running_mean.copy_(before)
    reestimate(network, batches, run=network)
    torch.testing.assert_close(half, (before + network[1].running_mean) / 2)


def test_adabn_leaves_the_tower_as_it_was_when_it_cannot_be_done(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for batches, complaint in (([], "no image"), ([torch.full((4, 3, 12, 12), torch.nan)], "not finite")):
        with pytest.raises(AdaptationError, match=complaint):
            reestimate(network, batches, run=network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(AdaptationError, match="no BatchNorm"):
        reestimate(nn.Linear(2, 2), [torch.rand(1, 2)], run=lambda _: None)


def test_only_sure_mutual_neighbours_are_paired():
    images = units(4)
    texts = np.stack([images[2], normed(images[:1] + 0.4 * images[1:2])[0]])
    pictured, named = mutual_neighbours(images, texts, share=0.5)
    assert (pictured.tolist(), named.tolist()) == ([2], [0])


def test_every_proxy_has_its_weakness_beside_it_and_sees_what_it_is_for():
    images, queries = units(50), units(60, seed=1)
    plain, shifted = measure_proxies(images, queries), measure_proxies(normed(images + 2), queries)
    assert plain.keys() == WEAKNESSES.keys()
    assert shifted["modality_gap"] > plain["modality_gap"] + 0.3
    assert shifted["spread"] < plain["spread"] / 2
    with_hub = np.concatenate([images, normed(queries.mean(axis=0, keepdims=True) * 50)]).astype(np.float32)
    assert measure_proxies(images, queries[:0]).keys() == {"spread"}
    assert np.isfinite(list(measure_proxies(with_hub, queries).values())).all()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("centering", "no method is called 'centering'"),
        ("centre,centre", "centre twice"),
        ("centre,coral", "centre and coral each set the means"),
        ("adabn:1.5", "at most 1"),
        ("hubness:nan", "a number above 0"),
        ("", "no method is called ''"),
    ],
)
def test_a_wrong_list_of_methods_is_told_what_is_wrong(text, complaint):
    with pytest.raises(AdaptationError, match=complaint):
        parse_methods(text)


def test_methods_act_in_their_order_however_they_are_written():
    assert parse_methods("hubness:0.5, centre,adabn") == (
        Method("adabn", 1.0), Method("centre", 1.0), Method("hubness", 0.5),
    )  # fmt: skip
    assert [str(method) for method in parse_methods("hubness:0.5,centre")] == ["centre", "hubness:0.5"]


def row(side, k, low, value, high, direction="text_to_image"):
    return Row(
        side=side, direction=direction, k=k, images=50, before=0.5, after=0.5 + value,
        difference=Estimate(value, low, high),
    )  # fmt: skip


KEPT = row("source", 1, -0.01, 0, 0.01)


@pytest.mark.parametrize(
    ("rows", "state", "reason"),
    [
        ([row("source", 1, -0.09, -0.05, -0.021)], "rejected", "at most 2.0 may go"),
        ([row("source", 1, -0.05, -0.01, 0.01)], "undecided", "about 450 images to measure on would tell, 50"),
        ([row("source", 1, -0.05, -0.03, 0.01)], "undecided", "is open: R@1 text→image -3.0 [-5.0, +1.0]"),
        ([KEPT, row("target", 10, 0.1, 0.2, 0.3, "both_ways")], "accepted", "target R@10 both ways +20.0"),
        ([KEPT, row("target", 10, -0.1, 0.1, 0.3, "both_ways")], "undecided", "about 200 images"),
        (
            [KEPT, row("target", 10, -0.3, -0.2, -0.1), row("target", 10, 0.1, 0.2, 0.3, "both_ways")],
            "undecided",
            "gains one way and loses the other: R@10 text→image -20.0 [-30.0, -10.0]",
        ),
        ([KEPT, row("target", 10, -0.3, -0.2, -0.1, "both_ways")], "rejected", "both ways -20.0"),
        ([KEPT], "accepted", "cannot be known without captions"),
    ],
)
def test_the_verdict_follows_the_intervals_of_source_and_target(rows, state, reason):
    verdict = judge(rows)
    assert verdict.state == state
    assert reason in verdict.reason


def test_a_table_has_each_way_and_the_mean_of_both_paired(coloured_pairs, tmp_path):
    rng = np.random.default_rng(0)
    images, captions = rng.normal(size=(40, 4)), rng.normal(size=(80, 4))
    before = rank_pairs(images, captions, caption_image=np.arange(80) // 2)
    after = rank_pairs(images, captions + images.repeat(2, axis=0), caption_image=np.arange(80) // 2)
    old, new = (hits_of(one, 40, dataset="x", condition=None, ks=(1, 5)) for one in (before, after))
    rows = {(each.direction, each.k): each for each in rows_between(old, new, side="target")}
    assert len(rows) == 6
    for k in (1, 5):
        ways = [rows[way, k] for way in DIRECTIONS]
        both = rows["both_ways", k]
        assert both.difference.value == pytest.approx(np.mean([each.difference.value for each in ways]))
        assert both.difference.low <= both.difference.value <= both.difference.high
        expected = after.text_to_image.hit_probability(k).mean()
        assert rows["text_to_image", k].after == pytest.approx(expected)


def test_the_quantiles_of_student_are_those_of_the_tables():
    assert [round(t_quantile(freedom), 3) for freedom in (1, 2, 9, 30)] == [12.706, 4.303, 2.262, 2.042]


@pytest.mark.parametrize(("change", "wrong"), [(0.0, "rejected"), (-0.02, "accepted")])
@pytest.mark.parametrize("images", [150, 500])
def test_verdicts_by_chance_are_few_on_either_side(change, wrong, images):
    """A harmless change is not rejected and a harmful one not accepted, in more than one of twenty draws."""
    shares = verdict_shares(images, source_change=change, target_change=0.03, draws=80)
    assert shares[wrong] <= 0.05


def test_parts_share_no_image_and_do_not_depend_on_the_files_order(coloured_pairs, tmp_path):
    pairs = read_pairs(coloured_pairs(tmp_path / "data"))
    split = Split(holdout=0.5, choose=True, seed=3)
    parts = part_set(pairs, split)
    ids = [{image.image_id for image in part.images} for part in (parts.learn, parts.choose, parts.measure)]
    assert [len(each) for each in ids] == [15, 7, 8]
    assert len(set.union(*ids)) == 30
    turned = part_set(pairs.__class__(pairs.name, pairs.spec, pairs.images[::-1]), split)
    assert turned.measure.digest == parts.measure.digest


def test_captions_of_what_is_learned_from_are_not_there_to_be_looked_at(coloured_pairs, tmp_path):
    target, source = coloured_pairs(tmp_path / "t", seed=1), coloured_pairs(tmp_path / "s", seed=2)
    domain = read_domain(target, source, queries=None, split=Split())
    assert domain.can_measure
    assert all(not image.captions for image in domain.target.learn.images)
    assert all(image.captions for image in domain.target.measure.images)


def test_bad_targets_and_queries_are_told_what_to_do(coloured_pairs, tmp_path):
    source, empty = coloured_pairs(tmp_path / "s"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EmptyPairSet, match="no image lies there"):
        read_domain(str(empty), source, queries=None, split=Split())
    with pytest.raises(AdaptationError, match="target and source are one"):
        read_domain(source, source, queries=None, split=Split())
    with pytest.raises(AdaptationError, match="at least 8 are needed"):
        read_domain(f"{coloured_pairs(tmp_path / 't', seed=5)}?limit=10", source, queries=None, split=Split())
    with pytest.raises(MissingFile, match="no such file of queries"):
        read_queries(tmp_path / "none.txt")
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(AdaptationError, match="holds no query"):
        read_queries(tmp_path / "blank.txt")
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin1"))
    with pytest.raises(AdaptationError, match="not UTF-8"):
        read_queries(tmp_path / "latin.txt")
