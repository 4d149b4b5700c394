"""How relevant hits are, and whether anything matches, as the bundle's calibration has it for this release.

Keeps a seeded sample of each vector set, so that a background costs the same whatever the gallery holds: some
`BACKGROUND_ITEMS` products beside the search. What was put since the release was built counts by its share;
what was deleted counts until the next one.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from encoders.calibration import (
    BACKGROUND_ITEMS,
    SEARCHED,
    BadCalibration,
    BankItems,
    Calibration,
    Doubles,
    GalleryFit,
    Search,
    SearchCalibration,
    Verdict,
    background_rows,
    read_calibration,
)
from encoders.modalities import Modality
from encoders.query_bank import read_query_bank
from encoders.reading import reading
from index.release import Release
from index.vectors import VectorIndex
from service.search.delta import Floats
from service.search.gallery_view import GalleryView
from service.wire.schemas import Space

logger = logging.getLogger(__name__)
SEARCHED_BY_PAIRS: dict[Modality, Search] = {"texts": "sentence_to_image", "images": "image_to_text"}
"""What a gallery's own pairs of a text and an image can be judged by, by what asks."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Relevance (k,) of each hit, 0 to 1 and never rising, and what the best one comes to."""

    relevance: list[float]
    verdict: Verdict
    likely: float
    perhaps: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows (m, dim) of a vector set, and what each loses for being a hub (m,)."""

    rows: Floats
    penalties: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def scores(self, vector: Floats) -> Floats:
        """(m,): what a query orders them by."""
        scores: Floats = self.rows @ vector - self.penalties
        return scores


@dataclass(frozen=True, eq=False)
class Judge:
    """A calibration with the background of one release: a sample of each vector set, and the bundle's bank."""

    calibration: Calibration
    backgrounds: dict[Space, Sample]
    bank: dict[Space, BankItems | None] = field(default_factory=dict)
    fits: Mapping[Search, GalleryFit] = field(default_factory=dict)
    """What the gallery's own texts taught of relevance when the release was built."""

    @classmethod
    def of(cls, release: Release) -> "Judge | None":
        """None without a calibration, or with one that cannot be used: it changes no ranking."""
        calibration = _calibration_in(release.bundle_path, release.fingerprint)
        if calibration is None:
            return None
        bank = read_query_bank(release.bundle_path, fingerprint=release.fingerprint, dim=release.images.dim)
        return cls(
            calibration,
            {"images": sample_of(release.images), "texts": sample_of(release.texts)},
            {"images": BankItems.of(bank, "images"), "texts": BankItems.of(bank, "texts")},
            release.manifest.gallery_fits or {},
        )

    def judge(
        self,
        scores: Floats,
        *,
        best: Floats,
        vector: Floats,
        view: GalleryView,
        search: Search | None,
        chosen_from: int,
    ) -> Judgement | None:
        """For what hits (k,) are ordered by; the verdict is about `best`: of the first of `chosen_from` items.

        None where nothing was fitted for such a search (more like this image, a bare vector).
        """
        part = self.calibration.searches.get(search) if search else None
        if search is None or part is None:
            return None
        space = SEARCHED[search]
        background = self._background(view, space)
        relevance = self.relevance_of(search, part, vector, background, chosen_from)
        # Told to four places, and judged by what is told: whoever compares with the levels finds the verdict.
        told, first = relevance(scores).round(4), relevance(best[:1]).round(4)
        return Judgement(told.tolist(), part.verdict(first), part.likely, part.perhaps)

    def relevance_of(
        self, search: Search, part: SearchCalibration, vector: Floats, background: Sample, gallery_size: int
    ) -> Callable[[Floats], Doubles]:
        """What the scores of one query's hits are worth, by where they stand in the gallery and in the bank."""
        bank = self.bank.get(SEARCHED[search])
        return partial(
            part.relevance,
            background=background.scores(vector),
            gallery_size=gallery_size,
            bank=None if bank is None else bank.scores(vector),
            fit=self.fits.get(search),
        )

    def _background(self, view: GalleryView, space: Space) -> Sample:
        """A sample of what is searched, about as dense among what was put as among the release."""
        sample, delta = self.backgrounds[space], view.delta
        if space == "images":
            layer, shown, count = delta.images, delta.alive, view.base_count
        else:
            layer, shown, count = delta.texts.vectors, view.shown_texts[1], view.base_text_count
        put = np.flatnonzero(shown)
        if not len(put):
            return sample
        every = math.ceil(max(count / max(1, len(sample)), len(put) / BACKGROUND_ITEMS))
        step, added = max(1, round(every * len(sample) / max(1, count))), put[::every]
        return Sample(
            np.concatenate([sample.rows[::step], layer.vectors[added]]),
            np.concatenate([sample.penalties[::step], layer.penalties[added]]),
        )


def sample_of(vectors: VectorIndex) -> Sample:
    """What stands for a vector set."""
    rows = background_rows(len(vectors))
    if not len(rows):
        return Sample(np.empty((0, vectors.dim), dtype=np.float32), np.empty(0, dtype=np.float32))
    penalties = np.zeros(len(rows), dtype=np.float32) if vectors.penalties is None else vectors.penalties[rows]
    return Sample(np.stack([vectors.reconstruct(int(row)) for row in rows]), penalties)


def _calibration_in(bundle_path: Path, fingerprint: str) -> Calibration | None:
    try:
        with reading(bundle_path):
            return read_calibration(bundle_path, fingerprint=fingerprint)
    except (BadCalibration, OSError) as error:
        logger.warning("relevance stays null, the calibration of %s cannot be used: %s", bundle_path, error)
        return None
