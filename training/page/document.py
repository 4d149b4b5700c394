"""The page: every section and its looks in one file. `report_page` is pure; `write_page` writes it."""

from importlib.resources import files
from pathlib import Path

from training.evaluation.report import bundle_names, dataset_names
from training.files import replacing
from training.page.calibration_section import calibration_section
from training.page.example_sections import classification_section, failures_section
from training.page.inputs import PageInputs
from training.page.markup import Markup, element, joined
from training.page.sections import (
    differences_section,
    notes_section,
    recall_section,
    reproduce_section,
    summary_section,
)
from training.page.shift_sections import curves_section, heat_section

# Nothing may load from elsewhere, even were something to slip through the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_page(inputs: PageInputs, path: Path) -> None:
    with replacing(path) as file:
        file.write(report_page(inputs).encode())


def report_page(inputs: PageInputs) -> str:
    """HTML that opens from disk in light and dark, without script."""
    bundles = " and ".join(bundle_names(inputs.reports))
    sets = dataset_names(inputs.reports)
    sets += [each.name for report in inputs.reports for each in report.classification if each.name not in sets]
    created = max(report.created for report in inputs.reports)
    head = element(
        "head",
        Markup('<meta charset="utf-8"/>'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1"/>'),
        Markup('<meta name="color-scheme" content="light dark"/>'),
        element("title", f"{bundles}: retrieval report"),
        element("style", Markup(files(__package__).joinpath("page.css").read_text(encoding="utf8"))),
    )
    title = element(
        "header",
        element("h1", f"How {bundles} {'holds' if len(inputs.reports) == 1 else 'hold'} up"),
        element("p", f"on {', '.join(dict.fromkeys(sets))} · measured {created:%Y-%m-%d}"),
    )
    sections = (
        summary_section(inputs),
        recall_section(inputs),
        differences_section(inputs),
        curves_section(inputs),
        heat_section(inputs),
        classification_section(inputs),
        calibration_section(inputs),
        failures_section(inputs.failures),
        notes_section(inputs),
        reproduce_section(inputs),
    )
    body = element("body", element("main", title, *sections))
    return joined(Markup("<!doctype html>\n"), element("html", head, body, lang="en"), "\n")
