"""The RetrievalReport: what an evaluation measured, as JSON, as a table for a terminal, as Markdown.

Knows figures and how to show them; neither models nor how anything was measured. Images are drawn in
`training.evaluation.charts`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.markup import escape
from rich.table import Table

from training.data.leakage import Leak
from training.data.pairs import MissingImage
from training.errors import BadReport
from training.evaluation.collapse import EmbeddingHealth
from training.evaluation.metrics import Estimate, Summary
from training.evaluation.ranks import Direction
from training.evaluation.short_queries import ShortQueryFigures
from training.evaluation.zero_shot import ZeroShotReport
from training.files import replacing
from training.markdown import markdown_table
from training.seen.exposure import Exposure
from training.shift.condition import Condition

REPORT_FORMAT = 3
"""2 added `condition` and `notes`, reports of format 1 read as clean ones; 3 added `short_queries`."""
DIRECTION_TITLES: dict[Direction, str] = {"text_to_image": "T→I", "image_to_text": "I→T"}
DIRECTION_NAMES: dict[Direction, str] = {"text_to_image": "text → image", "image_to_text": "image → text"}


class DatasetReport(BaseModel):
    """One set, both ways. `images` and `captions` were evaluated; `missing` and `broken` were not.

    `condition`: what images or captions were changed by; None for the clean set.
    `fold_recall`: COCO's "1K", the mean over five folds of 1,000 images, only for sets of 5,000 images.
    `leaks`: by training set; None where none was given to compare with. `exposure`: what the bundle's own
    record says it has seen of the clean set. `short_queries`: of queries drawn from the captions of the clean
    set; None where these hold too few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    condition: Condition | None = None
    spec: str
    digest: str
    images: int
    captions: int
    cut_captions: int
    missing: tuple[MissingImage, ...] = ()
    broken: tuple[MissingImage, ...] = ()
    figures: dict[Direction, Summary]
    fold_recall: dict[Direction, dict[int, float]] | None = None
    health: EmbeddingHealth
    warnings: tuple[str, ...] = ()
    leaks: dict[str, tuple[Leak, ...]] | None = None
    exposure: Exposure | None = None
    short_queries: ShortQueryFigures | None = None
    seconds: float

    @property
    def recall(self) -> dict[Direction, dict[int, Estimate]]:
        return {direction: summary.recall for direction, summary in self.figures.items()}

    @property
    def tied_queries(self) -> int:
        return sum(summary.tied_queries for summary in self.figures.values())

    def leaked_images(self, train: str) -> int:
        """How many of the set's images stand in the training set of that name."""
        return len({leak.test_id for leak in (self.leaks or {}).get(train, ())})


class RetrievalReport(BaseModel):
    """How well one bundle retrieves, on each set; recall and mAP@R from 0 to 1 with 95% intervals.

    Sets stand clean first, then once for every condition they were measured under, by the same name.
    `query_bank`: whether the bundle's ranked, as in a release; None in reports from before that was told.
    `notes`: what was not measured, and why (an input size that a tower refuses).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["twinlens-retrieval-report"] = "twinlens-retrieval-report"
    format: int = REPORT_FORMAT
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    bundle: str
    fingerprint: str
    device: str
    precision: str
    bootstrap_samples: int
    query_bank: Literal["used", "left out", "none"] | None = None
    datasets: tuple[DatasetReport, ...]
    classification: tuple[ZeroShotReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> tuple[DatasetReport, ...]:
        """The sets as they are, under no condition."""
        return tuple(dataset for dataset in self.datasets if dataset.condition is None)


def read_report(path: Path) -> RetrievalReport:
    """Raises BadReport when the file is missing, cut, something else, or written by a newer Twinlens."""
    try:
        text = path.read_text(encoding="utf-8")
        head = _Head.model_validate_json(text)
        if head.format > REPORT_FORMAT:
            raise BadReport(
                f"{path} has report format {head.format}, this Twinlens reads up to {REPORT_FORMAT}: update it"
            )
        return RetrievalReport.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BadReport(f"cannot read the report {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadReport(f"{path} is not a retrieval report: {where}: {first['msg']}") from error


def write_report(report: RetrievalReport, path: Path) -> None:
    """JSON; the file is either the old one or the new one, never a part of it."""
    with replacing(path) as file:
        file.write(report.model_dump_json(indent=1).encode() + b"\n")


def report_table(reports: Sequence[RetrievalReport]) -> Table:
    """One row a set, bundle and direction, several bundles side by side; percentages with 95% intervals."""
    ks = recall_depths(reports)
    table = Table(title="Retrieval (%, with 95% intervals by bootstrap over images)", title_justify="left")
    table.add_column("set")
    table.add_column("bundle")
    table.add_column("", no_wrap=True)
    for heading in (*(f"R@{k}" for k in ks), "mAP@R", "median rank", "tied"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = bundle_names(reports)
    for name in dataset_names(reports):
        for report, bundle in zip(reports, names, strict=True):
            for dataset in (each for each in report.clean if each.name == name):
                _add_rows(table, dataset, bundle=bundle, ks=ks)
        table.add_section()
    return table


def report_notes(reports: Sequence[RetrievalReport]) -> list[str]:
    """What a reader must know beside the figures: images left out, captions cut, leaks, warnings."""
    notes = []
    for report, bundle in zip(reports, bundle_names(reports), strict=True):
        if report.query_bank in _BANK_NOTES:
            notes.append(f"{bundle}: {_BANK_NOTES[report.query_bank]}")
        notes += [f"{bundle}: {note}" for note in report.notes]
        for dataset in report.clean:
            notes += [f"{dataset.name}, {bundle}: {note}" for note in _dataset_notes(dataset)]
    return notes


def report_markdown(reports: Sequence[RetrievalReport]) -> str:
    """A table for a bundle's card: sets × directions, recall with intervals, and the notes; "" without sets."""
    ks = recall_depths(reports)
    if not ks:
        return ""
    heads = ["set", "bundle", "", *(f"R@{k}" for k in ks), "mAP@R", "median rank"]
    rows: list[list[str]] = []
    for name in dataset_names(reports):
        for report, bundle in zip(reports, bundle_names(reports), strict=True):
            for dataset in (each for each in report.clean if each.name == name):
                for direction, title in DIRECTION_TITLES.items():
                    figures = dataset.figures[direction]
                    cells = [percent(figures.recall.get(k)) for k in ks]
                    cells += [percent(figures.mean_average_precision), f"{figures.median_rank:g}"]
                    rows.append([_size(dataset), bundle, title, *cells])
    lines = [*markdown_table(heads, rows, texts=3), ""]
    lines += ["Percentages with 95% intervals by bootstrap over images; ties take their expected rank."]
    lines += [f"Bundle {report.bundle}: fingerprint `{report.fingerprint[:12]}`." for report in reports]
    return "\n".join([*lines, *(f"- {note}" for note in report_notes(reports))]) + "\n"


def percent(estimate: Estimate | None) -> str:
    """ "28.4 (26.9–30.1)"; an en dash for a figure that was not measured."""
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def recall_depths(reports: Sequence[RetrievalReport]) -> list[int]:
    """Every k that any of the reports has, ascending."""
    return sorted({k for r in reports for d in r.datasets for recall in d.recall.values() for k in recall})


def dataset_names(reports: Sequence[RetrievalReport]) -> list[str]:
    """The sets of all reports, each once, in order of appearance."""
    return list(dict.fromkeys(dataset.name for report in reports for dataset in report.datasets))


def bundle_names(reports: Sequence[RetrievalReport]) -> list[str]:
    """Names to tell the reports apart: the bundle's, with its fingerprint where two share a name."""
    names = [report.bundle for report in reports]
    return [
        name if names.count(name) == 1 else f"{name} {report.fingerprint[:6]}"
        for name, report in zip(names, reports, strict=True)
    ]


_BANK_NOTES = {
    "used": "ranked with its bank of queries, as a release is",
    "left out": "ranked without its bank of queries (--no-bank): a release ranks with it",
}


class _Head(BaseModel):
    """The two fields by which a report of any version is recognised."""

    kind: Literal["twinlens-retrieval-report"]
    format: int


def _add_rows(table: Table, dataset: DatasetReport, *, bundle: str, ks: list[int]) -> None:
    for direction, title in DIRECTION_TITLES.items():
        figures = dataset.figures[direction]
        first = direction == "text_to_image"
        table.add_row(
            escape(_size(dataset)) if first else "",
            escape(bundle) if first else "",
            title,
            *(percent(figures.recall.get(k)) for k in ks),
            percent(figures.mean_average_precision),
            f"{figures.median_rank:g}",
            str(figures.tied_queries),
        )


def _size(dataset: DatasetReport) -> str:
    return f"{dataset.name} ({dataset.images:,} × {dataset.captions / dataset.images:.3g})"


def _dataset_notes(dataset: DatasetReport) -> list[str]:
    notes = [
        f"{len(images)} of its images {what}: {_listed([f'{i.image_id} ({i.reason})' for i in images])}"
        for what, images in (
            ("have no file or caption", dataset.missing),
            ("cannot be decoded", dataset.broken),
        )
        if images
    ]
    if dataset.cut_captions:
        notes.append(f"{dataset.cut_captions} of {dataset.captions} captions cut to the text tower's length")
    if dataset.exposure is not None:
        notes.append(str(dataset.exposure))
    if dataset.short_queries is not None:
        notes.append(_short_queries_note(dataset.short_queries))
    for train, leaks in (dataset.leaks or {}).items():
        shown = [f"{leak.test_id} = {leak.train_id} ({leak.kind}, {leak.distance} bits)" for leak in leaks]
        if shown:
            notes.append(f"LEAK: {dataset.leaked_images(train)} of its images are in {train}: {_listed(shown)}")
    if dataset.fold_recall:
        notes += [
            f"{DIRECTION_TITLES[direction]} 1K (mean of five folds): "
            + ", ".join(f"R@{k} {100 * value:.1f}" for k, value in recall.items())
            for direction, recall in dataset.fold_recall.items()
        ]
    return [*notes, *(f"WARNING: {warning}" for warning in dataset.warnings)]


def _short_queries_note(figures: ShortQueryFigures) -> str:
    asked = "as typed" if figures.templates == ("{}",) else f"as {', '.join(map(repr, figures.templates))}"
    memory = " and moved by its memory of phrases" if figures.memory else ""
    return (
        f"{figures.queries} short queries that its captions answer, asked {asked}{memory}: P@1 "
        f"{percent(figures.precision_at_1)}, right among the first five {percent(figures.hit_at_5)}, mAP "
        f"{percent(figures.mean_average_precision)}"
    )


def _listed(items: Sequence[str], *, at_most: int = 5) -> str:
    more = f", and {len(items) - at_most} more" if len(items) > at_most else ""
    return ", ".join(items[:at_most]) + more
