"""The search page in a real Chromium against the real service: what visitors do, and what must never be."""

import base64
import io
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright

from index.rebuild import RebuildSettings, rebuild
from index.sources import open_gallery
from service.app import create_app
from service.server import Server
from service.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--renderer-process-limit=1",  # a process for every test would cost more than the tests
]
PATIENCE_MS = 20_000  # never waited out where things work, however busy the machine
GALLERY_SIZE = 40
ODD_ID = "odd/ä b#c?d%20e+f&g.png"
HOSTILE_TITLE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
PAGE = 30  # answers the page asks for at once
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)


@pytest.fixture(scope="module")
def page_url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real service over a gallery of plain squares, one of a hostile title and one of an awkward id."""
    folder = tmp_path_factory.mktemp("page")
    rows = [{"image": f"shapes/nr {number}.png", "title": f"Square {number}"} for number in range(GALLERY_SIZE)]
    rows[3] = {"image": ODD_ID, "title": "Odd one"}
    rows[5]["title"] = HOSTILE_TITLE
    for number, row in enumerate(rows):
        path = folder / row["image"]
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 40), (6 * number, 100, 255 - 6 * number)).save(path)
    common = {"category": "shapes", "tags": ["square", "plain"]}
    table = "".join(json.dumps(row | common) + "\n" for row in rows)
    (folder / "items.jsonl").write_text(table, encoding="utf-8")
    releases = folder / "releases"
    rebuild(RebuildSettings(gallery=open_gallery(str(folder)), bundle=tiny_bundle, releases=releases))
    with served(Settings(releases=releases, port=0, device="cpu", torch_threads=1)) as url:
        yield url


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The service on a socket, in a thread of its own."""
    server = Server(create_app(settings), settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        assert server.started, "the service did not start; its log says why"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """One page and what went wrong on it. `allowed`: console errors that a test brings about itself."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.base_url = base_url
        self.allowed = "^$"
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self._complaints: list[str] = []
        self._addresses: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("request", lambda request: self._addresses.append(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self._complaints.append(text)

    def go(self, address: str = "/") -> Page:
        self.page.goto(self.base_url + address)
        return self.page

    def close(self) -> None:
        self.page.close()
        assert [text for text in self._complaints if not re.search(self.allowed, text)] == []
        assert [url for url in self._addresses if not url.startswith((self.base_url, "blob:"))] == []


@pytest.fixture(scope="module")
def desktop(browser: Browser) -> BrowserContext:
    """Shared, as the page keeps nothing outside its address and its tab; a cold cache each would cost more."""
    return browser.new_context(viewport={"width": 1000, "height": 640}, reduced_motion="reduce")


@pytest.fixture
def visit(desktop: BrowserContext, page_url: str) -> Iterator[Visit]:
    visit = Visit(desktop, page_url)
    yield visit
    visit.close()


@pytest.fixture
def phone(browser: Browser, page_url: str) -> Iterator[Visit]:
    visit = Visit(browser.new_context(**PHONE), page_url)
    yield visit
    visit.close()


def png_bytes(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "PNG")
    return buffer.getvalue()


def give_file(page: Page, event: str, data: bytes, *, name: str, mime: str) -> None:
    """Pastes or drops a file as the browser would: an event that carries it."""
    page.evaluate(
        """([event, base64, name, mime]) => {
            const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type: mime }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "paste"
                ? new ClipboardEvent(event, { ...options, clipboardData: carried })
                : new DragEvent(event, { ...options, dataTransfer: carried }));
        }""",
        [event, base64.b64encode(data).decode(), name, mime],
    )


def search(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#answers-title")).to_contain_text(text)


def tiles(page: Page) -> Locator:
    return page.locator("a.tile")


def wait_for_pictures(page: Page) -> None:
    """Until every picture in sight has come, whatever its id looks like."""
    page.wait_for_function(
        """() => [...document.images]
            .filter((each) => each.getClientRects().length && each.getBoundingClientRect().top < innerHeight)
            .every((each) => each.complete && each.naturalWidth)"""
    )


def test_a_text_shows_pictures_with_titles_and_scores(visit: Visit) -> None:
    page = visit.go()
    search(page, "a red square")
    expect(tiles(page)).to_have_count(PAGE)
    wait_for_pictures(page)
    assert "q=a+red+square" in page.url
    assert page.title().startswith("Pictures of “a red square”")
    first = tiles(page).first
    assert re.fullmatch(r"-?\d\.\d{3}", first.locator(".number").inner_text())
    assert first.locator("img").get_attribute("alt") == first.locator(".title").inner_text()
    expect(page.get_by_role("status")).to_contain_text("30 pictures")
    expect(page.locator("#answers-note")).to_contain_text("cosine similarity")


def test_more_brings_the_rest_once_and_only_once(visit: Visit) -> None:
    page = visit.go("/?q=dog")
    page.get_by_role("button", name="Show more").click()
    expect(tiles(page)).to_have_count(GALLERY_SIZE)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    ids = tiles(page).evaluate_all("links => links.map((link) => link.dataset.id)")
    assert len(set(ids)) == GALLERY_SIZE
    tiles(page).last.scroll_into_view_if_needed()
    wait_for_pictures(page)


def test_examples_show_what_the_gallery_answers(visit: Visit) -> None:
    page = visit.go()
    example = page.get_by_role("link", name="birthday cake")
    expect(example.locator("img")).to_have_count(4)
    example.click()
    expect(page.locator("#answers-title")).to_have_text("Pictures of “birthday cake”")
    expect(page.get_by_role("searchbox")).to_have_value("birthday cake")


def test_a_chosen_picture_finds_pictures_and_then_texts(visit: Visit) -> None:
    page = visit.go()
    page.get_by_label("Choose a picture to search with").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": png_bytes()}
    )
    expect(page.locator("#answers-title")).to_have_text("Pictures like yours")
    expect(tiles(page)).to_have_count(PAGE)
    page.get_by_role("radio", name="Texts").check()
    expect(page.locator("#answers-title")).to_have_text("Texts for your picture")
    expect(page.locator("a.line-text")).to_have_count(PAGE)
    wait_for_pictures(page)
    page.go_back()
    expect(page.locator("#answers-title")).to_have_text("Pictures like yours")
    expect(tiles(page)).to_have_count(PAGE)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_pasted_or_dropped_searches(visit: Visit, event: str) -> None:
    page = visit.go("/?q=dog")
    give_file(page, event, png_bytes("blue"), name="shot.png", mime="image/png")
    expect(page.locator("#answers-title")).to_have_text("Pictures like yours")
    expect(tiles(page)).to_have_count(PAGE)
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_a_dropped_file_that_is_no_picture_is_refused_by_name(visit: Visit) -> None:
    page = visit.go()
    give_file(page, "drop", b"hello", name="letter.txt", mime="text/plain")
    expect(page.get_by_role("alert")).to_contain_text("That is not a picture")
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
    expect(page.locator("#answers-title")).to_have_text("Pictures of “cat”")
    page.go_back()
    expect(page.locator("#answers-title")).to_have_text("Pictures of “dog”")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.go_forward()
    expect(page.locator("#answers-title")).to_have_text("Pictures of “dog”")
    expect(tiles(page)).to_have_count(PAGE)


def test_a_shared_link_restores_the_search_and_the_open_picture(visit: Visit) -> None:
    page = visit.go("/?q=red+car&in=texts")
    expect(page.get_by_role("searchbox")).to_have_value("red car")
    expect(page.get_by_role("radio", name="Texts")).to_be_checked()
    expect(page.locator("a.line-text")).to_have_count(PAGE)
    page.evaluate("id => { location.search = new URLSearchParams({ like: id }) }", ODD_ID)
    expect(page.locator("#answers-title")).to_have_text("More like “Odd one”")
    page.evaluate("id => { location.search = new URLSearchParams({ q: 'dog', item: id }) }", ODD_ID)
    expect(page.get_by_role("dialog", name="Odd one")).to_be_visible()
    wait_for_pictures(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert "item=" not in page.url
    expect(tiles(page)).to_have_count(PAGE)


def test_a_shared_picture_search_says_that_the_picture_stayed_behind(visit: Visit) -> None:
    page = visit.go("/?picture=elsewhere")
    expect(page.get_by_role("alert")).to_contain_text("That picture stayed behind")


def test_a_broken_picture_is_explained_in_plain_words(visit: Visit) -> None:
    visit.allowed = "status of 4"
    page = visit.go()
    give_file(page, "paste", png_bytes()[:40], name="cut.png", mime="image/png")
    expect(page.get_by_role("alert")).to_contain_text("That picture could not be read")
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
    expect(page.locator(".skeleton").first).to_be_visible()
    search(page, "cat")
    expect(tiles(page)).to_have_count(PAGE)
    held[0].fulfill(json={"results": [], "good_match": None, "truncated": False})
    page.wait_for_timeout(100)
    expect(page.locator("#answers-title")).to_have_text("Pictures of “cat”")
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


def test_a_phone_never_scrolls_sideways(phone: Visit) -> None:
    page = phone.go()
    expect(page.get_by_label("Take a picture to search with")).to_be_attached()
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


def test_the_footer_says_what_is_served(visit: Visit) -> None:
    page = visit.go()
    expect(page.locator("#release")).to_contain_text(f"{GALLERY_SIZE} pictures")
    expect(page.locator("#release")).to_contain_text("encoder tiny")
    expect(page.locator(".hint")).to_contain_text("The default encoder reads English")
    expect(page.get_by_role("link", name="API description")).to_have_attribute("href", "docs")
