import re
from html.parser import HTMLParser

import pytest
from test_report import dataset, report

from encoders.calibration import Calibration
from training.data.leakage import Leak
from training.evaluation.comparison import Comparison, Difference, UnseenGap
from training.evaluation.metrics import Estimate, Summary
from training.evaluation.report import DatasetReport, RetrievalReport
from training.evaluation.zero_shot import ClassAccuracy, Confusion, ZeroShotReport
from training.page.document import report_page
from training.page.inputs import Failure, PageInputs, Shown
from training.page.markup import Markup, element
from training.page.summary import summary_sentences
from training.shift.condition import Condition

ATTACK = "a <script>alert(1)</script> & \"dog\" on <img src='https://evil.example/x'>"


class Page(HTMLParser):
    """Elements, their attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def figures(share: float) -> Summary:
    recall = {k: Estimate(part, part - 0.011, part + 0.012) for k, part in ((1, share / 2), (10, share))}
    return Summary(recall, Estimate(0.2, 0.1, 0.3), median_rank=4.5, queries=500, tied_queries=7)


def measured(there: float, back: float, name: str = "photos", **condition: object) -> DatasetReport:
    both = {"text_to_image": figures(there), "image_to_text": figures(back)}
    return dataset(name, figures=both, condition=Condition.model_validate(condition) if condition else None)


def shifted(bundle: str = "lite0", **changes: object) -> RetrievalReport:
    """Clean 60 and 70 at 10; at severity 3 blur keeps 90%, noise 50% and 60%, low light 75%; at 5 noise 10%."""
    return report(
        bundle,
        measured(0.6, 0.7),
        measured(0.54, 0.63, corruption="blur", severity=3),
        measured(0.3, 0.42, corruption="noise", severity=3),
        measured(0.06, 0.07, corruption="noise", severity=5),
        measured(0.45, 0.525, corruption="low_light", severity=3),
        measured(0.48, 0.56, input_size=(160, 160)),
        **changes,
    )


def sentences(inputs: PageInputs) -> str:
    return Page("".join(said for _, part in summary_sentences(inputs) for said in part)).text


def test_every_recall_of_the_report_stands_on_the_page_with_its_interval() -> None:
    page = Page(report_page(PageInputs([shifted()])))
    for each in (d for d in shifted().datasets if d.condition is None or d.condition.input_size):
        for recall in each.recall.values():
            k = 10 if each.condition else 1
            value = recall[k]
            shown = f"{100 * value.value:.1f} ({100 * value.low:.1f}–{100 * value.high:.1f})"
            assert shown in page.text


def test_a_heat_map_has_the_absolute_recall_in_every_cell_and_the_loss_as_its_colour() -> None:
    html = report_page(PageInputs([shifted()]))
    cells = re.findall(r'<td style="--loss:(\d+)%" title="[^"]*keeps (\d+)%">([\d.]+)</td>', html)
    there, back = cells[:4], cells[4:]
    assert there == [("10", "90", "54.0"), ("50", "50", "30.0"), ("90", "10", "6.0"), ("25", "75", "45.0")]
    assert back == [("10", "90", "63.0"), ("40", "60", "42.0"), ("90", "10", "7.0"), ("25", "75", "52.5")]
    assert html.count('<td class="none">–</td>') == 4  # blur and low light at severity 5, both ways


def test_the_summary_names_the_costliest_shift_at_severity_3_and_what_it_costs() -> None:
    said = sentences(PageInputs([shifted()]))
    assert "With noise at severity 3, lite0 loses 45% of R@10 (65.0 → 36.0, both ways on average)" in said
    assert "with blur it loses 10%, the least. Over all 3 at that severity it keeps 73% on average" in said
    assert "for 60.0% of the captions (58.9–61.2), and a right caption for 70.0% of the images" in said


def test_a_shift_that_costs_nothing_is_not_called_a_loss() -> None:
    better = report("lite0", measured(0.6, 0.7), measured(0.62, 0.7, corruption="blur", severity=3))
    said = sentences(PageInputs([better]))
    assert "At severity 3 no shift costs lite0 any of its R@10, both ways on average." in said
    assert "loses" not in said


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.05, "better"), (-0.05, -0.01, "worse"), (-0.01, 0.05, "no difference shown")],
)
def test_a_bundle_is_called_better_only_where_the_interval_says_so(
    low: float, high: float, verdict: str
) -> None:
    difference = Difference(
        bundle="new", against="old", dataset="photos", direction="text_to_image", k=10, subject="clean",
        severity=None, recall=Estimate((low + high) / 2, low, high), retention=None,
    )  # fmt: skip
    gap = UnseenGap(
        bundle="new", dataset="photos", direction="text_to_image", k=10, in_domain="home",
        gap=Estimate(0.21, 0.15, 0.27),
    )  # fmt: skip
    comparison = Comparison(bundles=("old", "new"), reference="old", differences=(difference,), gaps=(gap,))
    reports = [report("old", measured(0.6, 0.7)), report("new", measured(0.6, 0.7), fingerprint="4e" * 32)]
    said = sentences(PageInputs(reports, comparison))
    assert f"): {verdict} ." in said
    assert "R@10 of new differs from that on home by −21.0 points for captions (−27.0 to −15.0)" in said
    assert f"{100 * low:+.1f}".replace("-", "−") in Page(report_page(PageInputs(reports, comparison))).text


def test_words_from_data_stay_words() -> None:
    failure = Failure(
        bundle="lite0", name=ATTACK, condition=None, direction="text_to_image", query=Shown(ATTACK),
        right=Shown(ATTACK, "data:image/webp;base64,AAAA"), rank=812.5, items=1000, instead=(Shown(ATTACK),),
    )  # fmt: skip
    classes = ZeroShotReport(
        name=ATTACK, spec=ATTACK, digest="d" * 64, images=4, classes=2, templates=("{}",), tied_images=0,
        top={1: Estimate(0.5, 0.4, 0.6)}, mean_per_class=0.5, per_class=(ClassAccuracy(ATTACK, 4, 0.5, 2),),
        confused=(Confusion(ATTACK, ATTACK, 2, 0.5),), warnings=(ATTACK,), seconds=1,
    )  # fmt: skip
    hostile = report(
        ATTACK, measured(0.6, 0.7, name=ATTACK), measured(0.1, 0.2, ATTACK, corruption="x", severity=1)
    )
    hostile = hostile.model_copy(update={"classification": (classes,)})
    page = Page(report_page(PageInputs([hostile], failures=[failure], command=ATTACK)))
    assert "script" not in page.tags
    assert [value for name, value in page.attributes if name == "src"] == ["data:image/webp;base64,AAAA"]
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "right answer at 812.5 of 1,000" in page.text
    assert element("p", ATTACK, Markup("<b>x</b>"), class_='"') == (
        '<p class="&quot;">a &lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;dog&quot; on '
        "&lt;img src=&#x27;https://evil.example/x&#x27;&gt;<b>x</b></p>"
    )


def test_a_page_shows_only_what_was_measured() -> None:
    clean = report_page(PageInputs([report("lite0", measured(0.6, 0.7))]))
    assert "Recall by set" in clean
    for absent in ("Over severity", "What breaks it", "Which is better", "Zero-shot", "Worst failures"):
        assert absent not in clean
    classes = ZeroShotReport(
        name="pets", spec="folder:pets", digest="d" * 64, images=4, classes=2, templates=("{}",), tied_images=0,
        top={1: Estimate(0.75, 0.5, 1)}, mean_per_class=0.7, per_class=(ClassAccuracy("cat", 4, 0.75, 3),),
        confused=(Confusion("cat", "dog", 1, 0.25),), seconds=1,
    )  # fmt: skip
    alone = report().model_copy(update={"datasets": (), "classification": (classes,)})
    page = Page(report_page(PageInputs([alone])))
    assert "lite0 gives 75.0% of 4 images their class, of 2 (50.0–100.0; guessing gets 50.0%)" in page.text
    assert "Recall by set" not in page.text


def test_two_bundles_stand_side_by_side_and_leaks_are_said_once() -> None:
    leaky = measured(0.6, 0.7).model_copy(update={"leaks": {"train": (Leak("t.jpg", "a.jpg", "image", 3),)}})
    reports = [report("old", leaky), report("new", leaky, fingerprint="4e" * 32)]
    page = Page(report_page(PageInputs(reports)))
    assert "How old and new hold up" in page.text
    assert page.text.count("1 of photos's 1,000 images stand in train") == 1
    assert [value for name, value in page.attributes if name == "fill" and "--b" in value].count(
        "var(--b1)"
    ) == 4


def test_only_what_every_bundle_is_known_to_have_kept_out_of_training_is_marked_in_the_curves() -> None:
    reports = [shifted("old"), shifted("new", fingerprint="4e" * 32)]
    both = report_page(PageInputs(reports, held_out={"old": ("blur",), "new": ("blur", "noise")}))
    one = report_page(PageInputs(reports, held_out={"old": ("blur",)}))  # nothing is known of the other
    curves_end = "What breaks it"
    assert both.split(curves_end)[0].count('class="held"') == 2  # at blur, and where the mark is explained
    assert one.split(curves_end)[0].count('class="held"') == 1
    assert one.split(curves_end)[1].count('class="held"') == 2  # old's heat maps, both ways
    assert 'class="held"' not in report_page(PageInputs(reports))


def test_a_calibration_is_shown_by_its_curve_and_beside_a_flat_cutoff() -> None:
    weights = {"intercept": 0, "score": 1, "mean": 0, "spread": 0, "best_unrelated": 0}
    figures = {
        "measured_on": "photos dev", "gallery_items": 500, "present_queries": 100, "absent_queries": 100,
        "judged_hits": 2000,
        "reliability": [{"predicted": low / 10, "observed": low / 9} for low in range(3)],
        "calibration_error": {"value": 0.023, "low": 0.02, "high": 0.03},
        "nothing_of_absent": 0.86, "nothing_of_present": 0.12, "nothing_precision": 0.87, "false_nothing": 0.03,
        "match_of_right": 0.66, "match_precision": 0.7, "unsure": 0.4, "order_faults": 0,
        "balanced_accuracy": 0.87, "flat_cutoff": 0.214, "flat_balanced_accuracy": 0.61,
        "flat_nothing_of_absent": 0.31, "flat_nothing_precision": 0.78, "flat_false_nothing": 0.07,
    }  # fmt: skip
    search = {
        "weights": weights, "likely": 0.5, "perhaps": 0.1, "prior_mean": 0, "prior_spread": 1,
        "gallery_sizes": [500], "figures": figures,
    }  # fmt: skip
    calibration = Calibration.model_validate(
        {
            "fingerprint": "3f" * 32,
            "bank": None,
            "short_queries": None,
            "searches": {"sentence_to_image": search},
            "fitted_on": "photos",
            "digest": "d" * 64,
        }
    )
    page = Page(report_page(PageInputs([report()], calibrations={"lite0": calibration})))
    assert "Expected calibration error 2.3 points (2.0–3.0), photos dev." in page.text
    assert "sentence → image calibrated 86.0 87.0 3.0 66.0 40.0" in page.text
    assert "sentence → image cosine above 0.214 31.0 78.0 7.0 – –" in page.text
    assert "stated 20%, fits 22%" in page.text
