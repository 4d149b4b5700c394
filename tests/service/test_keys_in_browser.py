"""Keys and origins as a real Chromium keeps to them: the page with a key, and pages of other sites."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from live_service import Running, running
from page_visits import PATIENCE_MS, launched, needs_browser, wait_until
from playwright.sync_api import Browser, expect

from service.access.keys import create_key
from service.access.passes import COOKIE

REBOUND = "rebound.example"  # a stranger's name that points to this machine
PLAIN = "gallery"  # over plain HTTP to such a name, browsers do not say which site a page is of
ARGUMENTS = (
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1,MAP {PLAIN} 127.0.0.1",
    # Not every browser keeps strangers' pages off this machine by itself, as the newest ones do.
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
)
ELSEWHERE = "http://elsewhere.localhost:9/"

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(*ARGUMENTS) as chromium:
        yield chromium


def test_the_page_asks_for_a_key_once_and_shows_images_with_it(browser, releases, settings_for, tmp_path):
    key = create_key(tmp_path / "keys.json", "shop", scopes=("read",))
    with running(settings_for(releases, keys_file=tmp_path / "keys.json")) as service:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(f"{service.url}/?q=dog")
        asked = page.get_by_label("API key")
        for given in ("tl_wrong", key):
            expect(asked).to_be_visible()
            asked.fill(given)
            asked.press("Enter")
            expect(page.locator("#problem").get_by_text("A key is needed")).to_have_count(int(given != key))
        tiles = page.locator("a.tile img")
        expect(tiles.first).to_be_visible()
        wait_until(page, "document.querySelector('a.tile img').naturalWidth > 0")
        page.reload()
        expect(tiles.first).to_be_visible()
        wait_until(page, "document.querySelector('a.tile img').naturalWidth > 0")
        expect(asked).to_have_count(0)
        assert not [address for address in addresses if key in address]
        assert page.evaluate("[document.cookie, JSON.stringify(localStorage)]") == ["", "{}"]
        assert page.evaluate("Object.values(sessionStorage)") == [key]
        (cookie,) = context.cookies(service.url + "/images/")
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
        assert context.cookies(service.url + "/search/text") == []
        context.close()


def test_a_page_of_another_site_can_neither_read_nor_change_anything(browser, releases, settings_for):
    with running(settings_for(releases)) as service:
        page = browser.new_page()
        page.route(ELSEWHERE, lambda route: route.fulfill(body="<p>elsewhere</p>", content_type="text/html"))
        page.goto(ELSEWHERE)
        fetched = "([url, options]) => fetch(url, options).then((answer) => answer.type, () => 'refused')"
        for options in ({}, {"method": "POST"}):
            assert page.evaluate(fetched, [f"{service.url}/release", options]) == "refused"
        sent = {"method": "POST", "mode": "no-cors"}
        assert page.evaluate(fetched, [f"{service.url}/release/reload", sent]) == "opaque"  # it was sent …
        assert counted(service, "cross_site") == 2  # … and not done, nor was the POST before it
        page.evaluate(
            f"document.body.append(Object.assign(document.createElement('iframe'), {{src: '{service.url}/'}}))"
        )
        wait_until(page, "frames.length === 1")
        assert page.frames[1].locator("#query").count() == 0
        page.close()


def test_over_plain_http_the_page_works_and_another_sites_changes_nothing(browser, releases, settings_for):
    with running(settings_for(releases)) as service:
        port = urlsplit(service.url).port
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        with page.expect_request(lambda request: request.method == "POST") as asked:
            page.goto(f"http://{PLAIN}:{port}/?q=dog")
        assert "sec-fetch-site" not in asked.value.all_headers()
        assert asked.value.all_headers()["origin"] == f"http://{PLAIN}:{port}"
        expect(page.locator("a.tile").first).to_be_visible()
        other = f"http://{PLAIN}-not:9/"
        page.route(other, lambda route: route.fulfill(body="<p>elsewhere</p>", content_type="text/html"))
        reload = f"http://{PLAIN}:{port}/release/reload"
        fetched = "([url, options]) => fetch(url, options).then((answer) => answer.type, () => 'refused')"
        page.goto(other)
        for mode, expected in (("no-cors", "opaque"), ("cors", "refused")):
            sent = {"method": "POST", "mode": mode, "headers": {"content-type": "text/plain"}}
            assert page.evaluate(fetched, [reload, sent]) == expected
        form = f'<form method="post" action="{reload}"><input name="a"></form>'
        page.evaluate("(form) => { document.body.innerHTML = form; }", form)
        with page.expect_response(reload) as answered:
            page.evaluate("setTimeout(() => document.forms[0].submit())")
        assert answered.value.status == 403
        assert counted(service, "cross_site") == 3
        page.close()


def test_a_strangers_name_that_points_here_shows_nothing(browser, releases, settings_for):
    with running(settings_for(releases)) as service:
        page = browser.new_page()
        answer = page.goto(f"http://{REBOUND}:{urlsplit(service.url).port}/release")
        assert answer.status == 403
        assert answer.json()["error"]["code"] == "host_not_allowed"
        page.close()


def counted(service: Running, cause: str) -> float:
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if f'cause="{cause}"' in line and "_total" in line)
