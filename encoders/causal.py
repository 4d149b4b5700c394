"""Causal text towers (CLIP's) on rows cut at the longest text instead of the whole context.

Under a causal mask no token sees what comes after it, and the embedding is read at the end-of-text token: the
padding behind it changes nothing, so leaving it out is exact, and a title of ten tokens costs ten and not 77.
open_clip's own forward takes whole contexts only.
"""

from collections.abc import Callable
from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import nn

_READ_AT_END_OF_TEXT = ("argmax", "eos")


def shortened_text(
    model: nn.Module, sample: torch.Tensor, *, length: int
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """ids (n, any length up to the context) -> features (n, dim); None where leaving out padding changes them.

    model: an open_clip CLIP or CustomTextCLIP; sample: (1, context) ids of any text of `length` tokens, which
    tells whether the embedding is read before the padding. Rows must be padded on the right.
    """
    tower: Any = getattr(model, "text", model)  # of a CLIP the text tower's parts lie in the model itself
    pool_type = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    mask = getattr(tower, "attn_mask", None)
    reads_more = getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False)
    if pool_type not in _READ_AT_END_OF_TEXT or mask is None or reads_more or not _is_causal(mask):
        return None
    end_of_text = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
    positions = torch.arange(sample.shape[1]).view(1, -1, 1)
    if int(text_global_pool(positions, sample, pool_type, eos_token_id=end_of_text)) >= length:
        return None

    def features(ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        kind = tower.transformer.get_cast_dtype()
        rows = tower.token_embedding(ids).to(kind) + tower.positional_embedding[:length].to(kind)
        rows = tower.ln_final(tower.transformer(rows, attn_mask=tower.attn_mask[:length, :length]))
        pooled: torch.Tensor = text_global_pool(rows, ids, pool_type, eos_token_id=end_of_text)
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            return projection(pooled)  # type: ignore[no-any-return]
        return pooled if projection is None else pooled @ projection

    return features


def _is_causal(mask: torch.Tensor) -> bool:
    expected = torch.full_like(mask, float("-inf")).triu(1)
    return mask.dim() == 2 and torch.equal(mask, expected)
