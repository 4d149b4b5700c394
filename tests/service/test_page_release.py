"""The page of what is served: the release, its checks, its evaluation in charts, drift; under a prefix."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_service import Running, publish, running
from page_visits import GALLERY_SIZE, PAGE, Visit, needs_browser, tiles, wait_for_images
from playwright.sync_api import Route, expect

from encoders.bundle import Bundle
from encoders.verdict import VERDICT, Check, CheckKind, Judged, Verdict
from service.settings import Settings
from training.evaluation.report import read_report

pytestmark = needs_browser
PREFIX = "/images"
RELEASE = re.compile(r"/release(\?|$)")
WAYS = ("text_to_image", "image_to_text")


def measured(name: str, recall: float, **condition: Any) -> dict[str, Any]:
    """One set of a report, as an evaluation writes it."""

    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    figures = {
        "recall": {str(k): estimate(recall - 0.3 / k) for k in (1, 5, 10)},
        "mean_average_precision": estimate(recall),
        "median_rank": 4.0,
        "queries": 1000,
        "tied_queries": 0,
    }
    health = dict.fromkeys(("image_effective_rank", "caption_effective_rank"), 100.0)
    health |= dict.fromkeys(("image_full_rank", "caption_full_rank"), 512)
    shares = ("image_spread", "caption_spread", "modality_gap", "matched_cosine", "unmatched_cosine")
    health |= dict.fromkeys((*shares, "tied_share", "cut_share"), 0.1)
    counts = {"images": 1000, "captions": 5000, "cut_captions": 0, "seconds": 1.0}
    kept = {"name": name, "spec": "csv:x.csv", "digest": "00", "condition": condition or None}
    return kept | counts | {"figures": dict.fromkeys(WAYS, figures), "health": health}


REPORT = {
    "kind": "twinlens-retrieval-report",
    "format": 2,
    "created": "2026-11-23T17:18:44Z",
    "bundle": "tiny",
    "fingerprint": "00",
    "device": "cpu",
    "precision": "fp32",
    "bootstrap_samples": 1000,
    "datasets": [
        measured("<b>holidays</b>", 0.7),
        measured("drawings", 0.4),
        *(
            measured("drawings", 0.4 - severity / 30, corruption="low_light", severity=severity)
            for severity in (1, 3)
        ),
        measured("drawings", 0.38, input_size=[160, 160]),
    ],
    "notes": ["input 96×96 was refused"],
}


def check(kind: CheckKind, subject: str, **measured: Any) -> Check:
    return Check(kind=kind, subject=subject, **{"passed": True} | measured)


def verdict_of(bundle: Bundle) -> Verdict:
    """What a gate said of it: one check failed, which decides, and two held."""
    return Verdict(
        passed=False,
        candidate=Judged.of(bundle),
        policy="gate.toml",
        policy_digest="0" * 64,
        checks=(
            check("parity", "golden images", figure=0.99994, limit=0.995),
            check("floor", "<i>drawings</i>, T→I R@10", figure=0.4, limit=0.35, detail="rule not_refuted"),
            check("no_fall", "drawings", figure=-0.041, limit=-0.02, low=-0.06, high=-0.022, passed=False),
        ),
    )


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable,
    squares: Path,
    settings_for: Callable[..., Settings],
) -> Iterator[Running]:
    """Behind a proxy's prefix, with a bundle that brings a report and what a gate said of it."""
    folder = tmp_path_factory.mktemp("reported")
    stored = make_bundle(folder / "bundle").with_file("report.json", json.dumps(REPORT).encode())
    assert len(read_report(stored.path / "report.json").datasets) == len(REPORT["datasets"])
    judged = stored.with_file(VERDICT, verdict_of(stored).file_content())
    publish(folder / "releases", squares, judged.path)
    with running(settings_for(folder / "releases", root_path=PREFIX)) as started:
        yield started


@pytest.fixture(scope="module")
def page_url(service: Running) -> str:
    return service.url + PREFIX


def test_the_footer_leads_to_what_is_served(visit: Visit, service: Running) -> None:
    page = visit.go("/")
    page.get_by_role("link", name="How well it finds").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What is served, and how well it finds")
    served = page.get_by_role("region", name="The release")
    expect(served).to_contain_text(service.serving.state.release.id)
    expect(served).to_contain_text(service.serving.state.encoder.fingerprint)
    expect(served).to_contain_text(f"Images{GALLERY_SIZE}")
    checks = page.get_by_role("region", name="Checks")
    expect(checks).to_contain_text("100.00")
    expect(checks).to_contain_text("did not pass 2 of 3 checks held")
    expect(page.get_by_role("region", name="Relevance")).to_contain_text("brings no calibration")
    page.get_by_role("link", name="Search", exact=True).click()
    expect(page.get_by_role("searchbox")).to_be_visible()


def test_every_chart_is_described_and_has_its_numbers(visit: Visit) -> None:
    page = visit.go("/static/release.html")
    bars = page.get_by_role("img", name="<b>holidays</b>: 1,000 images, 5,000 texts: R@1 40.0")
    expect(bars).to_be_visible()
    curve = page.get_by_role("img", name="low light: text finds image from 37.0")
    expect(curve).to_be_visible()
    figure = page.locator("figure", has=curve)
    figure.get_by_text("The numbers").click()
    rows = figure.get_by_role("row")
    expect(rows).to_have_count(4)  # headings, clean, severity 1 and 3
    expect(rows.nth(1)).to_contain_text("37.0\u00a0% (35.0–39.0)")
    widths = bars.evaluate(
        "each => [...each.querySelectorAll('rect')].map((bar) => Number(bar.getAttribute('width')))"
    )
    assert widths[4] / widths[0] == pytest.approx(0.67 / 0.4)  # R@10 beside R@1
    expect(page.get_by_text("input 96×96 was refused")).to_be_visible()
    expect(page.get_by_role("row", name="160 × 160")).to_be_visible()
    assert page.locator("main b").count() == 0


def test_each_check_of_the_gate_is_told_the_failed_ones_first(visit: Visit) -> None:
    page = visit.go("/static/release.html")
    rows = page.get_by_role("table", name="What was measured, and what was required").get_by_role("row")
    expect(rows).to_have_count(4)  # open without a press, as it did not pass
    for cell in ("drawings", "−4.1 (−6.0 to −2.2)", "at least −2.0", "✗ failed"):
        expect(rows.nth(1).get_by_role("cell", name=cell, exact=True)).to_be_visible()
    expect(rows.nth(2)).to_contain_text("golden images0.9999at least 0.9950✓ passed")
    expect(rows.nth(3)).to_contain_text("40.0\u00a0%at least 35.0\u00a0%✓ passedrule not refuted")
    assert page.locator("main i").count() == 0
    page.route(RELEASE, without_gate)
    page.reload()
    expect(page.get_by_role("region", name="Checks")).to_contain_text("passed through no gate")


def without_gate(route: Route) -> None:
    told = route.fetch().json()
    route.fulfill(json=told | {"details": told["details"] | {"gate": None}})


def test_drift_is_told_for_queries_and_gallery(visit: Visit) -> None:
    page = visit.go("/static/release.html")
    drift = page.get_by_role("region", name="Drift")
    for subject in ("Queries by text", "Queries by image", "Images of the gallery", "Texts of the gallery"):
        expect(drift.get_by_role("heading", name=subject)).to_be_visible()
    expect(drift).to_contain_text("cannot be told")  # this bundle has no bank


def test_what_cannot_be_had_is_said_where_it_would_stand(visit: Visit) -> None:
    visit.allowed = "status of 503"
    failing = {"status": 503, "json": {"error": {"code": "x", "message": "warming"}}}
    visit.page.route("**/drift", lambda route: route.fulfill(**failing))
    page = visit.go("/static/release.html")
    expect(page.get_by_role("region", name="Drift")).to_contain_text("Not ready yet")
    expect(page.get_by_role("region", name="The release")).to_be_visible()
    page.route(RELEASE, lambda route: route.fulfill(**failing))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Not ready yet")
    page.unroute(RELEASE)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("region", name="The release")).to_be_visible()


def test_changes_since_and_a_release_that_was_refused_are_told(visit: Visit) -> None:
    told = {
        "live": {"sequence": 7, "added": 3, "hidden": 1, "left_out": 0},
        "loading": {"release": "20261123T071500Z-3f9ac1", "since": "2026-11-23T07:15:00+00:00"},
        "refused": {"release": None, "reason": "corrupt", "message": "CURRENT says 'x'", "tries": 1},
    }
    visit.page.route(RELEASE, lambda route: route.fulfill(json=route.fetch().json() | told))
    page = visit.go("/static/release.html")
    served = page.get_by_role("region", name="The release")
    expect(served).to_contain_text("What CURRENT names could not be served, and the one before")
    expect(served).to_contain_text("Being loaded20261123T071500Z-3f9ac1, since 23 November 2026 at 07:15 UTC")
    expect(served).to_contain_text("3 put, 1 of the release deleted or replaced")
    expect(page.locator("#lead")).to_contain_text(f"{GALLERY_SIZE + 2} images")


def test_searching_works_under_the_prefix(visit: Visit) -> None:
    page = visit.go("/?q=dog&is.tags=fourth")
    expect(tiles(page)).to_have_count(10)
    wait_for_images(page)
    page.get_by_role("button", name="Remove the filter Tags: fourth").click()
    expect(tiles(page)).to_have_count(PAGE)
    assert page.url == f"{visit.base_url}/?q=dog"
    page.get_by_role("link", name="Twinlens").click()
    expect(page.locator("a.example img").first).to_be_visible()
