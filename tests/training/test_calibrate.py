"""Fitting and measuring a calibration, on synthetic vectors whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.calibration import Calibration, read_calibration
from training.__main__ import app
from training.calibrate.absent import (
    DEFAULT_ABSENT,
    AbsentQuery,
    content_words,
    disjoint_captions,
    read_absent,
    without_present,
)
from training.calibrate.calibrate import calibrate, directions_asked, texts_without_words
from training.calibrate.command import show
from training.calibrate.figures import best_threshold, decide, reliability
from training.calibrate.logistic import fit_logistic
from training.calibrate.report import (
    CalibrationReport,
    described_elsewhere,
    measure_taken_out,
    measured_figures,
    write_calibration_report,
)
from training.calibrate.run import without_losers
from training.errors import CalibrationError, MissingFile
from training.evaluate.embedding import EmbeddedPairs

IMAGES, DIM = 80, 48
LISTED = [AbsentQuery(f"absent{n}") for n in range(60)]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(*, signal: float, seed: int = 0) -> EmbeddedPairs:
    """Images in random directions, each with two captions near it; every image has words of its own."""
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(IMAGES, DIM)))
    owner = np.repeat(np.arange(IMAGES), 2)
    captions = unit(signal * images[owner] + unit(rng.normal(size=(2 * IMAGES, DIM))))
    words = [f"a thing{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in owner.tolist()]
    names = tuple(f"{n}.jpg" for n in range(IMAGES))
    return EmbeddedPairs(images, captions, owner, np.zeros(len(owner), bool), names, tuple(words), ())


def fitted(pairs: EmbeddedPairs, listed: list[AbsentQuery] = LISTED) -> Calibration:
    def encode(texts: list[str]) -> np.ndarray:
        return unit(np.random.default_rng(99).normal(size=(len(texts), DIM)))

    return calibrate({"world": pairs}, listed, encode=encode, fingerprint="ab" * 32)


@pytest.fixture(scope="module")
def clear() -> Calibration:
    return fitted(world(signal=1.5))


def test_queries_with_an_answer_are_told_from_those_without_in_galleries_of_every_size(clear):
    assert set(clear.directions) == {"text_to_image", "image_to_text"}
    for direction in clear.directions.values():
        assert direction.figures.decision.balanced_accuracy > 0.95
        assert direction.figures.expected_calibration_error < 0.03
    direction, rng = clear.directions["text_to_image"], np.random.default_rng(5)
    for size in (1, 3, 80):
        background = rng.normal(0, DIM**-0.5, size)
        near, far = np.append(background[1:], 0.83), background
        assert direction.is_good_match(near.max(), background=near, gallery_size=size)
        assert not direction.is_good_match(far.max(), background=far, gallery_size=size)


def test_the_same_pairs_give_the_same_calibration_and_others_another_digest(clear):
    assert fitted(world(signal=1.5)) == clear
    assert fitted(world(signal=1.5, seed=1)).digest == clear.digest  # the same words and ids
    assert fitted(world(signal=1.5), LISTED[:40]).digest != clear.digest


def test_vectors_that_say_the_opposite_are_refused():
    pairs = world(signal=-1.5)
    with pytest.raises(CalibrationError, match="say nothing about these pairs"):
        fitted(pairs)


def test_with_too_few_listed_queries_texts_are_judged_by_galleries_without_their_words():
    both = fitted(world(signal=1.5), LISTED[:29]).directions
    assert set(both) == {"text_to_image", "image_to_text"}
    assert both["text_to_image"].figures.decision.balanced_accuracy > 0.9


def test_no_absence_at_all_is_no_calibration_and_neither_are_too_few_images():
    pairs = world(signal=1.5)
    alike = replace(pairs, captions=("a thing",) * len(pairs.captions))  # every caption shares its only word
    with pytest.raises(CalibrationError, match="80 images, and too few of 29 absent queries"):
        fitted(alike, LISTED[:29])
    few = EmbeddedPairs(
        pairs.image_vectors[:5],
        pairs.caption_vectors[:10],
        pairs.caption_image[:10],
        pairs.cut[:10],
        pairs.image_ids[:5],
        pairs.captions[:10],
        (),
    )
    with pytest.raises(CalibrationError, match="5 images, and too few of 60 absent queries"):
        fitted(few)


def test_absent_captions_of_whose_subject_the_set_speaks_are_left_out():
    queries = [
        AbsentQuery("Two foxes run .", ("fox",)),
        AbsentQuery("A zebra .", ("zebra",)),
        AbsentQuery("A cherry"),
    ]
    kept, dropped = without_present(queries, ["the FOX sleeps", "cherries, in a bowl", "zebrafish"])
    assert [query.caption for query in dropped] == ["Two foxes run .", "A cherry"]
    assert [query.caption for query in kept] == ["A zebra ."]


def test_the_shipped_lists_are_whole_and_share_no_subject():
    development, last = read_absent(DEFAULT_ABSENT), read_absent(DEFAULT_ABSENT.with_name("flickr8k.txt"))
    assert (len(development) >= 100, len(last)) == (True, 200)
    assert all(query.subject for query in [*development, *last])
    subjects = [{word for query in queries for word in query.subject} for queries in (development, last)]
    assert not subjects[0] & subjects[1]


@pytest.mark.parametrize(
    ("text", "says"), [("", "names no query"), ("# a\n\n", "names no query"), ("a\nb\na\n", "twice")]
)
def test_a_list_of_absent_queries_that_cannot_be_used_is_named(tmp_path: Path, text, says):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(CalibrationError, match=says):
        read_absent(tmp_path / "list.txt")
    with pytest.raises(MissingFile, match=r"none\.txt"):
        read_absent(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin1"))
    with pytest.raises(CalibrationError, match="not UTF-8"):
        read_absent(tmp_path / "latin.txt")


def test_a_gallery_without_a_word_of_the_image_keeps_only_captions_of_other_things():
    captions = ["a black dog runs", "two dogs in snow", "a red car", "the car runs"]
    found = disjoint_captions(captions, np.array([0, 1, 2, 2]), 3)
    assert found.tolist() == [
        [False, False, True, False],
        [False, False, True, True],
        [False, True, False, False],
    ]
    assert content_words("A dog and two dogs wearing black") == {"dog"}


def test_reliability_of_a_known_mixture_is_exact():
    bins, error = reliability(np.array([0.85, 0.85, 0.85, 0.15]), np.array([0.15, 0.15, 0.15, 0.85]))
    assert [(b.low, round(b.predicted, 9), b.observed, b.share) for b in bins] == [
        (0.1, 0.15, 0.25, 0.5),
        (0.8, 0.85, 0.75, 0.5),
    ]
    assert error == pytest.approx(0.1)
    assert reliability(np.array([1.0]), np.array([0.0]))[1] == 0.0
    with pytest.raises(CalibrationError, match="both kinds"):
        reliability(np.array([0.5]), np.array([]))


def test_precision_and_recall_of_a_decision_are_at_even_odds():
    decision = decide(np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.6]), threshold=0.5)
    assert (decision.recall_present, decision.recall_absent) == (0.75, 0.5)
    assert decision.precision_present == pytest.approx(0.75 / 1.25)
    assert decision.precision_absent == pytest.approx(0.5 / 0.75)
    assert decision.balanced_accuracy == 0.625


def test_the_best_threshold_parts_what_can_be_parted():
    assert 0.3 < best_threshold(np.array([0.5, 0.6]), np.array([0.1, 0.3])) < 0.5
    mixed = best_threshold(np.array([0.2, 0.6, 0.7]), np.array([0.1, 0.3]))
    assert 0.3 < mixed < 0.6


def test_the_logistic_fit_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40_000, 2)) * [1.0, 10.0]
    chance = 1 / (1 + np.exp(-(0.5 + features @ [2.0, -0.1])))
    truth = (rng.random(40_000) < chance).astype(float)
    intercept, weights = fit_logistic(features, truth, weight=np.ones(40_000))
    assert intercept == pytest.approx(0.5, abs=0.06)
    assert weights == pytest.approx([2.0, -0.1], abs=0.06)


def test_features_that_separate_all_or_never_vary_still_have_finite_weights():
    features = np.column_stack([np.repeat([0.0, 1.0], 50), np.ones(100)])
    intercept, weights = fit_logistic(features, np.repeat([0.0, 1.0], 50), weight=np.ones(100))
    assert np.isfinite([intercept, *weights]).all()
    assert weights[0] > 5


def test_two_kinds_of_pictures_in_one_fit_are_both_judged():
    def encode(texts: list[str]) -> np.ndarray:
        return unit(np.random.default_rng(99).normal(size=(len(texts), DIM)))

    def right(calibration: Calibration, pairs: EmbeddedPairs) -> float:
        asked = texts_without_words(pairs)
        assert asked is not None
        figures = measured_figures(calibration.directions["text_to_image"], asked, measured_on="faint")
        return figures.decision.balanced_accuracy

    clear, faint, other_faint = world(signal=3.0), world(signal=0.8, seed=3), world(signal=0.8, seed=4)
    alone = calibrate({"clear": clear}, LISTED, encode=encode, fingerprint="ab" * 32)
    both = calibrate({"clear": clear, "faint": faint}, LISTED, encode=encode, fingerprint="ab" * 32)
    assert both.fitted_on == "clear, faint"
    assert right(both, other_faint) > right(alone, other_faint) + 0.05


def test_captions_that_another_image_is_described_by_as_well_are_counted():
    captions = ["dog snow", "dog snow", "dog snow", "cat couch", "cat sofa"]
    owner = np.array([0, 0, 1, 2, 2])
    assert described_elsewhere(captions, owner) == pytest.approx(3 / 5)


def test_a_calibration_is_measured_on_another_set_and_kept_beside_its_picture(clear, tmp_path, capsys):
    other = world(signal=1.5, seed=7)
    absent = unit(np.random.default_rng(3).normal(size=(40, DIM)))
    asked = directions_asked(other, absent)
    figures = {
        name: measured_figures(clear.directions[name], each, measured_on="other")
        for name, each in asked.items()
    }
    texts = figures["text_to_image"]
    assert (texts.gallery_items, texts.decision.present_queries, texts.decision.absent_queries) == (80, 160, 40)
    assert texts.decision.balanced_accuracy > 0.95
    taken_out = measure_taken_out(clear.directions["text_to_image"], asked["text_to_image"], other)
    assert taken_out.decision.recall_absent > 0.9  # no other picture is near
    assert (taken_out.still_described, taken_out.ceiling) == (0.0, 1.0)
    report = CalibrationReport(
        bundle="tiny",
        fingerprint=clear.fingerprint,
        fitted_on="world",
        measured_on="other",
        directions=figures,
        taken_out=taken_out,
    )
    write_calibration_report(clear, report, tmp_path / "out")
    assert CalibrationReport.model_validate_json((tmp_path / "out" / "report.json").read_bytes()) == report
    assert read_calibration(tmp_path / "out", fingerprint=clear.fingerprint) == clear
    assert (tmp_path / "out" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    show(clear, report)
    assert "a perfect judge would reach 100.0%" in capsys.readouterr().out


def test_what_a_flat_cutoff_decides_better_is_not_written_and_says_why(make_bundle, coloured_pairs, tmp_path):
    """On thirty images of a random encoder that happens to match one way."""
    bundle = make_bundle(tmp_path / "bundle", seed=23)
    spec = coloured_pairs(tmp_path / "pairs")
    done = CliRunner().invoke(app, ["calibrate", str(bundle.path), "--data", spec, "--in-place"])
    assert done.exit_code == 0, done.output
    kept = read_calibration(bundle.path, fingerprint=bundle.fingerprint)
    fitted_ways = {"text to image", "image to text"}
    losing = {
        line.split(":")[0] for line in done.output.splitlines() if "not written; give more images" in line
    }
    assert losing == {"image to text"}
    assert {name.replace("_", " ") for name in kept.directions} == fitted_ways - losing


def test_no_direction_that_wins_is_no_calibration(clear):
    assert without_losers(clear) == (clear, [])
    beaten = {
        name: each.model_copy(
            update={
                "figures": each.figures.model_copy(
                    update={"decision": each.figures.decision.model_copy(update={"balanced_accuracy": 0.6})}
                )
            }
        )
        for name, each in clear.directions.items()
    }
    kept, told = without_losers(clear.model_copy(update={"directions": beaten}))
    assert kept is None
    assert len(told) == 2
    assert "in 60.0%, a flat cutoff in" in told[0]


def test_the_flat_cutoff_is_judged_on_folds_that_it_was_not_chosen_on():
    """Of vectors that say nothing it is no better than a coin; on its own data it would look so."""
    decisions = [
        fitted(world(signal=0.05, seed=seed)).directions["text_to_image"].figures.flat_decision
        for seed in range(4)
    ]
    assert np.mean([one.balanced_accuracy for one in decisions]) < 0.53


def test_the_command_says_what_is_missing():
    result = CliRunner().invoke(app, ["calibrate", "nowhere"])
    assert (result.exit_code, "nothing to do" in result.output) == (2, True)
