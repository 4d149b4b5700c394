"""What the page says when something goes wrong, and what it does about it by itself."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from live_service import running
from page_visits import PAGE, Visit, give_file, needs_browser, png_bytes, search, tiles
from playwright.sync_api import Browser, Page, Route, expect

from service.settings import Settings

pytestmark = needs_browser


def test_a_broken_image_is_explained_in_plain_words(visit: Visit) -> None:
    visit.allowed = "status of 4"
    page = visit.go()
    give_file(page, "paste", png_bytes()[:40], name="cut.png", mime="image/png")
    expect(page.get_by_role("alert")).to_contain_text("That image could not be read")
    expect(page.get_by_role("alert")).to_contain_text("Save it as PNG or JPEG")


def test_an_unknown_item_is_explained_in_plain_words(visit: Visit) -> None:
    visit.allowed = "status of 404"
    page = visit.go("/?like=gone.png")
    expect(page.get_by_role("alert")).to_contain_text("Not in the gallery")


def test_a_lost_connection_offers_to_try_again(visit: Visit) -> None:
    visit.allowed = "ERR_FAILED"
    page = visit.go()
    page.route("**/search/text", lambda route: route.abort())
    page.get_by_role("searchbox").fill("dog")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")
    page.unroute("**/search/text")
    page.get_by_role("button", name="Try again").click()
    expect(tiles(page)).to_have_count(PAGE)
    expect(page.get_by_role("alert")).to_be_empty()


def refuse(page: Page, times: int, *, status: int, retry_after: str | None) -> list[str]:
    """The next searches by text are refused so many times; answers what was refused, as it comes."""
    refused: list[str] = []

    def answer(route: Route) -> None:
        if len(refused) == times:
            route.continue_()
            return
        refused.append(route.request.url)
        error = {"code": "queue_full", "message": "300 texts wait and the queue takes 256", "type": "x"}
        headers = {"retry-after": retry_after} if retry_after else {}
        route.fulfill(status=status, json={"error": error}, headers=headers)

    page.route("**/search/text", answer)
    return refused


@pytest.mark.parametrize(("status", "heading"), [(429, "Busy right now"), (503, "Not ready yet")])
def test_a_busy_service_is_asked_again_when_it_says_so(visit: Visit, status: int, heading: str) -> None:
    visit.allowed = f"status of {status}"
    page = visit.go()
    page.clock.install()
    refused = refuse(page, 1, status=status, retry_after="30")
    page.get_by_role("searchbox").fill("dog")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(heading)
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"Trying again in \d+ s\."))
    page.clock.run_for(31_000)
    expect(tiles(page)).to_have_count(PAGE)
    expect(page.get_by_role("alert")).to_be_empty()
    assert len(refused) == 1


def test_who_goes_on_to_something_else_is_not_taken_back_by_a_late_try(visit: Visit) -> None:
    visit.allowed = "status of 429"
    page = visit.go()
    page.clock.install()
    refused = refuse(page, 1, status=429, retry_after="30")
    page.get_by_role("searchbox").fill("dog")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("timer")).to_be_visible()
    search(page, "cat")
    expect(tiles(page)).to_have_count(PAGE)
    page.clock.run_for(31_000)  # past the moment of the late try
    expect(page.locator("#answers-title")).to_have_text("Images of “cat”")
    assert len([url for url in visit.addresses if url.endswith("/search/text")]) == 1 + len(refused)


def test_a_service_that_stays_busy_is_left_alone_after_a_few_tries(visit: Visit) -> None:
    visit.allowed = "status of 429"
    page = visit.go()
    page.clock.install()
    refused = refuse(page, 99, status=429, retry_after="30")
    page.get_by_role("searchbox").fill("dog")
    page.get_by_role("searchbox").press("Enter")
    for tries in range(1, 6):
        expect(page.get_by_role("timer")).to_be_visible()
        assert len(refused) == tries
        with page.expect_response("**/search/text"):
            page.clock.run_for(31_000)
    expect(page.get_by_role("timer")).to_be_hidden()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert len(refused) == 6


def test_without_a_moment_named_it_is_the_visitor_who_tries_again(visit: Visit) -> None:
    visit.allowed = "status of 503"
    page = visit.go()
    refuse(page, 1, status=503, retry_after=None)
    page.get_by_role("searchbox").fill("dog")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("timer")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    expect(tiles(page)).to_have_count(PAGE)


def test_a_search_goes_on_by_itself_when_the_connection_is_back(visit: Visit) -> None:
    visit.allowed = "ERR_INTERNET_DISCONNECTED"
    page = visit.go()
    expect(page.locator("a.example").first).to_be_visible()
    page.context.set_offline(True)
    try:
        page.get_by_role("searchbox").fill("dog")
        page.get_by_role("searchbox").press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("You are offline")
    finally:
        page.context.set_offline(False)
    expect(tiles(page)).to_have_count(PAGE)


def test_an_image_that_is_too_large_says_so(
    browser: Browser, page_releases: Path, settings_for: Callable[..., Settings]
) -> None:
    with running(settings_for(page_releases, max_image_pixels=1000)) as service:
        visit = Visit(browser.new_context(), service.url)
        visit.allowed = "status of 413"
        page = visit.go()
        give_file(page, "paste", png_bytes(), name="large.png", mime="image/png")
        expect(page.get_by_role("alert")).to_contain_text("That is too large")
        expect(page.get_by_role("alert")).to_contain_text("1000")
        visit.close()


def test_a_filter_that_cannot_be_used_names_the_way_out(visit: Visit) -> None:
    visit.allowed = "status of 422"
    values = "".join(f"&is.tags=t{number}" for number in range(1001))
    page = visit.go(f"/?q=dog{values}")
    expect(page.get_by_role("alert")).to_contain_text("That filter cannot be used")
    page.get_by_role("button", name="Remove all").click()
    expect(tiles(page)).to_have_count(PAGE)
