"""Which pages and host names are let in, and what browsers are told about every answer."""

import shutil

import httpx
import pytest
from live_service import running
from pydantic import ValidationError
from starlette.datastructures import Headers

from service.access.origins import Origins, host_name
from service.app import WEB
from service.errors import Forbidden, SettingsError
from service.settings import Settings

APP, OTHER = "https://app.example", "https://evil.example"
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}


def test_cors_is_closed(client):
    answer = client.get("/release", headers={"origin": OTHER})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = client.options("/search/text", headers={"origin": OTHER, **ASKED})
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_what_browsers_send_across_sites_without_asking_is_refused(client):
    for site in ("cross-site", "same-site"):
        headers = {"origin": OTHER, "sec-fetch-site": site}
        refused = client.post("/release/reload", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")
        assert client.get("/release", headers=headers).status_code == 200  # which its page cannot read
    for site in ("same-origin", "none"):
        assert client.post("/release/reload", headers={"sec-fetch-site": site}).status_code == 200


def test_where_browsers_do_not_tell_the_site_the_origin_is_compared_with_the_host(client):
    """Over plain HTTP to an address that is not this machine's own there is no `sec-fetch-site`."""

    def status(origin: str, host: str, **more: str) -> int:
        headers = {
            "origin": origin,
            "host": host,
            **{name.replace("_", "-"): each for name, each in more.items()},
        }
        answer = client.post("/search/text", json={"query": "a"}, headers=headers)
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "cross_site"
        return answer.status_code

    for origin, host in (
        ("http://192.168.1.5:8000", "192.168.1.5:8000"),
        ("http://twinlens", "twinlens"),
        ("http://twinlens", "twinlens:80"),
        ("http://twinlens:80", "TWINLENS"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://twinlens", "twinlens"),  # a proxy took TLS off and does not say so
        ("https://twinlens:8443", "twinlens:8443"),
    ):
        assert status(origin, host) == 200, (origin, host)
    for origin in (
        "null",
        "",
        OTHER,
        "http://twinlens:8001",
        "http://twinlens.evil.example",
        "file://twinlens",
    ):
        assert status(origin, "twinlens:8000") == 403, origin
    # As a proxy says it; 127.0.0.1, which asks here, is trusted with the scheme.
    assert status("https://shop.example", "twinlens", x_forwarded_host="shop.example") == 200
    assert status("http://twinlens", "twinlens", x_forwarded_proto="https") == 403
    assert status("https://twinlens", "twinlens", x_forwarded_proto="https") == 200
    # What a browser does say goes first.
    assert status(OTHER, "twinlens", sec_fetch_site="same-origin") == 200
    assert status("http://twinlens", "twinlens", sec_fetch_site="same-site") == 403
    assert client.get("/release", headers={"origin": OTHER}).status_code == 200


@pytest.mark.parametrize("path", ["/release/reload", "/items/batch"])
def test_a_change_is_nothing_that_a_page_can_send_unasked(tmp_path, releases, settings_for, path):
    folder = shutil.copytree(releases, tmp_path / "releases")
    with running(settings_for(folder, live_changes=True)) as service:

        def asked(content: bytes = b"", **headers: str) -> tuple[int, str]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = service.client.post(path, content=content, headers=named)
            return answer.status_code, answer.json().get("error", {}).get("code", "")

        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "Text/Plain;x=y"):
            assert asked(b"a=b", content_type=kind) == (415, "unsupported_media_type")
            assert asked(b"a=b", content_type=kind, x_request_id="1") == (415, "unsupported_media_type")
        own = {"origin": "http://twinlens", "host": "twinlens"}
        for page in (own, {"referer": "http://twinlens/page"}):
            assert asked(**page) == (403, "cross_site")
            assert asked(b"{}", content_type="image/png", **page) == (403, "cross_site")
        good = 200 if path == "/release/reload" else 422  # nothing to put and nothing to delete
        assert asked(b"{}", content_type="application/json", **own)[0] == good
        if path == "/release/reload":
            assert asked(**own, x_requested_with="page") == (200, "")
            assert asked() == (200, "")  # curl


def test_cors_opens_to_exactly_the_origins_that_are_named(releases, settings_for):
    with running(settings_for(releases, cors_origins=(APP,))) as service:
        asked = service.client.options("/search/text", headers={"origin": APP, **ASKED})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == APP
        assert "access-control-allow-credentials" not in asked.headers
        crossing = {"origin": APP, "sec-fetch-site": "cross-site"}
        for answer in (
            service.client.post("/search/text", json={"query": "a"}, headers=crossing),
            service.client.get("/nope", headers=crossing),  # errors can be read too
        ):
            assert answer.headers["access-control-allow-origin"] == APP
            assert "retry-after" in answer.headers["access-control-expose-headers"]
        for origin in (OTHER, "null", "https://app.example.evil.example", "http://app.example"):
            assert service.client.options("/", headers={"origin": origin, **ASKED}).status_code == 400
            assert (
                "access-control-allow-origin" not in service.client.get("/", headers={"origin": origin}).headers
            )
            refused = service.client.post("/search/text", headers={**crossing, "origin": origin})
            assert refused.status_code == 403


@pytest.mark.parametrize(
    "origin", ["*", "app.example", "https://app.example/", "https://*.example", "null", "HTTPS://a"]
)
def test_what_is_no_exact_origin_is_refused_at_the_start(releases, settings_for, origin):
    with pytest.raises(ValidationError, match="is no origin: name each as"):
        settings_for(releases, cors_origins=(origin,))


def test_lists_in_variables_are_separated_by_commas_and_a_secret_is_never_told(monkeypatch):
    monkeypatch.setenv("TWINLENS_RELEASES", "r")
    monkeypatch.setenv("TWINLENS_CORS_ORIGINS", f"{APP}, http://localhost:3000,http://[::1]:80")
    monkeypatch.setenv("TWINLENS_ALLOWED_HOSTS", "search.example")
    settings = Settings.from_environment()
    assert settings.cors_origins == (APP, "http://localhost:3000", "http://[::1]:80")
    assert settings.allowed_hosts == ("search.example",)
    monkeypatch.setenv("TWINLENS_IMAGE_SECRET", "too short")
    with pytest.raises(SettingsError, match="TWINLENS_IMAGE_SECRET") as refused:
        Settings.from_environment()
    assert "too short" not in str(refused.value)


def test_a_name_that_a_stranger_can_register_does_not_reach_a_local_service(client):
    """DNS rebinding: such a name pointed to 127.0.0.1 would make a stranger's page this service's own."""
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "EVIL.example."):
        refused = client.get("/release", headers={"host": host})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "host_not_allowed")
        assert "TWINLENS_ALLOWED_HOSTS" in refused.json()["error"]["message"]
        assert client.get("/healthz", headers={"host": host}).status_code == 200
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "twinlens", "twinlens.localhost"):
        assert client.get("/release", headers={"host": host}).status_code == 200


def test_the_rule_on_host_names_holds_at_any_address_without_keys(releases, settings_for, tmp_path):
    def refused(**settings: object) -> list[str]:
        origins = Origins(settings_for(releases, host="0.0.0.0", **settings))  # noqa: S104 - nothing listens
        found = []
        for host in (
            "evil.example",
            "shop.example:443",
            "10.0.0.7:8000",
            "[fe80::1]:80",
            "api:8000",
            "a.local",
        ):
            try:
                origins.check("GET", Headers({"host": host}), scheme="http")
            except Forbidden:
                found.append(host)
        return found

    assert refused() == ["evil.example", "shop.example:443"]
    assert "evil.example" in refused(allowed_hosts=("shop.example",))
    assert "shop.example:443" not in refused(allowed_hosts=("shop.example",))
    assert refused(keys_file=tmp_path / "keys.json") == []


def test_named_hosts_are_the_only_ones(releases, settings_for):
    with running(settings_for(releases, allowed_hosts=("search.example",))) as service:
        ask = lambda host: service.client.get("/release", headers={"host": host}).status_code  # noqa: E731
        assert [
            ask("search.example"),
            ask("Search.Example:443"),
            ask("127.0.0.1"),
            ask("a.search.example"),
        ] == [
            200,
            200,
            403,
            403,
        ]


def test_host_names_are_read_without_port_and_brackets():
    assert [host_name(value) for value in ("A.b:80", "[::1]:80", "::", "", "a.")] == ["a.b", "::1", "", "", "a"]


def test_every_answer_forbids_guessing_framing_and_running(client):
    for answer in (
        client.get("/release"),
        client.get("/nope"),
        client.get("/static/app.js"),
        client.get("/metrics"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert (
            answer.headers["content-security-policy"]
            == "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
        )
    page = client.get("/")
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    policy = page.text.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert client.get("/docs").headers["content-security-policy"] == "frame-ancestors 'none'"


def test_nothing_of_the_page_comes_from_elsewhere():
    for file in WEB.iterdir():
        if file.suffix in {".html", ".js", ".css"}:
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
            assert "http://" not in text, file.name
            assert "https://" not in text, file.name


def test_behind_a_prefix_the_same_paths_are_open_and_the_same_are_not(releases, settings_for, tmp_path):
    from service.access.keys import create_key

    key = create_key(tmp_path / "keys.json", "shop", scopes=("read",))
    settings = settings_for(releases, root_path="/search-service", keys_file=tmp_path / "keys.json")
    with running(settings) as service:
        for prefix in ("", "/search-service"):  # taken off by the proxy, or left on
            ask = lambda path: service.client.get(prefix + path)  # noqa: B023, E731 - called at once
            assert [ask("/healthz").status_code, ask("/").status_code, ask("/static/app.js").status_code] == [
                200
            ] * 3
            assert ask("/release").status_code == 401
            found = service.client.get(f"{prefix}/release", headers={"x-api-key": key})
            assert found.status_code == 200
        assert httpx.get(f"{service.url}/search-service-not/healthz", trust_env=False).status_code == 401
