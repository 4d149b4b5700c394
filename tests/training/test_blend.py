"""Interpolation and soups of bundles."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from encoders.bundle import WEIGHTS, Bundle
from encoders.images import Preprocessing
from encoders.texts import TokenizerSpec
from encoders.weights import load_weights, save_weights
from training.__main__ import app
from training.blend.blend import blended_state, write_mean
from training.blend.measured import Point, best_alpha, greedy_soup, score
from training.errors import BlendError
from training.evaluation.metrics import Estimate
from training.evaluation.report import RetrievalReport

MakeBundle = Callable[..., Bundle]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})


@pytest.fixture
def pair(tiny_bundle: Path, other_tiny_bundle: Path) -> list[Bundle]:
    return [Bundle.open(tiny_bundle), Bundle.open(other_tiny_bundle)]


def blended(bundles: Sequence[Bundle], shares: Sequence[float], out: Path) -> Bundle:
    return write_mean(bundles, shares, out, method="interpolation")[0]


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return load_weights(bundle.path / WEIGHTS)


def test_every_weight_lies_between_its_parents_by_alpha(pair: list[Bundle], tmp_path: Path) -> None:
    mixed = weights(blended(pair, [0.75, 0.25], tmp_path / "mixed"))
    first, second = (weights(one) for one in pair)
    assert mixed.keys() == first.keys()
    for name, tensor in mixed.items():
        expected = 0.75 * first[name] + 0.25 * second[name] if tensor.is_floating_point() else first[name]
        torch.testing.assert_close(tensor, expected)


def test_the_ends_are_the_parents_themselves(pair: list[Bundle], tmp_path: Path) -> None:
    for place, shares in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        end = blended(pair, shares, tmp_path / f"end{place}")
        assert end.fingerprint == pair[place].fingerprint


def test_int8_rows_are_averaged_after_they_are_read_back(tmp_path: Path) -> None:
    rows = [torch.linspace(-1, 1, 128).reshape(2, 64), torch.linspace(-9, 3, 128).reshape(2, 64)]
    for place, tensor in enumerate(rows):
        save_weights({"w": tensor}, tmp_path / f"{place}.safetensors", encoding="int8_rows")
    mean = blended_state([tmp_path / "0.safetensors", tmp_path / "1.safetensors"], [0.5, 0.5])["w"]
    torch.testing.assert_close(mean, (rows[0] + rows[1]) / 2, rtol=0, atol=9 / 127 / 2)


def test_logit_scales_are_averaged_geometrically(make_bundle: MakeBundle, tmp_path: Path) -> None:
    parents = [make_bundle(tmp_path / f"s{scale}", logit_scale=float(scale)) for scale in (4, 25)]
    assert math.isclose(blended(parents, [0.5, 0.5], tmp_path / "m").config.logit_scale, 10)


def test_the_parents_and_the_terms_of_their_data_are_kept(make_bundle: MakeBundle, tmp_path: Path) -> None:
    def parent(name: str, licence: str, kinds: list[str]) -> Bundle:
        data = [{"name": name, "sha256": name, "images": 1, "captions": 1, "licence": licence}]
        recipe = {"held_out_corruptions": kinds}
        return make_bundle(tmp_path / name, name=name, provenance={"data": data, "recipe": recipe})

    parents = [parent("free", "public domain", ["noise", "blur"]), parent("bound", "research only", ["blur"])]
    mixed = blended(parents, [0.9, 0.1], tmp_path / "mixed")
    told = mixed.config.provenance
    assert [one["fingerprint"] for one in told["parents"]] == [one.fingerprint for one in parents]
    assert [one["share"] for one in told["parents"]] == [0.9, 0.1]
    assert [one["name"] for one in told["data"]] == ["free", "bound"]
    assert told["recipe"]["held_out_corruptions"] == ["blur"]
    assert "For research only" in (mixed.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": Preprocessing(height=48, width=32)}, r"preprocessing.height \(32 and 48\)"),
        ({"tokenizer": TokenizerSpec(kind="tokenizers", context_length=8)}, r"tokenizer.context_length"),
    ],
)
def test_bundles_that_differ_are_refused_naming_the_first_difference(
    make_bundle: MakeBundle, tiny_bundle: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    other = make_bundle(tmp_path / "other", **change)
    with pytest.raises(BlendError, match=message):
        blended([Bundle.open(tiny_bundle), other], [0.5, 0.5], tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_interpolate_writes_one_bundle_or_prints_a_curve_and_picks_only_where_it_is_told_to(
    pair: list[Bundle], tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    first, second = (one.path for one in pair)
    data = coloured_pairs(tmp_path / "data")
    one = run("interpolate", first, second, "--alpha", 0.5, "--out", tmp_path / "half")
    assert one.exit_code == 0, one.output
    half = Bundle.open(tmp_path / "half")
    assert half.name == "half"
    assert "golden.safetensors" in half.files

    shown = run("interpolate", first, second, "--alphas", "0,1", "--data", data)
    assert shown.exit_code == 0, shown.output
    assert [line.split()[:2] for line in shown.output.splitlines()] == [["α", "0"]] * 2 + [["α", "1"]] * 2
    assert "(" in shown.output.splitlines()[0]

    arguments = ("--alphas", "0,0.5,1", "--best-on", data, "--out", tmp_path / "best", "--json")
    chosen = run("interpolate", first, second, *arguments)
    assert chosen.exit_code == 0, chosen.output
    scores = {float(line["alpha"]): line["score"] for line in map(json.loads, chosen.output.splitlines()[:-1])}
    share = Bundle.open(tmp_path / "best").config.provenance["parents"][1]["share"]
    assert scores[share] == max(scores.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0.5"], "--alpha takes --out"),
        (["--alpha", "0.5", "--data", "csv:x", "--out", "o"], "no --alphas, --data"),
        (["--alphas", "0,x", "--data", "csv:x"], "not '0,x'"),
        (["--alphas", "0,2", "--data", "csv:x"], "between 0 and 1"),
        (["--alphas", "0,1"], "name a set"),
        (["--alphas", "0,1", "--data", "csv:x", "--out", "o"], "needs --best-on"),
        (["--alphas", "0,1", "--data", "csv:x", "--best-on", "csv:x", "--out", "o"], "chosen on"),
        ([], "give --alpha"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    tiny_bundle: Path, options: list[str], message: str
) -> None:
    result = run("interpolate", tiny_bundle, tiny_bundle, *options)
    assert result.exit_code == 2
    assert message in result.output


def report_of(value: float) -> RetrievalReport:
    """A report that says one recall; only what `score` reads."""
    recall = {k: Estimate(value, value, value) for k in (1, 5, 10)}
    dataset = type("Dataset", (), {"recall": {"text_to_image": recall, "image_to_text": recall}})
    return RetrievalReport.model_construct(datasets=(dataset(),))


def test_a_greedy_soup_keeps_what_does_not_lower_the_score(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / name, seed=seed, name=name) for seed, name in enumerate("abc")]
    alone = {"a": 0.5, "b": 0.7, "c": 0.6}
    mixed = {("b", "c"): 0.65, ("b", "a"): 0.8}

    def measure(bundle: Bundle) -> RetrievalReport:
        names = tuple(one["name"] for one in bundle.config.provenance.get("parents", []))
        return report_of(mixed[names] if names else alone[bundle.name])

    soup, tasted = greedy_soup(bundles, measure)
    assert [one.name for one in soup] == ["b", "a"]
    assert [(one.name, one.kept) for one in tasted] == [("b", True), ("c", False), ("a", True)]


def test_what_an_average_does_not_have_of_its_parents_is_told(pair: list[Bundle], tmp_path: Path) -> None:
    parent = Bundle.open(shutil.copytree(pair[0].path, tmp_path / "parent"))
    parent = parent.with_file("calibration.json", b"{}").with_file("query_bank.safetensors", b"")
    for command in (["interpolate", "--alpha", 0.5], ["soup"]):
        result = run(*command, parent.path, pair[1].path, "--out", tmp_path / command[0])
        assert result.exit_code == 0, result.output
        told = "query_bank.safetensors, calibration.json of tiny and other hold for no other bundle"
        assert told in " ".join(result.output.split())
        assert "by python -m training bank --in-place, calibrate --in-place" in " ".join(result.output.split())
    plain = run("soup", *(one.path for one in pair), "--out", tmp_path / "plain")
    assert "stay behind" not in plain.output


def test_of_equal_points_the_one_nearest_the_first_bundle_is_best() -> None:
    points = [Point(alpha, report_of(value)) for alpha, value in ((0.0, 0.2), (0.75, 0.4), (0.25, 0.4))]
    assert score(points[1].report) == pytest.approx(0.4)
    assert best_alpha(points) == 0.25


def test_soup_averages_all_or_keeps_what_helps(
    pair: list[Bundle], tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    paths = [one.path for one in pair]
    uniform = run("soup", *paths, "--out", tmp_path / "uniform")
    assert uniform.exit_code == 0, uniform.output
    told = Bundle.open(tmp_path / "uniform").config.provenance
    assert told["method"] == "uniform soup"
    assert [one["share"] for one in told["parents"]] == [0.5, 0.5]
    greedy = run("soup", *paths, "--out", tmp_path / "greedy", "--greedy", "--data", coloured_pairs(tmp_path))
    assert greedy.exit_code == 0, greedy.output
    assert greedy.output.count("with it") == 2
    assert run("soup", *paths, "--out", tmp_path / "never", "--greedy").exit_code == 2
    assert run("soup", paths[0], "--out", tmp_path / "never").exit_code == 2
