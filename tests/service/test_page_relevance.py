"""How the page tells relevance, over a release with a calibration of known weights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_service import publish, running
from page_visits import PAGE, Visit, give_file, needs_browser, png_bytes, tiles
from playwright.sync_api import expect

from encoders.calibration import CALIBRATION, Calibration, SearchCalibration, Weights
from service.settings import Settings

pytestmark = needs_browser


def always(logit: float) -> SearchCalibration:
    """Every hit is as relevant."""
    weights = Weights(intercept=logit, score=1e-9, mean=0.0, spread=0.0, best_unrelated=0.0)
    return SearchCalibration(
        weights=weights, likely=0.5, perhaps=0.2, prior_mean=0.0, prior_spread=0.3, gallery_sizes=(40,)
    )


@pytest.fixture(scope="module")
def page_url(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable,
    squares: Path,
    settings_for: Callable[..., Settings],
) -> Iterator[str]:
    """Words always find images that fit, a sentence perhaps does, and an image never finds texts that fit."""
    folder = tmp_path_factory.mktemp("judged")
    plain = make_bundle(folder / "bundle")
    calibration = Calibration(
        fingerprint=plain.fingerprint,
        bank=None,
        short_queries=None,
        searches={
            "words_to_image": always(4.0),
            "sentence_to_image": always(-1.0),
            "image_to_text": always(-4.0),
        },
        fitted_on="by hand",
        digest="00",
    )
    publish(folder / "releases", squares, plain.with_file(CALIBRATION, calibration.to_bytes()).path)
    with running(settings_for(folder / "releases")) as started:
        yield started.url


def test_relevance_is_a_word_and_a_bar_and_a_number_on_demand(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    score = tiles(page).first.locator(".score")
    expect(score.locator(".word")).to_have_text("Very likely")
    expect(score.locator(".number")).to_be_hidden()
    assert score.locator(".bar span").evaluate("each => each.style.width") == "98.2%"
    button = page.get_by_role("button", name="Numbers")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(score.locator(".number")).to_have_text("98 %")
    button.click()
    expect(score.locator(".number")).to_be_hidden()
    expect(tiles(page).first).to_have_accessible_name(
        page.locator("a.tile img").first.get_attribute("alt") + " relevance: Very likely"
    )
    tiles(page).first.click()
    facts = page.get_by_role("dialog").locator("dl")
    expect(facts).to_contain_text("Very likely (98 %)")
    expect(facts).to_contain_text("Cosine similarity")


def test_when_nothing_matches_the_nearest_are_shown_as_no_more_than_that(visit: Visit) -> None:
    page = visit.go("/?in=texts")
    page.get_by_role("radio", name="Texts").check()
    give_file(page, "paste", png_bytes(), name="mine.png", mime="image/png")
    expect(page.locator("a.line-text")).to_have_count(PAGE)
    expect(page.locator("#notice")).to_contain_text("Nothing here seems to match that. These come nearest")
    expect(page.get_by_role("status")).to_contain_text("Nothing here seems to match that")
    expect(page.locator("#grid")).to_have_class("lines far")
    expect(page.locator(".word").first).to_have_text("Unlikely")


def test_where_the_encoder_cannot_tell_the_page_says_so_and_fades_nothing(visit: Visit) -> None:
    page = visit.go("/?q=a red dog and a cat on grass")
    expect(page.locator("#notice")).to_contain_text("Not sure that anything here matches that")
    expect(page.locator(".word").first).to_have_text("Perhaps")
    expect(page.locator("#grid")).to_have_class("tiles")


def test_where_nothing_is_calibrated_there_is_a_cosine_and_no_word(visit: Visit) -> None:
    page = visit.go("/?q=dog&in=texts")
    expect(page.locator("a.line-text")).to_have_count(PAGE)
    expect(page.locator(".number").first).to_be_visible()
    expect(page.locator(".word").first).to_be_empty()
    expect(page.get_by_role("button", name="Numbers")).to_be_hidden()


def test_what_the_encoder_never_learned_is_told_and_nothing_is_called_likely(visit: Visit) -> None:
    page = visit.go("/?q=собака")
    expect(page.locator("#notice")).to_contain_text("The encoder has not learned “собака”")
    expect(page.locator(".word").first).to_be_empty()
