"""The batch job: gallery, embed, vectors, check, publish.

Composition only: each step is another module's.
"""

import json
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from encoders.choices import Engine, Precision
from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.images import DEFAULT_MAX_PIXELS
from encoders.permissions import reading_advice
from encoders.query_bank import QueryBank, penalty_of
from index import catalog
from index.cache import EmbeddingCache, cache_path, remove_other_caches
from index.cores import available_cores
from index.difference import difference_from_current
from index.embed import EmbeddedItem, Embedder
from index.errors import GalleryError, PublishRefused
from index.gallery import Failure, Gallery, without_duplicates
from index.gate import note_verdict, require_verdict
from index.hubs import describe_correction
from index.items import ITEM_SCHEMA, ItemRecord, TableWriter, TextTable, read_digests
from index.journal.replay import LiveState, read_live, replayed
from index.manifest import (
    COMPARED_FORMAT_VERSION,
    FORMAT_VERSION,
    JUDGED_FORMAT_VERSION,
    LIVE_FORMAT_VERSION,
    PLAIN_FORMAT_VERSION,
    Counts,
    GallerySource,
    Manifest,
    MeasuredRecall,
)
from index.publish import describe_files, full_disk_told, new_release_id, publish, rebuild_lock, staging_folder
from index.recall import measure_recall
from index.relevance import fit_relevance
from index.report import OnProgress, RebuildReport, Tally
from index.staging import stage_bundle
from index.texts import TextCollector, read_texts
from index.thumbnails import ThumbnailWriter
from index.vectors import VectorIndex, VectorWriter

_log = logging.getLogger(__name__)

MINIMUM_RECALL = 0.99  # exact search that finds less than all it should is broken


@dataclass(frozen=True, kw_only=True)
class RebuildSettings:
    """What to index, with which encoder, into which folder of releases."""

    gallery: Gallery
    bundle: Path
    releases: Path
    texts: Path | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    engine: Engine = "torch"
    batch_size: int = 32
    decode_threads: int = field(default_factory=available_cores)
    max_pixels: int = DEFAULT_MAX_PIXELS
    use_cache: bool = True
    require_gate: bool = False
    gate_policy: Path | None = None  # with `require_gate`: the policy that the bundle must have passed


def rebuild(settings: RebuildSettings, *, on_progress: OnProgress = lambda _: None) -> RebuildReport:
    """Index the gallery and make the result current.

    Bad items are left out and written to the release's failure ledger. Raises `PublishRefused` (nothing to
    publish, a broken index, no gate passed), `GalleryError`, `ReleasesBusy`, `BundleError`, `CorruptJournal`,
    `DiskFull`; CURRENT stays.
    """
    if settings.texts is not None and not settings.texts.is_file():
        raise GalleryError(f"the file of texts {settings.texts} does not exist")
    with (
        full_disk_told(settings.releases),
        rebuild_lock(settings.releases),
        staging_folder(settings.releases) as staging,
    ):
        bundle = stage_bundle(settings.bundle, staging / catalog.BUNDLE_NAME, releases=settings.releases)
        if settings.require_gate:
            require_verdict(bundle, policy=settings.gate_policy)
        encoder = Encoder.load(
            bundle,
            device=settings.device,
            precision=settings.precision,
            max_batch=settings.batch_size,
            engine=settings.engine,
            threads=available_cores(),
        )
        cache_file = cache_path(settings.releases, bundle.fingerprint, settings.precision)
        with EmbeddingCache(cache_file if settings.use_cache else None, dim=encoder.dim) as cache:
            report = _build(settings, staging, encoder, cache, on_progress)
            _prune_cache(settings.releases, cache, bundle.fingerprint)
    return report


def _build(
    settings: RebuildSettings, staging: Path, encoder: Encoder, cache: EmbeddingCache, on_progress: OnProgress
) -> RebuildReport:
    live = read_live(settings.releases, known=catalog.last_live_sequence(settings.releases))
    embedder = Embedder(
        encoder=encoder,
        cache=cache,
        root=settings.gallery.root,
        decode_threads=settings.decode_threads,
        max_pixels=settings.max_pixels,
        live_images=live.images if live else None,
    )
    started = time.monotonic()
    tally, texts_cut = _write_contents(settings, staging, embedder, live, on_progress)
    seconds = time.monotonic() - started
    if not tally.images:
        raise PublishRefused(_nothing(settings.gallery, tally))
    images, texts = _read_back(staging, encoder.query_bank)
    recall, counts = _check(images, texts, tally, texts_cut=texts_cut, skipped=settings.gallery.skipped)
    fits = fit_relevance(encoder, images, TextTable.read(staging / catalog.TEXTS_NAME))
    since = difference_from_current(settings.releases, staging)
    files = describe_files(staging)
    release_id, created = new_release_id(settings.releases, files)
    gallery = settings.gallery
    hubness, gate = describe_correction(encoder.query_bank), note_verdict(encoder.bundle)
    manifest = Manifest(
        format_version=_format_version(
            judged=bool(hubness or gate), live=live is not None, compared=since is not None, fitted=bool(fits)
        ),
        gallery_fits=fits,
        hubness=hubness,
        gate=gate,
        live_sequence=live.sequence if live else None,
        id=release_id,
        created=created,
        fingerprint=encoder.fingerprint,
        bundle=encoder.name,
        dim=encoder.dim,
        precision=encoder.precision,
        gallery=GallerySource(kind=gallery.kind, source=gallery.source, root=str(gallery.root)),
        counts=counts,
        recall=recall,
        difference=since,
        files=files,
    )
    publish(settings.releases, staging, manifest=manifest)
    return RebuildReport(manifest, tally, seconds)


def _format_version(*, judged: bool, live: bool, compared: bool, fitted: bool) -> int:
    """The lowest that says it all, so that earlier versions read what they can."""
    if fitted:
        return FORMAT_VERSION
    if compared:
        return COMPARED_FORMAT_VERSION
    if live:
        return LIVE_FORMAT_VERSION
    return JUDGED_FORMAT_VERSION if judged else PLAIN_FORMAT_VERSION


class _Contents:
    """The files of a release under construction; one call for each result, in order."""

    def __init__(self, staging: Path, encoder: Encoder, stack: ExitStack) -> None:
        self.tally = Tally()
        self.vectors = VectorWriter(encoder.dim, penalty=penalty_of(encoder.query_bank, "images"))
        self._items = stack.enter_context(TableWriter(staging / catalog.ITEMS_NAME, ITEM_SCHEMA))
        self._thumbnails = stack.enter_context(ThumbnailWriter(staging / catalog.THUMBNAILS_NAME))
        self._ledger = stack.enter_context((staging / catalog.FAILURES_NAME).open("w", encoding="utf-8"))

    def add(self, result: EmbeddedItem) -> int:
        """Append an item; returns its row."""
        seen = result.seen
        record = ItemRecord(
            id=result.item.id,
            digest=seen.digest,
            source=result.item.source,
            width_pixels=seen.width_pixels,
            height_pixels=seen.height_pixels,
            thumbnail=self._thumbnails.append(seen.thumbnail),
            payload=result.item.payload,
        )
        self._items.append(record.as_row())
        self.vectors.add(seen.vector[np.newaxis])
        self.tally.images += 1
        self.tally.reused += result.reused
        return self.tally.images - 1

    def fail(self, failure: Failure) -> None:
        entry = {"item": failure.item, "code": failure.code, "message": failure.message}
        self._ledger.write(json.dumps(entry) + "\n")  # ASCII: a name that is no UTF-8 must be recorded too
        self.tally.fail(failure)


def _write_contents(
    settings: RebuildSettings,
    staging: Path,
    embedder: Embedder,
    live: LiveState | None,
    on_progress: OnProgress,
) -> tuple[Tally, int]:
    with ExitStack() as stack:
        contents = _Contents(staging, embedder.encoder, stack)
        texts = stack.enter_context(TextCollector(embedder, staging / ".texts.spool"))
        images = embedder.embed_images(without_duplicates(replayed(settings.gallery, live)))
        vectors = live.bare_vectors(embedder.encoder.fingerprint) if live else ()
        for result in chain(images, vectors):
            if isinstance(result, Failure):
                if live is not None and live.changed_meanwhile(result.item):
                    contents.tally.changed_meanwhile += 1
                else:
                    contents.fail(result)
            else:
                row = contents.add(result)
                for text in result.item.texts if settings.texts is None else ():
                    texts.add(text, row)
            contents.tally.fraction = settings.gallery.fraction()
            on_progress(contents.tally)
        for line in read_texts(settings.texts) if settings.texts is not None else ():
            if isinstance(line, Failure):
                contents.fail(line)
            else:
                texts.add(line)
        contents.vectors.write(staging / catalog.IMAGE_VECTORS_NAME)
        texts.write(table=staging / catalog.TEXTS_NAME, vectors=staging / catalog.TEXT_VECTORS_NAME)
        for failure in texts.failures:
            contents.fail(failure)
        return contents.tally, texts.cut


def _read_back(staging: Path, bank: QueryBank | None) -> tuple[VectorIndex, VectorIndex]:
    """Images and texts, as a service would read them."""
    return (
        VectorIndex.read(
            staging / catalog.IMAGE_VECTORS_NAME, penalised=bank is not None and bank.corrects("images")
        ),
        VectorIndex.read(
            staging / catalog.TEXT_VECTORS_NAME, penalised=bank is not None and bank.corrects("texts")
        ),
    )


def _check(
    images: VectorIndex, texts: VectorIndex, tally: Tally, *, texts_cut: int, skipped: int
) -> tuple[dict[str, MeasuredRecall], Counts]:
    """Measure the vectors that were read back against exact search."""
    if len(texts):
        recall = {
            "images": measure_recall(images, texts, queries="texts"),
            "texts": measure_recall(texts, images, queries="images"),
        }
    else:
        recall = {"images": measure_recall(images, images, queries="images")}
    for searched, measured in recall.items():
        if measured.recall < MINIMUM_RECALL:
            raise PublishRefused(
                f"search of {searched} finds {measured.recall:.3f} of what exact search finds "
                f"(at least {MINIMUM_RECALL}): the index is broken"
            )
    counts = Counts(
        images=len(images),
        texts=len(texts),
        failed=tally.failures.total(),
        texts_cut=texts_cut,
        skipped=skipped,
        reused=tally.reused,
    )
    return recall, counts


def _nothing(gallery: Gallery, tally: Tally) -> str:
    lines = [
        f"no image of {gallery.source} could be indexed ({tally.failures.total()} failed, "
        f"{gallery.skipped} other files): nothing is published, what was current stays",
        *(f"  {entry.item}: {entry.message}" for entry in tally.first_failures),
        *([reading_advice(gallery.root)] if tally.failures["not_permitted"] else []),
    ]
    return "\n".join(lines)


def _prune_cache(releases: Path, cache: EmbeddingCache, fingerprint: str) -> None:
    """Keep in the cache what the releases hold, so that it never outgrows them.

    The release is published by then, so what goes wrong here is no more than a warning.
    """
    try:
        _keep_what_is_held(releases, cache, fingerprint)
    except (OSError, TwinlensError) as error:
        _log.warning("the cache keeps more than the releases hold, it could not be trimmed: %s", error)


def _keep_what_is_held(releases: Path, cache: EmbeddingCache, fingerprint: str) -> None:
    whole = list(catalog.readable_manifests(releases))
    cache.keep_only(
        (some for manifest in whole for some in read_digests(releases / manifest.id / catalog.ITEMS_NAME)),
        (some for manifest in whole for some in read_digests(releases / manifest.id / catalog.TEXTS_NAME)),
    )
    remove_other_caches(releases, {fingerprint, *(manifest.fingerprint for manifest in whole)})
