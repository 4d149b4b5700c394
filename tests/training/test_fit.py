import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from encoders.bundle import Bundle
from encoders.calibration import read_calibration
from encoders.encoder import Encoder
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from training.__main__ import app
from training.data.pairs import read_pairs
from training.evaluation.embedding import embed_pairs
from training.evaluation.evaluate import evaluate
from training.seen.exposure import exposure_of
from training.seen.record import read_seen

RECIPE = """
name = "coloured"
seed = 3
ema = 0.5
{extra}
[start]
bundle = "{bundle}"
[[sources]]
pairs = "{train}"
word_dropout = 0.0
augmentation = {{ flip = 0.0, grey = 0.0, crop_area = [0.8, 1.0], jitter = 0.2 }}
[validation]
pairs = ["{held_out}"]
[[phases]]
name = "heads"
epochs = 2
train_image = "head"
train_text = "head"
keep_at = "blocks.2"
views = 2
batch = 20
captions = 2
heads_lr = 5e-3
[[phases]]
name = "towers"
epochs = {epochs}
train_image = "blocks.2"
train_text = "layers.0"
views = 2
batch = 20
micro_batch = 8
captions = 2
cutmix = 0.5
heads_lr = 5e-3
image_lr = 1e-3
text_lr = 1e-3
[[phases]]
name = "whole"
epochs = 1
batch = 20
image_lr = 1e-4
"""


class Workplace:
    """A folder with data and a recipe, and the command run in it."""

    def __init__(self, folder: Path, bundle: Path, coloured_pairs: Callable[..., str]) -> None:
        self.folder = folder
        self.bundle = bundle
        self.train = coloured_pairs(folder / "train", copies=2, seed=1)
        self.held_out = coloured_pairs(folder / "held_out", copies=1, seed=2)

    def recipe(self, *, epochs: int = 2, extra: str = "", train: str = "") -> Path:
        path = self.folder / "recipe.toml"
        path.write_text(
            RECIPE.format(
                bundle=self.bundle,
                train=train or self.train,
                held_out=self.held_out,
                epochs=epochs,
                extra=extra,
            )
        )
        return path

    def arguments(self, name: str) -> list[str]:
        return [
            "fit", str(self.folder / "recipe.toml"), "--out", str(self.folder / name),
            "--folder", str(self.folder / f"{name}.run"), "--cache", str(self.folder / f"{name}.cache"),
            "--threads", "1", "--device", "cpu", "--checkpoint-seconds", "0",
        ]  # fmt: skip

    def fit(self, name: str, *options: str) -> Result:
        return CliRunner().invoke(app, [*self.arguments(name), *options], env={"COLUMNS": "400"})


@pytest.fixture
def workplace(tmp_path: Path, tiny_bundle: Path, coloured_pairs: Callable[..., str]) -> Iterator[Workplace]:
    threads = torch.get_num_threads()
    yield Workplace(tmp_path, tiny_bundle, coloured_pairs)
    torch.set_num_threads(threads)


def add_all_that_keeps_something(workplace: Workplace, teacher: Path) -> None:
    """A teacher, hard negatives and a watched set beside what the recipe has."""
    path = workplace.folder / "recipe.toml"
    watched = f'watch = ["{workplace.held_out}&name=watched"]'.replace("csv&", "csv?")
    distilled = f'[distillation]\nteacher = "{teacher}"\nweight = 0.4\ntemperature = 0.1'
    text = path.read_text().replace("[[phases]]", f"{watched}\n{distilled}\n[[phases]]", 1)
    path.write_text(text.replace("cutmix = 0.5", "cutmix = 0.5\nhard_negatives = 0.4"))


def recall(bundle: Path, spec: str) -> float:
    report = evaluate(Encoder.load(bundle, device="cpu"), [read_pairs(spec)])
    return report.datasets[0].recall["text_to_image"][5].value


def test_training_learns_what_the_captions_say(workplace: Workplace) -> None:
    workplace.recipe(epochs=20)
    result = workplace.fit("trained")
    assert result.exit_code == 0, result.output
    assert recall(workplace.folder / "trained", workplace.held_out) > 0.6
    assert recall(workplace.bundle, workplace.held_out) < 0.4
    bundle = Bundle.open(workplace.folder / "trained")
    calibration = read_calibration(bundle.path, fingerprint=bundle.fingerprint)
    assert calibration is not None
    assert f"calibrated on {calibration.fitted_on}" in " ".join(result.output.split())
    assert bundle.config.provenance["parent"] == Bundle.open(workplace.bundle).fingerprint
    assert bundle.config.provenance["data"][0]["images"] == 60
    seen = read_seen(bundle)
    assert seen is not None
    assert [(one.record.role, one.record.kept) for one in seen.sources] == [
        ("trained on", 60),
        ("chosen by", 30),
    ]
    assert seen.unknown == ("tiny",)  # the start carries no record of its own
    assert exposure_of(seen, read_pairs(workplace.train)).status == "seen"
    lines = (workplace.folder / "trained.run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
    assert losses[-1] < losses[0] / 2


def test_killed_at_any_moment_it_ends_with_the_same_weights_to_the_bit(
    workplace: Workplace, other_tiny_bundle: Path
) -> None:
    workplace.recipe()
    add_all_that_keeps_something(workplace, other_tiny_bundle)
    assert workplace.fit("whole").exit_code == 0
    expected = Bundle.open(workplace.folder / "whole").fingerprint
    command = [sys.executable, "-m", "training", *workplace.arguments("killed")]
    log = workplace.folder / "killed.run" / "metrics.jsonl"
    # 3 steps an epoch: step 4 lies within the heads' second epoch, step 11 within the towers'.
    for steps in (4, 11):
        with (workplace.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and (not log.exists() or log.read_text().count('"loss"') < steps):
            assert process.poll() is None, (workplace.folder / "output").read_text()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = workplace.fit("killed")
    assert resumed.exit_code == 0, resumed.output
    assert "resumed from" in resumed.output
    assert Bundle.open(workplace.folder / "killed").fingerprint == expected
    steps_logged = [json.loads(line)["step"] for line in log.read_text().splitlines() if '"loss"' in line]
    assert steps_logged == list(range(1, len(steps_logged) + 1))


def test_a_run_stops_after_a_phase_with_its_bundle_and_goes_on_to_the_same_end(workplace: Workplace) -> None:
    workplace.recipe()
    assert workplace.fit("whole").exit_code == 0
    heads = workplace.fit("parts", "--until", "heads")
    assert heads.exit_code == 0, heads.output
    first = Bundle.open(workplace.folder / "parts").fingerprint
    shutil.rmtree(workplace.folder / "parts")  # as if killed before it was written
    again = workplace.fit("parts", "--until", "heads")
    assert again.exit_code == 0, again.output
    assert "learn" not in again.output
    assert Bundle.open(workplace.folder / "parts").fingerprint == first
    assert workplace.fit("parts").exit_code == 0
    whole = Bundle.open(workplace.folder / "whole").fingerprint
    assert first != Bundle.open(workplace.folder / "parts").fingerprint == whole
    late = workplace.fit("parts", "--until", "towers")
    assert late.exit_code == 2
    assert "is beyond phase 'towers'" in late.output
    unknown = workplace.fit("parts", "--until", "tail")
    assert "no phase is called 'tail': this recipe has 'heads', 'towers', 'whole'" in unknown.output


def test_a_phase_may_end_before_its_schedule_does(workplace: Workplace) -> None:
    path = workplace.recipe(epochs=9)
    path.write_text(path.read_text().replace("epochs = 9", "epochs = 9\nstop_after = 1"))
    assert workplace.fit("short").exit_code == 0
    log = (workplace.folder / "short.run" / "metrics.jsonl").read_text()
    assert log.count('"loss"') == 3 * 2 + 3 + 3
    path.write_text(path.read_text().replace("stop_after = 1", "stop_after = 10"))
    assert "stop_after = 10 of 9 epochs" in workplace.fit("long").output


def test_two_processes_train_write_once_and_agree_on_the_best(workplace: Workplace) -> None:
    workplace.recipe(epochs=1)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "training",
        *workplace.arguments("together"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("written to") == 1
    lines = (workplace.folder / "together.run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if '"loss"' in line]
    assert steps == list(range(1, len(steps) + 1))
    assert Bundle.open(workplace.folder / "together").name == "coloured"


def test_a_teacher_hard_negatives_and_watched_sets_enter_a_run_and_its_bundle(
    workplace: Workplace, other_tiny_bundle: Path
) -> None:
    workplace.recipe(epochs=1)
    assert workplace.fit("plain").exit_code == 0
    add_all_that_keeps_something(workplace, other_tiny_bundle)
    taught = workplace.fit("taught")
    assert taught.exit_code == 0, taught.output
    assert "through the teacher other once" in taught.output
    bundle = Bundle.open(workplace.folder / "taught")
    assert bundle.fingerprint != Bundle.open(workplace.folder / "plain").fingerprint
    told = bundle.config.provenance
    assert told["teacher"]["fingerprint"] == Bundle.open(other_tiny_bundle).fingerprint
    names = {one["set"] for one in told["before_and_after"]}
    assert "watched" in names
    assert len(names) == 2
    again = workplace.fit("taught")
    assert again.exit_code == 0, again.output
    assert "through the teacher" not in again.output
    lines = [
        json.loads(line)
        for line in (workplace.folder / "taught.run" / "metrics.jsonl").read_text().splitlines()
        if "moment" in line
    ]
    assert [(line["moment"], line["step"] > 0) for line in lines] == [("before", False), ("after", True)] * 2
    figures = {one["figure"]: one for one in told["before_and_after"] if one["set"] == "watched"}
    assert lines[2]["t2i@10"] == figures["t2i@10"]["before"]
    assert lines[3]["t2i@10"] == figures["t2i@10"]["after"]


def test_a_finished_run_writes_its_bundle_again_without_training(workplace: Workplace) -> None:
    workplace.recipe(epochs=1)
    assert workplace.fit("done").exit_code == 0
    first = Bundle.open(workplace.folder / "done").fingerprint
    shutil.rmtree(workplace.folder / "done")
    again = workplace.fit("done")
    assert again.exit_code == 0, again.output
    assert "learn" not in again.output
    assert Bundle.open(workplace.folder / "done").fingerprint == first


def test_what_scores_below_its_start_is_not_written(workplace: Workplace) -> None:
    workplace.recipe(epochs=20)
    assert workplace.fit("start").exit_code == 0
    workplace.bundle = workplace.folder / "start"
    path = workplace.recipe(epochs=1)
    plain = path.read_text()
    path.write_text(plain.replace("heads_lr = 5e-3", "heads_lr = 1"))
    for attempt in ("trained", "asked again"):
        spoiled = workplace.fit("spoiled")
        assert spoiled.exit_code == 4, (attempt, spoiled.output)
        told = " ".join(spoiled.output.split())
        scores = re.search(r"the run scored (\d+\.\d+) at best and what it began from (\d+\.\d+)", told)
        assert scores is not None
        assert float(scores[1]) < float(scores[2])
        assert "no bundle is written" in told
        assert not (workplace.folder / "spoiled").exists()
    path.write_text(plain.replace("heads_lr = 5e-3", "heads_lr = 1e6"))
    broken = workplace.fit("broken")
    assert broken.exit_code in (2, 4), broken.output  # not a number, or a poor one
    assert not (workplace.folder / "broken").exists()


def test_what_the_start_brought_along_is_made_anew_or_told_of(
    workplace: Workplace, make_bundle: Callable[..., Bundle]
) -> None:
    parent = make_bundle(workplace.folder / "parent", name="parent", weights="int8_rows")
    with_pairs = embed_pairs(Encoder.load(parent, device="cpu"), read_pairs(workplace.train))
    rows = {"images": with_pairs.image_vectors, "texts": with_pairs.caption_vectors}
    bank = QueryBank(rows, fingerprint=parent.fingerprint, alpha=0.01, k=3)
    parent = parent.with_file(QUERY_BANK, query_bank_bytes(bank)).with_file("verdict.json", b"{}")
    parent.with_file("calibration.json", b"{}")
    workplace.bundle, workplace.train = parent.path, with_copies(workplace, copies=4)
    workplace.recipe(epochs=20)
    result = workplace.fit("child")
    assert result.exit_code == 0, result.output
    child = Bundle.open(workplace.folder / "child")
    told = " ".join(result.output.split())
    assert child.config.weights == "int8_rows"
    made = Encoder.load(child, device="cpu").query_bank
    assert {len(of) for of in made.rows.values()} == {120}  # as many as its images
    assert f"query bank made anew of 120 pairs, alpha {made.alpha:g}, k 3" in told
    assert read_calibration(child.path, fingerprint=child.fingerprint) is not None
    assert "verdict.json of parent hold for no other bundle and stay behind; coloured gets its own" in told


def with_copies(workplace: Workplace, *, copies: int) -> str:
    from tests.training.conftest import write_coloured_pairs

    return write_coloured_pairs(workplace.folder / "more", copies=copies, seed=1)


def test_patience_ends_a_phase_that_gets_no_better(workplace: Workplace) -> None:
    path = workplace.recipe(epochs=30)
    text = path.read_text().replace("[[phases]]", "patience = 2\n[[phases]]", 1)
    path.write_text(text.replace("= 1e-3", "= 1e-7").replace("heads_lr = 5e-3", "heads_lr = 1e-7"))
    result = workplace.fit("patient")
    assert result.exit_code == 0, result.output
    assert "stopped early" in result.output
    assert result.output.count("score") < 20


@pytest.mark.parametrize("grown", ["train", "held_out"])
def test_more_data_under_the_same_recipe_is_another_run(workplace: Workplace, grown: str) -> None:
    workplace.recipe(epochs=1)
    assert workplace.fit("grown").exit_code == 0
    with (workplace.folder / grown / "pairs.csv").open("a") as file:
        file.write("red-blue-0.png,one more caption\n")
    result = workplace.fit("grown")
    assert result.exit_code == 2
    assert "another recipe, data or start" in result.output


def test_a_folder_that_is_no_bundle_is_refused_before_training(workplace: Workplace) -> None:
    workplace.recipe(epochs=1)
    (workplace.folder / "taken").mkdir()
    (workplace.folder / "taken" / "diary.txt").write_text("mine")
    result = workplace.fit("taken")
    assert result.exit_code == 2
    assert "is no bundle" in result.output
    assert not (workplace.folder / "taken.run").exists()


def test_a_bundle_trained_on_keeps_the_terms_of_the_data_before(
    workplace: Workplace, make_bundle: Callable[..., Bundle]
) -> None:
    parent = {"name": "photos", "images": 9, "captions": 9, "licence": "research only"}
    workplace.bundle = make_bundle(workplace.folder / "parent", provenance={"data": [parent]}).path
    workplace.recipe(epochs=1)
    assert workplace.fit("child").exit_code == 0
    assert "For research only" in (workplace.folder / "child" / "README.md").read_text()


def test_broken_and_missing_images_are_named_and_left_out(workplace: Workplace) -> None:
    folder = workplace.folder / "train"
    (folder / "red-blue-0.png").write_bytes(b"no image")
    (folder / "green-blue-0.png").unlink()
    workplace.recipe(epochs=1)
    result = workplace.fit("lossy")
    assert result.exit_code == 0, result.output
    assert "2 images are left out" in result.output
    assert "red-blue-0.png" in result.output
    assert "green-blue-0.png" in result.output


def test_an_image_of_an_unseen_set_in_training_is_refused_by_name(workplace: Workplace) -> None:
    workplace.recipe(extra=f'unseen = ["{workplace.held_out}"]', train=workplace.held_out)
    result = workplace.fit("leaky")
    assert result.exit_code == 2
    assert "unseen set" in result.output
    assert "exclude=" in result.output


def test_a_run_of_another_recipe_is_not_resumed(workplace: Workplace) -> None:
    workplace.recipe(epochs=1)
    assert workplace.fit("one").exit_code == 0
    workplace.recipe(epochs=2)
    result = workplace.fit("one")
    assert result.exit_code == 2
    assert "another recipe" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("heads_lr = 5e-3", "heads_rl = 5e-3"), "heads_rl"),
        (("epochs = 2", "epochs = 0"), "epochs"),
        (('train_image = "head"', 'train_image = "blocks.99"'), "blocks.99"),
        (('train_text = "head"', 'train_text = "layers.7"'), "layers.7"),
        (('keep_at = "blocks.2"', 'keep_at = "blocks.x"'), "blocks.x"),
        (("name = ", "name : "), "TOML"),
        (("[validation]", "[distillation]\nteacher = 'no-such-bundle'\n[validation]"), "no-such-bundle"),
        (("jitter = 0.2", "noise = 0.2"), "noise (by noise)"),
        (
            ("views = 2\nbatch = 20\nmicro_batch = 8", "batch = 20\nmicro_batch = 8\nfreeze_norms = false"),
            "freeze_norms",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_naming_what_is_wrong(
    workplace: Workplace, change: tuple[str, str], message: str
) -> None:
    path = workplace.recipe()
    path.write_text(path.read_text().replace(*change, 1))
    result = workplace.fit("never")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (workplace.folder / "never").exists()


def test_rates_and_batches_out_of_the_sane_range_are_warned_of(workplace: Workplace) -> None:
    path = workplace.recipe(epochs=1)
    path.write_text(path.read_text().replace("text_lr = 1e-3", "text_lr = 0.1"))
    result = workplace.fit("risky")
    assert "text_lr = 0.1 is so high" in result.output
    assert "batch = 20 gives few negatives" in result.output
