"""Probes, metrics, documentation; the release that is served and how another takes its place."""

import gc
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from live_service import HeldFile, Running, device_held, image_file, metric, publish, running, wait_until

from encoders.compiled import can_compile
from encoders.errors import FingerprintMismatch
from index.errors import CorruptRelease, NoRelease
from service.app import create_app
from service.backoff import Backoff
from service.state import ServingState


def test_healthy_ready_and_described(client, service, tiny_bundle):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "release": service.serving.state.release.id}
    answer = client.get("/release").json()
    assert (answer["model"], answer["dim"], answer["context_length"]) == ("tiny", 16, 16)
    assert (answer["counts"]["images"], answer["counts"]["texts"]) == (24, 6)
    assert (answer["live"], answer["loading"], answer["refused"]) == (None, None, None)
    assert "details" not in answer


def test_the_release_is_told_in_a_few_lines_and_its_checks_on_request(client):
    response = client.get("/release")
    assert len(response.content) < 1000
    whole = client.get("/release", params={"details": True}).json()
    details = whole.pop("details")
    assert whole == response.json()
    assert details["recall"]["images"]["recall"] == 1.0
    assert details["gate"] is None  # of a bundle that was never judged
    assert details.keys() == {"recall", "gallery", "difference", "gate", "calibration", "report"}
    wrong = client.get("/release", params={"details": "perhaps"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "details")


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
        wait_until(lambda: service.client.post("/embed/text", json={"texts": "a"}).status_code == 200)
        wait_until(lambda: service.client.get("/readyz").status_code == 200)


def test_metrics_count_by_route_status_and_cause(client):
    client.post("/embed/text", json={"texts": "a dog"})
    client.get("/items/nope")
    text = client.get("/metrics").text
    assert 'twinlens_requests_total{cause="",route="/embed/text",status="200"}' in text
    assert 'twinlens_requests_total{cause="unknown_item",route="/items/{item_id:id}",status="404"}' in text
    assert 'twinlens_batch_items_count{kind="text"}' in text
    assert 'twinlens_release_info{model="tiny"' in text
    assert "process_resident_memory_bytes" in text


def test_every_post_tells_when_to_come_again_and_every_reference_leads_somewhere(client):
    schema = client.get("/openapi.json").json()
    for path, entry in schema["paths"].items():
        assert "503" in entry.get("post", {"responses": {"503": {}}})["responses"], path
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
        wait_until(lambda: len(answers) >= seen + 6)
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


@contextmanager
def loading_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The next load stops before it begins, once CURRENT was read; yields the event that it did."""
    load = ServingState.load
    entered, free = threading.Event(), threading.Event()

    def held(*arguments: object, **options: object) -> ServingState:
        entered.set()
        assert free.wait(30)
        return load(*arguments, **options)

    monkeypatch.setattr(ServingState, "load", held)
    try:
        yield entered
    finally:
        free.set()


def test_a_reload_asked_for_during_a_reload_serves_what_was_published_meanwhile(
    tmp_path, gallery, tiny_bundle, settings_for, monkeypatch
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder)) as service, ThreadPoolExecutor(2) as callers:
        second = publish(folder, gallery, tiny_bundle)
        with loading_held(monkeypatch) as entered:
            first = asked_meanwhile(service, callers)
            assert entered.wait(10)
            third = publish(folder, gallery, tiny_bundle)
            later = asked_meanwhile(service, callers)
        assert first.result().json()["swapped"] is True
        assert later.result().json() == {"release": third, "swapped": True}
        assert second != third == service.serving.state.release.id
        assert not service.serving._tasks  # nor is anything of a release kept by a task that is done


def asked_meanwhile(service: Running, callers: ThreadPoolExecutor) -> "Future[httpx.Response]":
    """POST /release/reload from another thread, taken in when this returns."""
    before = service.serving.in_flight
    answer = callers.submit(httpx.post, f"{service.url}/release/reload", timeout=60, trust_env=False)
    wait_until(lambda: service.serving.in_flight > before)
    return answer


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_reload_that_outlasts_its_deadline_says_where_to_look(
    tmp_path, gallery, tiny_bundle, settings_for, caplog, spoilt
):
    folder = tmp_path / "releases"
    old = publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder)) as service:
        new = publish(folder, gallery, tiny_bundle)
        with HeldFile(folder / new / "manifest.json") as held:
            answer = service.client.post("/release/reload", headers={"x-deadline-ms": "1200"})
            assert answer.status_code == 202, answer.text
            assert (answer.json()["release"], answer.json()["swapped"]) == (old, False)
            held.wait_for_reader()
            told = service.client.get(answer.headers["location"]).json()
            assert (told["release"], told["loading"]["release"]) == (old, new)
            held.go_on(b"{" if spoilt else None)
            wait_until(lambda: service.client.get("/release").json()["loading"] is None)
        told = service.client.get("/release").json()
        assert told["release"] == (old if spoilt else new)
        assert (told["refused"] or {}).get("reason") == ("corrupt" if spoilt else None)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_the_watcher_tries_a_release_again_that_could_not_be_loaded_at_first(
    tmp_path, gallery, tiny_bundle, other_tiny_bundle, settings_for, caplog
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder, watch_seconds=0.03)) as service:
        (folder / "CURRENT").write_text("garbage")
        wait_until(lambda: "which is no release id" in caplog.text)
        # Another encoder: the same content published in the same second would be the same release.
        new = publish(tmp_path / "elsewhere", gallery, other_tiny_bundle)
        (folder / "CURRENT").write_text(new)
        failures = {"outcome": "failed"}
        wait_until(lambda: metric(service, "twinlens_reloads_total", **failures) >= 1)
        (tmp_path / "elsewhere" / new).rename(folder / new)
        wait_until(lambda: service.serving.state.release.id == new)


def test_pauses_between_tries_double_up_to_five_minutes_and_a_new_name_is_tried_at_once():
    backoff = Backoff(10.0)
    tried = [now for now in range(2000) if backoff.allows("a", now)]
    assert tried == [0, 10, 30, 70, 150, 310, 610, 910, 1210, 1510, 1810]
    assert backoff.allows("b", 1811)


def told_unready(service: Running, why: str) -> bool:
    response = service.client.get("/readyz")
    return response.status_code == 503 and why in response.json()["error"]["message"]


def test_readiness_turns_red_while_a_search_does_not_come_back(releases, settings_for):
    with running(settings_for(releases, stall_seconds=0.05)) as service:
        free = threading.Event()
        service.serving.searcher._pool.submit(service.serving.searcher._perform, free.wait)
        try:
            wait_until(lambda: told_unready(service, "a search has been running"))
        finally:
            free.set()
        wait_until(lambda: service.client.get("/readyz").status_code == 200)


def test_watching_current_swaps_without_being_asked(tmp_path, gallery, tiny_bundle, settings_for):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder, watch_seconds=0.05)) as service:
        new = publish(folder, gallery, tiny_bundle)
        wait_until(lambda: service.client.get("/readyz").json()["release"] == new)
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


@pytest.mark.skipif(not can_compile(), reason="OpenVINO computes on x86 processors only")
def test_a_service_is_ready_before_its_towers_are_compiled_and_answers_the_same_then(releases, settings_for):
    def embedded() -> np.ndarray:
        answers = [
            service.client.post("/embed/text", json={"texts": ["a red square", "a cat"]}),
            service.client.post("/embed/image", content=image_file(1), headers={"content-type": "image/png"}),
        ]
        return np.array([one["embedding"] for answer in answers for one in answer.json()["data"]])

    usual = sys.getswitchinterval()
    with running(settings_for(releases, engine="auto")) as service:
        begun = service.client.get("/release").json()
        assert begun["compiling"]
        assert begun["engine"] == "torch"
        before = embedded()
        wait_until(lambda: not service.client.get("/release").json()["compiling"], seconds=120)
        assert service.client.get("/release").json()["engine"] == "openvino"
        assert (before * embedded()).sum(axis=1).min() > 0.99999
        assert sys.getswitchinterval() < usual / 10  # the device thread gets the interpreter back at once
    assert sys.getswitchinterval() == usual
