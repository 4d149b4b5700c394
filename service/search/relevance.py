"""How relevant hits are, and whether anything matches, as the bundle's calibration has it for this release.

Keeps a seeded sample of each vector set, so that a background costs the same whatever the gallery holds: at
most `BACKGROUND_ITEMS` products beside the search. Knows nothing of HTTP, nor of how results are ordered.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import (
    BadCalibration,
    Calibration,
    Direction,
    background_rows,
    read_calibration,
)
from encoders.modalities import Modality
from index.release import Release
from index.vectors import VectorIndex
from service.wire.schemas import Space

logger = logging.getLogger(__name__)
DIRECTIONS: dict[tuple[Modality, Space], Direction] = {
    ("texts", "images"): "text_to_image",
    ("images", "texts"): "image_to_text",
}
"""What pairs can calibrate: they say nothing of two images, or of two texts."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Relevance (k,) of each hit, 0 to 1, and whether the best one answers the query."""

    relevance: list[float]
    good_match: bool


@dataclass(frozen=True, eq=False)
class Judge:
    """A calibration with the background of one release: rows (m, dim) of each vector set."""

    calibration: Calibration
    backgrounds: dict[Space, NDArray[np.float32]]

    @classmethod
    def of(cls, release: Release) -> "Judge | None":
        """None without a calibration, or with one that cannot be used: it changes no ranking."""
        calibration = _calibration_in(release.bundle_path, release.fingerprint)
        if calibration is None:
            return None
        return cls(calibration, {"images": _background(release.images), "texts": _background(release.texts)})

    def judge(
        self,
        scores: NDArray[np.float32],
        *,
        best: NDArray[np.float32],
        vector: NDArray[np.float32],
        asked_by: Modality | None,
        space: Space,
        chosen_from: int,
    ) -> Judgement | None:
        """For the cosines (k,) of hits; the decision is about `best`: of the first of `chosen_from` items.

        None where no direction fits (more like this picture, a bare vector); nothing found is no good match.
        """
        name = DIRECTIONS.get((asked_by, space)) if asked_by else None
        direction = self.calibration.directions.get(name) if name else None
        if direction is None:
            return None
        if not len(best):
            return Judgement([], good_match=False)
        background = self.backgrounds[space] @ vector
        return Judgement(
            direction.relevance(scores, background=background, gallery_size=chosen_from).round(4).tolist(),
            direction.is_good_match(float(best.max()), background=background, gallery_size=chosen_from),
        )


def _background(vectors: VectorIndex) -> NDArray[np.float32]:
    rows = background_rows(len(vectors))
    if not len(rows):
        return np.empty((0, vectors.dim), dtype=np.float32)
    return np.stack([vectors.reconstruct(int(row)) for row in rows])


def _calibration_in(bundle_path: Path, fingerprint: str) -> Calibration | None:
    try:
        return read_calibration(bundle_path, fingerprint=fingerprint)
    except (BadCalibration, OSError) as error:
        logger.warning("relevance stays null, the calibration of %s cannot be used: %s", bundle_path, error)
        return None
