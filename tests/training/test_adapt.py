"""`adapt` as a person runs it: bundles in, an adapted bundle or a reason out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from encoders.bundle import Bundle, read_files, write_bundle
from encoders.encoder import Encoder, load_towers
from encoders.query_bank import QUERY_BANK
from training.__main__ import app
from training.adapt.adapt import Request, adapt
from training.adapt.bundles import undo
from training.data.pairs import read_pairs
from training.errors import AdaptationError
from training.evaluate.embedding import embed_pairs

QUERIES = ["a red square on the blue", "yellow on black", "a dog", "a dark cat", "white on green"]
ALL = "adabn:0.05,centre:0.001,hubness:0.01"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """source (a spec), target (a spec, darker), folder (the target's pictures), queries (a file)."""
    from tests.training.conftest import write_coloured_pairs

    root = tmp_path_factory.mktemp("sets")
    source, target = write_coloured_pairs(root / "source"), write_coloured_pairs(root / "target", seed=9)
    for path in (root / "target").glob("*.png"):
        Image.open(path).point(lambda value: value // 4).save(path)
    shutil.copytree(root / "target", root / "folder", ignore=shutil.ignore_patterns("*.csv"))
    (root / "queries.txt").write_text("\n".join(QUERIES))
    return {"source": source, "target": target, "folder": str(root / "folder"), "queries": root / "queries.txt"}


def run(bundle, sets, out, *more, target="folder"):
    arguments = ["adapt", str(bundle), "--out", str(out), "--target", sets[target], "--source", sets["source"]]
    return CliRunner().invoke(app, [*arguments, "--queries", str(sets["queries"]), "--device", "cpu", *more])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, tiny_bundle, sets):
    """All kinds of change, each so small that no ranking moves: (what was printed, the bundle)."""
    out = tmp_path_factory.mktemp("adapted") / "bundle"
    result = run(tiny_bundle, sets, out, "--method", ALL, "--json", "--force")
    assert result.exit_code in (0, 4), result.output
    return json.loads(result.stdout), Bundle.open(out)


def test_an_adapted_bundle_is_a_bundle_that_tells_where_it_comes_from(adapted, tiny_bundle):
    told, bundle = adapted
    parent = Bundle.open(tiny_bundle)
    lineage = bundle.config.provenance["adapted"]
    assert bundle.fingerprint == told["fingerprint"] != parent.fingerprint
    assert lineage["parent"]["fingerprint"] == parent.fingerprint
    assert lineage["methods"] == ALL.split(",") == told["methods"]
    assert (lineage["target"]["learned_from"], lineage["target"]["measured_on"]) == (30, 0)
    assert {row["side"] for row in told["table"]} == {"source"}
    bank = Encoder.load(bundle, device="cpu").query_bank
    assert (len(bank.rows["texts"]), len(bank.rows["images"]), bank.alpha) == (5, 30, 0.01)


def test_what_was_measured_is_what_the_bundle_serves(adapted, tiny_bundle, sets):
    """The bank's images are the target's, so they must be what the written bundle makes of them."""
    encoder = Encoder.load(adapted[1], device="cpu")
    pictures = [Image.open(path).convert("RGB") for path in sorted(Path(sets["folder"]).glob("*.png"))]
    served = encoder.encode_images(pictures)
    cosines = served @ encoder.query_bank.rows["images"].T
    np.testing.assert_allclose(cosines.max(axis=1), 1.0, atol=2e-3)
    assert np.abs(served - Encoder.load(tiny_bundle, device="cpu").encode_images(pictures)).max() > 1e-4


def test_undo_gives_the_parent_back_to_the_byte(adapted, tiny_bundle, tmp_path):
    undone = CliRunner().invoke(
        app, ["adapt", str(adapted[1].path), "--undo", "--out", str(tmp_path / "parent")]
    )
    assert undone.exit_code == 0, undone.output
    parent, original = Bundle.open(tmp_path / "parent"), Bundle.open(tiny_bundle)
    assert (parent.fingerprint, parent.name) == (original.fingerprint, original.name)
    assert (parent.path / "model.safetensors").read_bytes() == (tiny_bundle / "model.safetensors").read_bytes()
    again = CliRunner().invoke(app, ["adapt", str(tiny_bundle), "--undo", "--out", str(tmp_path / "x")])
    assert again.exit_code == 2
    assert "nothing to undo" in again.output


def test_what_cannot_be_undone_leaves_what_was_there(adapted, tiny_bundle, tmp_path):
    out = shutil.copytree(tiny_bundle, tmp_path / "out")
    damaged = Bundle.open(shutil.copytree(adapted[1].path, tmp_path / "damaged"))
    (damaged.path / "parent.safetensors").unlink()
    with pytest.raises(AdaptationError, match="use the original"):
        undo(damaged, out)
    assert Bundle.open(out).fingerprint == Bundle.open(tiny_bundle).fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "out"]


def test_few_shot_moves_the_heads_alone_and_sees_no_other_caption(tiny_bundle, sets, tmp_path):
    more = ("--method", "few-shot:0.5", "--shots", "8", "--force")
    result = run(tiny_bundle, sets, tmp_path / "out", *more, target="target")
    assert result.exit_code in (0, 4), result.output
    bundle = Bundle.open(tmp_path / "out")
    before, after = (load_towers(each).state_dict() for each in (Bundle.open(tiny_bundle), bundle))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("visual.head.", "text.proj.")) for name in moved)
    assert bundle.config.provenance["adapted"]["shots"] == 8
    undone = CliRunner().invoke(app, ["adapt", str(bundle.path), "--undo", "--out", str(tmp_path / "parent")])
    assert undone.exit_code == 0, undone.output


def test_without_captions_it_says_what_cannot_be_known(tiny_bundle, sets, tmp_path):
    result = run(tiny_bundle, sets, tmp_path / "out", "--method", "hubness:0.0001")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "cannot be known" in said
    assert "hubness_skew" in said
    assert "accepted" in said
    assert (tmp_path / "out" / QUERY_BANK).is_file()
    assert Bundle.open(tmp_path / "out").fingerprint == Bundle.open(tiny_bundle).fingerprint


def test_no_gain_is_exit_status_4_and_no_bundle_unless_forced(tiny_bundle, sets, tmp_path):
    refused = run(tiny_bundle, sets, tmp_path / "out", "--method", "hubness:0.0001", target="target")
    assert refused.exit_code == 4, refused.output
    assert "rejected" in refused.output
    assert not (tmp_path / "out").exists()
    forced = run(tiny_bundle, sets, tmp_path / "out", "--method", "hubness:0.0001", "--force", target="target")
    assert forced.exit_code == 4
    assert Bundle.open(tmp_path / "out").config.provenance["adapted"]["accepted"] is False


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--method", "magic"], "no method is called 'magic'"),
        (["--method", "centre,few-shot:0.3"], "needs --shots"),
        (["--queries", "none.txt"], "no such file of queries"),
        (["--target", "none:x"], "unknown format"),
        (["--source", "csv:none.csv"], "none.csv"),
    ],
)
def test_bad_input_is_exit_status_2_and_one_line(tiny_bundle, sets, tmp_path, more, complaint):
    result = run(tiny_bundle, sets, tmp_path / "out", *more)
    assert result.exit_code == 2
    assert complaint in result.output
    assert "Traceback" not in result.output


def test_the_parent_is_never_overwritten_and_adaptations_are_not_stacked(adapted, tiny_bundle, sets, tmp_path):
    before = (tiny_bundle / "bundle.json").read_bytes()
    result = run(tiny_bundle, sets, tiny_bundle, "--method", "centre")
    assert (result.exit_code, (tiny_bundle / "bundle.json").read_bytes()) == (2, before)
    assert "is kept as it is" in result.output
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    result = run(tiny_bundle, {**sets, "source": "csv:none.csv"}, tmp_path / "other", "--method", "centre")
    assert result.exit_code == 2
    assert "is no bundle" in result.output  # told before any set is read
    twice = run(adapted[1].path, sets, tmp_path / "out", "--method", "centre")
    assert twice.exit_code == 2
    assert "--undo" in twice.output


def test_hubness_without_queries_corrects_the_search_by_pictures_alone(tiny_bundle, sets, tmp_path):
    request = Request(
        bundle=tiny_bundle, target=sets["folder"], source=sets["source"], out=tmp_path / "out",
        method="hubness", device="cpu", force=True,
    )  # fmt: skip
    adapt(request)
    bank = Encoder.load(tmp_path / "out", device="cpu").query_bank
    assert {modality: len(rows) for modality, rows in bank.rows.items()} == {"images": 30}
    with pytest.raises(AdaptationError, match="--queries"):
        adapt(replace(request, method="pseudo", out=tmp_path / "pseudo"))


def test_a_tower_whose_vectors_are_not_finite_is_refused(tiny_bundle, sets, tmp_path):
    broken, parent = tmp_path / "broken", Bundle.open(tiny_bundle)
    state = load_towers(parent).state_dict()
    name = next(name for name in state if name.startswith("visual.head") and name.endswith("weight"))
    state[name] = torch.full_like(state[name], torch.nan)
    write_bundle(broken, config=parent.config, state=state, files=read_files(parent))
    result = run(broken, sets, tmp_path / "out", "--method", "centre")
    assert result.exit_code == 2
    assert "not finite" in result.output


def test_auto_tries_on_a_part_of_its_own_and_keeps_nothing_that_gains_nothing(tiny_bundle, sets, tmp_path):
    """Random towers rank at random: whatever chance gives, what was kept has an interval above zero."""
    tried = []
    request = Request(
        bundle=tiny_bundle, target=sets["target"], source=sets["source"], out=tmp_path / "out",
        queries=sets["queries"], device="cpu",
    )  # fmt: skip
    outcome = adapt(request, on_trial=tried.append)
    assert tried == outcome.trials
    assert {trial.methods[0].name for trial in tried} >= {"adabn", "centre", "whiten", "hubness"}
    for trial in tried:
        assert trial.kept == (trial.gain is not None and trial.gain.low > 0 and trial.source >= -0.02)
    assert all(row.images in (8, 15) for row in outcome.rows)
    assert outcome.methods in ([trial.methods for trial in tried if trial.kept] or [()])


def test_other_towers_take_the_source_for_the_bank_they_cannot_embed(tiny_bundle, sets, tmp_path):
    assert run(tiny_bundle, sets, tmp_path / "bank", "--method", "hubness:0.5", "--force").exit_code in (0, 4)
    result = run(tmp_path / "bank", sets, tmp_path / "out", "--method", "adabn:0.5,centre", "--force")
    assert result.exit_code in (0, 4), result.output
    assert "15 source pairs replace it" in " ".join(result.output.split())
    encoder = Encoder.load(tmp_path / "out", device="cpu")
    bank, source = encoder.query_bank, embed_pairs(encoder, read_pairs(sets["source"]))
    assert (bank.alpha, len(bank.rows["images"])) == (0.5, 15)
    for rows, served in (
        (bank.rows["images"], source.image_vectors),
        (bank.rows["texts"], source.caption_vectors),
    ):
        np.testing.assert_allclose((rows @ served.T).max(axis=1), 1.0, atol=2e-3)


def test_a_bundles_bank_goes_on_in_the_new_embeddings_and_new_queries_join_it(tiny_bundle, sets, tmp_path):
    assert run(tiny_bundle, sets, tmp_path / "bank", "--method", "hubness:0.0001").exit_code == 0
    before = Encoder.load(tmp_path / "bank", device="cpu").query_bank.rows["images"]
    result = run(tmp_path / "bank", sets, tmp_path / "out", "--method", "centre:0.5", "--force")
    assert result.exit_code in (0, 4), result.output
    encoder = Encoder.load(tmp_path / "out", device="cpu")
    carried = encoder.query_bank.rows["images"]
    pictures = [Image.open(path).convert("RGB") for path in sorted(Path(sets["folder"]).glob("*.png"))]
    served = encoder.encode_images(pictures)
    np.testing.assert_allclose((served @ carried.T).max(axis=1), 1.0, atol=2e-3)
    assert np.abs(carried - before).max() > 1e-3
    joined = run(tmp_path / "bank", sets, tmp_path / "both", "--method", "hubness:0.5", "--force")
    assert joined.exit_code in (0, 4), joined.output
    bank = Encoder.load(tmp_path / "both", device="cpu").query_bank
    assert (len(bank.rows["texts"]), len(bank.rows["images"]), bank.alpha) == (10, 60, 0.5)
