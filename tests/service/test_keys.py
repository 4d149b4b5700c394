"""API keys: how they are kept, and whom they let in."""

import hashlib
import re
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from live_service import ROOT, running, wait_until

from service.access.access import Access
from service.access.keys import Keyring, create_key, read_keys, revoke_key
from service.access.passes import COOKIE, PASS_SECONDS, Passes
from service.errors import KeyFileError

QUERY = {"query": "a red dog", "k": 1}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "keys.json"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "service", "keys", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_command_shows_a_key_once_and_keeps_its_digest_in_a_file_of_its_owner_alone(keys_file):
    made = command(
        "create", "--name", "shop", "--scope", "read", "--expires", "2099-01-02", "--file", keys_file
    )
    key = made.stdout.strip()
    assert re.fullmatch(r"tl_[A-Za-z0-9_-]{43}", key)
    assert key not in made.stderr
    content = keys_file.read_text()
    assert key not in content
    assert hashlib.sha256(key.encode()).hexdigest() in content
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600
    listed = command("list", "--file", keys_file).stdout
    assert re.fullmatch(r"shop  read  expires 2099-01-02 00:00 UTC  created \d{4}-\d\d-\d\d\n", listed)
    again = command("create", "--name", "shop", "--scope", "write", "--file", keys_file)
    assert (again.returncode, again.stdout) == (1, "")
    assert "has a key 'shop' already: revoke it first" in again.stderr
    assert command("revoke", "--name", "shop", "--file", keys_file).returncode == 0
    assert read_keys(keys_file) == ()


@pytest.mark.parametrize("expires", ["2025-01-02", "2026-01-02T03:04:05"])
def test_a_key_that_would_have_expired_already_is_not_made(keys_file, expires):
    made = command("create", "--name", "shop", "--scope", "read", "--expires", expires, "--file", keys_file)
    assert (made.returncode, made.stdout, keys_file.exists()) == (1, "", False)
    assert f"keys: expires = {expires.replace('T', ' ')}" in made.stderr
    assert "UTC lies in the past (it is 20" in made.stderr


def test_keys_made_at_once_are_all_kept(keys_file):
    with ThreadPoolExecutor(8) as makers:
        secrets = list(makers.map(lambda n: create_key(keys_file, f"key{n}", scopes=("read",)), range(16)))
    keyring = Keyring.of(read_keys(keys_file))
    assert {keyring.find(secret).name for secret in secrets} == {f"key{n}" for n in range(16)}
    assert keyring.find(secrets[0] + "A") is None
    assert [path.name for path in keys_file.parent.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file: Invalid JSON"),
        (b"{", "the file: Invalid JSON"),
        (b'{"keys": [{"name": "a", "scopes": ["read"]}]}', r"keys\.0\.sha256: Field required"),
        (b'{"keys": [{"name": "a", "scopes": ["read"], "sha256": "tl_secret"}]}', r"sha256: String should"),
        (b'{"keys": [{"name": "a", "scopes": ["all"], "sha256": "%s"}]}' % (b"0" * 64), r"'read' or 'write'"),
        (b'{"keys": [{"name": "a", "scopes": [], "sha256": "%s"}]}' % (b"0" * 64), "at least 1 item"),
        (b'{"keys": [], "key": 1}', "key: Extra inputs"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_keys_is_refused_with_the_place_and_without_what_stands_there(
    keys_file, content, words
):
    keys_file.parent.mkdir()
    keys_file.write_bytes(content)
    with pytest.raises(KeyFileError, match=words) as refused:
        read_keys(keys_file)
    assert "tl_secret" not in str(refused.value)
    with pytest.raises(KeyFileError):  # nor does a command write over it
        create_key(keys_file, "b", scopes=("read",))
    assert keys_file.read_bytes() == content


def test_what_is_not_there_is_said_with_the_command_that_makes_it(keys_file, releases, settings_for):
    with pytest.raises(KeyFileError, match=r"no file of keys at .*`python -m service keys create"):
        Access(settings_for(releases, keys_file=keys_file))
    create_key(keys_file, "shop", scopes=("read",))
    with pytest.raises(KeyFileError, match="has no key 'shoe'; it has shop"):
        revoke_key(keys_file, "shoe")
    with pytest.raises(KeyFileError, match="name = 'two words' is not taken"):
        create_key(keys_file, "two words", scopes=("read",))


@pytest.fixture(scope="module")
def guarded(releases, settings_for, tmp_path_factory):
    """A service with keys: (service, {name: key})."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {
        "reader": create_key(file, "reader", scopes=("read",)),
        "writer": create_key(file, "writer", scopes=("write",)),
        "single": create_key(file, "single", scopes=("read",), max_concurrent=1),
        "late": create_key(file, "late", scopes=("write",), expires=datetime(2999, 12, 31, tzinfo=UTC)),
    }
    file.write_text(file.read_text().replace("2999-12-31", "2026-01-02"))  # as time does
    with running(settings_for(releases, keys_file=file)) as service:
        yield service, keys


def test_a_key_is_needed_for_everything_but_probes_and_the_pages_own_files(guarded):
    client = guarded[0].client
    for path in ("/healthz", "/readyz", "/", "/static/app.js", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    for method, path in [
        ("POST", "/search/text"),
        ("POST", "/embed/image"),
        ("GET", "/v1/models"),
        ("GET", "/release"),
        ("GET", "/metrics"),
        ("GET", "/items/a"),
        ("GET", "/images/a"),
        ("POST", "/images/pass"),
        ("POST", "/release/reload"),
        ("GET", "/static"),
        ("GET", "/nothing/of/the/kind"),
        ("OPTIONS", "/search/text"),
    ]:
        refused = client.request(method, path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "missing_key"), path
        assert refused.headers["www-authenticate"] == 'Bearer realm="twinlens"'


def test_either_header_brings_a_key_and_a_wrong_or_expired_one_is_told_apart_from_none(guarded):
    service, keys = guarded
    ask = lambda headers: service.client.post("/search/text", json=QUERY, headers=headers)  # noqa: E731
    assert ask(bearer(keys["reader"])).status_code == 200
    assert ask({"authorization": f"bEARER   {keys['reader']}"}).status_code == 200
    assert ask({"x-api-key": keys["reader"]}).status_code == 200
    assert ask({"authorization": "Basic abc", "x-api-key": keys["reader"]}).status_code == 200
    for headers, code in [
        (bearer(keys["reader"][:-1]), "wrong_key"),
        (bearer(hashlib.sha256(keys["reader"].encode()).hexdigest()), "wrong_key"),
        ({"x-api-key": "ä".encode()}, "wrong_key"),
        (bearer(keys["late"]), "expired_key"),
        ({"authorization": "Bearer"}, "missing_key"),
        ({"authorization": f"Basic {keys['reader']}"}, "missing_key"),
        ({"cookie": f"{COOKIE}={keys['reader']}"}, "missing_key"),
    ]:
        refused = ask(headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, code)
        assert ('error="invalid_token"' in refused.headers["www-authenticate"]) == (code != "missing_key")


def test_reading_is_not_enough_to_reload_and_writing_includes_reading(guarded):
    service, keys = guarded
    refused = service.client.post("/release/reload", headers=bearer(keys["reader"]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")
    assert "'reader'" in refused.json()["error"]["message"]
    assert service.client.post("/release/reload", headers=bearer(keys["writer"])).status_code == 200
    assert service.client.post("/search/text", json=QUERY, headers=bearer(keys["writer"])).status_code == 200


def test_a_body_sent_without_a_key_is_never_held(guarded):
    service, _ = guarded
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        refused = client.post("/embed/image", content=bytes(3_000_000), headers={"content-type": "image/png"})
    assert refused.status_code == 401
    assert service.serving.bodies_bytes == 0


def test_a_key_has_so_many_requests_at_once_and_others_are_served_meanwhile(guarded):
    service, keys = guarded
    free, entered = threading.Event(), threading.Event()

    def held() -> None:
        entered.set()
        assert free.wait(30)

    def embed(name: str) -> httpx.Response:
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            return client.post("/embed/text", json={"texts": "a"}, headers=bearer(keys[name]))

    service.serving.embedder.device.call(held)
    assert entered.wait(10)
    with ThreadPoolExecutor(2) as pool:
        try:
            before = service.serving.in_flight
            first = pool.submit(embed, "single")
            wait_until(lambda: service.serving.in_flight > before)
            refused = embed("single")
            other = service.client.get("/release", headers=bearer(keys["reader"]))
        finally:
            free.set()
        assert first.result().status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_limit")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert other.status_code == 200
    assert embed("single").status_code == 200


def test_addresses_have_a_number_of_requests_where_the_settings_give_one(releases, settings_for):
    with running(settings_for(releases, address_max_concurrent=1)) as service:
        access = service.serving.access
        free = threading.Event()
        service.serving.embedder.device.call(lambda: free.wait(30))
        with ThreadPoolExecutor(1) as pool:
            try:
                first = pool.submit(service.client.post, "/embed/text", json={"texts": "a"})
                wait_until(lambda: access._callers)
                refused = httpx.get(f"{service.url}/release", trust_env=False)
                probe = httpx.get(f"{service.url}/healthz", trust_env=False)
            finally:
                free.set()
            assert first.result().status_code == 200
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_limit")
        assert probe.status_code == 200
        wait_until(lambda: not access._callers)  # addresses leave nothing behind


def test_the_file_is_taken_up_when_it_changes_and_a_broken_one_changes_nothing(
    releases, settings_for, keys_file, caplog
):
    first = create_key(keys_file, "first", scopes=("read",))
    with running(settings_for(releases, keys_file=keys_file)) as service:

        def status(key: str) -> int:
            return service.client.get("/release", headers=bearer(key)).status_code

        assert status(first) == 200
        second = create_key(keys_file, "second", scopes=("read",))
        wait_until(lambda: status(second) == 200)
        good = keys_file.read_bytes()
        keys_file.write_bytes(b'{"keys": [')
        wait_until(lambda: "the keys stay as they were" in caplog.text)
        assert status(first) == status(second) == 200
        keys_file.unlink()
        wait_until(lambda: "no file of keys at" in caplog.text)
        assert status(first) == 200
        keys_file.write_bytes(good)
        revoke_key(keys_file, "first")
        wait_until(lambda: status(first) == 401)
        assert status(second) == 200


def test_a_file_others_may_write_to_is_warned_of(releases, settings_for, keys_file, caplog):
    create_key(keys_file, "first", scopes=("read",))
    keys_file.chmod(0o666)
    Access(settings_for(releases, keys_file=keys_file))
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - what is warned of
def test_listening_to_a_network_without_keys_is_warned_of(releases, settings_for, keys_file, caplog, host):
    Access(settings_for(releases, host=host))
    assert f"listening on {host} without API keys" in caplog.text
    caplog.clear()
    create_key(keys_file, "first", scopes=("read",))
    Access(settings_for(releases, host=host, keys_file=keys_file))
    for local in ("127.0.0.1", "::1", "localhost"):
        Access(settings_for(releases, host=local))
    assert caplog.text == ""


def test_the_page_trades_its_key_for_a_cookie_that_opens_images_and_nothing_else(guarded):
    service, keys = guarded
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as browser:
        (hit,) = browser.post("/search/text", json=QUERY, headers=bearer(keys["reader"])).json()["results"]
        address = f"/images/{quote(hit['id'])}?side=256"
        assert browser.get(address).status_code == 401
        answer = browser.post("/images/pass", headers=bearer(keys["reader"]))
        assert answer.status_code == 204
        flags = answer.headers["set-cookie"].split("; ")[1:]
        assert {"HttpOnly", "SameSite=strict", f"Max-Age={PASS_SECONDS}"} == set(flags)  # no Path: /images
        image_answer = browser.get(address)
        assert image_answer.status_code == 200
        assert image_answer.headers["cache-control"].startswith("private")
        (cookie,) = browser.cookies.jar
        assert cookie.path == "/images"
        sent = {"cookie": f"{COOKIE}={cookie.value}"}
        for method, path in [("GET", "/release"), ("POST", "/images/pass"), ("POST", "/search/text")]:
            assert browser.request(method, path, headers=sent).status_code == 401, path
        quoted = f'{COOKIE}="{cookie.value}"'  # to unquote takes time that grows with the square of it
        assert httpx.get(service.url + address, headers={"cookie": quoted}).status_code == 401
        assert (
            httpx.get(service.url + address, headers={"cookie": f"a=b; {COOKIE}={cookie.value}"}).status_code
            == 200
        )
        forged = cookie.value.replace("reader", "writer")
        assert httpx.get(service.url + address, headers={"cookie": f"{COOKIE}={forged}"}).status_code == 401


def test_a_pass_ends_with_its_hour_its_key_and_its_signer(keys_file):
    secret = create_key(keys_file, "shop", scopes=("read",))
    keyring = Keyring.of(read_keys(keys_file))
    passes, others = Passes("s" * 32), Passes(None)
    value = passes.issue(keyring.find(secret), now=1000.0)
    assert passes.find(value, keyring, now=1000.0 + PASS_SECONDS - 1).name == "shop"
    assert passes.find(value, keyring, now=1000.0 + PASS_SECONDS) is None
    assert passes.find(value, keyring, now=999.0).name == "shop"  # a replica's clock is a second behind
    assert (
        passes.find(value, keyring, now=0.0) is None
    )  # the clock was set back: it would last longer than an hour
    assert Passes("s" * 32).find(value, keyring, now=1001.0).name == "shop"  # a replica of the same secret
    assert others.find(value, keyring, now=1001.0) is None
    later = value.replace(str(1000 + PASS_SECONDS), str(9000 + PASS_SECONDS))
    assert passes.find(later, keyring, now=1001.0) is None
    for bad in ("", ".", "..", "x.shop.y", "²³.shop.y", "9" * 5000 + ".shop.y", "99.shop.ä"):
        assert passes.find(bad, keyring, now=1.0) is None
    revoke_key(keys_file, "shop")
    create_key(keys_file, "shop", scopes=("read",))  # the same name, another key
    assert passes.find(value, Keyring.of(read_keys(keys_file)), now=1001.0) is None


def test_the_description_shows_how_to_send_a_key_only_where_one_is_needed(guarded, client):
    schema = guarded[0].client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    operation = schema["paths"]["/search/text"]["post"]
    assert operation["security"] == [{"bearer": []}, {"header": []}]
    assert {"401", "403", "408", "429"} <= set(operation["responses"])
    assert "security" not in schema["paths"]["/healthz"]["get"]
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
