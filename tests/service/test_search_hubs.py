"""`/search` on a release with a query bank: hubs are held back, and cosines are what is reported."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_service import ITEM_COUNT, Running, publish, running

from encoders.calibration import Calibration, SearchCalibration, Weights
from encoders.encoder import Encoder
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from index.release import Release
from service.search.hits import Query, search
from service.search.relevance import Judge, Sample
from service.settings import Settings

ASKED = "a red dog"


@pytest.fixture(scope="module")
def plain_release(releases: Path) -> Release:
    return Release.load(releases)


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable,
    gallery: Path,
    plain_release: Release,
    settings_for: Callable[..., Settings],
) -> Iterator[Running]:
    """The bank's only query lies on the image that comes first for ASKED: that one is the hub."""
    folder = tmp_path_factory.mktemp("hubs")
    plain = make_bundle(folder / "bundle")
    query = Encoder.load(plain, device="cpu").encode_texts([ASKED]).vectors
    hub = plain_release.images.reconstruct(int(plain_release.images.search(query, 1)[1][0, 0]))
    bank = QueryBank(rows={"texts": hub[None]}, fingerprint=plain.fingerprint, alpha=50.0, k=1)
    publish(folder / "releases", gallery, plain.with_file(QUERY_BANK, query_bank_bytes(bank)).path)
    with running(settings_for(folder / "releases")) as started:
        yield started


@pytest.fixture
def cosines(service: Running, client: httpx.Client) -> dict[str, float]:
    """Of every image with ASKED."""
    release = service.serving.state.release
    vector = client.post("/embed/text", json={"texts": ASKED}).json()["data"][0]["embedding"]
    ((_, rows),) = release.images.blocks()
    found = rows @ np.array(vector, dtype=np.float32)
    return {release.items.id(row): float(found[row]) for row in range(ITEM_COUNT)}


def hits(client: httpx.Client, path: str, **body: object) -> list[dict]:
    response = client.post(f"/search/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def ids(results: list[dict]) -> list[str]:
    return [hit["id"] for hit in results]


def test_the_hub_of_a_text_search_comes_last_and_still_reports_its_cosine(client, cosines):
    found = hits(client, "text", query=ASKED, k=ITEM_COUNT)
    assert found[-1]["id"] == max(cosines, key=cosines.__getitem__)
    assert sorted(ids(found)) == sorted(cosines)
    for hit in found:
        assert hit["score"] == pytest.approx(cosines[hit["id"]], abs=5e-6)


def test_a_filter_holds_the_hub_back_too(client):
    everything = {"must": [{"key": "year", "range": {"gte": 0}}]}
    found, filtered = (
        hits(client, "text", query=ASKED, k=ITEM_COUNT, **more) for more in ({}, {"filter": everything})
    )
    assert ids(filtered) == ids(found)


@pytest.mark.parametrize("between", [False, True])
def test_a_threshold_is_of_cosines_and_pages_neither_repeat_nor_skip(client, cosines, between):
    below, middle = sorted(cosines.values())[ITEM_COUNT // 2 - 1 : ITEM_COUNT // 2 + 1]
    bound = (below + middle) / 2 if between else middle - 1e-7
    enough = {name for name, cosine in cosines.items() if cosine >= bound}
    pages = [
        hits(client, "text", query=ASKED, k=4, offset=offset, score_threshold=bound)
        for offset in range(0, ITEM_COUNT, 4)
    ]
    shown = [hit["id"] for page in pages for hit in page]
    assert set(shown) == enough
    assert len(shown) == len(enough)


def test_relevance_falls_with_the_order_and_the_hub_is_no_match(service, cosines):
    """By its cosine alone the hub would be the only match."""
    state, best = service.serving.state, max(cosines.values())
    weights = Weights(intercept=-1e5 * (best - 1e-4), score=1e5, mean=0.0, spread=0.0, best_unrelated=0.0)
    part = SearchCalibration(
        weights=weights, likely=0.5, perhaps=0.5, prior_mean=0.0, prior_spread=0.3, gallery_sizes=(24,)
    )
    calibration = Calibration(
        fingerprint=state.release.fingerprint,
        bank=None,
        short_queries=None,
        searches={"sentence_to_image": part},
        fitted_on="",
        digest="",
    )
    nothing = np.empty((0, state.encoder.dim), np.float32), np.empty(0, np.float32)
    judge = Judge(calibration, {"images": Sample(*nothing)})
    vector = state.encoder.encode_texts([ASKED]).vectors[0]
    for options in ({"k": 1}, {"k": ITEM_COUNT}, {"k": 5, "offset": ITEM_COUNT - 5}, {"score_threshold": -1.0}):
        query = Query(vector, asked_by="texts", search="sentence_to_image", **options)
        found = search(state.view, query, payload_filter=state.payload_filter, judge=judge)
        assert found.verdict == "nothing"
        relevance = [hit["relevance"] for hit in found.hits]
        assert relevance == sorted(relevance, reverse=True)
        assert max(relevance) < 0.5


def test_vectors_images_and_items_are_searched_by_cosine_alone(client, service, plain_release):
    vector = plain_release.images.reconstruct(2)
    state = service.serving.state
    asked = {"vector": vector.tolist(), "model_fingerprint": state.encoder.fingerprint, "k": 5}
    found = hits(client, "vector", **asked, with_vector=True)
    expected = plain_release.images.search(vector[None], 6)[1][0].tolist()
    assert ids(found) == [plain_release.items.id(row) for row in expected[:5]]
    assert {len(hit["vector"]) for hit in found} == {state.encoder.dim}
    others = [row for row in expected if row != 2][:5]
    assert ids(hits(client, "item", id=plain_release.items.id(2), k=5)) == [
        plain_release.items.id(row) for row in others
    ]
