"""`/docs`: Swagger UI from files that come with the service, under a policy that lets in nothing else."""

import json
import re

from live_service import running
from page_visits import Visit, needs_browser
from playwright.sync_api import Browser, expect


def test_all_that_the_page_names_comes_from_the_service_itself(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"static/swagger-ui-bundle.js", "static/swagger-ui.css", "openapi.json"} <= set(named)
    for address in named:
        assert client.get(f"/{address}").status_code == 200, address


@needs_browser
def test_every_call_is_listed_and_can_be_tried_without_internet(visit: Visit) -> None:
    page = visit.go("/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    described = json.loads(page.request.get(f"{visit.base_url}/openapi.json").text())
    calls = sum(len(methods) for methods in described["paths"].values())
    expect(page.locator(".opblock")).to_have_count(calls)

    block = page.locator(".opblock", has=page.get_by_text("/search/text", exact=True))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer.locator(".highlight-code")).to_contain_text("model_fingerprint")


@needs_browser
def test_the_page_works_under_a_prefix_too(browser: Browser, page_releases, settings_for) -> None:
    with running(settings_for(page_releases, root_path="/gallery")) as service:
        visit = Visit(browser.new_context(), service.url)
        page = visit.go("/gallery/docs")
        expect(page.locator(".opblock").first).to_be_visible()
        visit.close()
