import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from training.data.leakage import Leak
from training.data.pairs import MissingImage
from training.errors import BadReport
from training.evaluation.charts import draw_recall
from training.evaluation.collapse import EmbeddingHealth
from training.evaluation.metrics import Estimate, Summary
from training.evaluation.report import (
    DatasetReport,
    RetrievalReport,
    read_report,
    report_markdown,
    report_notes,
    report_table,
    write_report,
)
from training.shift.condition import Condition

HEALTH = EmbeddingHealth(
    image_spread=0.5, caption_spread=0.5, image_effective_rank=30, caption_effective_rank=30,
    image_full_rank=64, caption_full_rank=64, modality_gap=0.8, matched_cosine=0.4, unmatched_cosine=0.1,
)  # fmt: skip


def summary(first: float) -> Summary:
    recall = {k: Estimate(share, share - 0.02, share + 0.03) for k, share in ((1, first), (5, first + 0.3))}
    return Summary(recall, Estimate(0.2, 0.1, 0.3), median_rank=4.5, queries=500, tied_queries=7)


def dataset(name: str = "flickr8k test", **changes: object) -> DatasetReport:
    fields = {
        "name": name, "spec": "csv:captions.csv", "digest": "d" * 64, "images": 1000, "captions": 5000,
        "cut_captions": 0, "health": HEALTH, "seconds": 1.5,
        "figures": {"text_to_image": summary(0.284), "image_to_text": summary(0.361)},
    }  # fmt: skip
    return DatasetReport.model_validate({**fields, **changes})


def report(bundle: str = "lite0", *datasets: DatasetReport, fingerprint: str = "3f" * 32) -> RetrievalReport:
    return RetrievalReport(
        bundle=bundle, fingerprint=fingerprint, device="cpu", precision="fp32", bootstrap_samples=1000,
        datasets=datasets or (dataset(),),
    )  # fmt: skip


def printed(*reports: RetrievalReport) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(report_table(reports))
    return console.file.getvalue()


def test_a_report_comes_back_from_json_as_it_was_written(tmp_path: Path) -> None:
    written = report(
        "lite0",
        dataset(
            missing=(MissingImage("a.jpg", "no file"),),
            leaks={"train": (Leak("t.jpg", "a.jpg", "image", 3),)},
            fold_recall={"text_to_image": {1: 0.5}, "image_to_text": {1: 0.6}},
        ),
    )
    write_report(written, tmp_path / "deep" / "report.json")
    assert read_report(tmp_path / "deep" / "report.json") == written
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_a_report_of_format_1_reads_as_a_clean_one(tmp_path: Path) -> None:
    old = json.loads(report().model_dump_json(exclude={"notes": True, "datasets": {"__all__": {"condition"}}}))
    (tmp_path / "report.json").write_text(json.dumps(old | {"format": 1}))
    read = read_report(tmp_path / "report.json")
    assert [dataset.condition for dataset in read.datasets] == [None]
    assert read.clean == read.datasets


def test_conditions_survive_json_and_stay_out_of_the_table_of_clean_figures(tmp_path: Path) -> None:
    dark, small = Condition(corruption="low_light", severity=3), Condition(input_size=(160, 192))
    shifted = dataset(condition=small, figures={w: summary(0.111) for w in ("text_to_image", "image_to_text")})
    written = report("lite0", dataset(), dataset(condition=dark), shifted)
    write_report(written, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json").datasets[1:] == written.datasets[1:]
    assert (str(dark), str(small)) == ("low_light 3", "input 160×192")
    assert "11.1" not in printed(written)


@pytest.mark.parametrize(
    "fields",
    [{}, {"corruption": "blur"}, {"severity": 2}, {"corruption": "blur", "severity": 6},
     {"corruption": "blur", "severity": 1, "input_size": (32, 32)}],
)  # fmt: skip
def test_a_condition_is_one_change_and_whole(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(fields)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not a retrieval report"),
        (lambda text: "[]", "is not a retrieval report"),
        (
            lambda text: text.replace('"format":3', '"format":4'),
            "has report format 4, this Twinlens reads up to 3",
        ),
        (lambda text: text.replace('"images":1000', '"images":"many"'), r"datasets\.0\.images"),
        (lambda text: text.replace("twinlens-retrieval-report", "something"), "kind"),
    ],
)
def test_a_file_that_is_no_report_is_refused_with_the_reason(
    tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text(damage(json.dumps(json.loads(report().model_dump_json()), separators=(",", ":"))))
    with pytest.raises(BadReport, match=message):
        read_report(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadReport, match=r"cannot read the report .*nowhere\.json"):
        read_report(tmp_path / "nowhere.json")


def test_the_table_gives_both_directions_with_intervals_medians_and_ties() -> None:
    text = printed(report())
    assert "28.4 (26.4–31.4)" in text
    assert "36.1 (34.1–39.1)" in text
    assert "flickr8k test (1,000 × 5)" in text
    for shown in ("T→I", "I→T", "R@1", "R@5", "mAP@R", "4.5", "7"):
        assert shown in text


def test_bundles_of_one_name_are_told_apart_by_their_fingerprints() -> None:
    text = printed(report("lite0"), report("lite0", fingerprint="ab" * 32))
    assert "lite0 3f3f3f" in text
    assert "lite0 ababab" in text


def test_markup_in_a_set_name_is_shown_as_it_is() -> None:
    assert "[red]pets[/red]" in printed(report("lite0", dataset("[red]pets[/red]")))


def test_markdown_has_one_row_a_set_bundle_and_direction() -> None:
    rows = report_markdown([report("a", dataset("x"), dataset("y")), report("b", dataset("y"))]).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    assert len({len(row) for row in cells}) == 1
    assert [row[:3] for row in cells[2:]] == [
        ["x (1,000 × 5)", "a", "T→I"],
        ["x (1,000 × 5)", "a", "I→T"],
        ["y (1,000 × 5)", "a", "T→I"],
        ["y (1,000 × 5)", "a", "I→T"],
        ["y (1,000 × 5)", "b", "T→I"],
        ["y (1,000 × 5)", "b", "I→T"],
    ]
    assert cells[2][3] == "28.4 (26.4–31.4)"


def test_notes_name_what_was_left_out_leaked_or_looks_wrong() -> None:
    broken = tuple(MissingImage(f"{n}.jpg", "cut short") for n in range(7))
    leaks = {"train": tuple(Leak(f"t{n}.jpg", "7.jpg", "image", n) for n in range(2)), "other": ()}
    notes = report_notes(
        [report("lite0", dataset(broken=broken, leaks=leaks, cut_captions=12, warnings=("all collapsed",)))]
    )
    assert notes[0].startswith("flickr8k test, lite0: 7 of its images cannot be decoded: 0.jpg (cut short)")
    assert notes[0].endswith("and 2 more")
    assert notes[1].endswith("12 of 5000 captions cut to the text tower's length")
    assert "LEAK: 1 of its images are in train: 7.jpg = t0.jpg (image, 0 bits)" in notes[2]
    assert notes[3].endswith("WARNING: all collapsed")
    assert len(notes) == 4


def test_the_image_shows_a_bar_for_every_bundle_and_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    first, second = report("a", dataset("x"), dataset("y")), report("b", dataset("y"))
    draw_recall([first, second], tmp_path / "report.png")
    pixels = np.asarray(Image.open(tmp_path / "report.png").convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x2F, 0x6D, 0xB3)).max(axis=2) < 8).sum()
    orange = (np.abs(pixels - (0xE0, 0x8A, 0x1E)).max(axis=2) < 8).sum()
    assert pixels.shape[1] == 1440
    assert 0.4 < orange / blue < 0.6  # two sets against one


def test_short_queries_are_told_with_how_they_were_asked() -> None:
    figure = {"value": 0.4, "low": 0.35, "high": 0.45}
    found = {
        "queries": 200, "templates": ["{}", "a {}"], "memory": True, "precision_at_1": figure,
        "hit_at_5": figure, "mean_average_precision": figure,
    }  # fmt: skip
    (note,) = [line for line in report_notes([report("a", dataset(short_queries=found))]) if "short" in line]
    assert note.startswith(
        "flickr8k test, a: 200 short queries that its captions answer, asked as '{}', 'a {}' and"
    )
    assert "P@1 40.0 (35.0–45.0), right among the first five 40.0" in note
