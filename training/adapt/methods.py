"""The methods by name, and what each does to a candidate; applied in the order in which they act.

    adabn      BatchNorm statistics of the target's images               strength: share of the new ones
    pseudo     heads trained on mutual nearest neighbours, source replay   strength: WiSE-FT's α
    few-shot   heads trained on a few captioned images, source replay    strength: WiSE-FT's α
    centre     each modality's mean on the target off                      strength: share of the mean
    whiten     and the covariance levelled                                 strength: 1 − shrinkage
    coral      target means and covariances to the source's                strength: 1 − shrinkage
    hubness    a query bank, against items that come up for everything     strength: α

A method is written `name` or `name:strength`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from encoders.adaptation import Adaptation, AffineMap
from encoders.modalities import Modality
from encoders.query_bank import DEFAULT_ALPHA, DEFAULT_K, QueryBank, as_stored
from training.adapt.closed_form import (
    CENTRE_STRENGTH,
    CORAL_STRENGTH,
    WHITEN_STRENGTH,
    apply_map,
    centring,
    coral,
    whitening,
)
from training.adapt.towers import Towers
from training.errors import AdaptationError
from training.evaluation.ranks import Floats

DEFAULT_STRENGTHS: Mapping[str, float] = MappingProxyType(
    {
        "adabn": 1.0,
        "pseudo": 0.5,
        "few-shot": 0.5,
        "centre": CENTRE_STRENGTH,
        "whiten": WHITEN_STRENGTH,
        "coral": CORAL_STRENGTH,
        "hubness": DEFAULT_ALPHA,
    }
)
"""In the order in which methods act: what changes the towers, then their embeddings, then the ranking."""

EXCLUSIVE = frozenset({"centre", "whiten", "coral"})
OTHER_TOWERS = frozenset({"adabn", "pseudo", "few-shot"})
BANK_ROWS = 10_000
"""Evenly drawn from more: a bank is read for every item that is indexed."""
MOST_STRENGTH: Mapping[str, float] = MappingProxyType({"hubness": 10.0})


@dataclass(frozen=True, order=True)
class Method:
    name: str
    strength: float

    def __str__(self) -> str:
        plain = self.strength == DEFAULT_STRENGTHS[self.name]
        return self.name if plain else f"{self.name}:{self.strength:g}"


@dataclass(frozen=True, eq=False)
class Candidate:
    """An encoder in the making: towers, what is done to their embeddings, and the bank."""

    methods: tuple[Method, ...]
    towers: Towers
    adaptation: Adaptation
    bank: QueryBank | None

    def images(self, part: str) -> Floats:
        """(n, d) unit rows of a part's images, as the adapted bundle will give them."""
        return apply_map(self.adaptation.get("images"), self.towers.images(part))

    def texts(self, part: str) -> Floats:
        return apply_map(self.adaptation.get("texts"), self.towers.texts(part))

    def rows(self, modality: Modality, part: str) -> Floats:
        return self.images(part) if modality == "images" else self.texts(part)


def parse_methods(text: str) -> tuple[Method, ...]:
    """ "centre,hubness:0.5" in the order in which they act. Raises AdaptationError, naming what is wrong."""
    methods = [_parse_method(part.strip()) for part in text.split(",")]
    names = [method.name for method in methods]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AdaptationError(f"--method {text!r} names {twice} twice")
    if len(clash := sorted(EXCLUSIVE & set(names))) > 1:
        raise AdaptationError(f"--method {text!r}: {' and '.join(clash)} each set the means: choose one")
    return in_order(methods)


def in_order(methods: Sequence[Method]) -> tuple[Method, ...]:
    order = list(DEFAULT_STRENGTHS)
    return tuple(sorted(methods, key=lambda method: order.index(method.name)))


def _parse_method(text: str) -> Method:
    name, colon, strength = text.partition(":")
    if name not in DEFAULT_STRENGTHS:
        raise AdaptationError(f"no method is called {name!r}: there are auto, {', '.join(DEFAULT_STRENGTHS)}")
    if not colon:
        return Method(name, DEFAULT_STRENGTHS[name])
    most = MOST_STRENGTH.get(name, 1.0)
    try:
        value = float(strength)
    except ValueError:
        value = float("nan")
    if not 0 < value <= most:
        raise AdaptationError(f"{text!r}: the strength of {name} is a number above 0, at most {most:g}")
    return Method(name, value)


def apply_methods(parent: Candidate, methods: Sequence[Method]) -> Candidate:
    """A candidate with all of the methods, in their order; AdaptationError where one cannot be applied.

    The parent's own query bank goes on in the candidate's embeddings: see `_past_bank`.
    """
    candidate = parent
    for method in in_order(methods):
        made = APPLY[method.name](candidate, method.strength)
        candidate = replace(made, methods=(*candidate.methods, method))
    if any(method.name == "hubness" for method in candidate.methods):
        return candidate
    return replace(candidate, bank=_past_bank(candidate))


def _adabn(candidate: Candidate, strength: float) -> Candidate:
    return replace(candidate, towers=candidate.towers.with_statistics(strength))


def _pseudo(candidate: Candidate, strength: float) -> Candidate:
    return replace(candidate, towers=candidate.towers.with_pseudo_pairs(strength))


def _few_shot(candidate: Candidate, strength: float) -> Candidate:
    return replace(candidate, towers=candidate.towers.with_shots(strength))


def _centre(candidate: Candidate, strength: float) -> Candidate:
    towers = candidate.towers
    return _mapped(
        candidate,
        images=centring(towers.images("target"), strength=strength),
        texts=centring(_domain_texts(candidate), strength=strength),
    )


def _whiten(candidate: Candidate, strength: float) -> Candidate:
    towers = candidate.towers
    images, texts = whitening(towers.images("target"), _domain_texts(candidate), strength=strength)
    return _mapped(candidate, images=images, texts=texts)


def _coral(candidate: Candidate, strength: float) -> Candidate:
    towers = candidate.towers
    images = coral(towers.images("target"), towers.images("source"), strength=strength)
    if not len(towers.texts("queries")):
        return _mapped(candidate, images=images)
    texts = coral(towers.texts("queries"), towers.texts("source"), strength=strength)
    return _mapped(candidate, images=images, texts=texts)


def _hubness(candidate: Candidate, strength: float) -> Candidate:
    """Bank images are the target's images, bank texts the queries where there are some, as the candidate
    embeds them.

    They join the parent's bank: only the rows nearest to an item tell whether it is a hub, so that each domain
    is corrected by its own.
    """
    rows: dict[Modality, Floats] = {"images": _bank_rows(candidate.images("target"))}
    if len(texts := candidate.texts("queries")):
        rows["texts"] = _bank_rows(texts)
    past = _past_bank(candidate)
    for modality, kept in ({} if past is None else past.rows).items():
        rows[modality] = np.concatenate([kept, rows[modality]]) if modality in rows else kept
    bank = QueryBank(
        rows=rows,
        fingerprint=candidate.towers.encoder.fingerprint,
        alpha=strength,
        k=DEFAULT_K if past is None else past.k,
    )
    return replace(candidate, bank=bank)


def _past_bank(candidate: Candidate) -> QueryBank | None:
    """The parent's bank as the candidate would embed its queries.

    Other towers cannot embed what only vectors are left of: the source's pairs stand in for it then.
    """
    past = candidate.towers.encoder.query_bank
    if past is None:
        return None
    if changes_towers(candidate.methods):
        rows = {m: _bank_rows(candidate.rows(m, "source")) for m in past.rows}
    else:
        rows = {m: as_stored(apply_map(candidate.adaptation.get(m), kept)) for m, kept in past.rows.items()}
    return replace(past, rows=rows)


def changes_towers(methods: Sequence[Method]) -> bool:
    """Whether rows that the parent embedded say nothing any more."""
    return any(method.name in OTHER_TOWERS for method in methods)


def _domain_texts(candidate: Candidate) -> Floats:
    """What is asked there; where nobody told, the queries of the bundle's bank, else the source's captions."""
    towers, past = candidate.towers, candidate.towers.encoder.query_bank
    if towers.domain.queries:
        return towers.texts("queries")
    if past is None or "texts" not in past.rows or changes_towers(candidate.methods):
        return towers.texts("source")
    return past.rows["texts"]


def _mapped(candidate: Candidate, **maps: AffineMap) -> Candidate:
    adaptation: Adaptation = {m: maps[m] for m in ("images", "texts") if m in maps}
    return replace(candidate, adaptation=adaptation)


def _bank_rows(rows: Floats) -> Floats:
    """At most BANK_ROWS, as they will be stored."""
    kept = rows[np.linalg.norm(rows, axis=1) > 0.5]
    return as_stored(kept[:: -(-len(kept) // BANK_ROWS) or 1])


APPLY: Mapping[str, Callable[[Candidate, float], Candidate]] = MappingProxyType(
    {
        "adabn": _adabn,
        "pseudo": _pseudo,
        "few-shot": _few_shot,
        "centre": _centre,
        "whiten": _whiten,
        "coral": _coral,
        "hubness": _hubness,
    }
)
