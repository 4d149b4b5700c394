"""Other libraries' tokenizers, frozen into files of a bundle and the specification that reads them."""

from pathlib import Path
from typing import Any

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, default_bpe, get_clean_fn

from encoders.errors import ImportFailed
from encoders.texts import TOKENIZER_FILES, Cleaning, TokenizerSpec

Frozen = tuple[TokenizerSpec, dict[str, bytes]]
"""The specification, and the files by their path in a bundle."""


def freeze_open_clip(tokenizer: Any, *, masked_pad_id: int | None) -> Frozen:
    """A tokenizer of `open_clip.get_tokenizer`. Raises ImportFailed.

    masked_pad_id: the id that the text tower masks as padding, None where it masks none.
    """
    if isinstance(tokenizer, SimpleTokenizer):
        return _freeze_simple(tokenizer)
    if not isinstance(tokenizer, HFTokenizer):
        raise ImportFailed(
            f"{type(tokenizer).__name__}: only CLIP's and Hugging Face's tokenizers can be imported"
        )
    if tokenizer.tokenizer_mode:
        raise ImportFailed(f"tokenizer_mode {tokenizer.tokenizer_mode!r} cannot be expressed")
    return freeze_hugging_face(
        tokenizer.tokenizer,
        context_length=tokenizer.context_length,
        clean=_clean_name(tokenizer.clean_fn),
        masked_pad_id=masked_pad_id,
        drop_separator=tokenizer.tokenizer.sep_token_id if tokenizer.strip_sep_token else None,
    )


def freeze_hugging_face(
    tokenizer: Any,
    *,
    context_length: int,
    clean: Cleaning,
    pad_id: int | None = None,
    masked_pad_id: int | None = None,
    drop_separator: int | None = None,
) -> Frozen:
    """A transformers tokenizer as a tokenizer.json: all that it does, also what its class adds to the file.

    pad_id: by default the tokenizer's own. Raises ImportFailed.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ImportFailed(f"{type(tokenizer).__name__} has no tokenizer.json and cannot be frozen into one")
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ImportFailed(
            f"the {type(tokenizer).__name__} has no vocabulary beside its special tokens: its files are missing"
        )
    if (tokenizer.padding_side, tokenizer.truncation_side) != ("right", "right"):
        raise ImportFailed(
            f"{type(tokenizer).__name__} pads {tokenizer.padding_side} and cuts {tokenizer.truncation_side}: "
            "only right and right can be expressed"
        )
    padding = tokenizer.pad_token_id if pad_id is None else pad_id
    if padding is None:
        raise ImportFailed(f"{type(tokenizer).__name__} names no padding token")
    spec = TokenizerSpec(
        kind="tokenizers",
        context_length=context_length,
        clean=clean,
        pad_id=padding,
        pad_to="longest" if padding == masked_pad_id else "context",
        drop_separator=drop_separator,
    )
    return spec, {TOKENIZER_FILES["tokenizers"]: backend.to_str().encode()}


def _freeze_simple(tokenizer: SimpleTokenizer) -> Frozen:
    vocabulary = Path(default_bpe())
    if tokenizer.reduction_fn is not None:
        raise ImportFailed("a tokenizer that drops words at random (reduction_mask) cannot be expressed")
    if tokenizer.encoder != SimpleTokenizer(str(vocabulary)).encoder:
        raise ImportFailed("a CLIP tokenizer with another vocabulary than open_clip's cannot be imported")
    spec = TokenizerSpec(
        kind="clip_bpe",
        context_length=tokenizer.context_length,
        clean=_clean_name(tokenizer.clean_fn),
        pad_to="context",
    )
    return spec, {TOKENIZER_FILES["clip_bpe"]: vocabulary.read_bytes()}


def _clean_name(function: Any) -> Cleaning:
    names: tuple[Cleaning, ...] = ("whitespace", "lower", "canonicalize")
    for name in names:
        if function is get_clean_fn(name):
            return name
    raise ImportFailed(f"the text cleaning {function!r} is none of open_clip's")
