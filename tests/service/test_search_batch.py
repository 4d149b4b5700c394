"""`/search/batch`: what each query alone would find, in one request; and one bad query among good ones."""

import base64
import json

import numpy as np
import pytest
from live_service import Running, image_file, running

from service.wire.answers import HITS_AT_ONCE, dump, dump_answers, dump_hits

CARS = {"must": [{"key": "category", "match": {"value": "cars"}}]}


@pytest.fixture(scope="module")
def fingerprint(service: Running) -> str:
    return service.serving.state.encoder.fingerprint


@pytest.fixture(scope="module")
def some_id(service: Running) -> str:
    return service.serving.state.release.items.id(4)


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def text_batches(service: Running) -> float:
    registry = service.serving.telemetry.registry
    return registry.get_sample_value("twinlens_batch_items_count", {"kind": "text"}) or 0.0


def test_every_query_finds_what_it_finds_alone_with_its_own_options_or_the_batchs(
    client, service, fingerprint, some_id
):
    vector = [1.0] + [0.0] * 15
    image = coded(image_file(5))
    queries = [
        {"text": "a red dog"},
        {"image": image, "in": "texts", "k": 2},
        {"vector": vector, "model_fingerprint": fingerprint, "with_vector": True},
        {"id": some_id, "filter": CARS},
        {"text": "a b c d e f g h i j k l m n o p q r s t", "with_payload": True, "offset": 1},
        {"image": coded(image_file(9)), "score_threshold": -1},
    ]
    before = text_batches(service)
    response = client.post("/search/batch", json={"queries": queries, "k": 3, "with_payload": False})
    assert text_batches(service) == before + 1
    assert response.status_code == 200, response.text
    batch = response.json()
    common = {"k": 3, "with_payload": False}
    paths = {"text": "query", "image": "image", "vector": "vector", "id": "id"}
    for index, query in enumerate(queries):
        kind = next(name for name in paths if name in query)
        own = {paths[kind]: query[kind]} | {name: value for name, value in query.items() if name != kind}
        alone = client.post(f"/search/{'item' if kind == 'id' else kind}", json=common | own).json()
        told = batch["answers"][index]
        of_all = {"release", "model_fingerprint"}
        assert told == {"index": index} | {key: value for key, value in alone.items() if key not in of_all}
    assert (batch["release"], batch["model_fingerprint"]) == (service.serving.state.release.id, fingerprint)


def test_one_bad_query_of_any_kind_never_fails_the_others(client, some_id):
    queries = [
        {"text": "a dog"},
        {"text": "a dog", "k": 0},
        {"text": "  "},
        {"image": "!!!"},
        {"image": coded(b"no image")},
        {"vector": [1.0] * 16, "model_fingerprint": "0" * 64},
        {"vector": [1.0] * 15},
        {"id": "no such item"},
        {"text": "a dog", "id": some_id},
        {"text": "a dog", "kk": 1},
        {"text": "a dog", "filter": {"maybe": []}},
        "a dog",
        {},
        {"id": some_id},
    ]
    answers = client.post("/search/batch", json={"queries": queries, "k": 1}).json()["answers"]
    assert [answer["index"] for answer in answers] == list(range(len(queries)))
    assert [answer.get("error", {}).get("code") for answer in answers] == [
        None,
        "invalid_field",
        "empty_text",
        "invalid_base64",
        "undecodable_image",
        "wrong_model",
        "invalid_field",
        "unknown_item",
        *["invalid_field"] * 5,
        None,
    ]
    assert all(len(answer["results"]) == 1 for answer in (answers[0], answers[-1]))
    assert "k: " in answers[1]["error"]["message"]
    assert "text and id" in answers[8]["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"queries": []}, 422, "invalid_field"),
        ({}, 422, "invalid_field"),
        ({"queries": [{"text": "a"}], "k": 0}, 422, "invalid_field"),
        ({"queries": [{"text": "a"}] * 65}, 413, "too_many_items"),
        ({"queries": [{"text": "a"}] * 11, "k": 1000}, 413, "too_many_items"),
        ({"queries": [{"id": "nope"}, {"id": "neither"}]}, 404, "unknown_item"),
        ({"queries": [{"id": "nope"}, {"text": ""}]}, 400, "all_items_failed"),
    ],
)
def test_a_batch_that_is_empty_too_large_or_all_bad_fails_as_a_whole(client, body, status, code):
    response = client.post("/search/batch", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_the_bounds_on_queries_and_on_images_are_settings(releases, settings_for):
    with running(settings_for(releases, max_queries=3, max_images=1)) as service:
        texts, images = [{"text": "a"}] * 4, [{"image": coded(image_file(1))}] * 2
        for queries, word in ((texts, "4 queries"), (images, "2 images")):
            refused = service.client.post("/search/batch", json={"queries": queries})
            assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_many_items")
            assert word in refused.json()["error"]["message"]


def test_a_long_batch_lets_others_search_in_between_and_sees_one_release(service, monkeypatch):
    monkeypatch.setattr(
        "service.routes.search_requests.SLICE_SECONDS", 0.0
    )  # every query takes longer than its turn
    hops, run = [], service.serving.searcher.run

    async def counted(work, **options):
        hops.append(work)
        return await run(work, **options)

    monkeypatch.setattr(service.serving.searcher, "run", counted)
    queries = [{"text": word} for word in ("a dog", "a cat", "a car")]
    answers = service.client.post("/search/batch", json={"queries": queries, "k": 2}).json()["answers"]
    assert [len(answer["results"]) for answer in answers] == [2, 2, 2]
    assert len(hops) == 3


def test_filters_of_a_batch_on_more_new_keys_than_one_search_may_have_read_are_all_answered(
    releases, settings_for, monkeypatch
):
    monkeypatch.setattr("service.search.columns.INLINE_VALUES", 0)  # a large gallery
    queries = [
        {"text": "a dog", "filter": {"must_not": [{"is_empty": {"key": key}}]}}
        for key in ("title", "category", "year", "tags")
    ]
    with running(settings_for(releases)) as service:
        response = service.client.post("/search/batch", json={"queries": queries, "k": 30})
        assert response.status_code == 200, response.text
        assert [len(answer["results"]) for answer in response.json()["answers"]] == [24, 24, 24, 1]


def test_answers_written_a_few_hits_at_a_time_are_the_same_json():
    vector = np.arange(4, dtype=np.float32) / 3
    for count in (0, 1, HITS_AT_ONCE, 2 * HITS_AT_ONCE + 1):
        hits = [{"id": f"ä{number}", "payload": {"n": number}, "vector": vector} for number in range(count)]
        answer = {"results": hits, "release": "r", "good_match": None}
        assert json.loads(dump_hits(answer)) == json.loads(dump(answer))
        items = [answer, {"index": 1, "error": {"code": "c"}}, answer]
        assert json.loads(dump_answers(items, {"release": "r"})) == json.loads(
            dump({"answers": items, "release": "r"})
        )
