"""How true relevance and verdicts are on a set that they were not fitted on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from encoders.calibration import (
    Calibration,
    Figures,
    Floats,
    Search,
    SearchCalibration,
    background_rows,
    logistic,
)
from encoders.gallery_fit import NamedNouns, SearchedGallery, fit_gallery
from encoders.short_queries import ShortQueries
from training.calibrate.absent import AbsentQuery
from training.calibrate.asked import (
    AskedPairs,
    AskedWords,
    Asker,
    pair_searches,
    words_to_images,
)
from training.calibrate.figures import Said, balanced_accuracy, figures_of
from training.calibrate.fit import said_by
from training.calibrate.pages import Gallery, Pages, best_rows, pages_of_words
from training.errors import CalibrationError
from training.evaluation.embedding import EmbeddedPairs
from training.evaluation.short_queries import ShortQueryFigures, rank_phrases, short_query_figures
from training.short_queries.draw import QueryList
from training.short_queries.phrases import KINDS, Phrase, vocabulary

SMALL_DRAWS = 5
"""Galleries of a size below the set's, drawn for one figure."""
NOUN_FOLDS = 2
"""Nouns whose truth a gallery's fit has not seen, for its figures."""


class MeasuredSearch(BaseModel):
    """Figures of one kind of search, or one kind of short query, in galleries of one size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: Search
    queries: str
    gallery_items: int
    galleries: int
    figures: Figures
    quality: ShortQueryFigures | None = None
    """Of short queries in the whole set."""


class RelevanceReport(BaseModel):
    """What a calibration says on a set, and how much of it is so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    fingerprint: str
    fitted_on: str
    set: str
    spec: str
    digest: str
    own_texts: bool
    """Whether relevance was fitted to the gallery by its own texts, nouns apart from those asked."""
    measured: tuple[MeasuredSearch, ...]


@dataclass(frozen=True, eq=False)
class MeasuredSet:
    """A set as it was embedded, the short queries to ask of it, and captions of what it does not show."""

    name: str
    embedded: EmbeddedPairs
    queries: QueryList
    absent: Sequence[AbsentQuery]


@dataclass(frozen=True)
class MeasureOptions:
    """sizes: of galleries for short queries, 0: all; own_texts: fit relevance to each gallery by its texts."""

    sizes: tuple[int, ...] = (0,)
    own_texts: bool = False
    samples: int = 1000


def measure_relevance(
    calibration: Calibration,
    measured: MeasuredSet,
    asker: Asker,
    short: ShortQueries | None,
    options: MeasureOptions = MeasureOptions(),
) -> Iterator[MeasuredSearch]:
    """Every kind of search that the calibration has and the set can show, captions and images in the whole set.

    Short queries are measured as a whole and by kind. Raises CalibrationError where nothing can be measured.
    """
    found = pair_searches(measured.embedded, measured.absent, asker)
    known = {search: asked for search, asked in found.items() if search in calibration.searches}
    for search, asked in known.items():
        yield _pairs(search, calibration.searches[search], asked, name=measured.name)
    part = calibration.searches.get("words_to_image")
    if part is None and not known:
        raise CalibrationError(
            f"{measured.name}: this bundle is calibrated for no search that the set can show"
        )
    if part is not None:
        words = words_to_images(measured.name, measured.embedded, asker)
        for size in options.sizes:
            yield from _WordsMeasured(part, words, measured, short, options).of_size(size)


def _pairs(
    search: Search, part: SearchCalibration, asked: Sequence[AskedPairs], *, name: str
) -> MeasuredSearch:
    pages = [each.whole((part.prior_mean, part.prior_spread)) for each in asked]
    said = [said_by(part.weights, one) for one in pages]
    return MeasuredSearch(
        search=search,
        queries="captions" if search == "sentence_to_image" else "images",
        gallery_items=max(one.gallery_size for one in pages),
        galleries=len(pages),
        figures=_figures(part, said, name=name),
    )


@dataclass(frozen=True, eq=False)
class _WordsMeasured:
    part: SearchCalibration
    words: AskedWords
    measured: MeasuredSet
    short: ShortQueries | None
    options: MeasureOptions

    def of_size(self, size: int) -> Iterator[MeasuredSearch]:
        """All the queries in galleries of that size, then each kind of them."""
        count = len(self.words.gallery.items)
        whole = size in (0, count)
        if size > count:
            raise CalibrationError(f"{self.measured.name} has {count} images, and --gallery-size is {size}")
        rng = np.random.default_rng(size)
        draws = [np.arange(count)] if whole else [
            np.sort(rng.choice(count, size=size, replace=False)) for _ in range(SMALL_DRAWS)
        ]  # fmt: skip
        found = [self._gallery(rows) for rows in draws]
        for kind in ("all", *KINDS):
            chosen = [said for one in found if (said := one.of_kind(kind)) is not None]
            if not chosen:
                continue
            quality = self._quality(kind) if whole else None
            yield MeasuredSearch(
                search="words_to_image",
                queries=kind,
                gallery_items=size or count,
                galleries=len(chosen),
                figures=_figures(self.part, chosen, name=self.measured.name),
                quality=quality,
            )

    def _gallery(self, rows: NDArray[np.int64]) -> "_WordsSaid":
        """What is said of the queries that these images hold, and that no image of the set holds."""
        gallery, mentions = self.words.gallery.part(rows), self.words.mentions.part(rows)
        held = mentions.counts()
        present = [phrase for phrase in self.measured.queries.present if held[phrase]]
        absent = list(self.measured.queries.absent)
        prior = (self.part.prior_mean, self.part.prior_spread)
        pages = pages_of_words(gallery, mentions, present, absent, self.words.ask, prior=prior)
        phrases = [*present, *absent]
        if not self.options.own_texts:
            return _WordsSaid(phrases, said_by(self.part.weights, pages))
        return _WordsSaid(phrases, self._fitted(pages, phrases, rows))

    def _fitted(self, pages: Pages, phrases: Sequence[Phrase], rows: NDArray[np.int64]) -> Said:
        """Relevance as the gallery's own texts correct it: of each fold of nouns by the others."""
        captions = self.measured.embedded.captions_by_image()
        lexicon = (
            vocabulary().lexicon if self.short is None or self.short.lexicon is None else self.short.lexicon
        )
        texts = ((text, (place,)) for place, row in enumerate(rows.tolist()) for text in captions[row])
        named = NamedNouns.of(lexicon, texts, items=len(rows))
        gallery = searched(self.words.gallery.part(rows))
        logit = self.part.weights.logit(pages.scores, pages.numbers)
        fold = np.array([phrase.number % NOUN_FOLDS for phrase in phrases])
        for number in range(NOUN_FOLDS):
            nouns = [noun for noun in lexicon.asked_for if Phrase("noun", noun).number % NOUN_FOLDS != number]
            fit = fit_gallery(self.part, named, gallery, self._ask_nouns, nouns=nouns)
            if fit is not None:
                logit[fold == number] = fit(logit[fold == number])
        return Said(pages, logistic(logit))

    def _ask_nouns(self, nouns: Sequence[str]) -> Floats:
        return self.words.ask([Phrase("noun", noun) for noun in nouns])

    def _quality(self, kind: str) -> ShortQueryFigures | None:
        phrases = [p for p in self.measured.queries.present if kind in ("all", p.kind)]
        phrases = [p for p in phrases if self.words.mentions.counts()[p]]
        if not phrases:
            return None
        images, bank = self.measured.embedded.image_vectors, self.words.bank
        ranks = rank_phrases(self.words.ask(phrases), phrases, images, self.words.mentions, bank)
        return short_query_figures(ranks, self.short, samples=self.options.samples)


@dataclass(frozen=True, eq=False)
class _WordsSaid:
    phrases: Sequence[Phrase]
    said: Said

    def of_kind(self, kind: str) -> Said | None:
        """Of the queries of one kind; None where none of them are present, or none absent."""
        rows = np.array([kind in ("all", phrase.kind) for phrase in self.phrases], dtype=np.bool_)
        pages = self.said.pages.part(rows)
        if not (pages.present.any() and (~pages.present).any()):
            return None
        return Said(pages, self.said.relevance[rows])


def searched(gallery: Gallery) -> SearchedGallery:
    """A gallery in memory, as `fit_gallery` asks it."""
    rows = background_rows(len(gallery.items))

    def find(queries: Floats) -> tuple[Floats, NDArray[np.int64]]:
        scores = queries @ gallery.items.T - gallery.penalties
        best = np.stack([best_rows(row) for row in scores])
        return np.take_along_axis(scores, best, axis=1), best

    return SearchedGallery(len(gallery.items), find, gallery.items[rows], gallery.penalties[rows], gallery.bank)


def _figures(part: SearchCalibration, said: Sequence[Said], *, name: str) -> Figures:
    fitted = part.figures
    if fitted is None:
        raise CalibrationError("the calibration has no figures of its own fit: calibrate the bundle again")
    accuracy, flat = (
        balanced_accuracy(*_joined(said, values), cutoff=cutoff)
        for values, cutoff in (
            ([one.first for one in said], part.perhaps),
            ([one.pages.cosine for one in said], fitted.flat_cutoff),
        )
    )
    return figures_of(
        said,
        measured_on=name,
        likely=part.likely,
        perhaps=part.perhaps,
        flat_cutoff=fitted.flat_cutoff,
        balanced_accuracy=accuracy,
        flat_balanced_accuracy=flat,
    )


def _joined(
    said: Sequence[Said], values: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """(values, present, weight) of all queries."""
    return (
        np.concatenate(values),
        np.concatenate([one.pages.present for one in said]),
        np.concatenate([one.pages.query_weight for one in said]),
    )
