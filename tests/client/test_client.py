"""The client against the real service: every call, both kinds, and what errors become."""

import asyncio
import inspect
import io
import math
import re
from typing import Any

import httpx
import numpy as np
import pytest
from live_service import Running, image_file

import twinlens
from twinlens import (
    AsyncClient,
    Client,
    Embedding,
    FieldValue,
    ItemError,
    NewItem,
    Query,
    Reload,
    SearchResults,
    calls,
)
from twinlens.answers import read_search


@pytest.fixture
def some_id(service: Running) -> str:
    return service.serving.state.release.items.id(1)  # slashes, blanks, #, ? and % are in it


def test_an_image_as_bytes_path_or_open_file_gives_one_embedding_each_in_float32(client, service, tmp_path):
    data = image_file(3)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as opened:
        answer = client.embed_images([data, path, str(path), opened, io.BytesIO(data), b"no image"])
    raw = service.client.post("/embed/image", content=data, headers={"content-type": "image/png"}).json()
    expected = np.array(raw["data"][0]["embedding"], dtype=np.float32)
    for item in answer.items[:5]:
        assert isinstance(item, Embedding)
        assert item.vector.typecode == "f"
        np.testing.assert_allclose(np.asarray(item.vector), expected, atol=1e-6)
    assert answer.items[5] == ItemError("undecodable_image", answer.items[5].message)
    assert (answer.model, answer.dim, answer.model_fingerprint) == ("tiny", 16, raw["model_fingerprint"])
    with pytest.raises(twinlens.ItemFailed, match="item 5") as failure:
        answer.vectors()
    assert failure.value.code == "undecodable_image"


def test_texts_are_cut_refused_and_shortened_as_asked(client):
    long_text = "a b c d e f g h i j k l m n o p q r s t"
    cut, whole = client.embed_texts([long_text, "a dog"]).items
    assert (cut.truncated, whole.truncated) == (True, False)
    refused, fine = client.embed_texts([long_text, "a dog"], truncate="none").items
    assert (refused.code, fine.truncated) == ("text_too_long", False)
    (short,) = client.embed_texts("a dog", dimensions=5).vectors()
    assert (len(short), math.hypot(*short)) == (5, pytest.approx(1, abs=1e-6))


def test_search_by_text_image_vector_and_item_gives_what_the_service_gives(client, service, some_id):
    (vector,) = client.embed_texts("a red dog").vectors()
    fingerprint = client.release().model_fingerprint
    year = {"must": [{"key": "year", "range": {"gte": 2010}}]}
    by_text = client.search(text="a red dog", k=3, filter=year, with_vector=True)
    by_vector = client.search(
        vector=np.asarray(vector), model_fingerprint=fingerprint, k=3, filter=year, with_vector=True
    )
    assert [hit.id for hit in by_vector.hits] == [hit.id for hit in by_text.hits]
    assert all(hit.payload["year"] >= 2010 and len(hit.vector) == 16 for hit in by_text.hits)
    texts = client.search(image=image_file(1), in_="texts", k=2, filter=year, with_payload=False)
    assert all(hit.text and hit.items and hit.item_count and not hit.payload for hit in texts.hits)
    similar = client.search(id=some_id, k=4, offset=1)
    raw = service.client.post("/search/item", json={"id": some_id, "k": 4, "offset": 1}).json()
    assert [(hit.id, hit.score) for hit in similar.hits] == [
        (hit["id"], hit["score"]) for hit in raw["results"]
    ]
    assert (similar.release, similar.model_fingerprint) == (raw["release"], fingerprint)


def test_a_batch_answers_each_query_with_results_or_its_error(client, some_id):
    queries = [
        Query(text="a red dog"),
        Query(image=image_file(2), in_="texts", k=2),
        Query(id="no such item"),
        Query(id=some_id),
    ]
    batch = client.search_batch(queries, k=5)
    assert [len(one.hits) if isinstance(one, SearchResults) else one.code for one in batch.answers] == [
        5,
        2,
        "unknown_item",
        5,
    ]
    assert batch.answers[0].hits == client.search(text="a red dog", k=5).hits


def test_items_with_odd_ids_images_the_release_and_readiness_are_read(client, gallery, some_id):
    item = client.item(some_id)
    assert (item.id, item.payload["year"], item.width_pixels) == (some_id, 2001, 320)
    assert client.image(some_id) == (gallery / some_id).read_bytes()
    assert client.image(some_id, side_pixels=64).startswith(b"RIFF")  # the WebP thumbnail
    release = client.release()
    assert (release.model, release.raw["counts"]["images"], release.release) == ("tiny", 24, item.release)
    assert "details" not in release.raw
    assert client.release(details=True).raw["details"]["recall"]["images"]["recall"] == 1.0
    assert client.ready()


def test_items_are_put_replaced_and_deleted_one_or_many(client):
    fingerprint = client.release().model_fingerprint
    item_id = "new/50% ü#?.png"
    first = client.put_item(item_id, image=image_file(77), payload={"year": 2031}, texts=["a new one"])
    assert first.id == item_id
    assert client.search(image=image_file(77), k=1).hits[0].payload == {"year": 2031}
    replaced = client.put_item(item_id, vector=[1.0] + [0.0] * 15, model_fingerprint=fingerprint)
    assert replaced.sequence > first.sequence
    assert (client.item(item_id).payload, client.item(item_id).width_pixels) == ({}, None)
    several = client.change_items(
        put=[NewItem(id="new/2", image=image_file(78)), NewItem(id="new/3", image=b"no")],
        delete=[item_id, "nope"],
    )
    assert [type(one).__name__ for one in (*several.put, *several.deleted)] == ["Change", "ItemError"] * 2
    assert client.delete_item("new/2").sequence > several.put[0].sequence
    with pytest.raises(twinlens.NotFound):
        client.item(item_id)
    with pytest.raises(ValueError, match="exactly one of image and vector"):
        client.put_item("new/4")


def test_fields_duplicates_drift_and_a_reload_are_read(client, gallery, service):
    told = client.fields()
    year = next(field for field in told.fields if field.key == "year")
    assert (told.items, told.counted, year.kind, year.minimum) == (24, 24, "number", 2000)
    category = next(field for field in told.fields if field.key == "category")
    assert set(category.values) == {FieldValue("animals", 12), FieldValue("cars", 12)}
    original = next(path for path in gallery.glob("*/* 3.png"))
    client.put_item("twins/1", image=original)
    page = client.duplicates(min_score=1.0, limit=1)
    found = list(page.items)
    while page.next:
        page = client.duplicates(min_score=1.0, limit=1, cursor=page.next)
        found += page.items
    pairs = {(one.id, twin.id, twin.identical) for one in found for twin in one.duplicates}
    assert (original.relative_to(gallery).as_posix(), "twins/1", True) in pairs
    assert page.scanned == page.total
    client.delete_item("twins/1")
    drift = client.drift()
    assert [report.subject for report in drift.reports][:2] == ["text_queries", "image_queries"]
    assert all(report.why for report in drift.reports)
    assert (drift.release, drift.raw["least_queries"]) == (told.release, 50)
    assert client.reload() == Reload(release=told.release, swapped=False)


def test_every_call_that_the_service_describes_is_one_of_the_clients(service):
    made = [
        calls.embed_images(b"x"),
        calls.embed_texts("a"),
        calls.search(Query(text="a")),
        calls.search(Query(image=b"x")),
        calls.search(Query(vector=[1.0])),
        calls.search(Query(id="x")),
        calls.search_batch([Query(text="a")], Query()),
        calls.item("x"),
        calls.image("x"),
        calls.fields(),
        calls.duplicates(),
        calls.put_item(NewItem(id="x", vector=[1.0])),
        calls.delete_item("x"),
        calls.change_items(),
        calls.release(),
        calls.reload(),
        calls.drift(),
        calls.ready(),
    ]
    description = service.client.get("/openapi.json").json()
    described = {
        (method.upper(), re.sub(r"\{\w+\}", "x", path))
        for path, entry in description["paths"].items()
        for method in entry
        if not path.startswith("/v1/")
        and path not in {"/healthz", "/metrics"}  # OpenAI's client, probes, Prometheus
    }
    assert described == {(call.method, call.path) for call in made}
    options = description["components"]["schemas"]["SearchBatchQuery"]["properties"].keys()
    assert options == {"in" if name == "in_" else name for name in Query.__dataclass_fields__}


def test_every_method_has_a_signature_that_inspect_and_editors_can_show(client):
    for name in {name for name in vars(Client) if not name.startswith("_")} - {"close"}:
        method, awaited = getattr(Client, name), getattr(AsyncClient, name)
        assert method.__doc__
        assert method.__doc__ == awaited.__doc__
        assert inspect.signature(method) == inspect.signature(awaited)
        assert inspect.iscoroutinefunction(awaited)
        for parameter in inspect.signature(getattr(client, name)).parameters.values():
            assert parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}, name
            assert parameter.annotation is not parameter.empty, name
    words = str(inspect.signature(client.put_item))
    assert words.startswith("(id: str, *, image: ")
    assert words.endswith("-> twinlens.answers.Change")
    assert list(inspect.signature(client.change_items).parameters) == ["put", "delete"]
    assert set(inspect.signature(client.search).parameters) == set(Query.__dataclass_fields__)
    options = set(Query.__dataclass_fields__) - {"text", "image", "vector", "id"}
    assert set(inspect.signature(client.search_batch).parameters) == {"queries", *options}
    assert set(inspect.signature(client.put_item).parameters) == set(NewItem.__dataclass_fields__)


def test_refusals_are_exceptions_of_their_kind_with_all_that_the_service_told(client):
    cases = (
        (lambda: client.search(text="a", k=0), twinlens.InvalidRequest, 422, "invalid_field", "k"),
        (lambda: client.item("nope"), twinlens.NotFound, 404, "unknown_item", None),
        (lambda: client.embed_texts(["a"] * 513), twinlens.TooLarge, 413, "too_many_items", "texts"),
        (lambda: client.embed_images(b"no"), twinlens.InvalidRequest, 400, "undecodable_image", None),
        (
            lambda: client.search(vector=[1.0] * 16, model_fingerprint="0"),
            twinlens.WrongModel,
            409,
            "wrong_model",
            "model_fingerprint",
        ),
    )
    for call, kind, status, code, param in cases:
        with pytest.raises(kind) as refusal:
            call()
        error = refusal.value
        assert type(error) is kind
        assert (error.status, error.code, error.param) == (status, code, param)
        assert len(error.request_id) == 32
        assert error.request_id in str(error)
        assert len(error.message) > 20


def test_what_cannot_be_a_request_never_leaves_the_client(client):
    for call in (
        lambda: client.search(text="a", id="b"),
        client.search,
        lambda: client.item("animals/../secret"),
        lambda: client.item(""),
        lambda: client.embed_images([]),
        lambda: client.search_batch([Query()]),
        lambda: client.search_batch([Query(text="a")], text="b"),
    ):
        with pytest.raises(
            (ValueError, TypeError), match=r"exactly one|clean relative|no image|argument 'text'"
        ):
            call()


def questions(client: Client | AsyncClient, item_id: str) -> tuple[Any, ...]:
    """Every way to ask, of either client: the answers, or what becomes of them when they are awaited."""
    return (
        client.embed_images([image_file(3), b"no"]),
        client.embed_texts("a dog"),
        client.with_options(deadline_seconds=30).search(text="a red dog", k=2),
        client.search_batch([Query(id=item_id)]),
        client.item(item_id),
        client.image(item_id, side_pixels=64),
        client.fields(),
        client.duplicates(limit=1000),
        client.release(),
        client.ready(),
    )


def test_the_awaiting_client_is_the_same_in_everything(client, service, some_id):
    async def ask() -> list[object]:
        async with AsyncClient(service.url) as awaiting:
            # One by one: another batch on the device may round otherwise.
            return [await answer for answer in questions(awaiting, some_id)]

    for awaited, blocked in zip(asyncio.run(ask()), questions(client, some_id), strict=True):
        assert repr(awaited) == repr(blocked)
    methods = {name for name in vars(Client) if not name.startswith("_")}
    assert methods == {name for name in vars(AsyncClient) if not name.startswith("_")}


def test_connections_are_kept_and_ones_own_httpx_client_stays_open(service):
    with httpx.Client(trust_env=False) as own:
        with Client(service.url, http=own) as client:
            client.with_options(request_id="find-me").embed_texts("a")
            client.embed_texts("a")
        assert not own.is_closed
        pool = own._transport._pool
        assert len(pool.connections) == 1
    mine = Client(service.url)
    with mine.with_options(retries=1) as other:
        assert other.ready()
    assert mine.ready()  # the copy closed nothing
    mine.close()


def test_a_search_says_its_verdict_how_it_was_asked_and_what_was_unknown(client):
    found = client.search(text="a red dog", k=1)
    assert (found.verdict, found.good_match, found.likely, found.templates) == (None, None, None, None)
    with pytest.raises(twinlens.InvalidRequest, match="expand is templates, and tiny has none"):
        client.search(text="dog", expand="templates")
    told = {
        "results": [], "verdict": "unsure", "good_match": True, "levels": {"likely": 0.4, "perhaps": 0.1},
        "templates": ["{}", "a {}"], "unknown_words": ["hund"], "truncated": False, "release": "r",
        "model_fingerprint": "f",
    }  # fmt: skip
    read = read_search(told)
    assert (read.verdict, read.good_match, read.likely, read.perhaps) == ("unsure", True, 0.4, 0.1)
    assert (read.templates, read.unknown_words, read.release) == (("{}", "a {}"), ("hund",), "r")
    since = ("verdict", "levels", "templates", "unknown_words")
    before = read_search({key: value for key, value in told.items() if key not in since})
    assert (before.verdict, before.good_match, before.unknown_words) == (None, True, ())
