"""`relevance` and `verdict` of a real service, whose release carries a calibration of known weights."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_service import ITEM_COUNT, Running, image_file, publish, running

from encoders.calibration import CALIBRATION, Calibration, SearchCalibration, Weights
from encoders.encoder import Encoder
from index.journal.changes import Upsert
from index.release import Release
from service.search.gallery_view import GalleryView
from service.search.hits import Query, search
from service.search.relevance import Judge, Sample
from service.settings import Settings

ASKED = "a red dog"
SENTENCE = "A red dog runs over the grass."
PNG = {"content-type": "image/png"}


def steep(cosine: float) -> SearchCalibration:
    """Matches from about this cosine up, whatever the background."""
    weights = Weights(intercept=-40 * cosine, score=40.0, mean=0.0, spread=0.0, best_unrelated=0.0)
    return SearchCalibration(
        weights=weights, likely=0.5, perhaps=0.2, prior_mean=0.0, prior_spread=0.3, gallery_sizes=(24,)
    )


@pytest.fixture(scope="module")
def best_cosine(releases: Path, tiny_bundle: Path) -> float:
    query = Encoder.load(tiny_bundle, device="cpu").encode_texts([ASKED]).vectors
    return float(Release.load(releases).images.search(query, 1)[0][0, 0])


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable,
    gallery: Path,
    best_cosine: float,
    settings_for: Callable[..., Settings],
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("calibrated")
    plain = make_bundle(folder / "bundle")
    calibration = Calibration(
        fingerprint=plain.fingerprint,
        bank=None,
        short_queries=None,
        searches={"words_to_image": steep(best_cosine - 1e-3), "image_to_text": steep(2.0)},
        fitted_on="by hand",
        digest="00",
    )
    stored = plain.with_file(CALIBRATION, calibration.to_bytes())
    assert stored.fingerprint == plain.fingerprint
    publish(folder / "releases", gallery, stored.path)
    with running(settings_for(folder / "releases")) as started:
        yield started


def answer(client: httpx.Client, path: str, **body: object) -> dict:
    response = client.post(f"/search/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_every_hit_has_the_relevance_of_its_cosine_and_the_answer_its_decision(client, best_cosine):
    found = answer(client, "text", query=ASKED, k=ITEM_COUNT)
    assert (found["verdict"], found["good_match"]) == ("match", True)
    assert found["levels"] == {"likely": 0.5, "perhaps": 0.2}
    for hit in found["results"]:
        expected = 1 / (1 + np.exp(-40 * (hit["score"] - best_cosine + 1e-3)))
        assert hit["relevance"] == pytest.approx(expected, abs=2e-4)
    told = [hit["relevance"] for hit in found["results"]]
    assert told[0] > 0.5
    assert told == sorted(told, reverse=True)


def test_the_decision_is_about_the_best_hit_whatever_page_or_threshold_was_asked_for(client):
    for options in ({"k": 1}, {"offset": 20}, {"score_threshold": 0.9999}, {"offset": 500}):
        assert answer(client, "text", query=ASKED, **options)["verdict"] == "match"
    assert answer(client, "text", query=ASKED, score_threshold=0.9999)["results"] == []


def test_a_filter_that_takes_the_match_away_takes_the_verdict_too(client):
    best = answer(client, "text", query=ASKED, k=1)["results"][0]["id"]
    without = answer(client, "text", query=ASKED, k=3, filter={"must_not": [{"has_id": [best]}]})
    best_left = without["results"][0]["relevance"]
    expected = "match" if best_left >= 0.5 else "unsure" if best_left >= 0.2 else "nothing"
    assert (without["verdict"], without["good_match"]) == (expected, expected != "nothing")
    nothing = answer(client, "text", query=ASKED, filter={"must": [{"has_id": ["nope"]}]})
    assert (nothing["results"], nothing["verdict"], nothing["good_match"]) == ([], "nothing", False)


def test_an_image_is_judged_among_texts_and_two_images_or_texts_are_not(client):
    response = client.post("/search/image?in=texts&k=3", content=image_file(3), headers=PNG).json()
    assert (response["verdict"], response["good_match"]) == ("nothing", False)
    assert all(hit["relevance"] < 0.01 for hit in response["results"])
    alike = client.post("/search/image?k=3", content=image_file(3), headers=PNG).json()
    texts = answer(client, "text", query=ASKED, **{"in": "texts"})
    more = answer(client, "item", id=alike["results"][0]["id"])
    sentence = answer(client, "text", query=SENTENCE)  # for which this calibration has nothing
    for unjudged in (alike, texts, more, sentence):
        assert (unjudged["verdict"], unjudged["good_match"], unjudged["levels"]) == (None, None, None)
        assert {hit["relevance"] for hit in unjudged["results"]} == {None}


def test_a_calibration_that_cannot_be_used_is_logged_and_leaves_nulls(tmp_path, make_bundle, gallery, caplog):
    bundle = make_bundle(tmp_path / "bundle").with_file(CALIBRATION, json.dumps({"kind": "other"}).encode())
    publish(tmp_path / "releases", gallery, bundle.path)
    with caplog.at_level(logging.WARNING):
        assert Judge.of(Release.load(tmp_path / "releases")) is None
    assert "relevance stays null" in caplog.text


@pytest.mark.parametrize("every", [1, 6])
def test_what_was_put_is_in_the_background_as_densely_as_what_the_release_holds(service, every):
    state, rng = service.serving.state, np.random.default_rng(5)
    rows = rng.normal(size=(12, state.encoder.dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    puts = [
        Upsert(f"new/{n}", {}, row, state.encoder.fingerprint, sequence=n + 1) for n, row in enumerate(rows)
    ]
    view = GalleryView(state.release, state.delta.applied(puts))
    weights = Weights(intercept=0.0, score=1.0, mean=20.0, spread=-5.0, best_unrelated=3.0)
    part = steep(0.5).model_copy(update={"weights": weights})
    calibration = state.judge.calibration.model_copy(update={"searches": {"words_to_image": part}})
    ((_, of_release),) = state.release.images.blocks()
    sampled = of_release[::every]
    judge = Judge(calibration, {"images": Sample(sampled, np.zeros(len(sampled), np.float32))})
    query = Query(
        state.encoder.encode_texts([ASKED]).vectors[0], asked_by="texts", search="words_to_image", k=5
    )
    hits = search(view, query, payload_filter=state.payload_filter, judge=judge).hits
    background = np.concatenate([of_release[::every], rows[::every]]) @ query.vector
    scores = [hit["score"] for hit in hits]
    expected = part.relevance(scores, background=background, gallery_size=ITEM_COUNT + len(rows))
    assert [hit["relevance"] for hit in hits] == pytest.approx(expected, abs=2e-4)
    alone = part.relevance(scores, background=of_release @ query.vector, gallery_size=ITEM_COUNT + len(rows))
    assert np.abs(expected - alone).min() > 1e-3
