"""Drift of one release: its bundle's references, its gallery against them, and the queries that come.

Noting a query is the search thread's, reading any thread's. Keeps sums of queries, never a text or a vector.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from encoders.calibration import Calibration, Search
from encoders.modalities import MODALITIES, Modality
from encoders.query_bank import QueryBank
from index.release import Release
from service.drift.pairs import Expected, expected_relevance
from service.drift.verdict import (
    LEAST,
    NO_CALIBRATION,
    VERDICTS,
    cut_measure,
    embedding_measures,
    matching_measure,
    relevance_measure,
    undecodable_measure,
    worst,
)
from service.drift.windows import BUCKET_QUERIES, BUCKETS, LEAST_ROWS, QueryNote, Reference, Rows, Sums, Window
from service.search.relevance import Judge, sample_of
from service.wire.drift import DriftAnswer, DriftMeasure, DriftReport, DriftSubject

PRIVACY = (
    "of queries only sums and counts are kept, in memory: no text, image or vector, and nothing of who asked"
)
NO_PAIRS = "too few texts of the gallery belong to an image to tell what to expect"
NO_FIGURES = "the calibration does not say how often it was right"
NO_BANK = "the bundle has no bank of {}: python -m training bank makes one"
_QUERIES: dict[Modality, DriftSubject] = {"texts": "text_queries", "images": "image_queries"}
_GALLERY: dict[Modality, DriftSubject] = {"images": "gallery_images", "texts": "gallery_texts"}
_ANSWERED_BY: dict[Modality, Search] = {"texts": "sentence_to_image", "images": "image_to_text"}


class Drift:
    """What the encoder of a release was proven on, and what has come since."""

    def __init__(self, release: Release, judge: Judge | None, bank: QueryBank | None) -> None:
        """At once; `prepare` does the work. `bank`: the bundle's."""
        self._release = release
        self._judge = judge
        self._bank = bank
        self._calibration: Calibration | None = judge.calibration if judge else None
        self._preparing = threading.Lock()
        self._prepared: _Prepared | None = None

    def prepare(self) -> None:
        """Hold a sample of the gallery against the bank: some 0.2 s. Queries are noted from then on."""
        self._ready()

    def go_on_from(self, previous: "Drift") -> None:
        """Take over the queries of the release before, where the same encoder meets the same references."""
        before, now = previous._prepared, self._prepared
        if before is None or now is None or self._release.fingerprint != previous._release.fingerprint:
            return
        if all(_same(now.references[m], before.references[m]) for m in MODALITIES):
            self._prepared = replace(now, windows=before.windows, lock=before.lock)

    def note(self, modality: Modality, query: QueryNote) -> None:
        """A query that was searched for. O(d) work."""
        if (prepared := self._prepared) is not None:
            with prepared.lock:
                prepared.windows[modality].note(query)

    def note_undecodable(self) -> None:
        """An image to search with that could not be decoded."""
        if (prepared := self._prepared) is not None:
            with prepared.lock:
                prepared.windows["images"].note_undecodable()

    def answer(self) -> DriftAnswer:
        """The whole of `GET /drift`."""
        prepared = self._ready()
        reports = [*(self._query_report(m, prepared) for m in ("texts", "images")), *prepared.gallery]
        return DriftAnswer.model_construct(
            release=self._release.id,
            model_fingerprint=self._release.fingerprint,
            verdict=worst([report.verdict for report in reports]),
            window_queries=BUCKETS * BUCKET_QUERIES,
            least_queries=LEAST,
            reports=reports,
            privacy=PRIVACY,
        )

    def metrics(self) -> Iterator[Metric]:
        """The same as gauges; what is not known has no sample."""
        value, reference, errors, verdict = (
            GaugeMetricFamily(f"twinlens_drift_{name}", words, labels=("subject", "measure"))
            for name, words in (
                ("value", "A measure of drift, as it is"),
                ("reference", "The same measure when the encoder was proven"),
                ("standard_errors", "Their difference in standard errors"),
                ("verdict", "0 as proven, 1 has moved, 2 far"),
            )
        )
        seen = GaugeMetricFamily(
            "twinlens_drift_seen", "Queries in the window, or gallery vectors looked at", labels=("subject",)
        )
        for report in self.answer().reports:
            seen.add_metric((report.subject,), report.seen)
            for measure in report.measures:
                labels = (report.subject, measure.name)
                grade = None if measure.verdict is None else VERDICTS.index(measure.verdict)
                for family, number in (
                    (value, measure.value),
                    (reference, measure.reference),
                    (errors, measure.standard_errors),
                    (verdict, grade),
                ):
                    if number is not None:
                        family.add_metric(labels, number)
        yield from (value, reference, errors, verdict, seen)

    def _ready(self) -> "_Prepared":
        with self._preparing:
            if self._prepared is None:
                self._prepared = _Prepared.of(self._release, self._judge, self._bank)
            return self._prepared

    def _query_report(self, modality: Modality, prepared: "_Prepared") -> DriftReport:
        with prepared.lock:
            sums = prepared.windows[modality].sums()
        name = _ANSWERED_BY[modality]
        part = self._calibration.searches.get(name) if self._calibration else None
        figures = part.figures if part else None
        measures = [
            *embedding_measures(sums, prepared.references[modality]),
            relevance_measure(sums, prepared.expected[modality], why=NO_PAIRS if part else NO_CALIBRATION),
            matching_measure(sums, figures, why=NO_FIGURES if part else NO_CALIBRATION),
            cut_measure(sums) if modality == "texts" else undecodable_measure(sums),
        ]
        report = prepared.report(_QUERIES[modality], modality, sums, measures)
        return report.model_copy(update={"relevance_histogram": sums.histogram.tolist()})


@dataclass(frozen=True, eq=False)
class _Prepared:
    """References of a release, its gallery beside them, and the windows of queries; by modality.

    `lock` is held while a window is written or read, and goes with the windows from release to release.
    """

    references: Mapping[Modality, Reference | None]
    why_none: Mapping[Modality, str]
    windows: Mapping[Modality, Window]
    expected: Mapping[Modality, Expected | None]
    gallery: list[DriftReport] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, release: Release, judge: Judge | None, bank: QueryBank | None) -> "_Prepared":
        rows = bank.rows if bank else {}
        references = {m: Reference.of(rows[m]) if m in rows else None for m in MODALITIES}
        dim = release.images.dim
        prepared = cls(
            references=references,
            why_none={m: _why_none(bank, m) for m in MODALITIES},
            windows={m: Window(dim, references[m]) for m in MODALITIES},
            expected={m: expected_relevance(release, judge, m) for m in MODALITIES},
        )
        prepared.gallery.append(prepared.gallery_report("images", sample_of(release.images).rows))
        prepared.gallery.append(prepared.gallery_report("texts", sample_of(release.texts).rows))
        return prepared

    def gallery_report(self, modality: Modality, rows: Rows) -> DriftReport:
        reference = self.references[modality]
        sums = Sums.of_rows(rows, reference)
        return self.report(_GALLERY[modality], modality, sums, list(embedding_measures(sums, reference)))

    def report(
        self, subject: DriftSubject, modality: Modality, sums: Sums, measures: list[DriftMeasure]
    ) -> DriftReport:
        reference, verdict = self.references[modality], worst([measure.verdict for measure in measures])
        reasons = [measure.why for measure in measures if measure.verdict == verdict is not None]
        unknown = self.why_none[modality]
        why = "; ".join(reasons) if verdict != VERDICTS[0] else "nothing has moved"
        if verdict is None:
            why = unknown or f"{sums.count} so far; {LEAST} are needed to tell"
        elif unknown:
            why += f"; of the embeddings nothing can be told: {unknown}"
        return DriftReport.model_construct(
            subject=subject,
            seen=sums.count,
            reference=f"{reference.count} {modality} of the bundle's query bank" if reference else None,
            verdict=verdict,
            why=why,
            measures=measures,
            relevance_histogram=None,
        )


def _why_none(bank: QueryBank | None, modality: Modality) -> str:
    """Why there is no reference, or an empty string."""
    if bank is None or modality not in bank.rows:
        return NO_BANK.format(modality)
    rows = len(bank.rows[modality])
    return f"the bank has {rows} {modality} and {LEAST_ROWS} are needed" if rows < LEAST_ROWS else ""


def _same(one: Reference | None, other: Reference | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.count == other.count and bool(np.array_equal(one.mean, other.mean))
