import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from training.commands.evaluate import evaluate_command
from training.data.pairs import read_pairs
from training.evaluation.comparison import Comparison
from training.evaluation.embedding import embed_pairs
from training.evaluation.report import RetrievalReport, read_report, report_notes

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(evaluate_command)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def squares(tmp_path: Path) -> str:
    """The spec of a set of three images, made by drawing stripes of several widths."""
    rows = ["image,caption"]
    for number, colour in enumerate(("red", "green", "blue"), 1):
        image = Image.new("RGB", (40, 30), colour)
        image.paste("white", (0, 0, 9 * number, 30 - 5 * number))
        image.save(tmp_path / f"{colour}.png")
        rows += [f"{colour}.png,a {colour} square", f"{colour}.png,the {colour} car"]
    (tmp_path / "captions.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{tmp_path}/captions.csv?name=squares"


def test_bundles_are_measured_side_by_side_into_a_table_and_files(
    tmp_path: Path, squares: str, tiny_bundle: Path, other_tiny_bundle: Path
) -> None:
    result = evaluate(tiny_bundle, other_tiny_bundle, "--data", squares, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "squares (3 × 2)" in result.stdout
    assert "tiny, squares: images: 3 of 3" in result.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "comparison.json",
        "report-other.json",
        "report-tiny.json",
        "report.html",
        "report.md",
        "report.png",
    ]
    measured = read_report(tmp_path / "out" / "report-tiny.json")
    assert measured.fingerprint == Bundle.open(tiny_bundle).fingerprint
    assert measured.datasets[0].leaks is None
    assert "| squares (3 × 2) | other | I→T |" in (tmp_path / "out" / "report.md").read_text()


def test_json_is_one_report_a_line_and_nothing_else(squares: str, tiny_bundle: Path) -> None:
    result = evaluate(tiny_bundle, "--data", squares, "--json")
    assert RetrievalReport.model_validate(json.loads(result.stdout)).bundle == "tiny"


def test_store_keeps_the_report_in_the_bundle_and_its_fingerprint_as_it_was(
    tmp_path: Path, squares: str, tiny_bundle: Path, other_tiny_bundle: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    result = evaluate(tmp_path / "bundle", "--data", squares, "--store", "--baseline", other_tiny_bundle)
    assert result.exit_code == 0, result.output
    assert "report.json" not in Bundle.open(other_tiny_bundle).files
    stored = Bundle.open(tmp_path / "bundle")
    assert "report.json" in stored.files
    assert read_report(stored.path / "report.json").fingerprint == stored.fingerprint
    assert stored.fingerprint == Bundle.open(tiny_bundle).fingerprint


def test_a_bundle_ranks_with_its_bank_or_without_and_the_report_says_which(
    tmp_path: Path, coloured_pairs: Callable[..., str], tiny_bundle: Path
) -> None:
    spec = coloured_pairs(tmp_path / "pairs")
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    pairs = embed_pairs(Encoder.load(bundle, device="cpu"), read_pairs(spec))
    bank = QueryBank({"texts": pairs.caption_vectors}, fingerprint=bundle.fingerprint, alpha=50.0, k=1)
    bundle.with_file(QUERY_BANK, query_bank_bytes(bank))
    with_bank, without, plain = (
        RetrievalReport.model_validate_json(evaluate(path, "--data", spec, "--json", *more).stdout)
        for path, more in ((bundle.path, ()), (bundle.path, ("--no-bank",)), (tiny_bundle, ()))
    )
    assert (with_bank.query_bank, without.query_bank, plain.query_bank) == ("used", "left out", "none")
    assert without.datasets[0].figures == plain.datasets[0].figures != with_bank.datasets[0].figures
    assert "bundle: ranked without its bank" in " ".join(report_notes([without])).replace("tiny", "bundle")
    refused = evaluate(bundle.path, "--data", spec, "--no-bank", "--store")
    assert refused.exit_code == 2
    assert "not --no-bank" in refused.output


def test_images_are_classified_by_class_names_beside_retrieval_or_alone(
    tmp_path: Path, squares: str, tiny_bundle: Path
) -> None:
    (tmp_path / "classes.csv").write_text("image,class\nred.png,red\ngreen.png,green\nblue.png,blue\n")
    (tmp_path / "templates.txt").write_text("a {} square\nthe {} car\n")
    classes = f"csv:{tmp_path}/classes.csv?name=colours"
    options = ("--classify", classes, "--templates", tmp_path / "templates.txt")
    both = evaluate(tiny_bundle, "--data", squares, *options, "--out", tmp_path / "out")
    assert both.exit_code == 0, both.output
    assert "colours (3, 3 classes)" in both.stdout
    measured = read_report(tmp_path / "out" / "report.json")
    [colours] = measured.classification
    assert colours.templates == ("a {} square", "the {} car")
    assert [(each.name, each.images) for each in colours.per_class] == [("blue", 1), ("green", 1), ("red", 1)]
    assert sum(each.top1 for each in colours.per_class) / 3 == pytest.approx(colours.top[1].value)
    assert "| colours (3, 3 classes) | tiny |" in (tmp_path / "out" / "report.md").read_text()
    alone = evaluate(tiny_bundle, *options, "--json")
    assert RetrievalReport.model_validate(json.loads(alone.stdout)).classification[0].top == colours.top
    assert "Retrieval" not in evaluate(tiny_bundle, *options).stdout


def test_test_images_in_a_training_set_are_shown_and_change_the_exit_status(
    squares: str, tiny_bundle: Path
) -> None:
    train = squares.replace("name=squares", "name=training")
    result = evaluate(tiny_bundle, "--data", squares, "--train", train)
    assert result.exit_code == 3
    assert "LEAK: 3 of its images are in training" in result.stdout


@pytest.mark.parametrize(
    ("bundle", "spec", "said"),
    [
        ("nowhere", "{squares}", "no bundle at nowhere"),
        ("{tiny}", "csv:nowhere.csv", "nowhere.csv"),
        ("{tiny}", "papyrus:scroll", "unknown format 'papyrus'"),
        ("{tiny} {tiny}", "{squares}", "is given twice"),
        ("{tiny}", "{squares} --data {squares}", "two sets are called 'squares'"),
        ("{tiny}", "{squares} --classify coco:a:b", "'coco' holds no classes"),
        ("{tiny}", "{squares} --precision int4", "int4"),
        ("{tiny}", "{squares} --device toaster", "toaster"),
        ("{tiny}", "{squares} --corruptions fog", "no corruption 'fog'"),
        ("{tiny}", "{squares} --corruptions blur --severities 7", "severities '7'"),
        ("{tiny}", "{squares} --input-sizes huge", "input size 'huge'"),
        ("{tiny}", "{squares} --in-domain nowhere", "'nowhere' is none of the sets: squares"),
        ("{tiny}", "{squares} --baseline nowhere", "no bundle at nowhere"),
        ("{tiny}", "{squares} --cache {tiny}/bundle.json", "bundle.json"),
        ("{tiny}", "{squares} --out {tiny}/bundle.json", "bundle.json"),
    ],
)
def test_what_cannot_be_used_ends_with_status_2_and_one_line_that_names_it(
    squares: str, tiny_bundle: Path, bundle: str, spec: str, said: str
) -> None:
    arguments = f"{bundle} --data {spec}".format(tiny=tiny_bundle, squares=squares).split()
    result = evaluate(*arguments)
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert said in line
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_nothing_to_measure_is_said(tiny_bundle: Path) -> None:
    result = evaluate(tiny_bundle)
    assert result.exit_code == 2
    assert "name a set by --data, or images by --classify" in result.stderr


def test_shifts_are_measured_compared_with_a_baseline_and_written(
    tmp_path: Path, squares: str, tiny_bundle: Path, other_tiny_bundle: Path
) -> None:
    result = evaluate(
        tiny_bundle, "--data", squares, "--corruptions", "resolution,text_swap", "--severities", "3,5",
        "--input-sizes", "48,32", "--baseline", other_tiny_bundle, "--in-domain", "squares",
        "--out", tmp_path / "out", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "100% of the run" in result.stderr.splitlines()[-1]
    report = read_report(tmp_path / "out" / "report-tiny.json")
    assert len(report.datasets) == 1 + 4 * 2 + 1
    assert any("32×32 is the bundle's own" in note for note in report.notes)
    comparison = Comparison.model_validate_json((tmp_path / "out" / "comparison.json").read_text())
    assert (comparison.bundles, comparison.reference) == (("tiny", "other"), "other")
    assert {score.corruptions for score in comparison.scores} == {4}
    markdown = (tmp_path / "out" / "report.md").read_text()
    for shown in ("mean of resolution", "text_swap", "input 48×48", "minus that of other"):
        assert shown in markdown
    assert "mean of resolution" in result.stdout
    images = {file.name for file in (tmp_path / "out").glob("*.png")}
    assert images == {"report.png", "severity-squares.png", "heat-squares.png"}


def test_one_clean_set_needs_no_comparison(tmp_path: Path, squares: str, tiny_bundle: Path) -> None:
    assert evaluate(tiny_bundle, "--data", squares, "--out", tmp_path / "out").exit_code == 0
    assert not (tmp_path / "out" / "comparison.json").exists()
