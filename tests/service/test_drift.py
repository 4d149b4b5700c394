"""Drift: what an encoder was proven on does not alarm, what lies elsewhere does; only sums are kept."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_service import ITEM_COUNT, Running, image_file, publish, running

from encoders.calibration import CALIBRATION, Calibration, Figures, SearchCalibration, Weights
from encoders.encoder import Encoder
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from index.release import Release
from service.drift.pairs import Expected, expected_relevance
from service.drift.verdict import (
    LEAST,
    NO_CALIBRATION,
    cut_measure,
    embedding_measures,
    matching_measure,
    relevance_measure,
    undecodable_measure,
)
from service.drift.windows import BUCKET_QUERIES, BUCKETS, QueryNote, Reference, Sums, Window
from service.search.relevance import Judge
from service.settings import Settings

DIM = 48
PNG = {"content-type": "image/png"}


def cloud(seed: int, count: int, *, centre: int = 0, tight: float = 1.0) -> np.ndarray:
    """Unit rows about one of the axes, more spread in some directions than in others."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, DIM)) * np.linspace(2.0, 0.1, DIM) * tight
    rows[:, centre] += 1.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


REFERENCE = Reference.of(cloud(0, 3000))


def verdicts(rows: np.ndarray) -> dict[str, str | None]:
    window = Window(DIM, REFERENCE)
    for row in rows:
        window.note(QueryNote(row))
    return {measure.name: measure.verdict for measure in embedding_measures(window.sums(), REFERENCE)}


@pytest.mark.parametrize("count", [LEAST, 200, 2000])
def test_samples_of_the_reference_never_alarm_whatever_their_size(count):
    for seed in range(1, 60 if count < 1000 else 10):
        assert set(verdicts(cloud(seed, count)).values()) == {"as proven"}, seed


def test_under_no_change_standard_errors_are_those_of_a_standard_normal():
    found = []
    for seed in range(1, 201):
        sums = Sums.of_rows(cloud(seed, 100), REFERENCE)
        found.append([measure.standard_errors for measure in embedding_measures(sums, REFERENCE)])
    mean, spread, unfamiliar = np.array(found).T
    for errors in (mean, spread, unfamiliar):
        assert abs(errors.mean()) < 0.6  # the limit of what is familiar is itself drawn from a sample
        assert 0.7 < errors.std() < 1.4
    assert (np.abs(found) > 5).sum() == 0


def test_what_lies_elsewhere_is_far_and_its_reason_is_said():
    elsewhere = cloud(3, 200, centre=DIM - 1, tight=0.05)
    assert verdicts(elsewhere) == {"mean": "far", "spread": "far", "unfamiliar": "far"}
    repeated = np.repeat(cloud(4, 1), 100, axis=0)
    assert verdicts(repeated)["spread"] == "far"  # one query, a hundred times
    measures = {m.name: m for m in embedding_measures(Sums.of_rows(elsewhere, REFERENCE), REFERENCE)}
    assert measures["mean"].why == "on average they lie far from what the encoder was proven on"
    assert measures["unfamiliar"].value == 1.0


def test_too_few_queries_and_no_reference_have_no_verdict_and_say_why():
    few = list(embedding_measures(Sums.of_rows(cloud(1, LEAST - 1, centre=9), REFERENCE), REFERENCE))
    assert {measure.verdict for measure in few} == {None}
    assert few[0].why == f"{LEAST - 1} so far; {LEAST} are needed to tell"
    assert {m.verdict for m in embedding_measures(Sums.of_rows(cloud(1, 200), None), None)} == {None}
    assert Reference.of(cloud(0, 99)) is None


def test_the_window_holds_the_last_queries_only_and_as_sums():
    window = Window(DIM, REFERENCE)
    for row in cloud(1, 3000, centre=9, tight=0.05):
        window.note(QueryNote(row, cut=True, relevance=0.05, matched=False))
    after = cloud(2, BUCKETS * BUCKET_QUERIES)
    for row in after:
        window.note(QueryNote(row, relevance=1.0, matched=True))
    sums = window.sums()
    assert sums.count == BUCKETS * BUCKET_QUERIES
    assert (sums.cut, sums.unmatched, sums.histogram.tolist()) == (0, 0, [0] * 9 + [sums.count])
    np.testing.assert_allclose(sums.total, after.sum(axis=0, dtype=np.float64), rtol=1e-9)
    assert all(np.size(value) <= DIM for bucket in window._buckets for value in _contents(bucket))


def _contents(sums: Sums) -> list[object]:
    return [getattr(sums, name) for name in Sums.__slots__]


FIGURES = Figures.model_construct(nothing_of_present=0.2, nothing_of_absent=0.8)


@pytest.mark.parametrize(
    ("unmatched", "decided", "verdict"),
    [
        (40, 200, "as proven"),  # as often as when everything asked for is there
        (90, 200, "as proven"),  # two in five ask for something else
        (110, 200, "has moved"),
        (160, 200, "far"),  # as often as when nothing is there
        (10, 20, None),
    ],
)
def test_nothing_matches_is_judged_by_what_the_calibration_measured(unmatched, decided, verdict):
    sums = Sums(np.zeros(DIM), decided=decided, unmatched=unmatched)
    assert matching_measure(sums, FIGURES, why="").verdict == verdict
    assert matching_measure(sums, None, why="no figures").why == "no figures"


@pytest.mark.parametrize(
    ("relevance", "verdict"), [(0.9, "as proven"), (0.6, "as proven"), (0.3, "has moved"), (0.1, "far")]
)
def test_relevance_alarms_when_it_falls_and_never_when_it_rises(relevance, verdict):
    window = Window(DIM, None)
    for row, wobble in zip(cloud(1, 100), np.random.default_rng(0).normal(0, 0.05, 100), strict=True):
        window.note(QueryNote(row, relevance=float(np.clip(relevance + wobble, 0, 1))))
    measure = relevance_measure(window.sums(), Expected(mean=0.6, variance=0.04, count=100), why="")
    assert measure.verdict == verdict
    assert (measure.moved_at, measure.far_at) == (0.36, 0.18)


def test_cut_texts_and_undecodable_images_alarm_by_their_share():
    assert cut_measure(Sums(np.zeros(DIM), count=1000, cut=10)).verdict == "as proven"
    assert cut_measure(Sums(np.zeros(DIM), count=1000, cut=200)).verdict == "has moved"
    assert cut_measure(Sums(np.zeros(DIM), count=100, cut=60)).verdict == "far"
    assert undecodable_measure(Sums(np.zeros(DIM), count=60, undecodable=60)).verdict == "far"
    assert undecodable_measure(Sums(np.zeros(DIM), count=30)).verdict is None


@pytest.fixture(scope="module")
def banked(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable,
    gallery: Path,
    settings_for: Callable[..., Settings],
) -> Iterator[Running]:
    """A service whose bundle's bank holds short texts of known words, and no images."""
    folder = tmp_path_factory.mktemp("banked")
    plain = make_bundle(folder / "bundle")
    texts = [f"{a} {b} {c}" for a in "abcdefgh" for b in "klmnop" for c in ("dog", "cat", "car", "red")]
    rows = Encoder.load(plain.path, device="cpu").encode_texts(texts).vectors
    bank = QueryBank(rows={"texts": rows}, fingerprint=plain.fingerprint)
    stored = plain.with_file(QUERY_BANK, query_bank_bytes(bank))
    publish(folder / "releases", gallery, stored.path)
    with running(settings_for(folder / "releases")) as started:
        yield started


def test_drift_is_told_by_subject_with_its_verdict_or_why_there_is_none(banked):
    client = banked.client
    client.get("/drift")  # from here on it is prepared, and counts
    batch = [{"text": f"{a} {b} {c}"} for a in "abcd" for b in "klmn" for c in ("cat", "dog", "red", "car")]
    assert client.post("/search/batch", json={"queries": batch}).status_code == 200
    assert client.post("/search/image", content=image_file(1), headers=PNG).status_code == 200
    assert client.post("/search/image", content=b"no image", headers=PNG).status_code == 400
    answer = client.get("/drift").json()
    reports = {report["subject"]: report for report in answer["reports"]}
    assert list(reports) == ["text_queries", "image_queries", "gallery_images", "gallery_texts"]
    texts = reports["text_queries"]
    assert (texts["seen"], texts["reference"]) == (64, "192 texts of the bundle's query bank")
    assert {m["name"]: m["verdict"] for m in texts["measures"]} == {
        "mean": "as proven",
        "spread": "as proven",
        "unfamiliar": "as proven",
        "relevance": None,
        "nothing_matches": None,
        "cut_texts": "as proven",
    }
    images = reports["image_queries"]
    assert (images["seen"], images["verdict"], images["reference"]) == (1, None, None)
    assert images["why"] == "the bundle has no bank of images: python -m training bank makes one"
    assert reports["gallery_images"]["seen"] == ITEM_COUNT
    reasons = {measure["name"]: measure["why"] for measure in texts["measures"]}
    assert reasons["relevance"] == reasons["nothing_matches"] == NO_CALIBRATION
    assert answer["release"] == banked.serving.state.release.id


def test_other_queries_raise_the_alarm_on_metrics_too(banked):
    client = banked.client
    long = " ".join(["white circle with a dark square of the yellow light and"] * 4)
    for _ in range(4):
        answer = client.post("/search/batch", json={"queries": [{"text": long}] * 60})
        assert answer.status_code == 200
    measures = client.get("/drift").json()["reports"][0]["measures"]
    found = {measure["name"]: measure["verdict"] for measure in measures}
    assert found["spread"] == "far"
    assert found["cut_texts"] == "far"
    text = client.get("/metrics").text
    assert 'twinlens_drift_verdict{measure="cut_texts",subject="text_queries"} 2.0' in text
    assert 'twinlens_drift_verdict{measure="relevance"' not in text  # what is not known has no sample


def test_vectors_items_and_embeddings_are_no_queries(banked):
    client = banked.client
    before = seen(client)
    state = banked.serving.state
    vector = {"vector": [1.0] * 16, "model_fingerprint": state.encoder.fingerprint}
    assert client.post("/search/vector", json=vector).status_code == 200
    assert client.post("/search/item", json={"id": state.release.items.id(0)}).status_code == 200
    assert client.post("/embed/text", json={"texts": ["a dog"] * 9}).status_code == 200
    assert seen(client) == before


def test_further_pages_and_what_is_said_to_be_an_example_are_no_queries(banked):
    client = banked.client
    before = seen(client)  # prepares drift
    window = banked.serving.state.drift._prepared.windows["images"]
    undecodable = window.sums().undecodable
    left_out = {"count_in_drift": False}
    bad = [{"text": "a dog"}, {"image": "bm8gcGljdHVyZQ=="}]
    batch = client.post("/search/batch", json={"queries": bad} | left_out).json()["answers"]
    assert [("error" in answer) for answer in batch] == [False, True]
    for content, status in ((image_file(1), 200), (b"no image", 400)):
        answer = client.post("/search/image", params=left_out, content=content, headers=PNG)
        assert answer.status_code == status
    assert client.post("/search/text", json={"query": "a dog", "offset": 10}).status_code == 200
    assert seen(client) == before
    assert window.sums().undecodable == undecodable


def seen(client: httpx.Client) -> list[int]:
    return [report["seen"] for report in client.get("/drift").json()["reports"]]


def test_the_relevance_to_expect_is_that_of_the_gallerys_own_pairs(tmp_path, make_bundle, settings_for):
    # 24 images, each with a text of its own, under a calibration that looks at nothing but the cosine.
    weights = Weights(intercept=0.0, score=5.0, mean=0.0, spread=0.0, best_unrelated=0.0)
    part = SearchCalibration(
        weights=weights, likely=0.5, perhaps=0.5, prior_mean=0.0, prior_spread=0.3, gallery_sizes=(24,)
    )
    plain = make_bundle(tmp_path / "bundle")
    calibration = Calibration(
        fingerprint=plain.fingerprint,
        bank=None,
        short_queries=None,
        searches={"sentence_to_image": part},
        fitted_on="by hand",
        digest="00",
    )
    stored = plain.with_file(CALIBRATION, calibration.to_bytes())
    publish(tmp_path / "releases", texts_of_their_own(tmp_path / "gallery"), stored.path)
    release = Release.load(tmp_path / "releases")
    judge = Judge.of(release)
    offsets, rows = release.texts_table.item_lists()
    cosines = [
        float(release.texts.reconstruct(text) @ release.images.reconstruct(int(rows[offsets[text]])))
        for text in range(24)
    ]
    expected = expected_relevance(release, judge, "texts")
    assert expected.count == 24
    assert expected.mean == pytest.approx(np.mean(1 / (1 + np.exp(-5 * np.array(cosines)))), abs=1e-5)
    assert expected_relevance(release, judge, "images") is None  # not calibrated
    with running(settings_for(tmp_path / "releases")) as service:
        service.client.post(
            "/search/batch",
            json={"queries": [{"text": f"a red dog and a {c} on a car"} for c in "abcdefgh" * 7]},
        )
        report = service.client.get("/drift").json()["reports"][0]
        (measure,) = (m for m in report["measures"] if m["name"] == "relevance")
        assert measure["reference"] == pytest.approx(expected.mean, abs=1e-4)
        assert measure["verdict"] == "as proven"  # what is found is at least as near as what belongs together
        assert sum(report["relevance_histogram"]) == 56


def texts_of_their_own(folder: Path) -> Path:
    folder.mkdir()
    lines = []
    for number, letter in enumerate("abcdefghijklmnopqrstuvwx"):
        (folder / f"{number}.png").write_bytes(image_file(number))
        lines.append(json.dumps({"image": f"{number}.png", "title": f"a {letter} cat"}))
    (folder / "items.jsonl").write_text("\n".join(lines))
    return folder


def test_queries_are_kept_over_a_swap_by_the_same_encoder_and_forgotten_by_another(
    tmp_path, gallery, tiny_bundle, other_tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder)) as service:
        seen(service.client)  # from here on drift is prepared, and counts
        for _ in range(3):
            service.client.post("/search/text", json={"query": "a dog"})
        assert seen(service.client)[0] == 3
        publish(folder, gallery, tiny_bundle)
        assert service.client.post("/release/reload").json()["swapped"] is True
        service.client.post("/search/text", json={"query": "a dog"})
        assert seen(service.client)[0] == 4
        new = publish(folder, gallery, other_tiny_bundle)
        assert service.client.post("/release/reload").json()["swapped"] is True
        assert seen(service.client)[0] == 0
        assert service.client.get("/drift").json()["release"] == new
