"""Items put and deleted over HTTP: found at once, by every way of asking, and gone at once everywhere."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from live_service import ITEM_COUNT, Running, image_file, publish, running

from index.errors import JournalBusy
from service.settings import Settings

PNG = {"content-type": "image/png"}
ODD_IDS = ["batch", "a/b/c.png", "ä ö/ü 猫.png", "50% #?&=+.png", "items/batch", "x" * 1024, "-", "duplicates"]
BAD_IDS = ["..", "a/../b", "a//b", "/etc/passwd", "a/", "x" * 1025, "a\x00b", "a\nb", "\x7f"]


@pytest.fixture(scope="module")
def live_releases(tmp_path_factory: pytest.TempPathFactory, releases: Path) -> Path:
    folder = tmp_path_factory.mktemp("live") / "releases"
    shutil.copytree(releases, folder)
    return folder


@pytest.fixture(scope="module")
def service(live_releases: Path, settings_for: Callable[..., Settings]) -> Iterator[Running]:
    with running(settings_for(live_releases, live_changes=True)) as started:
        yield started


@pytest.fixture(autouse=True)
def _as_before(service: Running) -> Iterator[None]:
    """Every test begins with the items of the release; those it deleted it must put back."""
    yield
    for item_id in list(service.serving.state.delta.row_of):
        assert service.client.delete(url(item_id)).status_code == 200


def url(item_id: str) -> str:
    return f"/items/{quote(item_id)}"


def put(client: httpx.Client, item_id: str, *, seed: int = 100, **payload: object) -> dict:
    response = client.put(
        url(item_id), content=image_file(seed), headers=PNG, params={"payload": json.dumps(payload)}
    )
    assert response.status_code == 200, response.text
    return response.json()


def found(client: httpx.Client, path: str, **body: object) -> list[dict]:
    response = client.post(f"/search/{path}", json={"k": 1000, **body})
    assert response.status_code == 200, response.text
    return response.json()["results"]


def ids(results: list[dict]) -> list[str]:
    return [result["id"] for result in results]


def like(client: httpx.Client, seed: int) -> list[dict]:
    return client.post("/search/image?k=1000", content=image_file(seed), headers=PNG).json()["results"]


def test_an_item_that_was_put_is_found_at_once_by_text_image_vector_and_item(client, service):
    before = len(found(client, "text", query="a red dog"))
    answer = put(client, "new/one.png", title="a yellow square", year=2030)
    assert answer["id"] == "new/one.png"
    assert answer["model_fingerprint"] == service.serving.state.encoder.fingerprint
    best = like(client, 100)[0]
    assert (best["id"], best["payload"]["year"]) == ("new/one.png", 2030)
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    by_text = found(client, "text", query="a red dog")
    assert "new/one.png" in ids(by_text)
    assert len(by_text) == before + 1
    texts = found(client, "text", query="a yellow square", **{"in": "texts"})
    assert (texts[0]["text"], texts[0]["items"], texts[0]["item_count"]) == (
        "a yellow square",
        ["new/one.png"],
        1,
    )
    others = ids(found(client, "item", id="new/one.png"))
    assert "new/one.png" not in others
    assert len(others) == before
    held = client.get("/items/new/one.png").json()
    assert held == {
        "id": "new/one.png",
        "payload": {"title": "a yellow square", "year": 2030},
        "width": 48,
        "height": 40,
        "release": service.serving.state.release.id,
    }
    assert client.get("/images/new/one.png").content == image_file(100)
    thumbnail = client.get("/images/new/one.png", params={"side": 64})
    assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/webp")
    assert thumbnail.headers["cache-control"] == "no-cache"


def test_scores_with_an_overlay_are_what_comparing_everything_gives(client, service):
    release = service.serving.state.release
    gone = release.items.id(3)
    for number in range(5):
        put(client, f"new/{number}", seed=200 + number, number=number)
    put(client, release.items.id(0), seed=300)  # replaces one
    assert client.delete(url(gone)).status_code == 200
    vector = np.array(client.post("/embed/text", json={"texts": "a cat"}).json()["data"][0]["embedding"])
    view = service.serving.state.view
    shown = [release.items.id(row) for row in range(1, ITEM_COUNT) if row != 3]
    shown += [release.items.id(0), *(f"new/{number}" for number in range(5))]
    exact = {name: float(view.vector(view.row(name)) @ vector) for name in shown}
    expected = sorted(exact, key=lambda name: -exact[name])
    hits = found(client, "text", query="a cat")
    assert ids(hits) == expected
    assert view.count == len(shown)
    for hit in hits:
        assert hit["score"] == pytest.approx(exact[hit["id"]], abs=2e-6)
    paged = [ids(found(client, "text", query="a cat", k=4, offset=offset)) for offset in range(0, 32, 4)]
    assert [name for page in paged for name in page] == expected
    bound = exact[expected[6]] - 1e-6
    assert ids(found(client, "text", query="a cat", score_threshold=bound)) == expected[:7]
    some = {"must": [{"key": "number", "range": {"gte": 2}}]}
    assert ids(found(client, "text", query="a cat", filter=some)) == [
        name for name in expected if name in {"new/2", "new/3", "new/4"}
    ]
    has = {"has_id": ["new/1", gone, release.items.id(0), release.items.id(1)]}
    wanted = {"new/1", release.items.id(0), release.items.id(1)}
    assert ids(found(client, "text", query="a cat", filter={"must": [has]})) == [
        name for name in expected if name in wanted
    ]
    put(client, gone, seed=3)


def test_a_deleted_item_is_gone_everywhere_until_it_is_put_again(client, gallery, service):
    name = service.serving.state.release.items.id(7)
    data = (gallery / name).read_bytes()
    text = next(iter(found(client, "text", query="a green car", **{"in": "texts"})))
    assert name in text["items"]
    first = client.delete(url(name))
    assert first.status_code == 200
    assert name not in ids(found(client, "text", query="a cat"))
    texts = {hit["text"]: hit for hit in found(client, "text", query="a green car", **{"in": "texts"})}
    assert name not in texts["a green car"]["items"]
    assert texts["a green car"]["item_count"] == text["item_count"] - 1
    for response in (
        client.get(url(name)),
        client.get(f"/images/{quote(name)}"),
        client.post("/search/item", json={"id": name}),
        client.delete(url(name)),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_item")
    again = client.put(url(name), content=data, headers=PNG, params={"texts": '["a green car"]'})
    assert again.json()["sequence"] > first.json()["sequence"]
    texts = {hit["text"]: hit for hit in found(client, "text", query="a green car", **{"in": "texts"})}
    assert sorted(texts["a green car"]["items"]) == sorted(text["items"])
    assert client.get(f"/images/{quote(name)}").content == data


def test_a_text_whose_items_are_all_deleted_is_found_no_more(client, service):
    names = found(client, "text", query="a black dog", **{"in": "texts"})[0]["items"]
    for name in names:
        assert client.delete(url(name)).status_code == 200
    assert "a black dog" not in [hit["text"] for hit in found(client, "text", query="a", **{"in": "texts"})]
    release = service.serving.state.release
    for name in names:
        row = release.items.row(name)
        title = release.items.payload(row)["title"]
        assert client.put(
            url(name),
            content=release.open_image(row),
            headers=PNG,
            params={"payload": json.dumps({"title": title})},
        ).is_success
    assert sorted(found(client, "text", query="a black dog", **{"in": "texts"})[0]["items"]) == sorted(names)


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_an_id_may_be_anything_that_a_gallery_may_hold(client, item_id):
    put(client, item_id, number=1)
    assert client.get(url(item_id)).json()["id"] == item_id
    assert like(client, 100)[0]["id"] == item_id
    assert client.get(f"/images/{quote(item_id)}").content == image_file(100)
    assert client.delete(url(item_id)).json()["id"] == item_id
    assert client.get(url(item_id)).status_code == 404


@pytest.mark.parametrize("item_id", BAD_IDS)
def test_an_id_that_no_gallery_could_hold_is_refused_and_never_becomes_a_path(client, service, item_id):
    answer = client.post("/items/batch", json={"put": [{"id": item_id, "image": coded(1)}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_id")
    if item_id not in ("..", "a/../b"):  # a client resolves those before it sends them
        response = client.put(f"/items/{quote(item_id, safe='/')}", content=image_file(1), headers=PNG)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "bad_id")
    assert not service.serving.state.delta.row_of


def coded(seed: int) -> str:
    return base64.b64encode(image_file(seed)).decode()


def test_one_bad_item_of_many_never_fails_the_others_and_each_has_its_own_error(client, service):
    fingerprint = service.serving.state.encoder.fingerprint
    vector = [1.0] + [0.0] * 15
    name = service.serving.state.release.items.id(2)
    asked = [
        {"id": "good", "image": coded(1), "payload": {"title": "a light circle"}},
        {"id": "broken", "image": base64.b64encode(b"no image").decode()},
        {"id": "vector", "vector": vector, "model_fingerprint": fingerprint, "texts": ["a dark circle"]},
        {"id": "other", "vector": vector, "model_fingerprint": "0" * 64},
        {"id": "good", "image": coded(2)},
        {"id": "neither"},
        {"id": "large", "image": coded(2), "payload": {"x": "y" * 70_000}},
        {"id": "empty text", "image": coded(2), "texts": [" "]},
        {"image": coded(2)},
        {"id": "url", "image": "https://example.org/a.png"},
    ]
    answer = client.post("/items/batch", json={"put": asked, "delete": [name, "unknown", "good"]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    outcomes = [item.get("error", {}).get("code", "ok") for item in body["put"]]
    assert outcomes == [
        "ok",
        "undecodable_image",
        "ok",
        "wrong_model",
        "repeated_id",
        "invalid_field",
        "too_large",
        "empty_text",
        "invalid_field",
        "url_not_fetched",
    ]
    assert [item.get("error", {}).get("code", "ok") for item in body["delete"]] == [
        "ok",
        "unknown_item",
        "unknown_item",
    ]
    assert set(service.serving.state.delta.row_of) == {"good", "vector"}
    assert found(client, "vector", vector=vector, model_fingerprint=fingerprint)[0]["id"] == "vector"
    assert client.get("/items/vector").json()["width"] is None
    missing = client.get("/images/vector?side=64")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "image_missing")
    row = service.serving.state.release.items.row(name)
    put(client, name, seed=2, **service.serving.state.release.items.payload(row))


def test_deletes_of_many_are_answered_one_by_one_even_when_none_is_there(client, service):
    before = service.serving.live.sequence
    for asked in (
        {"delete": ["a", "b/c"]},
        {"delete": ["a", "b/c"], "put": [{"id": "x", "image": "no image"}]},
    ):
        answer = client.post("/items/batch", json=asked)
        assert answer.status_code == 200, answer.text
        told = [(item["id"], item["error"]["code"]) for item in answer.json()["delete"]]
        assert told == [("a", "unknown_item"), ("b/c", "unknown_item")]
        assert all("error" in item for item in answer.json()["put"])
    assert service.serving.live.sequence == before


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"content": b"no image", "headers": PNG}, 400, "undecodable_image"),
        ({"content": image_file(1), "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"json": {"image": coded(1), "vector": [1.0]}}, 422, "invalid_field"),
        ({"json": {"vector": [1.0] * 16}}, 422, "invalid_field"),
        ({"json": {"vector": [1.0] * 16, "model_fingerprint": "0" * 64}}, 409, "wrong_model"),
        ({"json": {"image": coded(1), "payload": [1]}}, 422, "invalid_field"),
        ({"json": {"image": coded(1), "more": 1}}, 422, "invalid_field"),
        ({"content": image_file(1), "headers": PNG, "params": {"payload": "{"}}, 400, "invalid_json"),
        ({"content": image_file(1), "headers": PNG, "params": {"payload": "[1]"}}, 422, "invalid_field"),
        ({"content": image_file(1), "headers": PNG, "params": {"texts": '"a"'}}, 422, "invalid_field"),
        ({"content": image_file(1), "headers": PNG, "params": {"k": "1"}}, 422, "invalid_field"),
        ({"files": {"photo": ("a.png", image_file(1))}}, 422, "invalid_field"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
    ],
)
def test_what_cannot_be_put_is_told_and_changes_nothing(client, service, options, status, code):
    before = service.serving.live.sequence
    response = client.put("/items/bad", **options)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    assert service.serving.live.sequence == before
    assert client.get("/items/bad").status_code == 404


def test_texts_of_payloads_are_counted_before_anything_is_embedded(client, service):
    before = service.serving.live.sequence
    captions = [f"a {number} dog" for number in range(65)]
    alone = client.put("/items/bad", json={"image": coded(1), "payload": {"captions": captions}})
    assert (alone.status_code, alone.json()["error"]["param"]) == (422, "texts")
    payloads = [{"captions": [f"{number} {text}" for text in captions[:64]]} for number in range(9)]
    asked = [{"id": f"{n}", "image": coded(n), "payload": payload} for n, payload in enumerate(payloads)]
    together = client.post("/items/batch", json={"put": asked})
    assert (together.status_code, together.json()["error"]["code"]) == (413, "too_many_items")
    assert service.serving.live.sequence == before


def test_an_image_that_is_put_is_decoded_once(client, service, monkeypatch):
    decoders, asked = service.serving.decoders, []
    ask = decoders._ask
    monkeypatch.setattr(decoders, "_ask", lambda kind, *rest: asked.append(kind) or ask(kind, *rest))
    put(client, "once")
    assert asked == ["image"]


def test_fields_count_what_was_put_and_deleted_at_once(client, service):
    def counted():
        answer = client.get("/fields")
        (category,) = (each for each in answer.json()["fields"] if each["key"] == "category")
        return answer.headers["etag"], {each["value"]: each["count"] for each in category["values"]}

    etag, before = counted()
    put(client, "new/1", category="ships")
    put(client, "new/2", category="ships")
    assert client.get("/fields", headers={"if-none-match": etag}).status_code == 200
    assert counted()[1] == {**before, "ships": 2}
    assert client.delete("/items/new/1").status_code == 200
    put(client, "new/2", category="cars")
    assert counted()[1] == {**before, "cars": before["cars"] + 1}


def test_a_form_takes_the_image_with_payload_and_texts(client):
    files, fields = (
        {"image": ("a.png", image_file(9))},
        {"payload": '{"year": 1}', "texts": '["a dark square"]'},
    )
    assert client.put("/items/form", files=files, data=fields).status_code == 200
    assert client.get("/items/form").json()["payload"] == {"year": 1}
    assert found(client, "text", query="a dark square", **{"in": "texts"})[0]["items"] == ["form"]


def test_many_writers_at_once_share_writes_and_none_is_lost(client, service):
    live = service.serving.live
    journal = live._journal
    before, groups = live.sequence, []
    commit = journal.commit
    journal.commit = lambda sets: groups.append(len(sets)) or commit(sets)
    try:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: put(client, f"many/{n}", seed=n, n=n), range(48)))
    finally:
        journal.commit = commit
    assert sorted(answer["sequence"] for answer in answers) == list(range(before + 1, before + 49))
    assert sum(groups) == 48
    assert len(groups) < 48
    hits = found(client, "text", query="a cat", filter={"must": [{"key": "n", "range": {"gte": 0}}]})
    assert sorted(ids(hits)) == sorted(f"many/{n}" for n in range(48))


def test_putting_one_item_very_often_keeps_memory_bounded(service, client, monkeypatch):
    from service.search import delta

    monkeypatch.setattr(delta, "SLACK_ROWS", 8)
    for number in range(40):
        put(client, "again", seed=number, title=f"a {'abcdefgh'[number % 8]} dog", number=number)
    state = service.serving.state.delta
    assert state.images.count < 40
    assert len(state.puts[: state.images.count]) < 40
    assert client.get("/items/again").json()["payload"]["number"] == 39
    assert like(client, 39)[0]["id"] == "again"
    texts = [hit["text"] for hit in found(client, "text", query="a", **{"in": "texts"})]
    assert "a h dog" in texts
    assert "a g dog" not in texts


def test_a_service_without_live_changes_takes_none(releases, settings_for):
    with running(settings_for(releases)) as plain:
        for response in (
            plain.client.put("/items/a", content=image_file(1), headers=PNG),
            plain.client.delete("/items/a"),
            plain.client.post("/items/batch", json={"delete": ["a"]}),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (404, "no_live_changes")
    assert not (releases / "live").exists()


def test_a_second_service_on_the_same_releases_is_told_who_writes(service, live_releases, settings_for):
    from service.app import create_app

    with pytest.raises(JournalBusy, match="process"):
        create_app(settings_for(live_releases, live_changes=True))


def test_the_most_items_that_are_taken_is_a_clear_error(tmp_path, releases, settings_for):
    shutil.copytree(releases, tmp_path / "releases")
    with running(settings_for(tmp_path / "releases", live_changes=True, max_live_items=2)) as small:
        put(small.client, "a")
        put(small.client, "b")
        put(small.client, "a", seed=5)
        full = small.client.put("/items/c", content=image_file(1), headers=PNG)
        assert (full.status_code, full.json()["error"]["code"]) == (507, "too_many_live_items")
        assert small.client.delete("/items/b").status_code == 200
        put(small.client, "c")


def test_the_gallery_of_a_release_built_again_serves_what_the_overlay_served(
    tmp_path, gallery, tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder, live_changes=True)) as one:
        client = one.client
        items = one.serving.state.release.items
        put(client, "new/a.png", seed=50, title="a dark circle", year=1)
        put(client, items.id(4), seed=51, title="a light circle", year=2)
        vector = {"vector": [1.0] + [0.0] * 15, "model_fingerprint": one.serving.state.encoder.fingerprint}
        assert client.put("/items/bare", json={**vector, "texts": ["a red circle"]}).status_code == 200
        assert client.delete(url(items.id(5))).status_code == 200
        asked = [
            lambda **more: found(client, "text", query="a red circle", **more),
            lambda **more: found(client, "item", id="new/a.png", **more),
            lambda **more: client.post("/search/image?k=1000", content=image_file(50), headers=PNG).json()[
                "results"
            ],
        ]
        before = [ask() for ask in asked] + [found(client, "text", query="a circle", **{"in": "texts"})]
        publish(folder, gallery, tiny_bundle)
        put(client, "later", seed=60, year=3)
        assert client.post("/release/reload").json()["swapped"] is True
        state = one.serving.state
        assert state.release.manifest.live_sequence == 4
        assert set(state.delta.row_of) == {"later"}
        assert not state.delta.hidden.any()
        assert client.delete("/items/later").status_code == 200
        after = [ask() for ask in asked] + [found(client, "text", query="a circle", **{"in": "texts"})]
        for old, new in zip(before, after, strict=True):
            assert ids(new) == ids(old)
            for one_hit, other in zip(old, new, strict=True):
                assert one_hit["score"] == pytest.approx(other["score"], abs=2e-6)
                assert one_hit["payload"] == other["payload"]
        assert client.get("/images/new/a.png").content == image_file(50)
        assert client.get("/images/new/a.png?side=64").status_code == 200
        assert client.get("/images/bare").json()["error"]["code"] == "image_missing"
        assert client.get("/items/bare").json()["width"] is None


@pytest.mark.parametrize("most_taken", [0, 2048])
def test_hidden_rows_are_left_out_however_they_are_left_out(client, service, monkeypatch, most_taken):
    """Inside faiss, or looked for too and dropped."""
    monkeypatch.setattr("service.search.ranking.MOST_TAKEN", most_taken)
    release = service.serving.state.release
    everything = ids(found(client, "text", query="a cat"))
    gone = [everything[0], everything[5], everything[-1]]
    answer = client.post("/items/batch", json={"delete": gone})
    assert [item["id"] for item in answer.json()["delete"]] == gone
    left = [name for name in everything if name not in gone]
    assert ids(found(client, "text", query="a cat")) == left
    assert ids(found(client, "text", query="a cat", k=3)) == left[:3]
    some = {"must_not": [{"has_id": left[:2]}]}
    assert ids(found(client, "text", query="a cat", filter=some, k=4)) == left[2:6]
    nothing = {"must": [{"has_id": gone}]}
    assert found(client, "text", query="a cat", filter=nothing) == []
    for name in gone:
        row = release.items.row(name)
        payload = release.items.payload(row)
        params = {"payload": json.dumps(payload)}
        assert client.put(url(name), content=release.open_image(row), headers=PNG, params=params).is_success
