"""Searching on the page, as visitors do: words, images, more like this; back, forward and shared links."""

import re

import pytest
from page_visits import (
    GALLERY_SIZE,
    HOSTILE_TITLE,
    ODD_ID,
    PAGE,
    Visit,
    give_file,
    needs_browser,
    png_bytes,
    search,
    tiles,
    wait_for_images,
    wait_until,
)
from playwright.sync_api import Browser, Route, expect

pytestmark = needs_browser


def test_a_text_shows_images_with_titles_and_scores(visit: Visit) -> None:
    page = visit.go()
    search(page, "a red square")
    expect(tiles(page)).to_have_count(PAGE)
    wait_for_images(page)
    assert "q=a+red+square" in page.url
    assert page.title().startswith("Images of “a red square”")
    first = tiles(page).first
    assert re.fullmatch(r"-?\d\.\d{3}", first.locator(".number").inner_text())
    assert first.locator("img").get_attribute("alt") == first.locator(".title").inner_text()
    expect(page.get_by_role("status")).to_contain_text("30 images")
    expect(page.locator("#answers-note")).to_contain_text("cosine similarity")


def test_more_brings_the_rest_once_and_only_once(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    page.get_by_role("button", name="Show more").click()
    expect(tiles(page)).to_have_count(GALLERY_SIZE)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    ids = tiles(page).evaluate_all("links => links.map((link) => link.dataset.id)")
    assert len(set(ids)) == GALLERY_SIZE
    tiles(page).last.scroll_into_view_if_needed()
    wait_for_images(page)


def test_examples_show_what_the_gallery_answers(visit: Visit) -> None:
    page = visit.go()
    example = page.get_by_role("link", name="birthday cake")
    expect(example.locator("img")).to_have_count(4)
    example.click()
    expect(page.locator("#answers-title")).to_have_text("Images of “birthday cake”")
    expect(page.get_by_role("searchbox")).to_have_value("birthday cake")


def test_a_chosen_image_finds_images_and_then_texts(visit: Visit) -> None:
    page = visit.go()
    page.get_by_label("Choose an image to search with").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": png_bytes()}
    )
    expect(page.locator("#answers-title")).to_have_text("Images like yours")
    expect(tiles(page)).to_have_count(PAGE)
    page.get_by_role("radio", name="Texts").check()
    expect(page.locator("#answers-title")).to_have_text("Texts for your image")
    expect(page.locator("a.line-text")).to_have_count(PAGE)
    wait_for_images(page)
    page.go_back()
    expect(page.locator("#answers-title")).to_have_text("Images like yours")
    expect(tiles(page)).to_have_count(PAGE)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_an_image_pasted_or_dropped_searches(visit: Visit, event: str) -> None:
    page = visit.go("/?q=dog")
    give_file(page, event, png_bytes("blue"), name="shot.png", mime="image/png")
    expect(page.locator("#answers-title")).to_have_text("Images like yours")
    expect(tiles(page)).to_have_count(PAGE)
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_a_dropped_file_that_is_no_image_is_refused_by_name(visit: Visit) -> None:
    page = visit.go()
    give_file(page, "drop", b"hello", name="letter.txt", mime="text/plain")
    expect(page.get_by_role("alert")).to_contain_text("That is not an image")
    expect(page.get_by_role("alert")).to_contain_text("letter.txt")


def test_a_result_opens_large_and_leads_to_more_like_it(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    title = tiles(page).nth(1).locator(".title").inner_text()
    tiles(page).nth(1).click()
    dialog = page.get_by_role("dialog", name=title)
    expect(dialog).to_be_visible()
    expect(dialog.locator("dl")).to_contain_text("Cosine similarity")
    expect(dialog.locator("dl")).to_contain_text("shapes")
    dialog.get_by_role("link", name="More like it").click()
    expect(page.locator("#answers-title")).to_have_text(f"More like “{title}”")
    expect(dialog).to_be_hidden()
    expect(tiles(page)).to_have_count(PAGE)
    page.go_back()
    expect(dialog).to_be_visible()
    dialog.get_by_role("link", name="Texts for it").click()
    expect(page.locator("#answers-title")).to_have_text(f"Texts for “{title}”")
    expect(page.locator("a.line-text")).to_have_count(PAGE)


def test_back_and_forward_walk_through_the_searches(visit: Visit) -> None:
    page = visit.go()
    for text in ("dog", "cat"):
        search(page, text)
    tiles(page).first.click()
    page.get_by_role("button", name="Next answer").click()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#answers-title")).to_have_text("Images of “cat”")
    page.go_back()
    expect(page.locator("#answers-title")).to_have_text("Images of “dog”")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.go_forward()
    expect(page.locator("#answers-title")).to_have_text("Images of “dog”")
    expect(tiles(page)).to_have_count(PAGE)


def test_a_shared_link_restores_the_search_and_the_open_image(visit: Visit) -> None:
    page = visit.go("/?q=red+car&in=texts")
    expect(page.get_by_role("searchbox")).to_have_value("red car")
    expect(page.get_by_role("radio", name="Texts")).to_be_checked()
    expect(page.locator("a.line-text")).to_have_count(PAGE)
    page.evaluate("id => { location.search = new URLSearchParams({ like: id }) }", ODD_ID)
    expect(page.locator("#answers-title")).to_have_text("More like “Odd one”")
    page.evaluate("id => { location.search = new URLSearchParams({ q: 'dog', item: id }) }", ODD_ID)
    expect(page.get_by_role("dialog", name="Odd one")).to_be_visible()
    wait_for_images(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert "item=" not in page.url
    expect(tiles(page)).to_have_count(PAGE)


def test_a_shared_image_search_says_that_the_image_stayed_behind(visit: Visit) -> None:
    page = visit.go("/?image=elsewhere")
    expect(page.get_by_role("alert")).to_contain_text("That image stayed behind")


def test_a_late_answer_never_covers_a_newer_one(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if "slowly" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/search/text", hold_the_first)
    search(page, "slowly")
    expect(page.locator("#grid .skeleton").first).to_be_visible()
    search(page, "cat")
    expect(tiles(page)).to_have_count(PAGE)
    held[0].fulfill(json={"results": [], "good_match": None, "truncated": False})
    page.wait_for_timeout(100)
    expect(page.locator("#answers-title")).to_have_text("Images of “cat”")
    expect(tiles(page)).to_have_count(PAGE)


def test_a_text_that_was_cut_says_so(visit: Visit) -> None:
    page = visit.go()
    search(page, "dog and cat on the red car with a blue circle and a green square of yellow light")
    expect(page.locator("#notice")).to_contain_text("only its beginning was searched")


def test_a_hostile_title_is_only_text(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    page.get_by_role("button", name="Show more").click()
    tile = tiles(page).filter(has_text="<img")
    expect(tile.locator(".title")).to_have_text(HOSTILE_TITLE)
    tile.click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(HOSTILE_TITLE)
    page.get_by_role("link", name="Texts for it").click()
    expect(page.locator("a.line-text", has_text="<img").first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[onerror], script:not([src])").count() == 0


def test_the_footer_says_what_is_served(visit: Visit) -> None:
    page = visit.go()
    expect(page.locator("#release")).to_contain_text(f"{GALLERY_SIZE} images")
    expect(page.locator("#release")).to_contain_text("encoder tiny")
    expect(page.locator(".hint")).to_contain_text("The default encoder reads English")
    expect(page.get_by_role("link", name="API description")).to_have_attribute("href", "docs")


def test_the_camera_takes_an_image_and_is_switched_off(browser: Browser, page_url: str) -> None:
    visit = Visit(browser.new_context(permissions=["camera"]), page_url)
    page = visit.go()
    page.get_by_role("button", name="Take a photo with the camera").click()
    page.get_by_role("button", name="Take the photo", disabled=False).click()
    expect(page.locator("#answers-title")).to_have_text("Images like yours")
    expect(tiles(page)).to_have_count(PAGE)
    assert page.evaluate("document.querySelector('video').srcObject") is None
    visit.close()


def test_a_camera_that_was_asked_for_twice_is_switched_off_twice(browser: Browser, page_url: str) -> None:
    visit = Visit(browser.new_context(permissions=["camera"]), page_url)
    visit.page.add_init_script(
        """window.streams = [];
        const media = navigator.mediaDevices;
        const ask = media.getUserMedia.bind(media);
        const allowed = new Promise((resolve) => { window.allow = resolve; });
        media.getUserMedia = async (wish) => {
            const stream = await ask(wish);
            streams.push(stream);
            await allowed; // as while the browser asks the visitor
            return stream;
        };"""
    )
    page = visit.go()
    for _ in range(2):
        page.get_by_role("button", name="Take a photo with the camera").click()
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Take a photo with the camera").click()
    wait_until(page, "streams.length === 3")
    page.evaluate("allow()")
    expect(page.get_by_role("button", name="Take the photo", disabled=False)).to_be_visible()
    assert page.locator("#shoot [role=alert]").inner_text() == ""
    page.keyboard.press("Escape")
    tracks = "streams.flatMap((each) => each.getTracks())"
    wait_until(page, f"{tracks}.every((each) => each.readyState === 'ended')")
    visit.close()


def test_a_camera_that_may_not_be_used_says_what_else_to_do(visit: Visit) -> None:
    page = visit.go()
    page.get_by_role("button", name="Take a photo with the camera").click()
    dialog = page.get_by_role("dialog", name="Search with the camera")
    expect(dialog.get_by_role("alert")).to_contain_text("choose an image instead")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Take a photo with the camera")).to_be_focused()


def test_one_search_is_one_request_and_the_examples_are_one_too(visit: Visit) -> None:
    page = visit.go()
    expect(page.locator("a.example img").first).to_be_attached()
    search(page, "dog")
    expect(tiles(page)).to_have_count(PAGE)
    asked = [url.removeprefix(visit.base_url) for url in visit.addresses if "/search/" in url]
    assert asked == ["/search/batch", "/search/text"]


def test_the_examples_are_no_queries_of_anybody(visit: Visit) -> None:
    def seen() -> int:
        return visit.page.request.get(f"{visit.base_url}/drift").json()["reports"][0]["seen"]

    before = seen()
    page = visit.go()
    expect(page.locator("a.example img").first).to_be_attached()
    assert seen() == before
    search(page, "dog")
    expect(tiles(page)).to_have_count(PAGE)
    assert seen() == before + 1
