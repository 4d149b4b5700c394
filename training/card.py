"""A bundle's card (its README.md): what it is, what it was trained on, under what terms, how it retrieves.

Written from the bundle's own manifest and report, so that it never says anything else. It does not measure.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from encoders.bundle import Bundle, BundleConfig
from encoders.query_bank import QUERY_BANK
from encoders.short_queries import SHORT_QUERIES
from training.evaluation.report import RetrievalReport, report_markdown
from training.evaluation.zero_shot_tables import zero_shot_markdown
from training.markdown import markdown_table

_RESTRICTED = re.compile(r"research|non-?commercial|\bNC\b|-NC", re.IGNORECASE)

CARD = "README.md"
REPORT = "report.json"


def store_report(bundle: Bundle, report: RetrievalReport) -> Bundle:
    """The same bundle with the report inside and its card written anew."""
    with_report = bundle.with_file(REPORT, report.model_dump_json(indent=1).encode())
    return with_report.with_file(CARD, bundle_card(with_report.config, report).encode())


def bundle_card(config: BundleConfig, report: RetrievalReport | None = None) -> str:
    """Markdown, from the manifest and, where there is one, the report."""
    parts = [
        f"# {config.name}",
        _what(config),
        *_terms(config.provenance.get("data", [])),
        *_data(config.provenance.get("data", [])),
        *_figures(report),
        "## In production\n\n"
        "Use weights whose terms allow yours: `python -m encoders import` makes a bundle of a published CLIP "
        "model, `python -m training fit` trains one on your own pairs (`docs/training.md`).",
    ]
    return "\n\n".join(parts) + "\n"


def _what(config: BundleConfig) -> str:
    vision, text = config.towers.vision_cfg, config.towers.text_cfg
    spec = config.preprocessing
    image_tower = vision.get("timm_model_name") or "open_clip vision transformer"
    text_tower = "transformers text tower" if text.get("hf_model_name") else "CLIP text transformer"
    trained = config.provenance.get("recipe", {}).get("start", {}).get("towers", {})
    lines = [
        f"Image and text encoder: {image_tower} beside a {text_tower}, {config.towers.embed_dim} dimensions.",
        f"Images are read at {spec.width} × {spec.height} pixels ({spec.resize}), texts up to "
        f"{config.tokenizer.context_length} tokens.",
        f"Weights are stored as {config.weights}.",
    ]
    if QUERY_BANK in config.files:
        lines.append("A bank of queries holds back items that stand near everything, and changes no embedding.")
    if SHORT_QUERIES in config.files:
        lines.append(
            "Queries of a few words are asked in the sentences that suit it, which changes no embedding."
        )
    if trained:
        lines.append(
            f"The towers began from `{_bare(trained.get('image_weights'))}` "
            f"and `{_bare(trained.get('text_model'))}`."
        )
    return " ".join(lines)


def _terms(data: Sequence[Mapping[str, Any]]) -> list[str]:
    bound = [one for one in data if _RESTRICTED.search(str(one.get("licence", "")))]
    if not bound:
        return []
    names = ", ".join(f"{one['name']} ({one['licence']})" for one in bound)
    return [
        f"**For research only, not for commercial use.** It was trained on {names}; "
        "what was learned from it carries the same terms."
    ]


def _data(data: Sequence[Mapping[str, Any]]) -> list[str]:
    if not data:
        return []
    rows = [
        (one["name"], f"{one['images']:,}", f"{one['captions']:,}", one.get("licence") or "not stated")
        for one in data
    ]
    table = markdown_table(("set", "images", "captions", "licence"), rows, texts=4)
    return ["\n".join(["## Trained on", "", *table])]


def _figures(report: RetrievalReport | None) -> list[str]:
    if report is None:
        return []
    tables = "\n".join(part for part in (report_markdown([report]), zero_shot_markdown([report])) if part)
    return [f"## Measured\n\nBy `python -m training evaluate` in {report.precision}:\n\n{tables}"]


def _bare(name: str | None) -> str:
    return (name or "random weights").removeprefix("package:").split("/")[0].replace("_", "-")
