"""Relevance fitted to a gallery by its own texts when a release is built, and used when it is served."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from live_service import image_file, publish, running

from encoders.bundle import Bundle
from encoders.calibration import CALIBRATION, Calibration, SearchCalibration, Weights, file_digest
from encoders.lexicon import Lexicon
from encoders.short_queries import SHORT_QUERIES, ShortQueries, short_queries_bytes
from index.release import Release

LETTERS = "abcdefghijklmnopqrstuvwxyz"
HELD = [f"{first} {second}" for first in "abcd" for second in LETTERS[:10]]
MISSING = [f"{first} {second}" for first in "wxyz" for second in LETTERS[:10]]


def lexicon() -> Lexicon:
    return Lexicon("# things\n" + "".join(f"{noun}:\n" for noun in [*HELD, *MISSING]))


def gallery_of(folder: Path, titles: list[str]) -> Path:
    folder.mkdir()
    lines = []
    for number, title in enumerate(titles):
        (folder / f"{number}.png").write_bytes(image_file(number))
        lines.append(json.dumps({"image": f"{number}.png", "title": title}))
    (folder / "items.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable) -> Bundle:
    """It calls every hit of every query likely."""
    plain = make_bundle(tmp_path / "bundle")
    short = ShortQueries(("{}",), plain.fingerprint, lexicon=lexicon())
    asked = plain.with_file(SHORT_QUERIES, short_queries_bytes(short))
    weights = Weights(intercept=3.0, score=1e-3, mean=0.0, spread=0.0, best_unrelated=0.0)
    part = SearchCalibration(
        weights=weights, likely=0.5, perhaps=0.1, prior_mean=0.0, prior_spread=0.3, gallery_sizes=(40,)
    )
    calibration = Calibration(
        fingerprint=plain.fingerprint,
        bank=None,
        short_queries=file_digest(asked.path / SHORT_QUERIES),
        searches={"words_to_image": part},
        fitted_on="by hand",
        digest="00",
    )
    return asked.with_file(CALIBRATION, calibration.to_bytes())


def test_relevance_is_fitted_to_the_gallery_by_its_texts_and_told_in_the_manifest(
    bundle, tmp_path, settings_for
):
    publish(tmp_path / "releases", gallery_of(tmp_path / "gallery", HELD), bundle.path)
    manifest = Release.load(tmp_path / "releases").manifest
    fit = manifest.gallery_fits["words_to_image"]
    assert (fit.present_queries, fit.absent_queries) == (len(HELD), len(MISSING))
    assert manifest.format_version == 5
    with running(settings_for(tmp_path / "releases")) as service:
        found = service.client.post("/search/text", json={"query": "a a", "k": 5}).json()
    relevance = [hit["relevance"] for hit in found["results"]]
    untold = 3.0 + 1e-3 * np.array([hit["score"] for hit in found["results"]])
    told = 1 / (1 + np.exp(-((1 + fit.slope) * untold + fit.shift)))
    assert relevance == pytest.approx(told, abs=1e-4)
    assert max(relevance) < 0.5  # one image in forty is what was asked: 0.95 was said of all


def test_texts_that_name_too_little_fit_nothing(bundle, tmp_path):
    titles = [*HELD[:10], *(f"nothing {n}" for n in range(30))]
    publish(tmp_path / "releases", gallery_of(tmp_path / "gallery", titles), bundle.path)
    manifest = Release.load(tmp_path / "releases").manifest
    assert (manifest.gallery_fits, manifest.format_version) == (None, 1)
