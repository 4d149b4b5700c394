"""Token ids are those of the original tokenizers, and what was cut is said."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import default_bpe, get_clean_fn
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from encoders.errors import CorruptBundle
from encoders.texts import TOKENIZER_FILES, TokenizerSpec, _cleaner, open_tokenizer
from tests.conftest import tiny_tokenizer_json

TEXTS = ["a dog", "", "Ünï — 二匹の猫 &amp; 🐈", "The RED dog,  and\tthe cat!\n", "a dog " * 100, "\0\ud7ff�"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    for kind, content in (
        ("clip_bpe", Path(default_bpe()).read_bytes()),
        ("tokenizers", tiny_tokenizer_json()),
    ):
        path = folder / TOKENIZER_FILES[kind]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_clip_ids_are_open_clips(files: Path, clean: str) -> None:
    spec = TokenizerSpec(kind="clip_bpe", context_length=20, pad_to="context", clean=clean)
    theirs = open_clip.SimpleTokenizer(context_length=20, clean=clean)
    tokens = open_tokenizer(spec, files)(TEXTS)
    assert np.array_equal(tokens.ids, theirs(TEXTS).numpy())
    assert tokens.ids.dtype == np.int64
    assert tokens.truncated.tolist() == [len(theirs.encode(text)) > 18 for text in TEXTS]
    assert tokens.truncated[4]
    assert tokens.lengths.tolist()[:2] == [4, 2]


def test_clip_lowers_case_unless_told_otherwise(files: Path) -> None:
    assert TokenizerSpec(kind="clip_bpe", context_length=77).clean == "lower"
    assert TokenizerSpec(kind="tokenizers", context_length=77).clean == "whitespace"


@pytest.mark.parametrize("pad_to", ["context", "longest"])
def test_json_ids_are_transformers_own(files: Path, pad_to: str) -> None:
    spec = TokenizerSpec(kind="tokenizers", context_length=16, clean="none", pad_to=pad_to)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny_tokenizer_json().decode()), pad_token="[PAD]"
    )
    for texts in (TEXTS, TEXTS[:2]):
        padding = "max_length" if pad_to == "context" else "longest"
        expected = theirs(texts, padding=padding, truncation=True, max_length=16, return_tensors="np").input_ids
        assert np.array_equal(open_tokenizer(spec, files)(texts).ids, expected)


def test_a_text_of_just_the_context_is_whole_and_one_more_word_is_cut(files: Path) -> None:
    for kind in ("clip_bpe", "tokenizers"):
        tokenizer = open_tokenizer(TokenizerSpec(kind=kind, context_length=8), files)
        tokens = tokenizer(["dog " * 6, "dog " * 7])
        assert tokens.truncated.tolist() == [False, True]
        assert tokens.lengths.tolist() == [8, 8]
        assert tokens.ids[0, -1] == tokens.ids[1, -1], "a cut text keeps its end token"


def test_a_dropped_separator_becomes_0(files: Path) -> None:
    spec = TokenizerSpec(kind="tokenizers", context_length=8, pad_id=0, drop_separator=3)
    assert 3 not in open_tokenizer(spec, files)(["a dog"]).ids


def test_no_texts_are_no_rows(files: Path) -> None:
    for kind in ("clip_bpe", "tokenizers"):
        tokens = open_tokenizer(TokenizerSpec(kind=kind, context_length=8), files)([])
        assert (len(tokens), tokens.ids.ndim, tokens.truncated.shape) == (0, 2, (0,))


@pytest.mark.parametrize("kind", ["clip_bpe", "tokenizers"])
@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b broken", b"{}", b"\xff\xfe\x00"])
def test_a_missing_or_damaged_file_is_one_clear_error(tmp_path: Path, kind: str, content: bytes | None) -> None:
    path = tmp_path / TOKENIZER_FILES[kind]
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptBundle, match=path.name):
        open_tokenizer(TokenizerSpec(kind=kind, context_length=8), tmp_path)


@pytest.mark.parametrize("kind", ["whitespace", "lower", "canonicalize"])
@given(text=st.text(st.characters(max_codepoint=0x2FF)) | st.text(st.characters(codec="ascii")))
@example(text=" A  dog &amp; a\tcat ")
@example(text="it costs 5 &#163;")
@example(text="schÃ¶n")
def test_a_text_is_cleaned_as_open_clip_does(kind: str, text: str) -> None:
    assert _cleaner(kind)(text) == get_clean_fn(kind)(text)
