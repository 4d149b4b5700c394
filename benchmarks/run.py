"""All measurements in order, on one encoder and one release. Composition only; prints nothing."""

import itertools
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison import Served, compare, quantile
from benchmarks.encoder import IMAGE_BATCHES, TEXT_BATCHES, Alone, Rate, best_batch, served_engine
from benchmarks.evaluation import embed_set, write_set
from benchmarks.http import Service, post, post_json, serving
from benchmarks.inputs import GALLERY, Inputs, read_inputs, write_gallery
from benchmarks.load import Load
from benchmarks.machine import describe
from benchmarks.million import Million, search_million
from benchmarks.plan import (
    CLIENTS,
    EncoderAlone,
    EvaluationFigures,
    Found,
    Part,
    Plan,
    Rebuilding,
    SearchAlone,
    ServiceFigures,
)
from benchmarks.ranking import Task, rank_in_own_process
from benchmarks.rebuild import rebuild_gallery
from benchmarks.search import NEIGHBOURS, search_alone

RELEASES = "releases"
EVALUATED = "evaluated"

Say = Callable[[str], None]
Requests = Mapping[tuple[str, int], list[bytes]]
"""By (what, items in a request)."""


def measure_all(bundle: Path, plan: Plan, workplace: Path, *, parts: Collection[Part], say: Say) -> Found:
    """The parts; temporary files go to `workplace`. Raises BenchmarkFailed, RankingFailed or TwinlensError."""
    started, machine = time.monotonic(), describe()
    inputs = read_inputs(plan.images)
    alone = Alone(bundle, inputs, engine=served_engine())
    say("the encoder alone, at several batch sizes")
    found = _encoder_alone(alone, inputs, plan)
    batches = next(iter(found.images)), next(iter(found.texts))
    setting = _Setting(bundle, plan, workplace, inputs, alone, batches, say)
    return Found(
        machine=machine,
        bundle=alone.encoder.name,
        device=f"{alone.encoder.device} by {alone.encoder.engine}",
        alone=found,
        service=_service(setting) if Part.SERVICE in parts else None,
        evaluation=_evaluation(setting) if Part.EVALUATION in parts else None,
        million=_million(setting) if Part.SEARCH_MILLION in parts else None,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Setting:
    """What the parts share; `batches` are the encoder's best sizes of images and texts."""

    bundle: Path
    plan: Plan
    workplace: Path
    inputs: Inputs
    alone: Alone
    batches: tuple[int, int]
    say: Say


def _service(setting: _Setting) -> ServiceFigures:
    plan, alone, inputs, releases = setting.plan, setting.alone, setting.inputs, setting.workplace / RELEASES
    images, texts = setting.batches
    setting.say("a rebuild of the gallery")
    rebuilding = _rebuild(setting)
    queries = alone.query_vectors()
    with serving(releases, setting.workplace, dict(os.environ)) as service:
        bench = _Bench(service, plan, alone.cores, setting.say)
        embedded = bench.embed_all(alone, inputs, images=images, texts=texts)
        searches = bench.search(_search_requests(inputs, queries.tolist(), alone.encoder.fingerprint))
        service_peak = service.peak_memory_mebibytes()
    rate, latencies = search_alone(releases, queries, plan.search_seconds / 2)
    return ServiceFigures(
        rebuilding=rebuilding,
        embedded=embedded,
        searches=searches,
        search_alone=SearchAlone(rate, quantile(latencies, 0.5) * 1e3, quantile(latencies, 0.99) * 1e3),
        service_peak_mebibytes=service_peak,
    )


def _evaluation(setting: _Setting) -> EvaluationFigures:
    plan, folder = setting.plan, setting.workplace / EVALUATED
    pairs = write_set(folder, setting.inputs, images=plan.evaluated_images, captions=plan.evaluated_captions)
    embedded = embed_set(
        setting.bundle,
        Alone(setting.bundle, setting.inputs),  # with PyTorch, as evaluation computes
        pairs,
        batches=setting.batches,
        rounds=plan.rounds,
        seconds=plan.alone_seconds,
        say=setting.say,
    )
    setting.say("the ranking of a large set")
    return EvaluationFigures(embedded, rank_in_own_process(Task(plan.ranked_images, plan.ranked_captions)))


def _million(setting: _Setting) -> Million:
    plan = setting.plan
    return search_million(
        setting.bundle,
        setting.workplace,
        vectors=plan.searched_vectors,
        rounds=plan.rounds,
        seconds=plan.search_seconds,
        say=setting.say,
    )


@dataclass(frozen=True)
class _Bench:
    """Loads on a running service."""

    service: Service
    plan: Plan
    cores: int
    say: Say

    def embed_all(self, alone: Alone, inputs: Inputs, *, images: int, texts: int) -> list[Served]:
        """Images, then texts; `images` and `texts` are the encoder's best batch sizes."""
        by_image = {("image", 1): _image_requests(inputs)}
        by_text = {("text", 1): _text_requests(inputs, 1), ("16 texts", 16): _text_requests(inputs, 16)}
        return [
            *self.embed(
                by_image,
                lambda seconds: alone.embed_inputs(seconds, batch=images),
                seconds=self.plan.images_seconds,
            ),
            *self.embed(
                by_text,
                lambda seconds: alone.embed_titles(seconds, batch=texts),
                seconds=self.plan.texts_seconds,
            ),
        ]

    def embed(
        self, requests: Requests, measure_alone: Callable[[float], Rate], *, seconds: float
    ) -> list[Served]:
        """The encoder alone and then each load in turn, several times over."""
        own: list[Rate] = []
        loads: dict[tuple[str, int, int], list[Load]] = {}
        for number in range(self.plan.rounds):
            names = " and ".join(what for what, _ in requests)
            self.say(f"{names} over HTTP, round {number + 1} of {self.plan.rounds}")
            own.append(measure_alone(self.plan.alone_seconds))
            for (what, items), clients in itertools.product(requests, CLIENTS):
                load = self._load(requests[what, items], clients, seconds)
                loads.setdefault((what, items, clients), []).append(load)
        return [
            compare(what, found, own, clients=clients, items=items, cores=self.cores)
            for (what, items, clients), found in loads.items()
        ]

    def search(self, requests: Mapping[str, list[bytes]]) -> list[Served]:
        self.say("searches over HTTP")
        served = []
        for what, clients in itertools.product(requests, CLIENTS):
            load = self._load(requests[what], clients, self.plan.search_seconds)
            served.append(compare(what, [load], None, clients=clients, items=1, cores=self.cores))
        return served

    def _load(self, requests: list[bytes], clients: int, seconds: float) -> Load:
        return self.service.put_load(
            requests, clients=clients, warm_up_seconds=self.plan.warm_up_seconds, seconds=seconds
        )


def _encoder_alone(alone: Alone, inputs: Inputs, plan: Plan) -> EncoderAlone:
    seconds = plan.alone_seconds
    images = best_batch(alone.embed_inputs, IMAGE_BATCHES, seconds)
    return EncoderAlone(
        decoding=alone.decode(seconds, inputs.images),
        encoding=alone.encode(seconds, batch=next(iter(images))),
        images=images,
        texts=best_batch(alone.embed_titles, TEXT_BATCHES, seconds),
    )


def _rebuild(setting: _Setting) -> Rebuilding:
    """The job, and before and after it what it is compared with, on the same drawings."""
    alone, drawings, batch = setting.alone, setting.inputs.drawings, setting.batches[0]
    table, seconds = setting.workplace / "gallery.jsonl", setting.plan.alone_seconds / 2
    write_gallery(table, setting.plan.gallery_items)
    decoding = alone.decode(seconds, drawings)
    embedding = alone.embed_images(seconds, drawings, batch=batch)
    rebuilt = rebuild_gallery(table, root=GALLERY, bundle=setting.bundle, releases=setting.workplace / RELEASES)
    return Rebuilding(
        rebuilt=rebuilt,
        decoding=decoding + alone.decode(seconds, drawings),
        embedding=embedding + alone.embed_images(seconds, drawings, batch=batch),
    )


def _image_requests(inputs: Inputs) -> list[bytes]:
    return [post("/embed/image", image.data, media_type=image.media_type) for image in inputs.images]


def _text_requests(inputs: Inputs, items: int) -> list[bytes]:
    titles = itertools.cycle(inputs.titles)
    return [
        post_json("/embed/text", {"texts": list(itertools.islice(titles, items))})
        for _ in range(max(1, len(inputs.titles) // items))
    ]


def _search_requests(inputs: Inputs, vectors: list[list[float]], fingerprint: str) -> dict[str, list[bytes]]:
    return {
        "by text": [post_json("/search/text", {"query": query, "k": NEIGHBOURS}) for query in inputs.queries],
        "by vector": [
            post_json("/search/vector", {"vector": vector, "model_fingerprint": fingerprint, "k": NEIGHBOURS})
            for vector in vectors
        ],
    }
