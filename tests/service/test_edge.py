"""What holds for every request: ids, timings, the one shape of errors, bounds on bodies, queues and time."""

import asyncio
import inspect
import io

import httpx
import pytest
from live_service import device_held, dialled, image_file, metric, running, wait_until
from PIL import Image

from service.app import FAST_ROUTES, WEB
from service.routes import embed, openai, search

PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}
SHAPE = {"code", "message", "param", "type"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nope", {}, 404, "not_found"),
        ("GET", "/static/nope.js", {}, 404, "not_found"),
        ("POST", "/healthz", {}, 405, "method_not_allowed"),
        ("GET", "/embed/text", {}, 405, "method_not_allowed"),
        ("POST", "/embed/text", {"content": b"{", "headers": JSON}, 400, "invalid_json"),
        ("POST", "/embed/text", {"content": b'{"texts": "\\ud800"}', "headers": JSON}, 400, "invalid_json"),
        ("POST", "/embed/text", {"content": b"[" * 20_000, "headers": JSON}, 400, "invalid_json"),
        ("POST", "/embed/text", {"content": b"[" * 100_000, "headers": JSON}, 413, "too_large"),
        ("POST", "/embed/text", {"content": b"\xff\xfe", "headers": JSON}, 400, "invalid_json"),
        ("POST", "/embed/text", {"json": {"texts": [5]}}, 422, "invalid_field"),
        ("POST", "/embed/text", {"json": {"texts": "a", "dimensions": 17}}, 422, "invalid_field"),
        ("POST", "/embed/text", {"json": {"texts": ["a"] * 513}}, 413, "too_many_items"),
        ("POST", "/embed/text", {"data": {"texts": "a"}}, 415, "unsupported_media_type"),
        ("POST", "/embed/image", {"content": b"a"}, 415, "unsupported_media_type"),
        ("POST", "/embed/image", {"files": {"photos": b"a"}}, 422, "invalid_field"),
        ("POST", "/embed/image", {"files": [("images", b"a")] * 129}, 413, "too_many_items"),
        ("POST", "/embed/image", {"files": [("images", b"a")] * 600}, 413, "too_many_items"),
        ("POST", "/search/text", {"content": b" " * (4 << 20) + b"{}", "headers": JSON}, 413, "too_large"),
        ("POST", "/embed/image", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400,
         "invalid_form"),
        ("GET", "/healthz", {"headers": {"x-deadline-ms": "soon"}}, 422, "invalid_field"),
        ("GET", "/healthz", {"headers": {"x-deadline-ms": "3600001"}}, 422, "invalid_field"),
        ("GET", "/healthz", {"headers": {"x-deadline-ms": "0" * 11 + "1" + "9" * 5000}}, 422, "invalid_field"),
    ],
)  # fmt: skip
def test_every_error_has_the_one_shape_and_says_what_to_do(client, method, path, options, status, code):
    response = client.request(method, path, **options)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == SHAPE
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 20
    assert response.headers["x-request-id"]
    assert "total;dur=" in response.headers["server-timing"]


def test_a_request_id_is_kept_when_it_is_sane_and_new_otherwise(client):
    kept = client.get("/healthz", headers={"x-request-id": "abc-123"}).headers["x-request-id"]
    new = {
        client.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        for bad in ("", "a b", "x" * 200)
    }
    assert kept == "abc-123"
    assert len(new) == 3
    assert all(len(request_id) == 32 for request_id in new)


def test_server_timing_tells_the_stages_of_a_search_by_image(client):
    response = client.post("/search/image", content=image_file(1), headers=PNG)
    stages = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert list(stages) == ["queue", "decode", "inference", "search", "total"]
    spent = {name: float(value) for name, value in stages.items()}
    assert min(spent["decode"], spent["inference"], spent["search"]) > 0
    assert spent["total"] >= spent["decode"] + spent["inference"] + spent["search"]


def test_a_caller_that_leaves_while_it_sends_is_counted_as_gone_and_is_no_failure_of_ours(service, caplog):
    gone = {"route": "/embed/image", "status": "499", "cause": "caller_gone"}
    before = metric(service, "twinlens_requests_total", **gone)
    with dialled(service) as caller:
        caller.sendall(b"POST /embed/image HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n")
        caller.sendall(b"content-length: 1000\r\n\r\n" + bytes(100))
        wait_until(lambda: service.serving.bodies_bytes == 100)
    wait_until(lambda: metric(service, "twinlens_requests_total", **gone) == before + 1)
    assert "Traceback" not in caplog.text
    assert service.serving.bodies_bytes == 0


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/release", "/metrics", "/static/nope.js"])
def test_head_tells_the_headers_of_get_without_the_body(client, path):
    head, full = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (full.status_code, b"")
    assert head.headers["content-type"] == full.headers["content-type"]
    assert client.head("/embed/text").status_code == 405


def test_the_page_and_its_modules_are_asked_for_again_so_that_none_is_older_than_another(client):
    for path in ("/", f"/static/{next(WEB.glob('*.js')).name}"):
        first = client.get(path)
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert again.headers["cache-control"] == "no-cache"
    assert again.status_code == 304


@pytest.mark.parametrize("asked", ["bytes=0-1", "bytes=5-1", "lines=1", "bytes=-", "\xff".encode()])
def test_a_range_of_the_pages_files_is_answered_with_all(client, asked):
    for path in ("/", "/static/app.js"):
        answer = client.get(path, headers={"range": asked})
        assert (answer.status_code, answer.content) == (200, client.get(path).content)


def test_a_timeout_inside_the_service_is_not_told_as_the_callers_deadline(service, monkeypatch, caplog):
    def broken() -> bytes:
        raise TimeoutError("a disk that does not answer")

    monkeypatch.setattr(service.serving.telemetry, "render", broken)
    response = service.client.get("/metrics")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")


def test_a_full_queue_answers_429_with_retry_after_and_then_serves_again(releases, settings_for):
    settings = settings_for(releases, image_queue=2, max_images=2, text_queue=1, max_texts=1)
    with running(settings) as service:

        async def scenario() -> None:
            async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client:
                with device_held(service):

                    def send(seed: int) -> asyncio.Task[httpx.Response]:
                        return asyncio.create_task(
                            client.post("/embed/image", content=image_file(seed), headers=PNG)
                        )

                    waiting = [send(1), send(2)]
                    while metric(service, "twinlens_pending_items", kind="image") < 2:
                        await asyncio.sleep(0.005)
                    refused = await send(3)
                assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
                assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
                assert int(refused.headers["retry-after"]) >= 1
                assert (await send(3)).status_code == 200

        asyncio.run(scenario())  # fmt: skip


def test_a_deadline_that_passes_answers_504_and_leaves_nothing_behind(service):
    with device_held(service):
        headers = PNG | {"x-deadline-ms": "80"}
        response = service.client.post("/embed/image", content=image_file(1), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until(lambda: metric(service, "twinlens_pending_items", kind="image") == 0)
    assert service.client.post("/embed/image", content=image_file(1), headers=PNG).status_code == 200


def test_a_caller_that_leaves_is_dropped_before_it_costs_the_device_anything(service):
    gone = {"route": "/embed/image", "status": "499", "cause": "caller_gone"}
    before = metric(service, "twinlens_requests_total", **gone)
    encoded = metric(service, "twinlens_batch_items_sum", kind="image")
    data = image_file(1)
    with device_held(service):
        with dialled(service) as caller:
            head = f"POST /embed/image HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n"
            caller.sendall(head.encode() + b"content-type: image/png\r\n\r\n" + data)
            wait_until(lambda: metric(service, "twinlens_pending_items", kind="image") == 1)
        wait_until(lambda: metric(service, "twinlens_requests_total", **gone) == before + 1)
    assert service.client.post("/embed/text", json={"texts": "a"}).status_code == 200
    assert metric(service, "twinlens_batch_items_sum", kind="image") == encoded


def test_one_image_that_breaks_the_encoder_costs_nobody_else_a_thing(releases, settings_for):
    """On the real service: everybody's images wait together, and one makes the encoder raise."""
    with running(settings_for(releases)) as service:
        encoder = service.serving.state.encoder
        sound, poison = encoder.encode_staged, 7

        def breaks_on_poison(stage):
            if (stage.tensor() == poison).all(dim=3).all(dim=2).all(dim=1).any():
                raise RuntimeError("illegal instruction")
            return sound(stage)

        encoder.encode_staged = breaks_on_poison
        flat = {seed: flat_png(seed) for seed in range(5, 10)}

        async def scenario() -> dict[int, httpx.Response]:
            async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client:
                with device_held(service):
                    sent = {
                        seed: asyncio.create_task(client.post("/embed/image", content=data, headers=PNG))
                        for seed, data in flat.items()
                    }
                    while metric(service, "twinlens_pending_items", kind="image") < len(flat):
                        await asyncio.sleep(0.005)
                    await asyncio.sleep(0.1)  # the last ones are being decoded
                return {seed: await task for seed, task in sent.items()}

        answers = asyncio.run(scenario())
        assert {seed: answer.status_code for seed, answer in answers.items()} == {
            5: 200,
            6: 200,
            7: 500,
            8: 200,
            9: 200,
        }
        assert answers[7].json()["error"]["code"] == "encoding_failed"
        assert service.client.get("/readyz").status_code == 200


def flat_png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_error_nobody_foresaw_is_a_500_in_shape_and_tells_no_secrets(service, monkeypatch, caplog):
    def broken() -> bytes:
        raise ZeroDivisionError("the password is 1234")

    monkeypatch.setattr(service.serving.telemetry, "render", broken)
    response = service.client.get("/metrics", headers={"x-request-id": "find-me"})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "find-me" in response.json()["error"]["message"]
    assert "1234" not in response.text
    assert "1234" in caplog.text
    assert response.headers["x-request-id"] == "find-me"


@pytest.mark.parametrize("path", FAST_ROUTES)
def test_a_shortcut_goes_where_fastapi_would_go_and_leaves_nothing_out(path):
    routers = (embed.router, search.router, openai.router)
    (route,) = [route for router in routers for route in router.routes if route.path == path]
    assert route.methods == {"POST"}
    assert route.endpoint is FAST_ROUTES[path]
    assert list(inspect.signature(route.endpoint).parameters) == ["request"]
    assert route.dependencies == []
