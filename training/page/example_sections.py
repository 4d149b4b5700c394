"""The sections that show cases: classes and what they are taken for, queries that failed."""

from collections.abc import Sequence
from itertools import groupby

from training.evaluation.metrics import Estimate
from training.evaluation.report import RetrievalReport, bundle_names
from training.evaluation.shifts import in_words
from training.evaluation.zero_shot import ZeroShotReport
from training.page.inputs import Failure, PageInputs, Shown
from training.page.markup import Markup, element, joined
from training.page.parts import NOTHING, card, note, section
from training.page.svg import bars, legend
from training.page.tables import classes_table, confusions_table


def classification_section(inputs: PageInputs) -> Markup:
    bundles = bundle_names(inputs.reports)
    names = dict.fromkeys(each.name for report in inputs.reports for each in report.classification)
    parts = [
        part
        for name in names
        for part in _classes(name, [_classified(r, name) for r in inputs.reports], bundles)
    ]
    said = note(
        "Each image gets the class whose name, in several templates, lies nearest: no training on classes."
    )
    legends = legend(bundles, directions=False) if len(bundles) > 1 else NOTHING
    return section("Zero-shot classification", said, legends, *parts) if parts else NOTHING


def _classified(report: RetrievalReport, name: str) -> ZeroShotReport | None:
    return next((each for each in report.classification if each.name == name), None)


def _classes(name: str, shown: Sequence[ZeroShotReport | None], bundles: Sequence[str]) -> list[Markup]:
    """One set of classes: accuracy of every bundle, then each one's mistakes."""
    present = [(bundle, each) for bundle, each in zip(bundles, shown, strict=True) if each]
    first = present[0][1]
    groups: list[tuple[str, list[Estimate | None]]] = [
        (f"top-{k}", [each.top.get(k) if each else None for each in shown]) for k in first.top
    ]
    means = "; ".join(f"{bundle} {100 * each.mean_per_class:.1f}%" for bundle, each in present)
    said = note(f"Mean over classes: {means}. Guessing gets {100 * first.chance:.1f}%.")
    cards = [card("accuracy", joined(bars(groups, label=f"{name}: accuracy"), said))]
    for bundle, each in present:
        head = f"{bundle}: " if len(present) > 1 else ""
        every = element("details", element("summary", "Every class"), classes_table(each))
        cards.append(card(f"{head}most confused", joined(confusions_table(each), every)))
    size = element("small", f"{first.images:,} images, {first.classes:,} classes")
    return [element("h3", name, size), element("div", *cards, class_="pair")]


def failures_section(failures: Sequence[Failure]) -> Markup:
    """By bundle, set and condition: the query, what was right and where it stood, what came instead."""
    parts = []
    for (bundle, name, condition), group in groupby(failures, lambda f: (f.bundle, f.name, f.condition)):
        where = "as it is" if condition is None else f"with {in_words(condition)}"
        cards = [_failure(failure) for failure in group]
        parts += [
            element("h3", f"{name}, {where}", element("small", bundle)),
            element("div", *cards, class_="fails"),
        ]
    said = note(
        "The queries whose right answer stands lowest. Some are the caption's fault, not the encoder's."
    )
    return section("Worst failures", said, *parts) if parts else NOTHING


def _failure(failure: Failure) -> Markup:
    place = f"right answer at {failure.rank:,.4g} of {failure.items:,}"
    return element(
        "article",
        element("div", element("b", "asked"), _shown(failure.query), class_="asked"),
        element("div", element("b", place), _shown(failure.right), class_="right"),
        element("div", element("b", "came instead"), *map(_shown, failure.instead), class_="instead"),
        class_=failure.direction.replace("_", "-"),
    )


def _shown(shown: Shown) -> Markup:
    if shown.image is None:
        return element("q", shown.text)
    return element("img", src=shown.image, alt=shown.text, title=shown.text)
