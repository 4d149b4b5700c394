"""deploy/nginx.conf with a real nginx before a real service: what callers see when both are between them."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from live_service import (
    Running,
    device_held,
    metric,
    running,
    wait_until,
)
from PIL import Image
from proxy import CONFIGURATION, HOST, MISSING, Proxy, error_of, proxied

from service.access.keys import create_key
from service.server import KEEP_ALIVE_SECONDS
from service.settings import Settings

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} is not installed")
PNG = {"content-type": "image/png"}
LIMIT = 64 << 20  # max_body_bytes


@pytest.fixture(scope="module")
def behind(tmp_path_factory, releases, settings_for) -> Iterator[Running]:
    """A service that takes changes and answers to the proxy's name alone."""
    own = shutil.copytree(releases, tmp_path_factory.mktemp("behind") / "releases")
    with running(settings_for(own, allowed_hosts=(HOST,), live_changes=True, access_log=True)) as service:
        yield service


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, behind) -> Iterator[Proxy]:
    with proxied(tmp_path_factory.mktemp("nginx"), behind.url.removeprefix("http://")) as started:
        yield started


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> bytes:
    """Several megabytes of PNG."""
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path, compress_level=0)
    return path.read_bytes()


def test_searches_embeddings_and_images_of_megabytes_pass(proxy, photo):
    client = proxy.client
    found = client.post("/search/text", json={"query": "a red dog"}, headers={"x-request-id": "mine-7"})
    assert (found.status_code, len(found.json()["results"])) == (200, 10)
    assert found.headers.get_list("x-request-id") == ["mine-7"]
    assert re.fullmatch("[0-9a-f]{32}", client.get("/release").headers["x-request-id"])
    assert len(photo) > 4_000_000
    whole = client.post("/embed/image", content=photo, headers=PNG).json()["data"][0]["embedding"]
    form = client.post("/embed/image", files={"images": photo}).json()["data"][0]["embedding"]
    chunks = client.post("/embed/image", content=iter([photo[:9], photo[9:]]), headers=PNG)
    assert whole == form == chunks.json()["data"][0]["embedding"]


def test_changes_and_large_answers_pass_unharmed(proxy, photo):
    name = "/items/" + quote("put/by proxy ä#?%.png")
    put = proxy.client.put(name, content=photo, headers=PNG)
    assert put.status_code == 200, put.text
    assert proxy.client.get(name.replace("/items/", "/images/")).content == photo
    assert proxy.client.delete(name).status_code == 200
    assert proxy.client.get(name).status_code == 404


def test_a_body_over_the_limit_is_413_in_the_one_shape(proxy):
    for announced in (True, False):
        with proxy.dialled() as caller:
            how = f"content-length: {LIMIT + 1}" if announced else "transfer-encoding: chunked"
            head = f"POST /embed/image HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: image/png"
            caller.sendall(f"{head}\r\n{how}\r\n\r\n".encode())
            if not announced:
                caller.sendall(f"{LIMIT + 1:x}\r\n".encode() + bytes(9))
            assert answer_of(caller) == (413, "too_large")
    largest = proxy.client.post("/embed/image", content=bytes(LIMIT), headers=PNG)
    assert error_of(largest, 400) == "undecodable_image"  # the service's own word


def answer_of(caller: socket.socket) -> tuple[int, str]:
    """Status and code of an error that came over a bare connection."""
    data = b""
    while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}}"):
        more = caller.recv(65536)
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_what_nginx_refuses_by_itself_has_the_one_shape(proxy):
    client = proxy.client
    assert error_of(client.get("/metrics"), 404) == "not_found"
    for odd in ("//metrics", "/%6detrics", "/x/../metrics", "/metrics/", "/.problem"):
        with proxy.dialled() as caller:
            caller.sendall(f"GET {odd} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
            told = b"".join(iter(lambda: caller.recv(65536), b""))
            assert b"twinlens_" not in told.partition(b"\r\n\r\n")[2], odd
            assert int(told.split()[1]) in (307, 404), odd
    assert error_of(client.get("/" + "x" * 40_000), 431) == "headers_too_large"
    assert error_of(client.get("/", headers={"x-a": "x" * 40_000}), 431) == "headers_too_large"
    assert error_of(client.request("TRACE", "/"), 405) == "method_not_allowed"
    with proxy.dialled() as caller:
        caller.sendall(b"this is no HTTP\r\n\r\n")
        assert answer_of(caller) == (400, "invalid_http")


def test_the_callers_host_name_and_scheme_reach_the_service(proxy):
    client = proxy.client
    assert error_of(client.get("/release", headers={"host": "evil.example"}), 403) == "host_not_allowed"
    here, there = f"https://{HOST}:{proxy.port}", "https://evil.example"
    question = {"json": {"query": "a dog"}}
    own = {"host": f"{HOST}:{proxy.port}", "origin": here, "sec-fetch-site": "same-origin"}
    assert client.post("/search/text", headers=own, **question).status_code == 200
    del own["sec-fetch-site"]
    assert client.post("/search/text", headers=own, **question).status_code == 200
    crossing = {"origin": there, "sec-fetch-site": "cross-site"}
    assert error_of(client.post("/search/text", headers=crossing, **question), 403) == "cross_site"


def test_who_calls_is_what_nginx_sees_and_not_what_is_claimed(tmp_path, releases, settings_for):
    key = create_key(tmp_path / "keys.json", "shop", scopes=("read",))
    settings = settings_for(releases, keys_file=tmp_path / "keys.json", allowed_hosts=(HOST,))
    with (
        running(settings) as service,
        proxied(tmp_path / "nginx", service.url.removeprefix("http://")) as proxy,
    ):
        assert error_of(proxy.client.get("/release"), 401) == "missing_key"
        given = proxy.client.post("/images/pass", headers={"authorization": f"Bearer {key}"})
        assert "Secure" in given.headers["set-cookie"]
        assert key not in proxy.log.read_text()
    settings = settings_for(releases, address_max_concurrent=1, allowed_hosts=(HOST,))
    with (
        running(settings) as service,
        proxied(tmp_path / "nginx", service.url.removeprefix("http://")) as proxy,
    ):
        with ThreadPoolExecutor(1) as aside, device_held(service):
            first = aside.submit(proxy.client.post, "/embed/text", json={"texts": "a"})
            wait_until(lambda: service.serving.in_flight == 1)
            again = proxy.client.get("/release", headers={"x-forwarded-for": "192.0.2.7"})
            assert error_of(again, 429) == "key_limit"
        assert first.result().status_code == 200


def test_the_log_has_no_query_and_the_requests_id(proxy):
    proxy.client.get("/items/no such?payload=secret", headers={"x-request-id": "look-for-me"})
    wait_until(lambda: "look-for-me" in proxy.log.read_text())
    lines = [json.loads(line) for line in proxy.log.read_text().splitlines()]
    (line,) = [each for each in lines if each["request_id"] == "look-for-me"]
    assert (line["path"], line["status"], line["service_status"]) == ("/items/no%20such", "404", "404")


def test_a_caller_that_leaves_is_noticed_through_the_proxy(proxy, behind):
    gone = {"route": "/embed/text", "status": "499", "cause": "caller_gone"}
    before = metric(behind, "twinlens_requests_total", **gone)
    with device_held(behind):
        with proxy.dialled() as caller:
            body = b'{"texts": "a dog"}'
            head = f"POST /embed/text HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
            caller.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: behind.serving.in_flight)
        wait_until(lambda: metric(behind, "twinlens_requests_total", **gone) == before + 1)


def test_slow_callers_cost_the_service_nothing(proxy, behind, photo):
    requests = lambda: behind.serving.telemetry.registry.get_sample_value(  # noqa: E731
        "twinlens_requests_total", {"route": "/embed/image", "status": "200", "cause": ""}
    )
    before = requests() or 0
    with proxy.dialled() as sender:
        head = f"POST /embed/image HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: image/png\r\n"
        sender.sendall(f"{head}content-length: {len(photo)}\r\n\r\n".encode() + photo[:-1])
        proxy.client.get("/release")  # which nginx took later
        assert behind.serving.in_flight == 0
        assert behind.serving.bodies_bytes == 0
        sender.sendall(photo[-1:])
        assert sender.recv(12) == b"HTTP/1.1 200"
    assert requests() == before + 1
    assert proxy.client.put("/items/slow.png", content=photo, headers=PNG).status_code == 200
    with proxy.dialled() as reader:
        reader.sendall(f"GET /images/slow.png HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        assert reader.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: behind.serving.in_flight == 0)  # all of it lies with nginx


def test_the_services_own_504_comes_through(proxy, behind):
    with device_held(behind):
        answer = proxy.client.post("/embed/text", json={"texts": "a"}, headers={"x-deadline-ms": "100"})
    assert error_of(answer, 504) == "deadline_exceeded"


def test_an_address_has_so_many_requests_at_once(proxy, behind):
    with ThreadPoolExecutor(64) as crowd, device_held(behind):
        asked = [crowd.submit(proxy.client.post, "/embed/text", json={"texts": "a"}) for _ in range(64)]
        wait_until(lambda: behind.serving.in_flight == 64)
        refused = proxy.client.get("/release")
        assert error_of(refused, 429) == "too_many_connections"
        assert refused.headers["retry-after"] == "1"
    assert {each.result().status_code for each in asked} == {200}


def test_hundreds_of_requests_at_once_all_succeed(proxy):
    def ask(number: int) -> int:
        return proxy.client.post("/search/text", json={"query": f"a {number} dog"}).status_code

    with ThreadPoolExecutor(8) as crowd:
        assert set(crowd.map(ask, range(600))) == {200}


def test_without_encryption_the_page_leads_on_and_calls_are_refused(proxy):
    with httpx.Client(
        base_url=f"http://127.0.0.1:{proxy.plain_port}", headers={"host": HOST}, trust_env=False
    ) as plain:
        page = plain.get("/")
        assert (page.status_code, page.headers["location"]) == (308, f"https://{HOST}/")
        refused = plain.post("/search/text", json={"query": "a dog"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "https_only")


def test_under_a_prefix_everything_is_where_it_says(tmp_path, releases, settings_for):
    (expression,) = re.findall(r"sed -Ei '(.+)'", CONFIGURATION.read_text())
    changed = subprocess.run(
        ["sed", "-E", expression, CONFIGURATION], capture_output=True, text=True, check=True
    ).stdout
    settings = settings_for(releases, allowed_hosts=(HOST,), root_path="/gallery")
    with (
        running(settings) as service,
        proxied(tmp_path / "nginx", service.url.removeprefix("http://"), text=changed) as proxy,
    ):
        client = proxy.client
        for path in ("/gallery/", "/gallery/readyz", "/gallery/static/app.js", "/gallery/release"):
            assert client.get(path).status_code == 200, path
        assert client.post("/gallery/search/text", json={"query": "a dog"}).status_code == 200
        for path in ("/", "/release", "/gallery/metrics", "/gallery/items/none"):
            assert error_of(client.get(path), 404)


def test_the_numbers_in_the_file_fit_the_settings():
    text, settings = CONFIGURATION.read_text(), Settings(releases=Path("none"))
    one = lambda pattern: int(*re.findall(pattern, text))  # noqa: E731
    assert one(r"client_max_body_size (\d+)m;") << 20 == settings.max_body_bytes == LIMIT
    assert one(r"large_client_header_buffers 4 (\d+)k;") << 10 == settings.max_header_bytes
    assert one(r"client_header_timeout (\d+)s;") == settings.header_seconds
    assert one(r"client_body_timeout (\d+)s;") == settings.body_seconds
    assert one(r"send_timeout (\d+)s; # \[send") == settings.send_seconds
    assert one(r"keepalive_timeout (\d+)s;") < KEEP_ALIVE_SECONDS
    assert one(r"proxy_read_timeout (\d+)s;\n\n") > max(
        settings.deadline_seconds, settings.exit_after_stall_seconds
    )
    idle = one(r"worker_processes (\d+);") * one(r"keepalive (\d+);")
    assert one(r"max_conns=(\d+);") + idle < settings.max_connections
    assert one(r"limit_conn address (\d+);") < one(r"max_conns=(\d+);")
