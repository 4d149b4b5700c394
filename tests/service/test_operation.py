"""Probes, metrics, documentation; the release that is served and how another takes its place."""

import gc
import shutil
import threading
import time
import weakref

import httpx
import pytest
from live_service import Running, publish, running
from test_edge import device_held, metric

from encoders.errors import FingerprintMismatch
from index.errors import CorruptRelease, NoRelease
from service.app import create_app


def test_healthy_ready_and_described(client, service, tiny_bundle):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "release": service.serving.state.release.id}
    answer = client.get("/release").json()
    assert (answer["model"], answer["dim"], answer["context_length"]) == ("tiny", 16, 16)
    assert (answer["counts"]["images"], answer["counts"]["texts"]) == (24, 6)
    assert answer["recall"]["images"]["recall"] == 1.0


def test_readiness_turns_red_while_a_batch_does_not_come_back(releases, settings_for):
    with running(settings_for(releases, stall_seconds=0.05)) as service:
        with device_held(service):
            time.sleep(0.1)
            response = service.client.get("/readyz")
            assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
            assert "on the device for" in response.json()["error"]["message"]
            assert response.headers["retry-after"]
            assert metric(service, "twinlens_ready") == 0
            assert service.client.get("/healthz").status_code == 200
        assert service.client.post("/embed/text", json={"texts": "a"}).status_code == 200
        assert service.client.get("/readyz").status_code == 200


def test_metrics_count_by_route_status_and_cause(client):
    client.post("/embed/text", json={"texts": "a dog"})
    client.get("/items/nope")
    text = client.get("/metrics").text
    assert 'twinlens_requests_total{cause="",route="/embed/text",status="200"}' in text
    assert 'twinlens_requests_total{cause="unknown_item",route="/items/{item_id:path}",status="404"}' in text
    assert 'twinlens_batch_items_count{kind="text"}' in text
    assert 'twinlens_release_info{model="tiny"' in text
    assert "process_resident_memory_bytes" in text


def test_the_documentation_has_every_route_with_its_body_examples_and_errors(client):
    schema = client.get("/openapi.json").json()
    posts = {path: entry["post"] for path, entry in schema["paths"].items() if "post" in entry}
    assert set(posts) == {
        "/embed/image",
        "/embed/text",
        "/v1/embeddings",
        "/search/text",
        "/search/image",
        "/search/vector",
        "/search/item",
        "/release/reload",
    }
    for path, operation in posts.items():
        assert "503" in operation["responses"], path
        if path != "/release/reload":
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert schema["components"]["schemas"][reference.rsplit("/", 1)[1]]["examples"], path
    references = str(schema).split("'$ref': '#/components/schemas/")[1:]
    assert {text.split("'")[0] for text in references} <= set(schema["components"]["schemas"])
    assert client.get("/docs").status_code == 200


def test_reload_serves_the_new_release_and_drops_no_request(
    tmp_path, gallery, tiny_bundle, other_tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    old = publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder)) as service:
        old_fingerprint = service.serving.state.encoder.fingerprint
        assert service.client.post("/release/reload").json() == {"release": old, "swapped": False}
        old_state = weakref.ref(service.serving.state)
        answers: list[httpx.Response] = []
        over = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                while not over.is_set():
                    answers.append(client.post("/search/text", json={"query": "a red dog", "k": 1}))

        callers = [threading.Thread(target=ask) for _ in range(3)]
        for caller in callers:
            caller.start()
        new = publish(folder, gallery, other_tiny_bundle)
        assert service.client.post("/release/reload").json() == {"release": new, "swapped": True}
        seen = len(answers)
        while len(answers) < seen + 6:
            time.sleep(0.01)
        over.set()
        for caller in callers:
            caller.join()
        new_fingerprint = service.serving.state.encoder.fingerprint
        assert {answer.status_code for answer in answers} == {200}
        pairs = {(answer.json()["release"], answer.json()["model_fingerprint"]) for answer in answers}
        assert pairs == {
            (old, old_fingerprint),
            (new, new_fingerprint),
        }  # never one's index with the other's encoder
        gc.collect()
        assert old_state() is None  # and its memory is given back


def test_a_release_that_cannot_be_loaded_leaves_the_old_one_serving(tmp_path, releases, settings_for):
    folder = shutil.copytree(releases, tmp_path / "releases")
    with running(settings_for(folder)) as service:
        served = service.serving.state.release.id
        (folder / "CURRENT").write_text("20990101T000000Z-abcdef\n")
        response = service.client.post("/release/reload")
        assert (response.status_code, response.json()["error"]["code"]) == (500, "reload_failed")
        assert served in response.json()["error"]["message"]
        assert service.client.post("/search/text", json={"query": "a"}).json()["release"] == served


def test_watching_current_swaps_without_being_asked(tmp_path, gallery, tiny_bundle, settings_for):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder, watch_seconds=0.05)) as service:
        new = publish(folder, gallery, tiny_bundle)
        until = time.monotonic() + 30
        while service.client.get("/readyz").json()["release"] != new and time.monotonic() < until:
            time.sleep(0.02)
        assert service.client.get("/release").json()["release"] == new


def test_start_is_refused_without_a_release_or_with_a_damaged_one(tmp_path, releases, settings_for):
    with pytest.raises(NoRelease, match="no release in"):
        create_app(settings_for(tmp_path / "nothing"))
    folder = shutil.copytree(releases, tmp_path / "releases")
    (vectors,) = folder.glob("*/image_vectors.faiss")
    damaged = bytearray(vectors.read_bytes())
    damaged[-1] ^= 1
    vectors.write_bytes(damaged)
    with pytest.raises(CorruptRelease, match=r"image_vectors\.faiss"):
        create_app(settings_for(folder))


def test_start_is_refused_when_index_and_encoder_do_not_belong_together(
    tmp_path, releases, other_tiny_bundle, settings_for
):
    folder = shutil.copytree(releases, tmp_path / "releases")
    (bundle,) = folder.glob("*/bundle")
    shutil.rmtree(bundle)
    shutil.copytree(other_tiny_bundle, bundle)
    with pytest.raises(FingerprintMismatch, match=r"[0-9a-f]{64}.*[0-9a-f]{64}"):
        create_app(settings_for(folder))


def test_while_shutting_down_new_requests_get_503_and_probes_still_answer(releases, settings_for):
    with running(settings_for(releases)) as service:
        service.serving.draining = True
        refused = service.client.post("/embed/text", json={"texts": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert service.client.get("/healthz").status_code == 200
        assert service.client.get("/readyz").status_code == 503


def test_two_applications_in_one_process_share_nothing(service: Running, releases, settings_for):
    with running(settings_for(releases)) as other:
        other.client.get("/nope")
        labels = {"route": "unmatched", "status": "404", "cause": "not_found"}
        before = metric(service, "twinlens_requests_total", **labels)
        other.client.get("/nope")
        assert metric(service, "twinlens_requests_total", **labels) == before
