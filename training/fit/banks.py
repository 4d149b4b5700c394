"""A query bank for a bundle that was trained from one that has a bank, whose rows are of other embeddings."""

from collections.abc import Sequence
from dataclasses import replace

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.query_bank import QueryBank, read_query_bank
from training.bank.bank import LEAST_PAIRS, best_trial, draw_pairs, make_bank, store_bank, try_strengths
from training.data.pairs import PairSet
from training.evaluation.embedding import OnProgress, embed_pairs


def renew_bank(
    bundle: Bundle,
    parent: Bundle,
    sets: Sequence[PairSet],
    held_out: Sequence[PairSet],
    *,
    device: str,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Bundle, str | None]:
    """(the bundle with a bank of pairs of `sets`, what to say); (the bundle, None) if its parent had none.

    It has as many rows as the parent's, and its strength, or 0 where that lowers recall on the held-out sets:
    such a bank corrects nothing and still tells drift.
    """
    try:
        past = read_query_bank(parent.path, fingerprint=parent.fingerprint, dim=parent.config.towers.embed_dim)
        if past is None:
            return bundle, None
        drawn = draw_pairs(sets, max(LEAST_PAIRS, *map(len, past.rows.values())), seed=seed)
        encoder = Encoder.load(bundle, device=device)
        made = make_bank(encoder, drawn, alpha=past.alpha, k=past.k, on_progress=on_progress)
        own = replace(made, rows={modality: made.rows[modality] for modality in past.rows})
        bank = _at_its_best(own, held_out, encoder, on_progress)
        stored = store_bank(bundle, bank)
    except TwinlensError as error:
        return bundle, f"no query bank in place of that of {parent.name}: {error}"
    told = (
        f"query bank made anew of {len(next(iter(bank.rows.values())))} pairs, alpha {bank.alpha:g}, k {bank.k}"
    )
    if bank.alpha < past.alpha:
        told += f" (with alpha {past.alpha:g}, as {parent.name} has it, recall on the validation sets falls)"
    return stored, told


def _at_its_best(
    bank: QueryBank, held_out: Sequence[PairSet], encoder: Encoder, on_progress: OnProgress
) -> QueryBank:
    if not held_out or bank.alpha == 0:
        return bank
    sets = [embed_pairs(encoder, pairs, on_progress=on_progress) for pairs in held_out]
    best = best_trial(list(try_strengths(bank, sets, alphas=[bank.alpha], ks=[bank.k])))
    return replace(bank, alpha=best.alpha)
