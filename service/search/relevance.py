"""How relevant hits are, and whether anything matches, as the bundle's calibration has it for this release.

Keeps a seeded sample of each vector set, so that a background costs the same whatever the gallery holds: some
`BACKGROUND_ITEMS` products beside the search. What was put since the release was built counts by its share;
what was deleted counts until the next one. Knows nothing of HTTP, nor of how results are ordered.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.calibration import (
    BACKGROUND_ITEMS,
    BadCalibration,
    Calibration,
    Direction,
    background_rows,
    read_calibration,
)
from encoders.modalities import Modality
from encoders.reading import reading
from index.release import Release
from index.vectors import VectorIndex
from service.live.holdings import Holdings
from service.live.layers import Floats
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
    backgrounds: dict[Space, Floats]

    @classmethod
    def of(cls, release: Release) -> "Judge | None":
        """None without a calibration, or with one that cannot be used: it changes no ranking."""
        calibration = _calibration_in(release.bundle_path, release.fingerprint)
        if calibration is None:
            return None
        return cls(calibration, {"images": sample_of(release.images), "texts": sample_of(release.texts)})

    def judge(
        self,
        scores: Floats,
        *,
        best: Floats,
        vector: Floats,
        holdings: Holdings,
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
        background = self._background(holdings, space) @ vector
        return Judgement(
            direction.relevance(scores, background=background, gallery_size=chosen_from).round(4).tolist(),
            direction.is_good_match(float(best.max()), background=background, gallery_size=chosen_from),
        )

    def _background(self, holdings: Holdings, space: Space) -> Floats:
        """A sample (m, dim) of what is searched, about as dense among what was put as among the release."""
        sample, overlay = self.backgrounds[space], holdings.overlay
        if space == "images":
            layer, shown, count = overlay.images, overlay.alive, holdings.base_count
        else:
            layer, shown, count = overlay.texts.vectors, holdings.shown_texts[1], holdings.base_text_count
        put = np.flatnonzero(shown)
        if not len(put):
            return sample
        every = math.ceil(max(count / max(1, len(sample)), len(put) / BACKGROUND_ITEMS))
        of_release = sample[:: max(1, round(every * len(sample) / max(1, count)))]
        return np.concatenate([of_release, layer.vectors[put[::every]]])


def sample_of(vectors: VectorIndex) -> Floats:
    """The rows (m, dim) that stand for a vector set."""
    rows = background_rows(len(vectors))
    if not len(rows):
        return np.empty((0, vectors.dim), dtype=np.float32)
    return np.stack([vectors.reconstruct(int(row)) for row in rows])


def _calibration_in(bundle_path: Path, fingerprint: str) -> Calibration | None:
    try:
        with reading(bundle_path):
            return read_calibration(bundle_path, fingerprint=fingerprint)
    except (BadCalibration, OSError) as error:
        logger.warning("relevance stays null, the calibration of %s cannot be used: %s", bundle_path, error)
        return None
