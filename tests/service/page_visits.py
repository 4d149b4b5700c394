"""The search page in a real Chromium against the real service: fixtures for the tests of the page."""

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_service import publish, running
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from system_programs import needs, path_of

from service.settings import Settings

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--renderer-process-limit=1",  # a process for every test would cost more than the tests
    "--use-fake-device-for-media-stream",  # a camera that shows a moving pattern
]
PATIENCE_MS = 20_000  # never waited out where things work, however busy the machine
GALLERY_SIZE = 40
ODD_ID = "odd/ä b#c?d%20e+f&g.png"
HOSTILE_TITLE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
LONG_TITLE = "A square of " + "very " * 400 + "plain colour"
HEBREW_TITLE = "ריבוע צבעוני פשוט"
PAGE = 30  # answers the page asks for at once
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}

needs_browser = needs("a browser")


def write_squares(folder: Path) -> Path:
    """40 plain squares with fields to filter by; among them awkward titles and an awkward id."""
    rows = []
    for number in range(GALLERY_SIZE):
        row = {
            "image": f"shapes/nr {number}.png",
            "title": f"Square {number}",
            "category": "shapes",
            "tags": ["square", "plain"] if number % 4 else ["square", "fourth"],
            "year": 1980 + number,
            "framed": number % 2 == 0,
            "maker": {"name": "Ann Lee" if number < 10 else "Bo"},
            "code": "2010" if number < 5 else "x",
        }
        rows.append(row)
    rows[3] |= {"image": ODD_ID, "title": "Odd one"}
    for number, title in ((5, HOSTILE_TITLE), (7, LONG_TITLE), (9, HEBREW_TITLE)):
        rows[number]["title"] = title
    for number, row in enumerate(rows):
        path = folder / str(row["image"])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40), (6 * number, 100, 255 - 6 * number)).save(path)
    table = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "items.jsonl").write_text(table, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="session")
def page_releases(tmp_path_factory: pytest.TempPathFactory, squares: Path, tiny_bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("page")
    publish(folder, squares, tiny_bundle)
    return folder


@pytest.fixture(scope="session")
def page_url(page_releases: Path, settings_for: Callable[..., Settings]) -> Iterator[str]:
    with running(settings_for(page_releases)) as started:
        yield started.url


@contextmanager
def launched(*more: str) -> Iterator[Browser]:
    """A Chromium; `more`: what else to tell it on its command line."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path_of("a browser"), args=[*ARGUMENTS, *more])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as chromium:
        yield chromium


class Visit:
    """One page and what went wrong on it. `allowed`: console errors that a test brings about itself."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.base_url = base_url
        self.allowed = "^$"
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.addresses: list[str] = []
        self._complaints: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self._complaints.append(text)

    def go(self, address: str = "/") -> Page:
        self.page.goto(self.base_url + address)
        return self.page

    def close(self) -> None:
        self.page.close()
        assert [text for text in self._complaints if not re.search(self.allowed, text)] == []
        assert [url for url in self.addresses if not url.startswith((self.base_url, "blob:"))] == []


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


def wait_until(page: Page, expression: str) -> None:
    """Until JavaScript's `expression` is true.

    Not `page.wait_for_function`: from its second look on the page's own policy refuses it, as an eval.
    """
    patience = time.monotonic() + PATIENCE_MS / 1_000
    while not page.evaluate(expression):
        assert time.monotonic() < patience, f"never true: {expression}"
        page.wait_for_timeout(20)


def wait_for_images(page: Page) -> None:
    """Until every image in sight has come, whatever its id looks like."""
    wait_until(
        page,
        """[...document.images]
            .filter((each) => each.getClientRects().length && each.getBoundingClientRect().top < innerHeight)
            .every((each) => each.complete && each.naturalWidth)""",
    )
