"""`adapt` as a person runs it: bundles in, an adapted bundle or a reason out."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from encoders.bundle import Bundle, BundleConfig, read_files, write_bundle
from encoders.encoder import Encoder, load_towers
from encoders.golden import add_golden
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from tests.conftest import WORDS
from training.__main__ import app
from training.adapt.adapt import Request, adapt
from training.adapt.bundles import undo
from training.adapt.methods import DEFAULT_STRENGTHS
from training.data.pairs import read_pairs
from training.errors import AdaptationError
from training.evaluation.embedding import embed_pairs
from training.seen.record import read_seen

QUERIES = ["a red square on the blue", "yellow on black", "a dog", "a dark cat", "white on green"]
JUDGED = (0, 4, 6)
"""Exit statuses of an adaptation that was measured, whatever came of it."""
ALL = "adabn:0.05,centre:0.001,hubness:0.01"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """source (a spec), target (a spec, darker), folder (the target's images), queries (a file)."""
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
    assert result.exit_code in JUDGED, result.output
    return json.loads(result.stdout), Bundle.open(out)


def test_an_adapted_bundle_is_a_bundle_that_tells_where_it_comes_from(adapted, tiny_bundle):
    told, bundle = adapted
    parent = Bundle.open(tiny_bundle)
    lineage = bundle.config.provenance["adapted"]
    assert bundle.fingerprint == told["fingerprint"] != parent.fingerprint
    assert lineage["parent"]["fingerprint"] == parent.fingerprint
    assert lineage["methods"] == ALL.split(",") == told["methods"]
    assert (lineage["target"]["learned_from"], lineage["target"]["measured_on"]) == (30, 0)
    seen = read_seen(bundle)
    assert [(one.record.name, one.record.kept) for one in seen.sources] == [
        ("folder, adapted to", 30), ("source, beside the target", 15),
    ]  # fmt: skip
    assert seen.unknown == ("tiny",)
    assert {row["side"] for row in told["table"]} == {"source"}
    assert told["verdict"] in ("accepted", "rejected", "undecided")
    bank = Encoder.load(bundle, device="cpu").query_bank
    assert (len(bank.rows["texts"]), len(bank.rows["images"]), bank.alpha) == (5, 30, 0.01)


def test_what_was_measured_is_what_the_bundle_serves(adapted, tiny_bundle, sets):
    """The bank's images are the target's, so they must be what the written bundle makes of them."""
    encoder = Encoder.load(adapted[1], device="cpu")
    images = [Image.open(path).convert("RGB") for path in sorted(Path(sets["folder"]).glob("*.png"))]
    served = encoder.encode_images(images)
    cosines = served @ encoder.query_bank.rows["images"].T
    np.testing.assert_allclose(cosines.max(axis=1), 1.0, atol=2e-3)
    assert np.abs(served - Encoder.load(tiny_bundle, device="cpu").encode_images(images)).max() > 1e-4


@pytest.fixture(scope="module")
def whole_bundle(tmp_path_factory, make_bundle, sets):
    """A parent with all that a bundle can hold, weights as int8 rows, and towers that tell inputs apart."""
    folder = tmp_path_factory.mktemp("whole")
    plain, pairs = make_bundle(folder / "bundle", weights="int8_rows"), read_pairs(sets["target"])
    state, rows = load_towers(plain).state_dict(), embed_pairs(Encoder.load(plain, device="cpu"), pairs)
    for head, vectors in (
        ("visual.head.mlp.fc2.weight", rows.image_vectors),
        ("text.proj.2.weight", rows.caption_vectors),
    ):
        _, spread, directions = torch.linalg.svd(torch.from_numpy(vectors), full_matrices=False)
        levelled = directions.T / (spread + 0.01 * spread[0])  # random towers give all inputs nearly one vector
        state[head] = levelled @ directions @ state[head]
    bundle = write_bundle(plain.path, config=plain.config, state=state, files=read_files(plain))
    bundle = add_golden(bundle, reference=state)
    rows = embed_pairs(Encoder.load(bundle, device="cpu"), pairs)
    bank = QueryBank({"images": rows.image_vectors, "texts": rows.caption_vectors}, bundle.fingerprint)
    bundle = bundle.with_file(QUERY_BANK, query_bank_bytes(bank))
    for name in ("calibration.json", "verdict.json", "report.json", "README.md"):
        bundle = bundle.with_file(name, f'"of the parent: {name}"'.encode())
    return bundle


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def undone(bundle, out):
    return CliRunner().invoke(app, ["adapt", str(bundle), "--undo", "--out", str(out)])


@pytest.mark.parametrize("method", [*DEFAULT_STRENGTHS, "adabn:0.3,few-shot,whiten,hubness"])
def test_undo_gives_back_every_file_of_the_parent(whole_bundle, sets, tmp_path, method):
    captioned = "few-shot" in method
    more = ["--method", method, "--force"] + (["--shots", "8"] if captioned else [])
    asked = {**sets, "queries": tmp_path / "queries.txt"}
    asked["queries"].write_text("\n".join(f"{one} {other}" for one in WORDS for other in WORDS))
    target = "target" if captioned else "folder"
    made = run(whole_bundle.path, asked, tmp_path / "out", *more, target=target)
    assert made.exit_code in JUDGED, made.output
    Bundle.open(tmp_path / "out").with_file("calibration.json", b"fitted anew").with_file("report.json", b"{}")
    result = undone(tmp_path / "out", tmp_path / "parent")
    assert result.exit_code == 0, result.output
    assert whole_bundle.fingerprint in result.output
    assert contents(tmp_path / "parent") == contents(whole_bundle.path)
    nothing = undone(whole_bundle.path, tmp_path / "x")
    assert nothing.exit_code == 2
    assert "nothing to undo" in nothing.output


def test_two_adaptations_are_undone_one_after_the_other(whole_bundle, sets, tmp_path):
    run(whole_bundle.path, sets, tmp_path / "once", "--method", "hubness", "--force")
    run(tmp_path / "once", sets, tmp_path / "twice", "--method", "adabn", "--force")
    assert undone(tmp_path / "twice", tmp_path / "back").exit_code == 0
    assert contents(tmp_path / "back") == contents(tmp_path / "once")
    assert undone(tmp_path / "back", tmp_path / "parent").exit_code == 0
    assert contents(tmp_path / "parent") == contents(whole_bundle.path)


def test_weights_written_by_another_library_come_back_as_they_were(whole_bundle, sets, tmp_path):
    """Their header is laid out otherwise, so that writing the tensors again would give another file."""
    parent = Path(shutil.copytree(whole_bundle.path, tmp_path / "parent"))
    weights = parent / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    manifest = json.loads((parent / "bundle.json").read_text())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest["files"]["model.safetensors"] = {"sha256": digest, "bytes": weights.stat().st_size}
    manifest["fingerprint"] = BundleConfig.model_validate(manifest).expected_fingerprint()
    for name in (QUERY_BANK, "calibration.json", "golden.json", "golden.safetensors"):
        manifest["files"].pop(name)  # those of the fingerprint that it was
        (parent / name).unlink()
    (parent / "bundle.json").write_text(json.dumps(manifest))
    made = run(parent, sets, tmp_path / "out", "--method", "adabn", "--force")
    assert made.exit_code in JUDGED, made.output
    assert undone(tmp_path / "out", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == weights.read_bytes()


def test_what_cannot_be_undone_leaves_what_was_there(adapted, tiny_bundle, tmp_path):
    out = shutil.copytree(tiny_bundle, tmp_path / "out")
    parent = Bundle.open(tiny_bundle)
    told = f"use the original, tiny with the fingerprint {parent.fingerprint}"
    for damage, reason in (
        (drop_replaced_weights, "has SHA-256"),
        (drop_parent, r"holds no parent/bundle\.json"),
    ):
        damaged = Bundle.open(damage(shutil.copytree(adapted[1].path, tmp_path / damage.__name__)))
        with pytest.raises(AdaptationError, match=reason) as refused:
            undo(damaged, out)
        assert told in str(refused.value)
    assert contents(out) == contents(tiny_bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drop_parent", "drop_replaced_weights", "out"]


def drop_replaced_weights(folder):
    return without(folder, lambda name: name == "parent/model.safetensors")


def drop_parent(folder):
    """As adapted before the parent's files were kept."""
    return without(folder, lambda name: name.startswith("parent/"))


def without(folder, drop):
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"] = {name: record for name, record in manifest["files"].items() if not drop(name)}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_few_shot_moves_the_heads_alone_and_sees_no_other_caption(tiny_bundle, sets, tmp_path):
    more = ("--method", "few-shot:0.5", "--shots", "8", "--force")
    result = run(tiny_bundle, sets, tmp_path / "out", *more, target="target")
    assert result.exit_code in JUDGED, result.output
    bundle = Bundle.open(tmp_path / "out")
    before, after = (load_towers(each).state_dict() for each in (Bundle.open(tiny_bundle), bundle))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("visual.head.", "text.proj.")) for name in moved)
    assert bundle.config.provenance["adapted"]["shots"] == 8


def test_without_captions_it_says_what_cannot_be_known(tiny_bundle, sets, tmp_path):
    """Thirty images of a source cannot show that it keeps within two points, so that it must be forced."""
    result = run(tiny_bundle, sets, tmp_path / "out", "--method", "hubness:0.0001", "--force")
    assert result.exit_code == 6, result.output
    said = " ".join(result.output.split())
    assert "cannot be known" in said
    assert "hubness_skew" in said
    assert "undecided: whether the source keeps within 2.0 is open: R@1" in said
    assert "images to measure on would tell, 15 there are" in said
    assert (tmp_path / "out" / QUERY_BANK).is_file()
    assert Bundle.open(tmp_path / "out").fingerprint == Bundle.open(tiny_bundle).fingerprint


def test_what_is_not_accepted_writes_no_bundle_unless_forced(tiny_bundle, sets, tmp_path):
    refused = run(tiny_bundle, sets, tmp_path / "out", "--method", "hubness:0.0001", target="target")
    assert refused.exit_code == 6, refused.output
    assert "undecided" in refused.output
    assert not (tmp_path / "out").exists()
    forced = run(tiny_bundle, sets, tmp_path / "out", "--method", "hubness:0.0001", "--force", target="target")
    assert forced.exit_code == 6
    assert Bundle.open(tmp_path / "out").config.provenance["adapted"]["accepted"] is False


def test_several_splits_are_judged_by_intervals_that_know_of_their_overlap(tiny_bundle, sets, tmp_path):
    options = ("--method", "whiten", "--json", "--force")
    single = [
        json.loads(
            run(tiny_bundle, sets, tmp_path / "one", *options, "--seed", str(seed), target="target").stdout
        )
        for seed in (4, 5, 6)
    ]
    told = json.loads(
        run(
            tiny_bundle, sets, tmp_path / "three", *options, "--seed", "4", "--splits", "3", target="target"
        ).stdout
    )
    for at, row in enumerate(told["table"]):
        values = np.array([one["table"][at]["difference"]["value"] for one in single])
        half = 4.30265 * values.std(ddof=1) * np.sqrt(1 / 3 + 1)  # t at 2 degrees of freedom; halves: 15 of 15
        assert row["difference"]["value"] == pytest.approx(values.mean())
        assert row["difference"]["high"] - row["difference"]["value"] == pytest.approx(half, abs=1e-5)
    assert told["fingerprint"] != single[1]["fingerprint"]
    assert Bundle.open(tmp_path / "three").config.provenance["adapted"]["splits"] == 3
    assert any("3 splits, intervals by Nadeau and Bengio" in note for note in told["notes"])


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


def test_hubness_without_queries_corrects_the_search_by_images_alone(tiny_bundle, sets, tmp_path):
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
    assert run(tiny_bundle, sets, tmp_path / "bank", "--method", "hubness:0.5", "--force").exit_code in JUDGED
    result = run(tmp_path / "bank", sets, tmp_path / "out", "--method", "adabn:0.5,centre", "--force")
    assert result.exit_code in JUDGED, result.output
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
    options = ("--method", "hubness:0.0001", "--force")
    assert run(tiny_bundle, sets, tmp_path / "bank", *options).exit_code in JUDGED
    before = Encoder.load(tmp_path / "bank", device="cpu").query_bank.rows["images"]
    result = run(tmp_path / "bank", sets, tmp_path / "out", "--method", "centre:0.5", "--force")
    assert result.exit_code in JUDGED, result.output
    encoder = Encoder.load(tmp_path / "out", device="cpu")
    carried = encoder.query_bank.rows["images"]
    images = [Image.open(path).convert("RGB") for path in sorted(Path(sets["folder"]).glob("*.png"))]
    served = encoder.encode_images(images)
    np.testing.assert_allclose((served @ carried.T).max(axis=1), 1.0, atol=2e-3)
    assert np.abs(carried - before).max() > 1e-3
    joined = run(tmp_path / "bank", sets, tmp_path / "both", "--method", "hubness:0.5", "--force")
    assert joined.exit_code in JUDGED, joined.output
    bank = Encoder.load(tmp_path / "both", device="cpu").query_bank
    assert (len(bank.rows["texts"]), len(bank.rows["images"]), bank.alpha) == (10, 60, 0.5)
