"""How short queries are asked, chosen and measured, on vectors whose truth is known."""

import numpy as np
import pytest

from encoders.short_queries import ShortQueries
from training.evaluation.embedding import EmbeddedPairs
from training.evaluation.short_queries import ask, measure_short_queries
from training.query_expansion.choose import HeldOut, Judge, auc, choose_strength, choose_templates
from training.query_expansion.memory import MentionSums, PhraseValues, fit_memory
from training.short_queries.phrases import Phrase, vocabulary

DIM = 32
NOUNS = vocabulary().lexicon.asked_for


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def meaning(text: str) -> np.ndarray:
    return unit(np.random.default_rng(list(text.encode())).normal(size=DIM))


def encode(texts: list[str]) -> np.ndarray:
    """A text tower that understands sentences alone: bare nouns are noise."""
    rows = [meaning(text[2:]) if text.startswith("a ") else meaning(f"{text} bare") for text in texts]
    return np.stack(rows)


def shown(count: int, seed: int) -> tuple[np.ndarray, list[list[str]]]:
    """Images that lie near the noun that their one caption names."""
    rng = np.random.default_rng(seed)
    nouns = [NOUNS[int(n)] for n in rng.integers(len(NOUNS) // 2, size=count)]
    images = unit(np.stack([meaning(noun) for noun in nouns]) + 0.1 * rng.normal(size=(count, DIM)))
    return images, [[f"a {noun}"] for noun in nouns]


def held_out(count: int = 300) -> HeldOut:
    images, captions = shown(count, seed=1)
    rows, names = np.arange(count), tuple(map(str, range(count)))
    flat = tuple(caption for own in captions for caption in own)
    return HeldOut.of("zoo", EmbeddedPairs(images, images, rows, np.zeros(count, bool), names, flat, ()))


def test_templates_are_chosen_by_what_they_find():
    chosen, trials = choose_templates(Judge([held_out()], encode, None), "ab" * 32)
    score = {trial.title: trial.score for trial in trials}
    assert score["a {}"] > score["{}"] + 0.3
    assert chosen != ("{}",)
    assert score[" | ".join(chosen)] > score["{}"] + 0.2


def test_a_memory_of_phrases_brings_a_query_nearer_to_what_training_showed():
    """The tower's own words are noise; the training images say where each noun lies."""
    phrases = [Phrase("noun", noun) for noun in NOUNS[: len(NOUNS) // 2]]
    values = np.stack([meaning(phrase.noun) for phrase in phrases]).astype(np.float64)
    bare = ShortQueries(("{}",), "ab" * 32)
    memory = fit_memory(
        PhraseValues(tuple(phrases), np.full(len(phrases), 30.0), values),
        lambda asked: ask(asked, bare, encode),
    )
    kept, trials = choose_strength(Judge([held_out()], encode, None), bare, memory)
    assert kept is not None
    assert trials[0].title == "memory at strength 0"
    assert max(trial.score for trial in trials) > trials[0].score + 0.3


def test_a_direction_is_of_what_mentions_a_phrase_away_from_all_and_few_say_little():
    dog, cat = Phrase("noun", "dog"), Phrase("noun", "cat")
    sums = MentionSums(2)
    sums.add(
        np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32), [frozenset({dog})] * 3 + [frozenset({cat})]
    )
    found = dict(sums.directions())
    assert found[dog] == pytest.approx(np.array([1, -1]) / np.sqrt(2) * 3 / 6)
    assert found[cat] == pytest.approx(np.array([-1, 1]) / np.sqrt(2) * 1 / 4)


def test_short_queries_are_measured_as_the_bundle_asks_them():
    images, captions = shown(300, seed=2)
    options = {"name": "zoo", "encode": encode, "bank": None, "samples": 50}
    bare, asked = (
        measure_short_queries(images, captions, short=each, **options)
        for each in (None, ShortQueries(("a {}",), "ab" * 32))
    )
    assert bare.templates == ("{}",)
    assert bare.queries == asked.queries
    assert asked.precision_at_1.value > 0.9 > 0.3 > bare.precision_at_1.value
    assert measure_short_queries(images[:20], captions[:20], short=None, **options) is None


def test_present_above_absent_is_counted_and_ties_are_half():
    assert auc(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx((2 + 1.5) / 4)
