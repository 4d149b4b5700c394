"""An encoder and held-out sets to a calibration, and into the bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.bundle import Bundle
from encoders.calibration import CALIBRATION, Calibration, file_digest
from encoders.encoder import Encoder
from encoders.query_bank import QUERY_BANK
from encoders.short_queries import SHORT_QUERIES
from training.calibrate.absent import DEFAULT_ABSENT, AbsentQuery, read_absent
from training.calibrate.asked import Asker
from training.calibrate.calibrate import calibrate
from training.data.pairs import PairSet
from training.errors import CalibrationError
from training.evaluation.embedding import OnProgress, embed_pairs, silent
from training.evaluation.short_queries import ask
from training.short_queries.phrases import Phrase


@dataclass(frozen=True)
class CalibrationSettings:
    """batch: images embedded at a time; cache: a folder for embeddings."""

    batch: int = 32
    cache: Path | None = None


def calibrate_encoder(
    encoder: Encoder,
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
    folder = encoder.bundle.path
    return calibrate(
        {
            pairs.name: embed_pairs(
                encoder, pairs, batch=settings.batch, cache=settings.cache, on_progress=on_progress
            )
            for pairs in sets
        },
        read_absent(DEFAULT_ABSENT) if absent is None else absent,
        asker_of(encoder),
        fingerprint=encoder.fingerprint,
        bank=file_digest(folder / QUERY_BANK),
        short_queries=file_digest(folder / SHORT_QUERIES),
    )


def asker_of(encoder: Encoder) -> Asker:
    """How the bundle asks; short queries that come again are embedded once."""
    known: dict[Phrase, NDArray[np.float32]] = {}

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return encoder.encode_texts(texts).vectors

    def ask_once(phrases: Sequence[Phrase]) -> NDArray[np.float32]:
        if fresh := [phrase for phrase in dict.fromkeys(phrases) if phrase not in known]:
            known.update(zip(fresh, ask(fresh, encoder.short_queries, encode), strict=True))
        return np.stack([known[phrase] for phrase in phrases])

    return Asker(encode, ask_once, encoder.query_bank)


def store_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """The same bundle, of the same fingerprint, with the calibration inside."""
    return bundle.with_file(CALIBRATION, calibration.to_bytes())
