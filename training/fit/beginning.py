"""What a run must know of the weights that it begins with, kept in its folder.

A run that is taken up again has other weights by then: how the held-out sets stood, and which images lie near
each other, is found out before the first step and read back afterwards. It does not train.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import CheckpointError
from training.files import replacing
from training.fit.forgetting import (
    Change,
    Standing,
    changes_between,
    load_standings,
    save_standings,
    standings,
)
from training.fit.prepare import Prepared
from training.fit.progress import Reporter
from training.fit.step.hard_negatives import nearest
from training.fit.towers.learner import Learner
from training.fit.views.feeds import whole_towers_feed

STANDINGS = "before.npz"
NEIGHBOURS = "neighbours.npy"
CAPTIONS_READ = 5
"""Of an image, to place it among others."""
CAPTIONS_AT_ONCE = 1024


class Beginning:
    """The beginning of the run in `folder`; `digest` names the run."""

    def __init__(self, prepared: Prepared, learner: Learner, folder: Path, *, digest: str) -> None:
        self._prepared, self._learner, self._digest = prepared, learner, digest
        self._standings, self._neighbours = folder / STANDINGS, folder / f"{digest[:16]}.{NEIGHBOURS}"

    def look(self, reporter: Reporter) -> None:
        """Before the first step (by the first process): keep all that the recipe will ask for."""
        recipe = self._prepared.recipe
        if recipe.validation is not None and load_standings(self._standings, digest=self._digest) is None:
            save_standings(self._standings, self._stand(), digest=self._digest)
        if any(phase.hard_negatives for phase in recipe.phases) and not self._neighbours.exists():
            found = nearest(self._placed(reporter))
            with replacing(self._neighbours) as file:
                np.save(file, found)

    def score(self) -> float | None:
        """Of the validation sets by the first weights, as `Outcome.score` has it; None if nobody looked."""
        before = load_standings(self._standings, digest=self._digest)
        if before is None:
            return None
        scores = [one.score for one in before[: len(self._prepared.held_out)]]
        return float(np.mean(scores))

    def neighbours(self) -> NDArray[np.int64]:
        """(images, k) numbers of the images near each. Raises CheckpointError."""
        try:
            found: NDArray[np.int64] = np.load(self._neighbours, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._neighbours} cannot be read: {error}; delete the run's folder to begin anew"
            ) from error
        return found

    def changes(self) -> list[Change]:
        """What became of the held-out sets since, by the weights as they are; none if nobody looked before."""
        before = load_standings(self._standings, digest=self._digest)
        if before is None:
            return []
        return changes_between(before, self._stand(), seed=self._prepared.recipe.seed)

    def _stand(self) -> list[Standing]:
        sets = (*self._prepared.held_out, *self._prepared.watched)
        return standings(self._learner, sets, whole_towers_feed(self._prepared))

    def _placed(self, reporter: Reporter) -> NDArray[np.float32]:
        """(images, width) unit rows: the mean of what the text tower below its head makes of the captions."""
        examples = [example for some in self._prepared.mixture.examples for example in some]
        captions = [example.captions[:CAPTIONS_READ] for example in examples]
        texts = list(dict.fromkeys(text for some in captions for text in some))
        parts = []
        with reporter.bar("captions, for hard negatives", len(texts), unit="captions") as bar:
            for start in range(0, len(texts), CAPTIONS_AT_ONCE):
                parts.append(self._learner.caption_features(texts[start : start + CAPTIONS_AT_ONCE]).cpu())
                bar.advance(len(parts[-1]))
        rows = torch.cat(parts).numpy()
        row_of = {text: row for row, text in enumerate(texts)}
        means = np.stack([rows[[row_of[text] for text in some]].mean(axis=0) for some in captions])
        unit: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return unit
