"""The page for everybody: keyboard, screen reader, phone, zoom, either colours, any script."""

from typing import Any

import pytest
from page_visits import HEBREW_TITLE, LONG_TITLE, PAGE, PHONE, Visit, needs_browser, tiles, wait_for_images
from playwright.sync_api import Browser, expect

pytestmark = needs_browser
VIEWS = ("/", "/?q=dog&is.tags=plain", "/?q=dog&in=texts", "/?like=gone.png", "/static/release.html")
READY = "a.example img, a.tile, a.line-text, .problem, #served .facts"

# Every text in sight against what lies behind it: WCAG 2's contrast ratio, with transparency blended.
TOO_FAINT = """() => {
    const numbers = (color) => {
        const canvas = document.createElement("canvas");
        const pen = canvas.getContext("2d", { willReadFrequently: true });
        canvas.width = canvas.height = 1;
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = color;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
    const behind = (element) => {
        const layers = [];
        for (let each = element; each; each = each.parentElement) {
            layers.push(numbers(getComputedStyle(each).backgroundColor));
            if (layers.at(-1)[3] === 1) break;
        }
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const light = (rgb) => {
        const linear = (c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        const [r, g, b] = rgb.map((each) => linear(each / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const faint = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        const element = text.parentElement;
        const isSeen = text.data.trim() && element.checkVisibility();
        if (!isSeen || element.closest("svg, .unseen, :disabled")) continue;
        const style = getComputedStyle(element);
        const ground = behind(element);
        const [a, b] = [light(over(numbers(style.color), ground)), light(ground)].sort((x, y) => y - x);
        const size = parseFloat(style.fontSize);
        const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
        const ratio = (a + .05) / (b + .05);
        if (ratio < least) faint.push(`${ratio.toFixed(2)} ${text.data.trim().slice(0, 40)}`);
    }
    return faint;
}"""

UNNAMED = """() => [...document.querySelectorAll("a, button, input, img, dialog, section, [role=img], .table")]
    .filter((each) => each.checkVisibility() && !each.closest("[aria-hidden=true]"))
    .filter((each) => !each.ariaLabel && !each.labels?.length && each.alt === undefined)
    .filter((each) => !each.textContent.trim() && !each.querySelector("img[alt]"))
    .filter((each) => !each.getAttribute("aria-labelledby"))
    .map((each) => each.outerHTML.slice(0, 120))"""


def test_a_phone_never_scrolls_sideways(phone: Visit) -> None:
    page = phone.go()
    expect(page.get_by_label("Take a photo to search with")).to_be_attached()
    for address in ("/", "/?q=dog", "/?q=dog&in=texts", "/?q=" + "w" * 200, "/?like=gone.png"):
        phone.allowed = "status of 404"
        phone.go(address)
        expect(page.locator("a.example, a.tile, a.line-text, .problem").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"], address
    phone.go("/?q=dog")
    tiles(page).first.tap()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= PHONE["viewport"]["width"]


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.go()
    page.keyboard.press("/")
    page.keyboard.type("dog")
    page.keyboard.press("Enter")
    expect(tiles(page)).to_have_count(PAGE)
    page.keyboard.press("ArrowDown")
    expect(tiles(page).nth(0)).to_be_focused()
    columns = page.evaluate(
        "getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length"
    )
    page.keyboard.press("ArrowDown")
    expect(tiles(page).nth(columns)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(tiles(page).nth(columns + 2)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("searchbox")).to_be_focused()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_stands_out_and_every_control_has_a_name(
    browser: Browser, page_url: str, colours: Any
) -> None:
    visit = Visit(browser.new_context(color_scheme=colours), page_url)
    visit.allowed = "status of 404"
    for address in VIEWS:
        page = visit.go(address)
        expect(page.locator(READY).first).to_be_visible()
        assert page.evaluate(TOO_FAINT) == [], address
        assert page.evaluate(UNNAMED) == [], address
        assert page.locator("h1").count() == 1
    visit.go("/?q=dog").get_by_role("button", name="Tags").click()
    assert page.evaluate(TOO_FAINT) == []
    visit.go("/?q=dog")
    tiles(page).first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(TOO_FAINT) == []
    assert page.evaluate(UNNAMED) == []
    visit.close()


def test_the_colours_follow_the_device_until_the_visitor_chooses(browser: Browser, page_url: str) -> None:
    visit = Visit(browser.new_context(color_scheme="dark"), page_url)
    page = visit.go()
    dark, light = "rgb(19, 21, 22)", "rgb(250, 248, 245)"
    expect(page.locator("body")).to_have_css("background-color", dark)
    page.get_by_role("radio", name="Light").check()
    expect(page.locator("body")).to_have_css("background-color", light)
    visit.go("/static/release.html")
    expect(page.locator("body")).to_have_css("background-color", light)
    expect(page.get_by_role("radio", name="Light")).to_be_checked()
    page.get_by_role("radio", name="Auto").check()
    expect(page.locator("body")).to_have_css("background-color", dark)
    visit.close()


def test_controls_are_as_large_as_a_thumb(phone: Visit) -> None:
    small = """() => [...document.querySelectorAll("a, button, label:has(input), summary")]
        .filter((each) => each.checkVisibility() && !each.closest(".unseen, .skip, #problem p"))
        .map((each) => [each.getBoundingClientRect(), each.outerHTML.slice(0, 80)])
        .filter(([box]) => box.width && (box.height < 40 || box.width < 40)).map(([, markup]) => markup)"""
    for address in ("/", "/?q=dog&is.tags=plain", "/?q=dog&in=texts", "/static/release.html"):
        page = phone.go(address)
        expect(page.locator(READY).first).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert page.evaluate(small) == [], address
    phone.go("/?q=dog")
    page.get_by_role("button", name="Tags").tap()
    expect(page.get_by_role("checkbox", name="plain")).to_be_visible()
    assert page.evaluate(small) == []
    tags = page.locator("#filter-panel").bounding_box()
    assert tags is not None
    assert tags["y"] + tags["height"] == PHONE["viewport"]["height"]  # a sheet where the thumb is


def test_at_twice_the_size_nothing_is_cut_off(browser: Browser, page_url: str) -> None:
    visit = Visit(browser.new_context(viewport={"width": 500, "height": 320}), page_url)  # 1000 × 640 at 200 %
    visit.allowed = "status of 404"
    for address in VIEWS:
        page = visit.go(address)
        expect(page.locator(READY).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 500, address
    visit.go("/?q=dog")
    tiles(page).first.click()
    page.get_by_role("link", name="More like it").click()  # can be scrolled to, and is not covered
    expect(page.locator("#answers-title")).to_contain_text("More like")
    visit.close()


def test_a_dialog_keeps_the_focus_in_and_gives_it_back(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    tiles(page).nth(2).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_be_focused()
    shown = page.url
    page.keyboard.press("Alt+ArrowRight")  # the browser's own, and no step to the next answer
    assert page.url == shown
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(tiles(page).nth(2)).to_be_focused()


def test_what_was_found_is_announced(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    expect(page.get_by_role("status")).to_have_text("30 images. Images of “dog”.")
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("status")).to_have_text("40 images. Images of “dog”.")
    expect(page.get_by_role("search")).to_be_visible()
    for landmark in ("banner", "main", "contentinfo"):
        expect(page.get_by_role(landmark)).to_have_count(1)


def test_nothing_jumps_while_answers_and_images_come(browser: Browser, page_url: str) -> None:
    visit = Visit(browser.new_context(viewport={"width": 1000, "height": 640}), page_url)
    visit.page.add_init_script(
        """window.jumped = 0;
        new PerformanceObserver((list) => {
            for (const each of list.getEntries()) if (!each.hadRecentInput) window.jumped += each.value;
        }).observe({ type: "layout-shift", buffered: true });"""
    )
    for address in ("/?q=dog", "/"):
        page = visit.go(address)
        expect(page.locator("a.example img, a.tile").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        wait_for_images(page)
        assert page.evaluate("window.jumped") < 0.02, address
    lazy = visit.go("/?q=dog").locator("a.tile img")
    assert lazy.evaluate_all("all => all.every((each) => each.loading === 'lazy' && each.decoding === 'async')")
    visit.close()


def test_motion_stops_for_who_asks_for_none(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    moving = """() => document.querySelector(".frame") && [...document.querySelectorAll("*")]
        .filter((each) => parseFloat(getComputedStyle(each).transitionDuration) > 0).length"""
    expect(tiles(page).first).to_be_visible()
    assert page.evaluate(moving) == 0


def test_titles_of_any_length_and_script_stay_in_their_place(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    page.get_by_role("button", name="Show more").click()
    expect(tiles(page)).to_have_count(PAGE + 10)
    heights = tiles(page).evaluate_all("all => [...new Set(all.map((each) => each.offsetHeight))]")
    assert len(heights) == 1
    hebrew = tiles(page).filter(has_text=HEBREW_TITLE).locator(".title")
    assert hebrew.evaluate("each => getComputedStyle(each).direction") == "rtl"
    tiles(page).filter(has_text=LONG_TITLE[:40]).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_contain_text("very very")
    expect(dialog.get_by_role("link", name="More like it")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
