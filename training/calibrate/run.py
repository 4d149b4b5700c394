"""An encoder and sets of pairs to a calibration, to its figures on another set, and into the bundle.

Ties embedding, fit and figures together. Knows no
commands, and nothing of how a calibration is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.bundle import Bundle
from encoders.calibration import CALIBRATION, Calibration, Figures
from training.calibrate.absent import DEFAULT_ABSENT, AbsentQuery, read_absent, without_present
from training.calibrate.calibrate import Asked, calibrate, directions_asked
from training.calibrate.report import CalibrationReport, TakenOut, measure_taken_out, measured_figures
from training.data.pairs import PairSet
from training.errors import CalibrationError
from training.evaluate.embedding import EmbeddedPairs, Embedder, OnProgress, embed_pairs, silent

LOSES_BY = 0.01
"""Balanced accuracy by which a flat cutoff must be better: less is one query or two."""
MOST_COSINES = 50_000_000
"""Of captions whose photo is taken out: each has a gallery of its own."""


@dataclass(frozen=True)
class CalibrationSettings:
    """batch: pictures embedded at a time; cache: a folder for embeddings."""

    batch: int = 32
    cache: Path | None = None


def calibrate_encoder(
    encoder: Embedder,
    sets: Sequence[PairSet],
    *,
    absent: Sequence[AbsentQuery] | None = None,
    settings: CalibrationSettings = CalibrationSettings(),
    on_progress: OnProgress = silent,
) -> Calibration:
    """Fit on held-out sets; `absent` are captions of what they do not show, the shipped list by default.

    Raises CalibrationError where two sets have one name, the pairs are too few, or the vectors say nothing
    about them.
    """
    names = [pairs.name for pairs in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CalibrationError(f"two sets are called {twice!r}: give one another name (name=)")
    return calibrate(
        {pairs.name: _embed(encoder, pairs, settings=settings, on_progress=on_progress) for pairs in sets},
        read_absent(DEFAULT_ABSENT) if absent is None else absent,
        encode=partial(_encode, encoder),
        fingerprint=encoder.fingerprint,
    )


def measure_calibration(
    encoder: Embedder,
    calibration: Calibration,
    pairs: PairSet,
    *,
    absent: Sequence[AbsentQuery],
    settings: CalibrationSettings = CalibrationSettings(),
    on_progress: OnProgress = silent,
) -> CalibrationReport:
    """What a calibration does on pairs it has not seen, and on captions of what they do not show.

    Captions that may be present after all are left out. Raises CalibrationError where nothing can be measured.
    """
    embedded = _embed(encoder, pairs, settings=settings, on_progress=on_progress)
    kept, _ = without_present(absent, embedded.captions)
    asked = directions_asked(embedded, _encode(encoder, [query.caption for query in kept]) if kept else None)
    known = {name: each for name, each in asked.items() if name in calibration.directions}
    if not known:
        raise CalibrationError(
            f"{pairs.spec}: {len(embedded.image_ids)} images and {len(kept)} absent queries are too few"
        )
    texts = known.get("text_to_image")
    return CalibrationReport(
        bundle=encoder.name,
        fingerprint=encoder.fingerprint,
        fitted_on=calibration.fitted_on,
        measured_on=pairs.name,
        directions={
            name: measured_figures(calibration.directions[name], each, measured_on=pairs.name)
            for name, each in known.items()
        },
        taken_out=_taken_out(calibration, texts, embedded),
    )


def _taken_out(calibration: Calibration, texts: Asked | None, embedded: EmbeddedPairs) -> TakenOut | None:
    if texts is None or len(texts.items) * len(texts.present.own) > MOST_COSINES:
        return None
    return measure_taken_out(calibration.directions["text_to_image"], texts, embedded)


def without_losers(calibration: Calibration) -> tuple[Calibration | None, list[str]]:
    """(the calibration without directions in which a flat cutoff decides better, why they are left out).

    None where no direction is left: on few images the fit learns their noise, and is worse than no fit.
    """
    losers = {
        name: reason
        for name, each in calibration.directions.items()
        if each.figures is not None and (reason := _why_it_loses(each.figures)) is not None
    }
    told = [f"{name.replace('_', ' ')}: {reason}" for name, reason in losers.items()]
    kept = {name: each for name, each in calibration.directions.items() if name not in losers}
    return (calibration.model_copy(update={"directions": kept}) if kept else None), told


def _why_it_loses(figures: Figures) -> str | None:
    ours, flat = figures.decision, figures.flat_decision
    if ours.balanced_accuracy > flat.balanced_accuracy - LOSES_BY:
        return None
    return (
        f"tells present from absent in {ours.balanced_accuracy:.1%}, a flat cutoff in "
        f"{flat.balanced_accuracy:.1%} ({ours.present_queries:,} queries with a match, {ours.absent_queries:,} "
        "without): not written; give more images to fit on"
    )


def store_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """The same bundle, of the same fingerprint, with the calibration inside."""
    return bundle.with_file(CALIBRATION, calibration.to_bytes())


def _embed(
    encoder: Embedder, pairs: PairSet, *, settings: CalibrationSettings, on_progress: OnProgress
) -> EmbeddedPairs:
    return embed_pairs(encoder, pairs, batch=settings.batch, cache=settings.cache, on_progress=on_progress)


def _encode(encoder: Embedder, captions: Sequence[str]) -> NDArray[np.float32]:
    return encoder.encode_texts(captions).vectors
