"""What a bundle holds of short queries: templates, and a memory of phrases."""

from pathlib import Path

import numpy as np
import pytest

from encoders.errors import CorruptBundle
from encoders.lexicon import Lexicon
from encoders.short_queries import (
    SHORT_QUERIES,
    PhraseMemory,
    ShortQueries,
    is_short_query,
    read_short_queries,
    short_queries_bytes,
)

FINGERPRINT, DIM = "ab" * 32, 4
KEYS = np.eye(2, DIM, dtype=np.float32)
MEMORY = PhraseMemory(KEYS, np.array([[0, 0, 3, 0], [0, 0, 0, 3]], dtype=np.float32), width=0.1)
KNOWN = ShortQueries(("{}", "a {}"), FINGERPRINT, MEMORY, Lexicon("# animals\ndog: puppy\n"))


@pytest.mark.parametrize("text", ["dog", "black dog", "a dog", "dog running in snow", "Zürich"])
def test_up_to_four_words_that_make_no_sentence_are_a_short_query(text):
    assert is_short_query(text)


@pytest.mark.parametrize(
    "text", ["", "the dog is black", "one two three four five", "dog!", "собака", "42", "x" * 61]
)
def test_sentences_other_scripts_and_bare_numbers_are_none(text):
    assert not is_short_query(text)


def test_a_leading_article_gives_way_to_the_templates_own():
    assert KNOWN.texts_for("the  black dog") == ["the black dog", "a black dog"]
    assert KNOWN.texts_for("a") == ["a", "a a"]


def test_a_query_is_the_mean_of_its_sentences_and_moves_towards_what_it_is_near():
    sentences = np.array([[[1, 0, 0, 0], [1, 0, 0, 0]], [[0, 0, 0, 1], [0, 0, 1, 0]]], dtype=np.float32)
    near, far = KNOWN.combined(sentences)
    assert near == pytest.approx(np.array([1, 0, 3, 0]) / np.sqrt(10), abs=2e-3)
    assert far == pytest.approx(np.array([0, 0, 1, 1]) / np.sqrt(2), abs=2e-3)  # near to none: as it was
    plain = KNOWN.for_encoder("cd" * 32)
    assert (plain.memory, plain.templates, plain.lexicon.text) == (None, KNOWN.templates, KNOWN.lexicon.text)


def test_what_is_written_reads_back(tmp_path: Path):
    (tmp_path / SHORT_QUERIES).write_bytes(short_queries_bytes(KNOWN))
    found = read_short_queries(tmp_path, fingerprint=FINGERPRINT, dim=DIM)
    assert found.templates == KNOWN.templates
    assert np.array_equal(found.memory.keys, KEYS)
    assert np.array_equal(found.memory.values, MEMORY.values)
    assert found.lexicon.asked_for == ("dog",)
    assert read_short_queries(tmp_path / "none", fingerprint=FINGERPRINT, dim=DIM) is None


@pytest.mark.parametrize(
    ("dim", "fingerprint", "says"),
    [(DIM, "cd" * 32, "fit its own"), (3, FINGERPRINT, "expected finite numbers")],
)
def test_what_is_of_another_encoder_is_refused(tmp_path: Path, dim, fingerprint, says):
    (tmp_path / SHORT_QUERIES).write_bytes(short_queries_bytes(KNOWN))
    with pytest.raises(CorruptBundle, match=says):
        read_short_queries(tmp_path, fingerprint=fingerprint, dim=dim)


def test_a_file_that_is_cut_and_a_template_without_a_place_are_named(tmp_path: Path):
    (tmp_path / SHORT_QUERIES).write_bytes(short_queries_bytes(KNOWN)[:40])
    with pytest.raises(CorruptBundle, match="cannot be read"):
        read_short_queries(tmp_path, fingerprint=FINGERPRINT, dim=DIM)
    with pytest.raises(ValueError, match=r"no \{\} where the query goes"):
        short_queries_bytes(ShortQueries(("a photo",), FINGERPRINT))
