"""Relevance and "nothing matches" from a query's background: known weights, small galleries, bad files."""

import json

import numpy as np
import pytest

from encoders.calibration import (
    BACKGROUND_ITEMS,
    CALIBRATION,
    BadCalibration,
    Calibration,
    DirectionCalibration,
    Weights,
    background_features,
    background_rows,
    expected_best,
    parse_calibration,
    read_calibration,
)

FINGERPRINT = "ab" * 32
PLAIN = Weights(intercept=-2.0, score=10.0, mean=-4.0, spread=2.0, best_unrelated=-3.0)
DIRECTION = DirectionCalibration(
    hit=PLAIN, answer=PLAIN, threshold=0.5, prior_mean=0.0, prior_spread=0.1, gallery_sizes=(1, 100)
)
CALIBRATED = Calibration(
    fingerprint=FINGERPRINT, directions={"text_to_image": DIRECTION}, fitted_on="pairs", digest="00"
)


def test_relevance_is_the_logistic_of_score_mean_spread_and_the_expected_best():
    background = np.array([0.1, 0.3])
    mean = (0.4 + 50 * 0.0) / 52
    spread = np.sqrt(((background - mean) ** 2).sum() / 52 + 50 * (0.1**2 + mean**2) / 52)
    best = mean + spread * expected_best(1000)
    logit = -2.0 + 10 * 0.7 - 4 * mean + 2 * spread - 3 * best
    found = DIRECTION.relevance([0.7], background=background, gallery_size=1000)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-logit))], rtol=1e-12)


def test_more_cosine_is_never_less_relevant_and_a_larger_gallery_never_more():
    background = np.random.default_rng(0).normal(0.05, 0.1, 500)
    rising = DIRECTION.relevance(np.linspace(-1, 1, 50), background=background, gallery_size=500)
    assert (np.diff(rising) > 0).all()
    by_size = [
        DIRECTION.relevance([0.5], background=background, gallery_size=n)[0] for n in (1, 3, 100, 10**4, 10**8)
    ]
    assert by_size == sorted(by_size, reverse=True)
    assert len(set(by_size)) == 5


@pytest.mark.parametrize("size", [1, 2, 3])
def test_galleries_of_a_few_items_lean_on_the_background_of_the_fit(size):
    background = np.full(size, 0.9)  # nothing but the hit itself
    close, far = (DIRECTION.is_good_match(s, background=background, gallery_size=size) for s in (0.9, 0.0))
    assert (close, far) == (True, False)


def test_no_hits_have_no_relevance_and_an_empty_background_is_that_of_the_fit():
    assert len(DIRECTION.relevance([], background=[0.1], gallery_size=1)) == 0
    features = background_features(np.empty((1, 0)), gallery_size=[0], prior=(0.03, 0.2))
    np.testing.assert_allclose(features, [[0.03, 0.2, 0.03]])


def test_a_cosine_that_is_no_number_is_refused_wherever_it_stands():
    for score, background in ((np.nan, [0.1]), (0.1, [np.inf]), (0.1, [0.2, np.nan])):
        with pytest.raises(ValueError, match="not a finite number"):
            DIRECTION.relevance([score], background=background, gallery_size=2)


def test_the_expected_best_of_n_draws_is_what_drawing_gives():
    rng = np.random.default_rng(0)
    for n in (2, 10, 300):
        assert expected_best(n) == pytest.approx(rng.normal(size=(4000, n)).max(axis=1).mean(), abs=0.04)
    assert (expected_best(0), expected_best(1)) == (0.0, 0.0)
    assert np.isfinite(expected_best(10**18))


def test_the_background_of_a_large_gallery_is_a_fixed_sample_of_it():
    assert background_rows(3).tolist() == [0, 1, 2]
    rows = background_rows(100_000)
    assert len(np.unique(rows)) == BACKGROUND_ITEMS
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, background_rows(100_000))
    assert abs(rows.mean() - 50_000) < 3_000


def test_a_calibration_reads_back_as_it_was_written(tmp_path):
    assert read_calibration(tmp_path, fingerprint=FINGERPRINT) is None
    (tmp_path / CALIBRATION).write_bytes(CALIBRATED.to_bytes())
    assert read_calibration(tmp_path, fingerprint=FINGERPRINT) == CALIBRATED


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"kind": "other"}, "kind"),
        ({"fingerprint": "cd" * 32}, FINGERPRINT),
        ({"directions": {"image_to_image": {}}}, "directions"),
        ({"more": 1}, "more"),
        ({"fitted_on": None}, "fitted_on"),
    ],
)
def test_another_format_encoder_or_field_is_named(change, named):
    content = json.dumps(json.loads(CALIBRATED.to_bytes()) | change).encode()
    with pytest.raises(BadCalibration, match=named):
        parse_calibration(content, fingerprint=FINGERPRINT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_no_calibration_says_what_to_do(content):
    with pytest.raises(BadCalibration, match="calibrate the bundle again"):
        parse_calibration(content, fingerprint=FINGERPRINT)


@pytest.mark.parametrize(("field", "value"), [("score", -1.0), ("score", 0.0), ("mean", float("nan"))])
def test_weights_that_would_turn_the_order_round_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Weights(**(PLAIN.model_dump() | {field: value}))
