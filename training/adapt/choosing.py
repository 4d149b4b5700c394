"""`--method auto`: methods tried one after the other on a part held out for choosing, kept where they earn it.

Greedy: the best single method whose paired interval of target R@10 (both ways together) lies above zero and
whose source R@1 falls by no more than two points there; then what adds to it by the same rule, until nothing
does. What is chosen here is measured elsewhere: the best of many tries looks better than it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.adapt.acceptance import MOST_SOURCE_LOSS, hits_on, rows_between
from training.adapt.methods import EXCLUSIVE, Candidate, Method, apply_methods, in_order
from training.errors import AdaptationError
from training.evaluation.hits import Hits
from training.evaluation.metrics import Estimate

TRIED: tuple[tuple[str, float], ...] = (
    ("hubness", 0.25), ("hubness", 0.5), ("hubness", 0.75), ("centre", 0.5), ("centre", 1.0), ("whiten", 0.1),
    ("whiten", 0.25), ("coral", 0.25), ("adabn", 0.3), ("adabn", 1.0), ("pseudo", 0.5), ("few-shot", 0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One try: gain is target R@10 over both ways, source the lesser R@1 difference; `why` where it failed."""

    methods: tuple[Method, ...]
    gain: Estimate | None
    source: float | None
    kept: bool
    why: str


def choose_methods(
    parent: Candidate, *, shots: bool, on_trial: Callable[[Trial], None]
) -> tuple[Candidate, list[Trial]]:
    """The best candidate found, the parent itself where nothing earns its place, and all trials."""
    options = [Method(name, strength) for name, strength in TRIED if shots or name != "few-shot"]
    source = hits_on(parent, "source choose")
    best, trials = parent, list[Trial]()
    while True:
        before = _Before(best, parent, hits_on(best, "target choose"), source)
        winner, most = None, 0.0  # one at a time: a candidate may have towers of its own
        for option in (option for option in options if _fits(option, best.methods)):
            trial, made = _try(before, option)
            trials.append(trial)
            on_trial(trial)
            if made is not None and trial.gain is not None and trial.gain.value > most:
                winner, most = made, trial.gain.value
        if winner is None:
            return best, trials
        best = winner


def _fits(option: Method, chosen: Sequence[Method]) -> bool:
    names = {method.name for method in chosen}
    return option.name not in names and not (option.name in EXCLUSIVE and names & EXCLUSIVE)


@dataclass(frozen=True, eq=False)
class _Before:
    """What is added to, and from what it came; their hits on the parts for choosing."""

    best: Candidate
    parent: Candidate
    target: Hits
    source: Hits


def _try(before: _Before, option: Method) -> tuple[Trial, Candidate | None]:
    """The trial, and the candidate where it is to be kept."""
    best, parent = before.best, before.parent
    methods = in_order([*best.methods, option])
    try:
        # What acts last is put upon the best so far, whose embeddings are kept; else all are applied anew.
        made = apply_methods(best, [option]) if methods[-1] == option else apply_methods(parent, methods)
    except AdaptationError as error:
        return Trial(methods, None, None, kept=False, why=str(error)), None
    gains = rows_between(before.target, hits_on(made, "target choose"), side="target")
    losses = rows_between(before.source, hits_on(made, "source choose"), side="source")
    [gain] = [row.difference for row in gains if (row.direction, row.k) == ("both_ways", 10)]
    source = min(row.difference.value for row in losses if row.k == 1)
    if source < -MOST_SOURCE_LOSS:
        why = "the source loses more than two points of R@1"
        return Trial(methods, gain, source, kept=False, why=why), None
    if gain.low <= 0:
        return Trial(methods, gain, source, kept=False, why="no gain whose interval is above zero"), None
    return Trial(methods, gain, source, kept=True, why="earns its place"), made
