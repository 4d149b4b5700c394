"""Ranking a large set both ways, in a process of its own, so that the peak of its memory is its own.

`python -m benchmarks.ranking '<a Task as JSON>'` prints a `Ranking` as JSON. The vectors are random, with
planted matches, and go through the functions that turn an evaluation's vectors into figures: nothing is
embedded.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import (
    MEBIBYTE,
    own_cpu_seconds,
    peak_memory_mebibytes,
    resident_memory_mebibytes,
)
from training.evaluation.collapse import measure_health
from training.evaluation.hits import hits_of
from training.evaluation.metrics import DEFAULT_KS, summarise
from training.evaluation.ranks import DIRECTIONS, Direction, Floats, Ints, rank_pairs

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
WEAKEST_MATCH, STRONGEST_MATCH = 0.05, 0.35
"""Cosines of a caption and its image. Those of others deviate by 1/√dim, 0.044 at 512 dimensions: the weakest
match stands behind a tenth of the gallery, the strongest before all of it."""
CAPTIONS_TO_ONE_REPEATED = 200
_ROWS_PER_BLOCK = 4096


@dataclass(frozen=True)
class Task:
    images: int
    captions: int
    dim: int = 512


@dataclass(frozen=True)
class Ranking:
    """Ranks, both ways, then the figures with their intervals that a report has of them.

    Memory in MiB: the vectors; what was resident when ranking began, vectors and modules included; the most
    after the ranks, and after the figures; what the matrix of all similarities would take.
    """

    task: Task
    rank_seconds: float
    rank_cpu_seconds: float
    figures_seconds: float
    vectors_mebibytes: float
    resident_before_mebibytes: float
    peak_ranked_mebibytes: float
    peak_mebibytes: float
    recall_at_10: dict[Direction, float]

    @property
    def full_matrix_mebibytes(self) -> float:
        return 4 * self.task.images * self.task.captions / MEBIBYTE


class RankingFailed(Exception):
    """The process that was to rank ended without a result; the message has what it said."""


def rank_in_own_process(task: Task) -> Ranking:
    """Raises RankingFailed, for instance where memory did not suffice."""
    command = [sys.executable, "-m", "benchmarks.ranking", json.dumps(asdict(task))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-2000:]
        raise RankingFailed(f"ranking ended with status {done.returncode}: {said}")
    found = json.loads(done.stdout)
    return Ranking(**{**found, "task": Task(**found["task"])})


def rank(task: Task) -> Ranking:
    """In this process."""
    images, captions, owner, group = plant(task)
    before, started, cpu_before = resident_memory_mebibytes(), time.perf_counter(), own_cpu_seconds()
    retrieval = rank_pairs(images, captions, caption_image=owner, caption_group=group)
    ranked, rank_cpu_seconds = time.perf_counter(), own_cpu_seconds() - cpu_before
    peak_ranked = peak_memory_mebibytes()
    figures = summarise(retrieval)
    measure_health(images, captions, caption_image=owner)
    hits_of(retrieval, task.images, dataset="bench", condition=None, ks=DEFAULT_KS)
    return Ranking(
        task=task,
        rank_seconds=ranked - started,
        rank_cpu_seconds=rank_cpu_seconds,
        figures_seconds=time.perf_counter() - ranked,
        vectors_mebibytes=(images.nbytes + captions.nbytes) / MEBIBYTE,
        resident_before_mebibytes=before,
        peak_ranked_mebibytes=peak_ranked,
        peak_mebibytes=peak_memory_mebibytes(),
        recall_at_10={direction: figures[direction].recall[10].value for direction in DIRECTIONS},
    )


def plant(task: Task) -> tuple[Floats, Floats, Ints, Ints]:
    """Unit rows of images (n, dim) and captions (m, dim), each caption's image, and the number of its text.

    Some captions say the same as another, of another image, as in every real set. Made in blocks, so that the
    peak is not that of making them.
    """
    rng = np.random.default_rng(SEED)
    images = np.empty((task.images, task.dim), dtype=np.float32)
    captions = np.empty((task.captions, task.dim), dtype=np.float32)
    owner = np.arange(task.captions) * task.images // task.captions
    for start in range(0, task.images, _ROWS_PER_BLOCK):
        block = images[start : start + _ROWS_PER_BLOCK]
        block[:] = _unit(rng, *block.shape)
    for start in range(0, task.captions, _ROWS_PER_BLOCK):
        block = captions[start : start + _ROWS_PER_BLOCK]
        match = rng.uniform(WEAKEST_MATCH, STRONGEST_MATCH, (len(block), 1)).astype(np.float32)
        block[:] = match * images[owner[start : start + len(block)]]
        block += np.sqrt(1 - match**2) * _unit(rng, *block.shape)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    group = np.arange(task.captions)
    repeated = task.captions // CAPTIONS_TO_ONE_REPEATED
    last = task.captions - repeated
    captions[last:], group[last:] = captions[:repeated], group[:repeated]
    return images, captions, owner, group


def _unit(rng: np.random.Generator, rows: int, dim: int) -> Floats:
    drawn = rng.standard_normal((rows, dim), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


if __name__ == "__main__":
    print(json.dumps(asdict(rank(Task(**json.loads(sys.argv[1]))))))
