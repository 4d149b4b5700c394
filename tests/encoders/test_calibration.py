"""Relevance and verdicts from scores and their background: known weights, small galleries, bad files."""

import json

import numpy as np
import pytest

from encoders.calibration import (
    BACKGROUND_ITEMS,
    BANK_ITEMS,
    CALIBRATION,
    BadCalibration,
    BankItems,
    BankWeights,
    Calibration,
    GalleryFit,
    SearchCalibration,
    Weights,
    background_numbers,
    background_rows,
    bank_numbers,
    expected_best,
    file_digest,
    parse_calibration,
    read_calibration,
)
from encoders.query_bank import QUERY_BANK, QueryBank
from encoders.short_queries import SHORT_QUERIES

FINGERPRINT = "ab" * 32
PLAIN = Weights(intercept=-2.0, score=10.0, mean=-4.0, spread=2.0, best_unrelated=-3.0)
WORDS = SearchCalibration(
    weights=PLAIN, likely=0.5, perhaps=0.2, prior_mean=0.0, prior_spread=0.1, gallery_sizes=(1, 100)
)
WITH_BANK = WORDS.model_copy(
    update={"weights": PLAIN.model_copy(update={"bank": BankWeights(nearest=3.0, mean=-2.0, spread=1.0)})}
)
CALIBRATED = Calibration(
    fingerprint=FINGERPRINT,
    bank=None,
    short_queries=None,
    searches={"words_to_image": WORDS},
    fitted_on="pairs",
    digest="00",
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_relevance_is_the_logistic_of_score_mean_spread_and_the_expected_best():
    background = np.array([0.1, 0.3])
    mean = (0.4 + 50 * 0.0) / 52
    spread = np.sqrt(((background - mean) ** 2).sum() / 52 + 50 * (0.1**2 + mean**2) / 52)
    best = mean + spread * expected_best(1000)
    logit = -2.0 + 10 * 0.7 - 4 * mean + 2 * spread - 3 * best
    found = WORDS.relevance([0.7], background=background, gallery_size=1000)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-logit))], rtol=1e-12)


def test_how_the_query_stands_in_the_bank_enters_relevance():
    bank = np.linspace(-0.2, 0.8, 101)
    known = {"background": [0.1, 0.3], "gallery_size": 100}
    plain, with_bank = (part.relevance([0.5], bank=bank, **known)[0] for part in (WORDS, WITH_BANK))
    moved = 3.0 * bank[-30:].mean() - 2.0 * bank.mean() + bank.std()
    assert np.log(with_bank / (1 - with_bank)) - np.log(plain / (1 - plain)) == pytest.approx(moved)
    with pytest.raises(ValueError, match="bank"):
        WITH_BANK.relevance([0.5], **known)


def test_the_bank_is_scored_as_a_gallery_is_and_its_sample_is_bounded():
    rng = np.random.default_rng(0)
    rows = {"images": unit(rng.normal(size=(5000, 8))), "texts": unit(rng.normal(size=(50, 8)))}
    bank = QueryBank(rows=rows, fingerprint=FINGERPRINT, alpha=0.5, k=3)
    items, query = BankItems.of(bank, "images"), unit(rng.normal(size=(1, 8)))
    assert len(items.rows) == BANK_ITEMS
    np.testing.assert_allclose(
        items.scores(query)[0], items.rows @ query[0] - bank.penalty(items.rows, "images"), rtol=1e-5
    )
    assert bank_numbers(items.scores(query)).shape == (1, 3)
    assert BankItems.of(QueryBank(rows={"texts": rows["texts"]}, fingerprint=FINGERPRINT), "images") is None


def test_more_score_is_never_less_relevant_and_a_larger_gallery_never_more():
    background = np.random.default_rng(0).normal(0.05, 0.1, 500)
    rising = WORDS.relevance(np.linspace(-1, 1, 50), background=background, gallery_size=500)
    assert (np.diff(rising) > 0).all()
    by_size = [
        WORDS.relevance([0.5], background=background, gallery_size=n)[0] for n in (1, 3, 100, 10**4, 10**8)
    ]
    assert by_size == sorted(by_size, reverse=True)
    assert len(set(by_size)) == 5


@pytest.mark.parametrize(
    ("relevance", "verdict"),
    [([0.5, 0.1], "match"), ([0.49], "unsure"), ([0.2], "unsure"), ([0.19, 0.1], "nothing"), ([], "nothing")],
)
def test_the_first_hit_decides_the_verdict_and_no_hit_is_nothing(relevance, verdict):
    assert WORDS.verdict(relevance) == verdict


def test_where_nothing_is_ever_said_no_hit_at_all_still_is():
    never = WORDS.model_copy(update={"perhaps": 0.0})
    assert (never.verdict([0.0]), never.verdict([])) == ("unsure", "nothing")


def test_a_gallerys_own_fit_moves_relevance_and_keeps_the_order():
    fit = GalleryFit(slope=-0.5, shift=1.0, present_queries=30, absent_queries=30)
    known = {"background": [0.1, 0.3], "gallery_size": 100}
    plain, fitted = WORDS.relevance([0.9, 0.2], **known), WORDS.relevance([0.9, 0.2], fit=fit, **known)
    np.testing.assert_allclose(
        np.log(fitted / (1 - fitted)), 0.5 * np.log(plain / (1 - plain)) + 1.0, rtol=1e-9
    )
    with pytest.raises(ValueError, match="slope"):
        GalleryFit(slope=-1.0, shift=0.0, present_queries=0, absent_queries=0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_galleries_of_a_few_items_lean_on_the_background_of_the_fit(size):
    background = np.full(size, 0.9)  # nothing but the hit itself
    close, far = (
        WORDS.verdict(WORDS.relevance([s], background=background, gallery_size=size)) for s in (0.9, 0.0)
    )
    assert (close, far) == ("match", "nothing")


def test_no_hits_have_no_relevance_and_an_empty_background_is_that_of_the_fit():
    assert len(WORDS.relevance([], background=[0.1], gallery_size=1)) == 0
    numbers = background_numbers(np.empty((1, 0)), gallery_size=[0], prior=(0.03, 0.2))
    np.testing.assert_allclose(numbers, [[0.03, 0.2, 0.03]])


def test_a_score_that_is_no_number_is_refused_wherever_it_stands():
    for score, background in ((np.nan, [0.1]), (0.1, [np.inf]), (0.1, [0.2, np.nan])):
        with pytest.raises(ValueError, match="not a finite number"):
            WORDS.relevance([score], background=background, gallery_size=2)


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


@pytest.mark.parametrize(("name", "field"), [(QUERY_BANK, "bank"), (SHORT_QUERIES, "short_queries")])
def test_a_calibration_of_another_bank_or_other_templates_is_refused(tmp_path, name, field):
    (tmp_path / CALIBRATION).write_bytes(CALIBRATED.to_bytes())
    (tmp_path / name).write_bytes(b"one")
    with pytest.raises(BadCalibration, match="fitted without"):
        read_calibration(tmp_path, fingerprint=FINGERPRINT)
    fitted = CALIBRATED.model_copy(update={field: file_digest(tmp_path / name)})
    (tmp_path / CALIBRATION).write_bytes(fitted.to_bytes())
    assert read_calibration(tmp_path, fingerprint=FINGERPRINT) == fitted
    (tmp_path / name).write_bytes(b"other")
    with pytest.raises(BadCalibration, match="fitted with another"):
        read_calibration(tmp_path, fingerprint=FINGERPRINT)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "other"}, "kind"),
        ({"fingerprint": "cd" * 32}, FINGERPRINT),
        ({"searches": {"image_to_image": {}}}, "searches"),
        ({"more": 1}, "more"),
        ({"fitted_on": None}, "fitted_on"),
    ],
)
def test_another_encoder_or_field_is_named(change, named):
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


def test_levels_that_cross_are_refused():
    with pytest.raises(ValueError, match=r"perhaps begins at 0\.7"):
        SearchCalibration(**(WORDS.model_dump() | {"perhaps": 0.7}))
