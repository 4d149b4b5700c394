"""Texts to token ids, and whether a text was cut: one implementation for all, from files inside the bundle.

Two kinds of tokenizer: "clip_bpe" (CLIP's lower-cased byte-pair encoding, open_clip's `SimpleTokenizer`) and
"tokenizers" (any Hugging Face `tokenizer.json`).
"""

import re
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Encoding
from tokenizers import Tokenizer as HuggingFaceTokenizer

from encoders.errors import CorruptBundle

TOKENIZER_FOLDER = "tokenizer"
"""Inside a bundle: the tokenizer's files."""

TOKENIZER_FILES = {
    "tokenizers": f"{TOKENIZER_FOLDER}/tokenizer.json",
    "clip_bpe": f"{TOKENIZER_FOLDER}/bpe_vocab.txt.gz",
}


Cleaning = Literal["none", "whitespace", "lower", "canonicalize"]


class TokenizerSpec(BaseModel):
    """How a text becomes ids.

    pad_to: "longest" of the batch where the tower masks padding (the result is the same and cheaper);
    "context" where it does not.
    drop_separator: the separator's id becomes 0, as open_clip does for some CLIPA models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tokenizers", "clip_bpe"]
    context_length: int = Field(ge=3, le=8192)
    clean: Cleaning = "whitespace"
    """open_clip's cleaning before the tokenizer; where none is named, "clip_bpe" takes CLIP's own, "lower"."""
    pad_id: int = Field(default=0, ge=0)
    pad_to: Literal["longest", "context"] = "longest"
    drop_separator: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _clip_lowers_case(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"clean": "lower", **given} if given.get("kind") == "clip_bpe" else given


@dataclass(frozen=True)
class TokenBatch:
    """ids: int64 (n, length), padded; lengths: (n,) ids before padding; truncated: (n,) whether it was cut.

    full_lengths: (n,) ids had nothing been cut.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    full_lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> "list[TokenRow]":
        """Each text by itself, without padding."""
        return [
            TokenRow(ids[:length], truncated=truncated, full_length=full)
            for ids, length, truncated, full in zip(
                self.ids,
                self.lengths.tolist(),
                self.truncated.tolist(),
                self.full_lengths.tolist(),
                strict=True,
            )
        ]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """ids: int64 (length,) of one text; truncated: whether it was cut; full_length: had nothing been cut."""

    ids: NDArray[np.int64]
    truncated: bool
    full_length: int

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Protocol):
    """Texts in, a TokenBatch out; never more than the context length. Any thread may call it."""

    def __call__(self, texts: Sequence[str]) -> TokenBatch: ...


def open_tokenizer(spec: TokenizerSpec, folder: Path) -> Tokenizer:
    """The tokenizer whose files lie in the bundle `folder`. Raises CorruptBundle."""
    path = folder / TOKENIZER_FILES[spec.kind]
    if not path.is_file():
        raise CorruptBundle(f"the tokenizer's file {path} is missing")
    return _JsonTokenizer(spec, path) if spec.kind == "tokenizers" else _ClipTokenizer(spec, path)


class _JsonTokenizer:
    def __init__(self, spec: TokenizerSpec, path: Path) -> None:
        try:
            self._tokenizer = HuggingFaceTokenizer.from_file(str(path))
        except Exception as error:  # the Rust extension raises bare Exception
            raise CorruptBundle(f"{path} is no readable tokenizer.json: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=spec.context_length)
        self._clean = _cleaner(spec.clean)
        self._spec = spec

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        encodings = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        full = [len(encoding.ids) + sum(map(_own_ids, encoding.overflowing)) for encoding in encodings]
        return _padded([encoding.ids for encoding in encodings], full, self._spec)


_LONG_WORD = re.compile(r"(\S{500})(?=\S)")
"""open_clip's byte-pair merging is quadratic in a word's length: long ones are split."""
_MOST_WORDS_KEPT = 100_000
"""open_clip keeps the pieces of every word it ever met."""


class _ClipTokenizer:
    def __init__(self, spec: TokenizerSpec, path: Path) -> None:
        try:
            self._tokenizer = SimpleTokenizer(str(path), context_length=spec.context_length)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise CorruptBundle(f"{path} is no readable vocabulary: {error}") from error
        if not self._tokenizer.bpe_ranks:
            raise CorruptBundle(f"{path} is no readable vocabulary: it is empty")
        self._tokenizer.clean_fn = _cleaner(spec.clean)
        self._spec = spec
        self._turn = threading.Lock()  # its memory of words is emptied at times, which none may be reading

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        room = self._spec.context_length - 2
        with self._turn:
            encoded = [self._tokenizer.encode(_LONG_WORD.sub(r"\1 ", text)) for text in texts]
            if len(self._tokenizer.cache) > _MOST_WORDS_KEPT:
                self._tokenizer.cache.clear()
                self._tokenizer.cache.update({mark: mark for mark in ("<start_of_text>", "<end_of_text>")})
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        rows = [[start, *ids[:room], end] for ids in encoded]
        return _padded(rows, [len(ids) + 2 for ids in encoded], self._spec)


def padded(rows: Sequence[TokenRow], spec: TokenizerSpec) -> TokenBatch:
    """Rows of texts that were tokenized apart, as one batch."""
    return _padded([row.ids for row in rows], [row.full_length for row in rows], spec)


def _own_ids(piece: Encoding) -> int:
    """Of a piece that was cut off: its ids without the special ones, which every piece gets anew."""
    return len(piece.ids) - sum(piece.special_tokens_mask)


def _padded(
    rows: Sequence[Sequence[int] | NDArray[np.int64]], full: Sequence[int], spec: TokenizerSpec
) -> TokenBatch:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    full_lengths = np.array(full, dtype=np.int64)
    width = spec.context_length if spec.pad_to == "context" else int(lengths.max(initial=1))
    ids = np.full((len(rows), width), spec.pad_id, dtype=np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    if spec.drop_separator is not None:
        ids[ids == spec.drop_separator] = 0
    return TokenBatch(ids=ids, lengths=lengths, truncated=full_lengths > lengths, full_lengths=full_lengths)


class _Cleaner(Protocol):
    def __call__(self, text: str, /) -> str: ...


def _cleaner(kind: str) -> _Cleaner:
    if kind == "none":
        return lambda text: text
    clean: _Cleaner = get_clean_fn(kind)
    if kind == "canonicalize":
        return clean
    lower = kind == "lower"

    def cleaned(text: str) -> str:
        # What open_clip mends (mojibake, entities, control characters) is none of these; to look costs more
        # than the tokenizer does.
        if not (text.isascii() and text.isprintable()) or "&" in text:
            return clean(text)
        plain = " ".join(text.split())
        return plain.lower() if lower else plain

    return cleaned
