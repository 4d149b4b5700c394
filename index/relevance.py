"""Relevance fitted to a gallery by its own texts, as a rebuild notes it in the manifest.

One kind of search has it: images by queries of a few words, which are nouns of the lexicon in the bundle.
"""

import logging
from collections.abc import Sequence

import numpy as np

from encoders.calibration import (
    BadCalibration,
    BankItems,
    Calibration,
    Floats,
    GalleryFit,
    Search,
    background_rows,
    read_calibration,
)
from encoders.encoder import Encoder
from encoders.gallery_fit import Ints, NamedNouns, SearchedGallery, fit_gallery
from encoders.lexicon import Lexicon
from index.items import TextTable
from index.vectors import VectorIndex

PAGE = 10
FITTED: Search = "words_to_image"

_log = logging.getLogger(__name__)


def fit_relevance(encoder: Encoder, images: VectorIndex, texts: TextTable) -> dict[Search, GalleryFit] | None:
    """What the texts teach; None without a calibration and a lexicon, or where they name too few nouns."""
    short, calibration = encoder.short_queries, _calibration(encoder)
    part = None if calibration is None else calibration.searches.get(FITTED)
    if part is None or short is None or short.lexicon is None:
        return None
    rows = background_rows(len(images))
    sample = np.stack([images.reconstruct(int(row)) for row in rows])
    penalties = images.penalties

    def find(queries: Floats) -> tuple[Floats, Ints]:
        cosines, found = images.search(queries, min(PAGE, len(images)), corrected=True)
        return (cosines if penalties is None else cosines - penalties[found]), found

    gallery = SearchedGallery(
        size=len(images),
        find=find,
        sample=sample,
        sample_penalties=np.zeros(len(rows), np.float32) if penalties is None else penalties[rows],
        bank=BankItems.of(encoder.query_bank, "images"),
    )
    named = _named(short.lexicon, texts, items=len(images))
    fit = fit_gallery(part, named, gallery, lambda nouns: ask_nouns(encoder, nouns))
    return None if fit is None else {FITTED: fit}


def ask_nouns(encoder: Encoder, nouns: Sequence[str]) -> Floats:
    """(n, d) unit rows of nouns, asked as short queries are."""
    short = encoder.short_queries
    if short is None:
        return encoder.encode_texts(nouns).vectors
    sentences = [sentence for noun in nouns for sentence in short.texts_for(noun)]
    vectors = encoder.encode_texts(sentences).vectors
    return short.combined(vectors.reshape(len(nouns), len(short.templates), -1))


def _named(lexicon: Lexicon, texts: TextTable, *, items: int) -> NamedNouns:
    offsets, rows = texts.item_lists()
    each = ((texts.text(row), rows[offsets[row] : offsets[row + 1]].tolist()) for row in range(len(texts)))
    return NamedNouns.of(lexicon, each, items=items)


def _calibration(encoder: Encoder) -> Calibration | None:
    try:
        return read_calibration(encoder.bundle.path, fingerprint=encoder.fingerprint)
    except BadCalibration as error:
        _log.warning("relevance will be null in this release: %s", error)
        return None
