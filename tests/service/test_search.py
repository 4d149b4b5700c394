"""`/search`: four ways to ask, two things to find, filters and pages; against exact search by hand."""

import base64
import json
from dataclasses import replace

import faiss
import httpx
import numpy as np
import pyarrow as pa
import pytest
from live_service import ITEM_COUNT, Running, image_file

from index.items import TEXT_SCHEMA, TextTable, text_row
from index.vectors import VectorIndex
from service.search.delta import Delta
from service.search.filters import PayloadFilter, parse_filter
from service.search.gallery_view import GalleryView
from service.search.hits import Query, search

PNG = {"content-type": "image/png"}
CARS = {"must": [{"key": "category", "match": {"value": "cars"}}]}


def found(client: httpx.Client, path: str, **body: object) -> list[dict]:
    response = client.post(f"/search/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def ids(results: list[dict]) -> list[str]:
    return [result["id"] for result in results]


@pytest.fixture(scope="module")
def all_ids(service: Running) -> list[str]:
    items = service.serving.state.release.items
    return [items.id(row) for row in range(len(items))]


def test_an_image_of_the_gallery_finds_itself_first_whichever_way_it_is_sent(client, gallery, all_ids):
    data = (gallery / all_ids[5]).read_bytes()
    coded = base64.b64encode(data).decode()
    ways = (
        client.post("/search/image?k=3", content=data, headers=PNG),
        client.post("/search/image?k=3", files={"image": ("a.png", data, "image/png")}),
        client.post("/search/image", files={"image": ("a.png", data)}, data={"k": "3"}),
        client.post("/search/image", json={"image": coded, "k": 3}),
    )
    for response in ways:
        results = response.json()["results"]
        assert len(results) == 3
        assert results[0]["id"] == all_ids[5]
        assert results[0]["score"] == pytest.approx(1.0, abs=1e-5)
        assert results[0]["payload"]["year"] == 2005
        assert results[0]["relevance"] is None


def test_scores_are_the_exact_cosines_best_first(client, service):
    vector = client.post("/embed/text", json={"texts": "a red dog"}).json()["data"][0]["embedding"]
    ((_, matrix),) = service.serving.state.release.images.blocks()
    exact = np.sort(matrix @ np.array(vector, dtype=np.float32))[::-1]
    scores = [result["score"] for result in found(client, "text", query="a red dog", k=1000)]
    np.testing.assert_allclose(scores, exact, atol=2e-6)


def test_pages_join_without_gap_or_overlap(client):
    whole = ids(found(client, "text", query="a red dog", k=ITEM_COUNT))
    pages = [ids(found(client, "text", query="a red dog", k=7, offset=offset)) for offset in range(0, 28, 7)]
    assert sum(pages, []) == whole  # noqa: RUF017 - four short lists
    assert len(set(whole)) == ITEM_COUNT


@pytest.mark.parametrize("most_taken", [0, 2048])
@pytest.mark.parametrize("condition", [None, CARS])
@pytest.mark.parametrize("penalised", [False, True])
def test_pages_over_copies_of_one_image_join_too(service, monkeypatch, penalised, condition, most_taken):
    monkeypatch.setattr("service.search.ranking.MOST_TAKEN", most_taken)
    release, rng = service.serving.state.release, np.random.default_rng(3)
    rows = rng.normal(size=(ITEM_COUNT, release.images.dim)).astype(np.float32)
    penalties = rng.random(ITEM_COUNT).astype(np.float32) * penalised
    rows[4:22], penalties[4:22] = rows[4], penalties[4]
    flat = faiss.IndexFlatIP(release.images.dim + penalised)
    flat.add(np.concatenate([rows, -penalties[:, None]], axis=1) if penalised else rows)
    copied = replace(release, images=VectorIndex(flat, penalised=penalised))
    view = GalleryView(copied, Delta.empty(copied, None))
    vector = rng.normal(size=release.images.dim).astype(np.float32)
    whole = Query(vector, asked_by="texts", k=ITEM_COUNT, condition=parse_filter(condition))

    def page(query: Query) -> list[str]:
        return ids(search(view, query, payload_filter=PayloadFilter(release.items)).hits)

    order = np.argsort((penalties - rows @ vector).round(4), kind="stable")
    expected = [release.items.id(row) for row in order if condition is None or row % 2]
    for k in (1, 5, ITEM_COUNT):
        pages = [page(replace(whole, k=k, offset=offset)) for offset in range(0, ITEM_COUNT, k)]
        assert sum(pages, []) == expected  # noqa: RUF017 - short lists


def test_an_image_finds_texts_with_the_items_they_belong_to(client, gallery, all_ids):
    data = (gallery / all_ids[2]).read_bytes()
    response = client.post("/search/image?in=texts&k=6", content=data, headers=PNG)
    results = response.json()["results"]
    assert {result["text"] for result in results} == {
        "a red dog",
        "a green car",
        "a blue dog",
        "a yellow car",
        "a black dog",
        "a white car",
    }
    red = next(result for result in results if result["text"] == "a red dog")
    assert sorted(red["items"]) == sorted(all_ids[0::6])
    assert red["item_count"] == 4


def test_a_text_of_very_many_items_names_the_first_and_counts_all(service):
    release = service.serving.state.release
    table = replace_lists(release.texts_table, [list(range(ITEM_COUNT)) * 10, []] + [[0]] * 4)
    changed = replace(release, texts_table=table)
    shared = GalleryView(changed, Delta.empty(changed, None))
    query = Query(release.texts.reconstruct(0), space="texts")
    hits = {hit["id"]: hit for hit in search(shared, query, payload_filter=PayloadFilter(release.items)).hits}
    assert (len(hits[table.id(0)]["items"]), hits[table.id(0)]["item_count"]) == (100, 240)
    only_last = replace(query, condition=parse_filter({"has_id": [release.items.id(ITEM_COUNT - 1)]}))
    found_hits = search(shared, only_last, payload_filter=PayloadFilter(release.items)).hits
    assert [hit["id"] for hit in found_hits] == [table.id(0)]


def replace_lists(table: TextTable, lists: list[list[int]]) -> TextTable:
    rows = [text_row(bytes([n]) * 32, table.text(n), rows) for n, rows in enumerate(lists)]
    return TextTable(pa.Table.from_pylist(rows, schema=TEXT_SCHEMA))


def test_a_text_finds_itself_among_the_texts(client):
    best = found(client, "text", query="a green car", k=1, **{"in": "texts"})[0]
    assert best["text"] == "a green car"
    assert best["score"] == pytest.approx(1.0, abs=1e-5)


def test_more_like_an_item_leaves_the_item_itself_out(client, all_ids):
    results = ids(found(client, "item", id=all_ids[4], k=ITEM_COUNT))
    assert sorted(results) == sorted(set(all_ids) - {all_ids[4]})
    assert found(client, "item", id=all_ids[4], k=3, **{"in": "texts"})


def test_a_vector_of_this_encoder_searches_and_of_another_is_refused(client, service):
    fingerprint = service.serving.state.encoder.fingerprint
    vector = [3.0] + [0.0] * 15
    same = found(client, "vector", vector=vector, model_fingerprint=fingerprint, k=2, with_vector=True)
    assert same[0]["score"] == pytest.approx(same[0]["vector"][0], abs=1e-5)
    other = client.post("/search/vector", json={"vector": vector, "model_fingerprint": "0" * 64})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "wrong_model")
    assert fingerprint in other.json()["error"]["message"]
    for bad in ([0.0] * 16, [1.0] * 15):
        response = client.post("/search/vector", json={"vector": bad, "model_fingerprint": fingerprint})
        assert (response.status_code, response.json()["error"]["param"]) == (422, "vector")


def test_a_threshold_keeps_what_is_at_least_as_near(client):
    scores = [result["score"] for result in found(client, "text", query="a cat", k=ITEM_COUNT)]
    kept = found(client, "text", query="a cat", k=ITEM_COUNT, score_threshold=scores[9] - 1e-6)
    assert [result["score"] for result in kept] == scores[:10]


def test_payload_and_vector_come_when_asked_for(client):
    plain = found(client, "text", query="a cat", k=1, with_payload=False)[0]
    full = found(client, "text", query="a cat", k=1, with_vector=True)[0]
    assert "payload" not in plain
    assert "vector" not in plain
    assert np.linalg.norm(full["vector"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("condition", "years"),
    [
        (CARS, range(2001, 2024, 2)),
        ({"must_not": CARS["must"]}, range(2000, 2024, 2)),
        ({"must": {"key": "year", "range": {"gte": 2010, "lt": 2012.5}}}, (2010, 2011, 2012)),
        (
            {
                "should": [
                    {"key": "year", "match": {"any": [2003, 2004.0]}},
                    {"key": "tags", "match": {"value": "odd"}},
                ]
            },
            (2001, 2003, 2004),
        ),
        ({"must": [CARS, {"key": "year", "match": {"except": list(range(2003, 2024))}}]}, (2001,)),
        ({"must_not": [{"is_empty": {"key": "tags"}}]}, (2001,)),
        ({"must": [{"has_id": ["animals/red ä#?% 0.png", "nope"]}]}, (2000,)),
        ({"must": [{"key": "year", "match": {"value": "2001"}}]}, ()),
        ({"must": [{"key": "year", "match": {"value": True}}]}, ()),
        ({}, range(2000, 2024)),
    ],
)
def test_a_filter_searches_exactly_the_rows_that_pass(client, condition, years):
    unfiltered = found(client, "text", query="a red dog", k=1000)
    expected = [result["id"] for result in unfiltered if result["payload"]["year"] in years]
    assert ids(found(client, "text", query="a red dog", k=1000, filter=condition)) == expected
    assert ids(found(client, "text", query="a red dog", k=2, offset=1, filter=condition)) == expected[1:3]


def test_a_filter_may_come_as_query_parameter_and_reaches_texts_through_their_items(client):
    answer = client.post(
        "/search/image", params={"filter": json.dumps(CARS), "in": "texts"}, content=image_file(1), headers=PNG
    ).json()
    assert sorted(result["text"] for result in answer["results"]) == [
        "a green car",
        "a white car",
        "a yellow car",
    ]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("text", {"query": ""}, "query"),
        ("text", {"query": "a", "k": 0}, "k"),
        ("text", {"query": "a", "k": 1001}, "k"),
        ("text", {"query": "a", "in": "sounds"}, "in"),
        ("text", {"query": "a", "kk": 3}, "kk"),
        ("text", {}, "query"),
        ("text", {"query": "a", "filter": {"must": [{"key": "year"}]}}, "filter"),
        ("text", {"query": "a", "filter": {"maybe": []}}, "filter"),
        (
            "text",
            {"query": "a", "filter": {"should": [{"is_empty": {"key": f"k{n}"}} for n in range(300)]}},
            "filter",
        ),
        ("text", {"query": "a", "score_threshold": "high"}, "score_threshold"),
        ("image", {"image": ""}, "image"),
    ],
)
def test_a_field_out_of_range_is_named(client, path, body, param):
    response = client.post(f"/search/{path}", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (422, "invalid_field", param)
    assert param in error["message"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ('"score_threshold": NaN', "score_threshold"),
        ('"filter": {"must": {"key": "year", "range": {"gte": NaN}}}', "filter"),
        ('"filter": {"must": {"key": "year", "match": {"value": NaN}}}', "filter"),
    ],
)
def test_what_is_no_number_is_compared_with_nothing(client, options, param):
    body = f'{{"query": "a", {options}}}'
    response = client.post("/search/text", content=body, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, param)


def test_an_unknown_item_is_404_and_a_cut_query_says_so(client):
    missing = client.post("/search/item", json={"id": "../etc/passwd"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_item")
    long_query = "a b c d e f g h i j k l m n o p q r s t"
    assert client.post("/search/text", json={"query": long_query}).json()["truncated"] is True
    refused = client.post("/search/text", json={"query": long_query, "truncate": "none"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_too_long")
