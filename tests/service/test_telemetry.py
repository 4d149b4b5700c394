"""/metrics of a real server: it parses, follows the conventions, tells what happened, and stays bounded."""

import re
import shutil

import httpx
import pytest
from live_service import Running, dialled, image_file, publish, running, wait_until
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.load_failure import REASONS

PNG = {"content-type": "image/png"}
OWN = "twinlens_"
LABELS = {
    "route", "status", "cause", "stage", "kind", "outcome", "reason", "state", "name", "device", "le",
    "subject", "measure", "release", "model", "model_fingerprint",
}  # fmt: skip


def families(client: httpx.Client) -> dict[str, Metric]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def value(found: dict[str, Metric], sample_name: str, /, **labels: str) -> float:
    for family in found.values():
        for sample in family.samples:
            if sample.name == sample_name and sample.labels.items() >= labels.items():
                return sample.value
    raise AssertionError(f"no sample {sample_name} {labels}")


def exercise(client: httpx.Client) -> None:
    """Every route and every kind of outcome once."""
    client.post("/embed/text", json={"texts": ["a dog", " "]})
    client.post("/search/image", content=image_file(1), headers=PNG)
    client.post("/embed/image", files=[("images", image_file(2)), ("images", b"none")])
    client.post("/search/text", json={"query": "a red car"})
    client.get("/items/nope")
    client.post("/release/reload")


def test_names_types_and_labels_follow_the_conventions(client):
    exercise(client)
    own = [family for name, family in families(client).items() if name.startswith(OWN)]
    assert len(own) > 25
    for family in own:
        assert re.fullmatch(r"twinlens_[a-z0-9_]+", family.name), family.name
        assert family.documentation, family.name
        for sample in family.samples:
            assert set(sample.labels) <= LABELS, sample.name
        if family.type == "counter":
            assert all(s.name.endswith("_total") for s in family.samples), family.name
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_items")), family.name
            assert {"_bucket", "_sum", "_count"} == {s.name[len(family.name) :] for s in family.samples}
    assert not any(re.search(r"_(ms|milliseconds|minutes|mb|kb|percent)(_|$)", family.name) for family in own)


def test_what_a_request_meets_is_counted_by_stage_outcome_and_cause(client):
    exercise(client)
    found = families(client)
    for stage in ("queue", "decode", "inference", "search", "total"):
        assert value(found, "twinlens_stage_seconds_count", stage=stage) >= 1
        bounds = [
            float(s.labels["le"])
            for s in found["twinlens_stage_seconds"].samples
            if s.name.endswith("_bucket") and s.labels["stage"] == stage
        ]
        assert (bounds[0], bounds[-2]) == (0.001, 30.0)
    assert value(found, "twinlens_items_total", kind="text", outcome="empty_text") >= 1
    assert value(found, "twinlens_items_total", kind="image", outcome="undecodable_image") >= 1
    assert value(found, "twinlens_items_total", kind="image", outcome="ok") >= 1
    for kind in ("image", "text", "search"):
        assert value(found, "twinlens_admissions_total", kind=kind, outcome="admitted") >= 1
        assert value(found, "twinlens_pending_items", kind=kind) == 0
        assert value(found, "twinlens_queue_limit_items", kind=kind) > 1
    assert value(found, "twinlens_batch_items_count", kind="image") >= 1
    cause = {"route": "/items/{item_id:id}", "status": "404", "cause": "unknown_item"}
    assert value(found, "twinlens_requests_total", **cause) >= 1
    assert value(found, "twinlens_request_seconds_count", route="/search/text") >= 1


def test_the_release_the_memory_and_the_threads_are_told(client, service):
    found = families(client)
    state = service.serving.state
    assert value(found, "twinlens_release_info", release=state.release.id, model="tiny") == 1
    created = value(found, "twinlens_release_created_timestamp_seconds")
    assert created == state.release.manifest.created.timestamp()
    assert value(found, "twinlens_release_loaded_timestamp_seconds") >= created
    assert value(found, "twinlens_release_items", kind="images") == 24
    resident = value(found, "twinlens_memory_bytes", device="cpu", state="resident")
    assert 50e6 < resident < value(found, "twinlens_memory_bytes", device="cpu", state="total")
    assert value(found, "twinlens_threads", name="device") >= 1
    assert value(found, "twinlens_threads", name="search") >= 1
    assert value(found, "twinlens_ready") == 1
    assert value(found, "twinlens_draining") == 0


def test_hostile_requests_add_no_labels(client, service):
    exercise(client)
    hostile(client, service, 0)
    before = count_samples(client)
    for number in range(1, 40):
        hostile(client, service, number)
    assert count_samples(client) == before


def hostile(client: httpx.Client, service: Running, number: int) -> None:
    client.get(f"/no/such/path/{number}")
    client.get(f"/items/{number}/..%2f{number}")
    client.get(f"/static/{number}.js")
    client.post(f"/{number}", content=bytes(number))
    client.get("/healthz", headers={"x-request-id": f"id-{number}", "x-deadline-ms": f"{number}x"})
    client.post("/embed/text", json={"texts": f"text {number}", f"field{number}": 1})
    client.post("/v1/embeddings", json={"input": "a", "model": f"model-{number}"})
    with dialled(service) as raw:
        raw.sendall(f"BREW{number} / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        while raw.recv(4096):
            pass


def count_samples(client: httpx.Client) -> int:
    return sum(len(family.samples) for family in families(client).values())


@pytest.mark.parametrize(
    ("spoil", "reason", "words"),
    [
        (
            lambda folder, new: (folder / "CURRENT").write_text("20990101T000000Z-abcdef\n"),
            "missing",
            "20990101",
        ),
        (lambda folder, new: (folder / "CURRENT").write_text("garbage"), "corrupt", "no release id"),
        (lambda folder, new: flip(folder / new / "image_vectors.faiss"), "corrupt", "image_vectors.faiss"),
        (
            lambda folder, new: flip(folder / new / "bundle" / "model.safetensors"),
            "corrupt",
            "model.safetensors",
        ),
    ],
)
def test_a_broken_release_is_refused_with_its_reason_everywhere_and_the_old_one_serves_on(
    tmp_path, releases, gallery, other_tiny_bundle, settings_for, caplog, spoil, reason, words
):
    folder = shutil.copytree(releases, tmp_path / "releases")
    with running(settings_for(folder)) as service:
        client, served = service.client, service.serving.state.release.id
        assert client.get("/release").json()["refused"] is None
        assert value(families(client), "twinlens_release_refused") == 0
        new = publish(folder, gallery, other_tiny_bundle)
        spoil(folder, new)
        for _ in range(2):
            assert client.post("/release/reload").json()["error"]["code"] == "reload_failed"
        refused = client.get("/release").json()["refused"]
        named = None if words == "no release id" else (folder / "CURRENT").read_text().strip()
        assert (refused["release"], refused["reason"], refused["tries"]) == (named, reason, 2)
        assert words in refused["message"]
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {
            "status": "ready",
            "release": served,
            "refused": {"release": named, "reason": reason},
        }
        found = families(client)
        assert value(found, "twinlens_release_refused") == 1
        assert value(found, "twinlens_release_refusals_total", reason=reason) == 2
        assert words in caplog.text
        assert client.post("/search/text", json={"query": "a"}).json()["release"] == served
        (folder / "CURRENT").write_text(served)
        assert client.post("/release/reload").json() == {"release": served, "swapped": False}
        assert client.get("/release").json()["refused"] is None
        assert value(families(client), "twinlens_release_refused") == 0
        assert "refused" not in client.get("/readyz").json()


def flip(path) -> None:
    """One bit of a file changes."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # it may be a hard link to what others use
    path.write_bytes(data)


def test_the_watcher_tells_a_refused_release_too_and_forgets_it_after_a_rollback(
    tmp_path, releases, settings_for
):
    folder = shutil.copytree(releases, tmp_path / "releases")
    with running(settings_for(folder, watch_seconds=0.03)) as service:
        served = service.serving.state.release.id
        (folder / "CURRENT").write_text("20990101T000000Z-abcdef\n")
        wait_until(lambda: service.client.get("/release").json()["refused"] is not None)
        assert set(service.client.get("/readyz").json()) == {"status", "release", "refused"}
        (folder / "CURRENT").write_text(served)
        wait_until(lambda: service.client.get("/release").json()["refused"] is None)


def test_every_reason_of_a_refusal_is_counted_from_zero(client):
    found = families(client)
    assert {
        s.labels["reason"] for s in found["twinlens_release_refusals"].samples if "reason" in s.labels
    } == set(REASONS)
