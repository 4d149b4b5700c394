"""Fitting and measuring a calibration, on synthetic vectors whose truth is known."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.calibration import Calibration, SearchCalibration, read_calibration
from encoders.query_bank import QueryBank
from training.__main__ import app
from training.calibrate.absent import (
    DEFAULT_ABSENT,
    AbsentQuery,
    content_words,
    disjoint_captions,
    read_absent,
    without_present,
)
from training.calibrate.asked import Asker, pair_searches
from training.calibrate.calibrate import calibrate, without_losers
from training.calibrate.figures import (
    Nothing,
    Said,
    balanced_accuracy,
    best_cutoff,
    calibration_error,
    reliability,
)
from training.calibrate.fit import choose_levels, nothing_level
from training.calibrate.logistic import fit_logistic
from training.calibrate.measure import MeasuredSet, MeasureOptions, RelevanceReport, measure_relevance
from training.calibrate.pages import PAGE, Pages
from training.calibrate.report import relevance_markdown, write_calibration_report, write_relevance_report
from training.errors import CalibrationError, MissingFile
from training.evaluation.embedding import EmbeddedPairs
from training.short_queries.draw import draw, mentions_of
from training.short_queries.phrases import vocabulary

IMAGES, DIM = 80, 48
LISTED = [AbsentQuery(f"absent{n}") for n in range(60)]
NOUNS = vocabulary().lexicon.asked_for


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@cache
def meaning(text: str) -> np.ndarray:
    """A random direction, the same for the same text."""
    return np.random.default_rng(list(text.encode())).normal(size=DIM)


def encode(texts: list[str]) -> np.ndarray:
    return unit(np.stack([meaning(text) for text in texts]))


def asker(bank: QueryBank | None = None) -> Asker:
    return Asker(encode, lambda phrases: encode([str(phrase) for phrase in phrases]), bank)


def world(*, signal: float, seed: int = 0) -> EmbeddedPairs:
    """Images in random directions, each with two captions near it; every image has words of its own."""
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(IMAGES, DIM)))
    owner = np.repeat(np.arange(IMAGES), 2)
    captions = unit(signal * images[owner] + unit(rng.normal(size=(2 * IMAGES, DIM))))
    words = [f"a thing{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in owner.tolist()]
    names = tuple(f"{n}.jpg" for n in range(IMAGES))
    return EmbeddedPairs(images, captions, owner, np.zeros(len(owner), bool), names, tuple(words), ())


def zoo(*, signal: float, seed: int = 0, images: int = IMAGES) -> EmbeddedPairs:
    """Images that lie near the nouns that their caption names; the other nouns are absent."""
    rng = np.random.default_rng(seed)
    nouns = [NOUNS[int(n)] for n in rng.choice(len(NOUNS), size=images)]
    vectors = unit(signal * encode(nouns) + unit(rng.normal(size=(images, DIM))))
    captions = tuple(f"a {noun}" for noun in nouns)
    names = tuple(f"{n}.jpg" for n in range(images))
    return EmbeddedPairs(vectors, vectors, np.arange(images), np.zeros(images, bool), names, captions, ())


def fitted(
    pairs: EmbeddedPairs, listed: list[AbsentQuery] = LISTED, bank: QueryBank | None = None
) -> Calibration:
    return calibrate(
        {"world": pairs}, listed, asker(bank), fingerprint="ab" * 32, bank=None, short_queries=None
    )


def pages(first: list[float], right: list[bool], present: list[bool]) -> tuple[Pages, np.ndarray]:
    """Queries with one hit each, and its relevance."""
    count = len(first)
    known, scores = np.zeros((count, PAGE), bool), np.full((count, PAGE), np.nan)
    known[:, 0], scores[:, 0] = True, first
    rights = np.zeros((count, PAGE), bool)
    rights[:, 0] = right
    numbers = np.zeros((count, 3))
    found = Pages(
        scores, known, rights, np.array(present), numbers, np.array(first), np.arange(count), gallery_size=count
    )
    return found, scores


@pytest.fixture(scope="module")
def clear() -> Calibration:
    return fitted(world(signal=1.5))


@pytest.fixture(scope="module")
def words() -> SearchCalibration:
    return fitted(zoo(signal=1.5, images=200)).searches["words_to_image"]


def test_queries_with_an_answer_are_told_from_those_without_in_galleries_of_every_size(clear):
    assert set(clear.searches) == {"sentence_to_image", "image_to_text"}
    for part in clear.searches.values():
        assert part.figures.balanced_accuracy > 0.95
        assert part.figures.calibration_error.value < 0.03
        assert part.figures.order_faults == 0
    part, rng = clear.searches["sentence_to_image"], np.random.default_rng(5)
    for size in (1, 3, 80):
        background = rng.normal(0, DIM**-0.5, size)
        near, far = np.append(background[1:], 0.83), background
        verdicts = [
            part.verdict(part.relevance([one.max()], background=one, gallery_size=size)) for one in (near, far)
        ]
        assert verdicts == ["match", "nothing"]


def test_short_queries_are_told_apart_by_what_captions_mention(words):
    assert words.figures.balanced_accuracy > 0.9
    assert words.figures.false_nothing <= 0.04
    assert words.figures.nothing_precision >= 0.86
    assert words.figures.match_of_right >= 0.6
    assert words.gallery_sizes == (80, 200)
    assert words.perhaps <= words.likely <= 0.5


def test_a_bank_enters_every_search_that_it_has_items_of():
    pairs = zoo(signal=1.5, images=200)
    rows = {"images": unit(np.random.default_rng(3).normal(size=(120, DIM)))}
    bank = QueryBank(rows=rows, fingerprint="ab" * 32, alpha=0.0)
    searches = fitted(pairs, bank=bank).searches
    assert searches["words_to_image"].weights.bank is not None
    assert searches["sentence_to_image"].weights.bank is not None
    assert searches["image_to_text"].weights.bank is None  # the bank holds no texts


def test_hubs_are_held_back_before_relevance_is_fitted():
    """A hub that is near every query outranks all answers, until the bank takes it off."""
    pairs = zoo(signal=1.5, images=200)
    common = unit(pairs.image_vectors.mean(axis=0, keepdims=True) + 1.0)
    asked = Asker(
        lambda texts: unit(encode(texts) + 2 * common),
        lambda p: unit(encode([str(x) for x in p]) + 2 * common),
        None,
    )
    hubs = replace(
        pairs, image_vectors=np.concatenate([pairs.image_vectors[:-5], np.repeat(common, 5, axis=0)])
    )
    bank = QueryBank(rows={"texts": common}, fingerprint="ab" * 32, alpha=0.9, k=1)
    names = {"fingerprint": "ab" * 32, "bank": None, "short_queries": None}
    with pytest.raises(CalibrationError, match="does not make a match likelier"):
        calibrate({"zoo": hubs}, LISTED, asked, **names)
    corrected = calibrate({"zoo": hubs}, LISTED, replace(asked, bank=bank), **names)
    assert corrected.searches["words_to_image"].figures.balanced_accuracy > 0.85


def test_the_same_pairs_give_the_same_calibration_and_others_another_digest(clear):
    assert fitted(world(signal=1.5)) == clear
    assert fitted(world(signal=1.5, seed=1)).digest == clear.digest  # the same words and ids
    assert fitted(world(signal=1.5), LISTED[:40]).digest != clear.digest


def test_vectors_that_say_the_opposite_are_refused():
    pairs = world(signal=-1.5)
    with pytest.raises(CalibrationError, match="say nothing about these pairs"):
        fitted(pairs)


def test_with_too_few_listed_queries_texts_are_judged_by_galleries_without_their_words():
    both = fitted(world(signal=1.5), LISTED[:29]).searches
    assert set(both) == {"sentence_to_image", "image_to_text"}
    assert both["sentence_to_image"].figures.balanced_accuracy > 0.9


def test_no_absence_at_all_is_no_calibration_and_neither_are_too_few_images():
    pairs = world(signal=1.5)
    alike = replace(pairs, captions=("a thing",) * len(pairs.captions))  # every caption shares its only word
    with pytest.raises(CalibrationError, match="80 images, and too few queries that have no answer"):
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
    with pytest.raises(CalibrationError, match="5 images, and too few queries that have no answer"):
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


def test_calibration_error_of_a_known_mixture_is_exact():
    said = [0.9] * 150 + [0.1] * 150
    right = [True, True, True, True, False] * 30 + [False] * 150
    found, relevance = pages(said, right, [True] * 150 + [False] * 150)
    bins, error = reliability([Said(found, relevance)])
    assert error == pytest.approx(0.1)  # 0.9 is said of 0.8, and 0.1 of 0
    assert all(bin_.predicted == pytest.approx(0.1) for bin_ in bins[:7])
    interval = calibration_error([Said(found, relevance)])
    assert interval.low <= error <= interval.high


def test_nothing_is_judged_at_even_odds_whatever_was_asked_more_often():
    found, _ = pages([0.1, 0.9, 0.8, 0.2], [False, True, True, True], [False, True, True, True])
    nothing = Nothing.of([found], [np.array([True, False, False, True])])
    assert (nothing.of_absent, nothing.of_present, nothing.false) == pytest.approx((1.0, 1 / 3, 1 / 3))
    assert nothing.precision == pytest.approx(1 / (1 + 1 / 3))
    assert Nothing.of([found], [np.zeros(4, bool)]).precision is None


def test_levels_keep_to_their_rule():
    """Absent queries lie below present ones, but for a tail of present ones that find nothing right."""
    rng = np.random.default_rng(0)
    first = np.concatenate([rng.uniform(0.3, 1, 190), rng.uniform(0, 0.3, 10), rng.uniform(0, 0.5, 200)])
    right = np.concatenate([np.ones(190, bool), np.zeros(210, bool)])
    found, relevance = pages(list(first), list(right), [True] * 200 + [False] * 200)
    likely, perhaps = choose_levels([Said(found, relevance)])
    nothing = Nothing.of([found], [first < perhaps])
    assert nothing.precision >= 0.86
    assert nothing.false <= 0.04
    assert nothing.of_absent > 0.5
    assert likely == 0.5
    assert (first[right] >= likely).mean() >= 0.6


def test_where_absent_cannot_be_told_nothing_is_never_said():
    rng = np.random.default_rng(0)
    found, relevance = pages(
        list(rng.uniform(size=400)), [True] * 200 + [False] * 200, [True] * 200 + [False] * 200
    )
    assert nothing_level([relevance[:, 0]], [found]) is None
    assert choose_levels([Said(found, relevance)])[1] == 0.0


def test_the_best_cutoff_parts_what_can_be_parted():
    present = np.array([True, True, False, False])
    values, weight = np.array([0.5, 0.6, 0.1, 0.3]), np.full(4, 0.25)
    assert 0.3 < best_cutoff(values, present, weight) < 0.5
    assert balanced_accuracy(values, present, weight, cutoff=0.4) == 1.0
    tied = np.full(4, 0.5)
    assert balanced_accuracy(tied, present, weight, cutoff=best_cutoff(tied, present, weight)) == 0.5


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


def test_two_kinds_of_images_in_one_fit_are_both_judged():
    names = {"fingerprint": "ab" * 32, "bank": None, "short_queries": None}

    def right(calibration: Calibration, pairs: EmbeddedPairs) -> float:
        part = calibration.searches["sentence_to_image"]
        found = pair_searches(pairs, [], asker())["sentence_to_image"][0].whole(
            (part.prior_mean, part.prior_spread)
        )
        first = part.weights.logit(found.scores, found.numbers)[:, 0]
        return balanced_accuracy(first, found.present, found.query_weight, cutoff=0.0)

    clear, faint, other_faint = world(signal=3.0), world(signal=0.8, seed=3), world(signal=0.8, seed=4)
    alone = calibrate({"clear": clear}, LISTED, asker(), **names)
    both = calibrate({"clear": clear, "faint": faint}, LISTED, asker(), **names)
    assert both.fitted_on == "clear, faint"
    assert right(both, other_faint) > right(alone, other_faint) + 0.05


def measured(calibration: Calibration, pairs: EmbeddedPairs, **options: object) -> RelevanceReport:
    queries = draw(mentions_of([[caption] for caption in pairs.captions]), count=100, seed="other")
    found = measure_relevance(
        calibration,
        MeasuredSet("other", pairs, queries, []),
        asker(),
        None,
        MeasureOptions(samples=20, **options),
    )
    return RelevanceReport(
        bundle="tiny",
        fingerprint=calibration.fingerprint,
        fitted_on="world",
        set="other",
        spec="csv:other.csv",
        digest="00",
        own_texts=bool(options.get("own_texts")),
        measured=tuple(found),
    )


def test_a_calibration_is_measured_on_another_set_by_size_and_kind_of_query(tmp_path):
    calibration = fitted(zoo(signal=1.5, images=200))
    report = measured(calibration, zoo(signal=1.5, seed=7, images=200), sizes=(80, 0))
    found = {(one.search, one.queries, one.gallery_items): one for one in report.measured}
    whole, small = found["words_to_image", "all", 200], found["words_to_image", "all", 80]
    assert whole.figures.balanced_accuracy > 0.85
    assert whole.figures.judged_hits == 10 * (whole.figures.present_queries + whole.figures.absent_queries)
    assert whole.quality.precision_at_1.value > 0.8
    assert (small.galleries, small.quality) == (5, None)
    assert ("sentence_to_image", "captions", 200) in found
    assert ("words_to_image", "noun", 200) in found
    write_relevance_report([report], tmp_path)
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "relevance.md").read_text() == relevance_markdown([report])
    assert "| other | words → image | all | 80 × 5 |" in relevance_markdown([report])
    with pytest.raises(CalibrationError, match="other has 200 images, and --gallery-size is 300"):
        measured(calibration, zoo(signal=1.5, seed=7, images=200), sizes=(300,))


def test_a_gallerys_own_texts_bring_relevance_nearer_to_what_is_so():
    """Fitted where images lie close to their nouns, and used where they lie farther away."""
    calibration, faint = fitted(zoo(signal=2.5, images=200)), zoo(signal=1.0, seed=7, images=300)
    plain, own = (
        next(one for one in measured(calibration, faint, own_texts=each).measured if one.queries == "all")
        for each in (False, True)
    )
    assert own.figures.calibration_error.value < 0.6 * plain.figures.calibration_error.value
    assert own.figures.order_faults == 0


def test_the_commands_calibrate_a_bundle_and_measure_it(make_bundle, coloured_pairs, tmp_path):
    """On thirty images of a random encoder: what a flat cutoff decides better is not written, and says why."""
    bundle = make_bundle(tmp_path / "bundle", seed=23)
    spec = coloured_pairs(tmp_path / "pairs")
    done = CliRunner().invoke(app, ["calibrate", str(bundle.path), "--data", spec, "--in-place"])
    assert done.exit_code == 0, done.output
    kept = read_calibration(bundle.path, fingerprint=bundle.fingerprint)
    lines = done.output.splitlines()
    told = {name for name in ("words → image", "sentence → image", "image → text") if f"{name}:" in lines}
    losing = [line for line in lines if "not written; give more images" in line]
    assert losing
    assert len(kept.searches) == len(told) - len(losing)
    out = tmp_path / "out"
    shown = CliRunner().invoke(app, ["relevance", str(bundle.path), "--data", spec, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert {path.name for path in out.iterdir()} == {"relevance.json", "relevance.md", "reliability.png"}


def test_no_search_that_wins_is_no_calibration(clear):
    assert without_losers(clear) == (clear, [])
    beaten = {
        name: each.model_copy(update={"figures": each.figures.model_copy(update={"balanced_accuracy": 0.6})})
        for name, each in clear.searches.items()
    }
    kept, told = without_losers(clear.model_copy(update={"searches": beaten}))
    assert kept is None
    assert len(told) == 2
    assert "in 60.0%, a flat cutoff in" in told[0]


def test_the_flat_cutoff_is_judged_on_folds_that_it_was_not_chosen_on():
    """Of vectors that say nothing it is no better than a coin; on its own data it would look so."""
    flat = [
        fitted(world(signal=0.05, seed=seed)).searches["sentence_to_image"].figures.flat_balanced_accuracy
        for seed in range(4)
    ]
    assert np.mean(flat) < 0.53


def test_a_calibration_is_kept_beside_its_plot(clear, tmp_path):
    write_calibration_report(clear, tmp_path)
    assert read_calibration(tmp_path, fingerprint=clear.fingerprint) == clear
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_say_what_is_missing(make_bundle: Callable, coloured_pairs: Callable, tmp_path: Path):
    spec, bundle = coloured_pairs(tmp_path / "pairs"), make_bundle(tmp_path / "bundle")
    for arguments, said in (
        (["calibrate", "nowhere"], "--data"),
        (
            ["relevance", str(bundle.path), "--data", spec, "--queries", "a", "--queries", "b"],
            "1 sets and 2 lists",
        ),
        (["relevance", str(bundle.path), "--data", spec], "carries no calibration"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, said in result.output) == (2, True), result.output
