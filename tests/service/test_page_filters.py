"""Filters on the page: offered from what the payloads hold, in force in the address, seen and removable."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from page_visits import GALLERY_SIZE, PAGE, Visit, give_file, needs_browser, png_bytes, search, tiles
from playwright.sync_api import Page, expect

pytestmark = needs_browser


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.go("/?q=dog")


def asked(page: Page) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(page.url).query)


def open_filter(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.get_by_role("dialog", name=name)).to_be_visible()


def test_what_tells_items_apart_is_offered_and_nothing_else(page: Page) -> None:
    names = page.locator("button.filter")
    expect(names).to_have_text(["Tags", "Year", "Framed", "Maker name", "Code"])  # not Title, nor Category


def test_a_chosen_value_filters_counts_and_can_be_removed(page: Page) -> None:
    open_filter(page, "Tags")
    choice = page.get_by_role("checkbox", name="fourth 10")
    choice.check()
    expect(tiles(page)).to_have_count(GALLERY_SIZE // 4)
    assert ("is.tags", "fourth") in asked(page)
    expect(page.get_by_role("status")).to_contain_text("10 images")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Tags", exact=True)).to_be_focused()
    page.get_by_role("button", name="Remove the filter Tags: fourth").click()
    expect(tiles(page)).to_have_count(PAGE)
    assert asked(page) == [("q", "dog")]


def test_values_of_one_field_add_up_and_fields_narrow(page: Page) -> None:
    open_filter(page, "Maker name")
    page.get_by_role("checkbox", name="Ann Lee 10").check()
    expect(tiles(page)).to_have_count(10)
    page.get_by_role("checkbox", name="Bo 30").check()
    expect(tiles(page)).to_have_count(PAGE)
    page.get_by_role("checkbox", name="Bo 30").uncheck()
    open_filter(page, "Framed")
    page.get_by_role("checkbox", name="yes 20").check()
    expect(tiles(page)).to_have_count(5)
    assert asked(page) == [("q", "dog"), ("is.maker.name", "Ann Lee"), ("is.framed", "true")]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove all").click()
    expect(tiles(page)).to_have_count(PAGE)


def test_a_range_takes_bounds_either_way_round(page: Page) -> None:
    open_filter(page, "Year")
    expect(page.get_by_role("dialog")).to_contain_text("from 1980 to 2019")
    page.get_by_label("From").fill("2005")
    page.get_by_label("To", exact=True).fill("2001")
    page.keyboard.press("Enter")
    expect(tiles(page)).to_have_count(5)
    expect(page.get_by_role("button", name="Remove the filter Year: 2001 to 2005")).to_be_visible()
    assert asked(page) == [("q", "dog"), ("from.year", "2001"), ("to.year", "2005")]
    open_filter(page, "Year")
    page.get_by_role("button", name="Any").click()
    expect(tiles(page)).to_have_count(PAGE)


def test_a_value_that_is_not_listed_can_be_typed(page: Page) -> None:
    open_filter(page, "Code")
    expect(page.get_by_role("searchbox", name="Find a value")).to_be_hidden()  # two values: both are listed
    page.get_by_role("checkbox", name="2010 5").check()
    expect(tiles(page)).to_have_count(5)
    assert ("is.code", '"2010"') in asked(page)  # the text, not the number


def test_a_shared_link_brings_its_filters_and_back_takes_them_away(visit: Visit) -> None:
    page = visit.go('/?q=dog&is.code="2010"&to.year=1982&item=shapes/nr%201.png')
    expect(page.get_by_role("dialog", name="Square 1")).to_be_visible()
    page.keyboard.press("Escape")
    expect(tiles(page)).to_have_count(3)
    expect(page.locator(".chip")).to_have_text(["Code: 2010", "Year: up to 1982"])
    page.get_by_role("button", name="Remove the filter Code: 2010").click()
    expect(tiles(page)).to_have_count(3)
    expect(page.locator(".chip")).to_have_count(1)
    page.go_back()
    expect(page.locator(".chip")).to_have_count(2)


def test_filters_stay_for_the_next_words_the_other_kind_and_an_image(visit: Visit) -> None:
    page = visit.go("/?q=dog&is.tags=fourth")
    search(page, "cat")
    expect(tiles(page)).to_have_count(10)
    page.get_by_role("radio", name="Texts").check()
    expect(page.locator("a.line-text")).to_have_count(10)
    give_file(page, "paste", png_bytes(), name="mine.png", mime="image/png")
    expect(page.locator("#answers-title")).to_have_text("Texts for your image")
    expect(page.locator("a.line-text")).to_have_count(10)
    page.get_by_role("radio", name="Images").check()
    expect(tiles(page)).to_have_count(10)
    tiles(page).first.click()
    page.get_by_role("link", name="More like it").click()
    expect(tiles(page)).to_have_count(9)  # and not itself


def test_when_nothing_passes_the_filters_one_press_removes_them(visit: Visit) -> None:
    page = visit.go("/?q=dog&is.tags=none+such")
    expect(page.locator("#notice")).to_contain_text("Nothing in the gallery passes these filters")
    expect(page.get_by_role("status")).to_contain_text("0 images")
    page.get_by_role("button", name="Remove the filters").click()
    expect(tiles(page)).to_have_count(PAGE)


def test_the_keyboard_alone_can_filter(page: Page) -> None:
    expect(page.locator("button.filter").first).to_be_visible()
    page.get_by_role("button", name="Tags", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("checkbox", name="square 40")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(tiles(page)).to_have_count(10)
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Year", exact=True)).to_be_focused()


def test_a_slash_is_a_letter_where_one_writes(page: Page) -> None:
    open_filter(page, "Year")
    page.get_by_label("From").press("/")
    expect(page.get_by_label("From")).to_be_focused()
    open_filter(page, "Tags")
    expect(page.get_by_role("checkbox", name="square 40")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="What should the images show?")).to_be_focused()
