"""The whole of an adaptation: read, choose or apply, measure, judge, write. Composition only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from training.adapt.acceptance import Row, Side, Verdict, hits_on, judge, over_splits, rows_between
from training.adapt.bundles import check_out, write_adapted
from training.adapt.choosing import Trial, choose_methods
from training.adapt.methods import Candidate, Method, apply_methods, changes_towers, parse_methods
from training.adapt.proxies import measure_proxies
from training.adapt.sets import Domain, Parts, Split, queries_among, read_domain
from training.adapt.towers import Towers
from training.errors import AdaptationError
from training.evaluation.embedding import OnProgress, silent
from training.seen.record import SeenSource, inherited, source_of

AUTO = "auto"
UNLABELLED_AUTO = "centre:0.5,hubness"
"""What auto does where nothing can be measured on the target: mild, and judged on the source alone."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; `method` is "auto" or names as `methods` has them."""

    bundle: Path
    target: str
    source: str
    out: Path
    queries: Path | None = None
    method: str = AUTO
    holdout: float = 0.5
    shots: int = 0
    seed: int = 0
    splits: int = 1
    """How often the sets are parted anew, by seed, seed + 1, …"""
    device: str = "auto"
    batch: int = 32
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it; `bundle` is None where it was not accepted and nothing was written.

    rows: of the one split, or the means over all; methods, proxies, trials: of the first, whose bundle it is.
    """

    methods: tuple[Method, ...]
    rows: list[Row]
    verdict: Verdict
    proxies: dict[str, dict[str, float]]
    trials: list[Trial]
    bundle: Bundle | None
    labelled: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Split:
    """One parting of the sets: what was made of it, and what that is worth on what was held out."""

    domain: Domain
    parent: Candidate
    adapted: Candidate
    trials: list[Trial]
    rows: list[Row]
    notes: tuple[str, ...]


def adapt(
    request: Request,
    *,
    on_progress: OnProgress = silent,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Outcome:
    """Adapt and judge; write the bundle when accepted or forced. Raises TwinlensError."""
    fixed = None if request.method == AUTO else parse_methods(request.method)
    bundle = _open(request, fixed or ())
    encoder = Encoder.load(bundle, device=request.device, max_batch=request.batch)
    with TemporaryDirectory(prefix="twinlens-adapt-") as kept:
        cache = Path(kept) if request.splits > 1 else None  # the same images come again, parted otherwise
        split = partial(_split, encoder, fixed=fixed, cache=cache, on_progress=on_progress, on_trial=on_trial)
        first = split(request)
        others = [
            _Repeated(each.rows, each.adapted.methods)
            for each in (split(replace(request, seed=request.seed + at)) for at in range(1, request.splits))
        ]
        proxies = {"before": _proxies(first.parent), "after": _proxies(first.adapted)}
    methods, rows = first.adapted.methods, _over_splits(first, others) if others else first.rows
    verdict = judge(rows) if methods else Verdict("rejected", "no method earned its place")
    written = None
    if methods and (verdict.accepted or request.force):
        provenance = _provenance(request, first, rows=rows, verdict=verdict, proxies=proxies)
        seen = inherited([bundle], _learned_from(first))
        written = write_adapted(request.out, bundle, first.adapted, provenance=provenance, seen=seen)
    notes = (*first.notes, *_notes_on_splits(methods, others))
    return Outcome(methods, rows, verdict, proxies, first.trials, written, first.domain.labelled, notes)


@dataclass(frozen=True)
class _Repeated:
    """What is kept of a further split: its towers may be as large as the bundle."""

    rows: list[Row]
    methods: tuple[Method, ...]


def _split(
    encoder: Encoder,
    request: Request,
    *,
    fixed: Sequence[Method] | None,
    cache: Path | None,
    on_progress: OnProgress,
    on_trial: Callable[[Trial], None],
) -> _Split:
    domain, notes = _domain(request, choose=fixed is None)
    parent = Candidate((), Towers(encoder, domain, on_progress, cache), {}, encoder.query_bank)
    adapted, trials = _adapted(parent, fixed, domain, on_trial)
    if parent.bank is not None and changes_towers(adapted.methods):
        pairs = len(domain.source.learn.images)
        notes = (*notes, f"the bundle's query bank is of other embeddings now: {pairs} source pairs replace it")
    rows = _rows(parent, adapted, side="source")
    if domain.can_measure:
        rows += _rows(parent, adapted, side="target")
    return _Split(domain, parent, adapted, trials, rows, notes)


def _rows(parent: Candidate, adapted: Candidate, *, side: Side) -> list[Row]:
    part = f"{side} measure"
    return rows_between(hits_on(parent, part), hits_on(adapted, part), side=side)


def _learned_from(split: _Split) -> list[SeenSource]:
    """The images of the target, and those of the source where a method looks at them."""
    target, source = split.domain.target.learn, split.domain.source.learn
    found = [source_of(target, name=f"{target.name}, adapted to")]
    methods = split.adapted.methods
    if changes_towers(methods) or any(method.name == "coral" for method in methods):
        found.append(source_of(source, name=f"{source.name}, beside the target"))
    return found


def _over_splits(first: _Split, others: Sequence[_Repeated]) -> list[Row]:
    parts: dict[Side, Parts] = {"source": first.domain.source, "target": first.domain.target}
    shares = {side: len(part.measure.images) / max(1, len(part.learn.images)) for side, part in parts.items()}
    return over_splits([first.rows, *(other.rows for other in others)], shares=shares)


def _notes_on_splits(methods: tuple[Method, ...], others: Sequence[_Repeated]) -> tuple[str, ...]:
    if not others:
        return ()
    count = 1 + len(others)
    told = f"means over {count} splits, intervals by Nadeau and Bengio; the bundle is that of the first split"
    same = sum(other.methods == methods for other in others)
    if same == len(others):
        return (told,)
    return (
        told,
        f"auto chose the same methods in {1 + same} of the {count} splits: the table is of the choice, too",
    )


def _open(request: Request, methods: Sequence[Method]) -> Bundle:
    """The bundle, once all that can be told without reading an image is in order."""
    bundle = Bundle.open(request.bundle)
    check_out(request.out, bundle)
    if bundle.config.adaptation is not None:
        raise AdaptationError(
            f"{request.bundle} is adapted already, and two adaptations do not add up: take the bundle it was "
            "made from (python -m training adapt --undo)"
        )
    names = {method.name for method in methods}
    if "few-shot" in names and not request.shots:
        raise AdaptationError(
            "few-shot needs --shots: how many captioned images of the target may be looked at"
        )
    if request.queries is None and "pseudo" in names:
        raise AdaptationError("--queries is missing: pseudo learns from what is asked there, one text a line")
    return bundle


def _domain(request: Request, *, choose: bool) -> tuple[Domain, tuple[str, ...]]:
    """The sets, and what there is to say of them. Queries that are measured with leave the bank."""
    split = Split(holdout=request.holdout, choose=choose, shots=request.shots, seed=request.seed)
    domain = read_domain(request.target, request.source, queries=request.queries, split=split)
    if not domain.source.measure.images:
        raise AdaptationError(f"nothing of {request.source} is left to measure on: raise --holdout")
    shared = queries_among(domain.queries, domain.target.measure)
    if not shared:
        return domain, ()
    note = (
        f"{shared} of {len(domain.queries)} queries are captions that the target is measured with: the bank is "
        "to be of like queries, not of the test set, so that the gain may look larger than it is"
    )
    return domain, (note,)


def _adapted(
    parent: Candidate,
    fixed: Sequence[Method] | None,
    domain: Domain,
    on_trial: Callable[[Trial], None],
) -> tuple[Candidate, list[Trial]]:
    if fixed is not None:
        return apply_methods(parent, fixed), []
    if domain.can_measure:
        return choose_methods(parent, shots=bool(domain.shots.images), on_trial=on_trial)
    return apply_methods(parent, parse_methods(UNLABELLED_AUTO)), []


def _proxies(candidate: Candidate) -> dict[str, float]:
    images = candidate.images("target")
    penalties = None if candidate.bank is None else candidate.bank.penalty(images, "images")
    return measure_proxies(images, candidate.texts("queries"), penalties)


def _provenance(
    request: Request,
    split: _Split,
    *,
    rows: Sequence[Row],
    verdict: Verdict,
    proxies: dict[str, dict[str, float]],
) -> dict[str, Any]:
    domain = split.domain
    target, source = domain.target, domain.source
    return {
        "methods": [str(method) for method in split.adapted.methods],
        "target": {
            "spec": request.target,
            "learned_from": len(target.learn.images),
            "learned_from_sha256": target.learn.digest,
            "measured_on": len(target.measure.images),
            "measured_on_sha256": target.measure.digest,
        },
        "source": {
            "spec": request.source,
            "sha256": source.learn.digest,
            "measured_on_sha256": source.measure.digest,
        },
        "queries": len(domain.queries),
        "shots": len(domain.shots.images),
        "seed": request.seed,
        "splits": request.splits,
        "accepted": verdict.accepted,
        "reason": verdict.reason,
        "table": [row.model_dump(mode="json") for row in rows],
        "proxies": proxies,
    }
