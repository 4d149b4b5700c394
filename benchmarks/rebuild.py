"""The batch job in a process of its own, as `python -m index rebuild` runs it, with nothing cached.

The release that it publishes is the one that is served afterwards.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.encoder import Rate, served_engine
from benchmarks.machine import own_cpu_seconds, peak_memory_mebibytes
from encoders.choices import Engine


@dataclass(frozen=True)
class Rebuilt:
    """`rate` is reading, decoding, thumbnails, both towers and writing; loading the encoder is not in it."""

    rate: Rate
    texts: int
    peak_memory_mebibytes: float


def rebuild_gallery(table: Path, *, root: Path, bundle: Path, releases: Path) -> Rebuilt:
    """Index the images that a table names, which lie below `root`, into `releases`."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_rebuild, table, root, bundle, releases, served_engine()).result()


def _rebuild(table: Path, root: Path, bundle: Path, releases: Path, engine: Engine) -> Rebuilt:
    from index.rebuilding import RebuildSettings, rebuild
    from index.report import Tally
    from index.sources import open_gallery

    cpu_after_first_batch: list[float] = []

    def on_progress(_: Tally) -> None:
        if not cpu_after_first_batch:
            cpu_after_first_batch.append(own_cpu_seconds())

    gallery = open_gallery(str(table), root=root)
    settings = RebuildSettings(
        gallery=gallery, bundle=bundle, releases=releases, use_cache=False, engine=engine
    )
    report = rebuild(settings, on_progress=on_progress)
    counts = report.manifest.counts
    cpu = (
        own_cpu_seconds() - cpu_after_first_batch[0]
    )  # what came before it is mostly the loading of the encoder
    whole = counts.images / max(1, counts.images - settings.batch_size)
    return Rebuilt(
        rate=Rate(counts.images, report.seconds, cpu * whole),
        texts=counts.texts,
        peak_memory_mebibytes=peak_memory_mebibytes(),
    )
