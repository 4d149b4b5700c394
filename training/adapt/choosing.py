"""`--method auto`: methods tried one after the other on a part held out for choosing, kept where they earn it.

Greedy: the best single method whose paired interval of target R@10 (both ways together) lies above zero and
whose source R@1 keeps within two points; then what adds to it by the same rule, until nothing does. What is
chosen here is measured elsewhere: the best of many tries looks better than it is. It does NOT know how methods
work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.adapt.acceptance import MOST_SOURCE_LOSS, retrieval_of
from training.adapt.methods import EXCLUSIVE, Candidate, Method, apply_methods, in_order
from training.errors import AdaptationError
from training.evaluate.compare import paired_difference
from training.evaluate.metrics import Estimate
from training.evaluate.ranks import DIRECTIONS, Retrieval

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
    source = retrieval_of(parent, "source choose")
    best, trials = parent, list[Trial]()
    while True:
        before = _Before(best, parent, retrieval_of(best, "target choose"), source)
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
    """What is added to, and from what it came; their ranks on the parts for choosing."""

    best: Candidate
    parent: Candidate
    target: Retrieval
    source: Retrieval


def _try(before: _Before, option: Method) -> tuple[Trial, Candidate | None]:
    """The trial, and the candidate where it is to be kept."""
    best, parent = before.best, before.parent
    methods = in_order([*best.methods, option])
    try:
        # What acts last is put upon the best so far, whose embeddings are kept; else all are applied anew.
        made = apply_methods(best, [option]) if methods[-1] == option else apply_methods(parent, methods)
    except AdaptationError as error:
        return Trial(methods, None, None, kept=False, why=str(error)), None
    target = retrieval_of(made, "target choose")
    gain = paired_difference(_both_ways(target), _both_ways(before.target), groups=_images(target))
    source = _least_difference(retrieval_of(made, "source choose"), before.source)
    if source < -MOST_SOURCE_LOSS:
        why = "the source loses more than two points of R@1"
        return Trial(methods, gain, source, kept=False, why=why), None
    if gain.low <= 0:
        return Trial(methods, gain, source, kept=False, why="no gain whose interval is above zero"), None
    return Trial(methods, gain, source, kept=True, why="earns its place"), made


def _both_ways(retrieval: Retrieval) -> np.ndarray:
    """Chances of a hit in ten, each direction weighing the same, so that their mean is the mean recall."""
    ways = [retrieval.direction(direction).hit_probability(10) for direction in DIRECTIONS]
    total = sum(map(len, ways))
    return np.concatenate([way * total / (2 * len(way)) for way in ways])


def _images(retrieval: Retrieval) -> np.ndarray:
    return np.concatenate([retrieval.direction(direction).image for direction in DIRECTIONS])


def _least_difference(after: Retrieval, before: Retrieval) -> float:
    return min(
        float(after.direction(d).hit_probability(1).mean() - before.direction(d).hit_probability(1).mean())
        for d in DIRECTIONS
    )
