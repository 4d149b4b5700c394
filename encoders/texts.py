"""Texts to token ids, and whether a text was cut: one implementation for all, from files inside the bundle.

Two kinds of tokenizer: "clip_bpe" (CLIP's lower-cased byte-pair encoding, open_clip's `SimpleTokenizer`) and
"tokenizers" (any Hugging Face `tokenizer.json`). It does not know towers or devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer as HuggingFaceTokenizer

from encoders.errors import CorruptBundle

TOKENIZER_FOLDER = "tokenizer"
"""Inside a bundle: the tokenizer's files."""

TOKENIZER_FILES = {
    "tokenizers": f"{TOKENIZER_FOLDER}/tokenizer.json",
    "clip_bpe": f"{TOKENIZER_FOLDER}/bpe_vocab.txt.gz",
}


class TokenizerSpec(BaseModel):
    """How a text becomes ids.

    pad_to: "longest" of the batch where the tower masks padding (the result is the same and cheaper);
    "context" where it does not.
    drop_separator: the separator's id becomes 0, as open_clip does for some CLIPA models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tokenizers", "clip_bpe"]
    context_length: int = Field(ge=3, le=8192)
    clean: Literal["none", "whitespace", "lower", "canonicalize"] = "whitespace"
    pad_id: int = Field(default=0, ge=0)
    pad_to: Literal["longest", "context"] = "longest"
    drop_separator: int | None = None


@dataclass(frozen=True)
class TokenBatch:
    """ids: int64 (n, length), padded; lengths: (n,) ids before padding; truncated: (n,) whether it was cut."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Protocol):
    """Texts in, a TokenBatch out; never more than the context length."""

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
        cut = [bool(encoding.overflowing) for encoding in encodings]
        return _padded([encoding.ids for encoding in encodings], cut, self._spec)


class _ClipTokenizer:
    def __init__(self, spec: TokenizerSpec, path: Path) -> None:
        try:
            self._tokenizer = SimpleTokenizer(str(path), context_length=spec.context_length, clean="lower")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise CorruptBundle(f"{path} is no readable vocabulary: {error}") from error
        self._spec = spec

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        room = self._spec.context_length - 2
        encoded = [self._tokenizer.encode(text) for text in texts]
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        rows = [[start, *ids[:room], end] for ids in encoded]
        return _padded(rows, [len(ids) > room for ids in encoded], self._spec)


def _padded(rows: list[list[int]], cut: list[bool], spec: TokenizerSpec) -> TokenBatch:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    width = spec.context_length if spec.pad_to == "context" else int(lengths.max(initial=1))
    ids = np.full((len(rows), width), spec.pad_id, dtype=np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    if spec.drop_separator is not None:
        ids[ids == spec.drop_separator] = 0
    return TokenBatch(ids=ids, lengths=lengths, truncated=np.array(cut, dtype=np.bool_))


class _Cleaner(Protocol):
    def __call__(self, text: str, /) -> str: ...


def _cleaner(kind: str) -> _Cleaner:
    if kind == "none":
        return lambda text: text
    clean: _Cleaner = get_clean_fn(kind)
    return clean
