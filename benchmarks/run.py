"""All measurements in order, on one encoder and one release. Composition only; prints nothing."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.comparison import Served, compare, quantile
from benchmarks.encoder import IMAGE_BATCHES, TEXT_BATCHES, Alone, Rate, best_batch
from benchmarks.http import Service, post, post_json, serving
from benchmarks.inputs import GALLERY, Inputs, read_inputs, write_gallery
from benchmarks.load import Load
from benchmarks.machine import describe
from benchmarks.plan import CLIENTS, Found, Plan
from benchmarks.rebuild import rebuild_gallery
from benchmarks.search import NEIGHBOURS, search_alone

Say = Callable[[str], None]
Measure = Callable[[float], Rate]


def measure_all(bundle: Path, plan: Plan, workplace: Path, *, say: Say) -> Found:
    """Everything; temporary files go to `workplace`. Raises BenchmarkFailed or TwinlensError."""
    started, machine = time.monotonic(), describe()
    inputs = read_inputs(plan.pictures)
    alone = Alone(bundle, inputs)
    say("the encoder alone, at several batch sizes")
    images_alone = best_batch(alone.embed_images, IMAGE_BATCHES, plan.alone_seconds)
    texts_alone = best_batch(alone.embed_texts, TEXT_BATCHES, plan.alone_seconds)
    decoded = alone.decode(plan.alone_seconds)
    encoded = alone.encode(plan.alone_seconds, batch=next(iter(images_alone)))
    say("a rebuild of the gallery")
    table, releases = workplace / "gallery.jsonl", workplace / "releases"
    write_gallery(table, plan.gallery_items)
    rebuilt = rebuild_gallery(table, root=GALLERY, bundle=bundle, releases=releases)
    with serving(releases, workplace, dict(os.environ)) as service:
        images = _rounds(
            service,
            {("image", 1): _image_requests(inputs)},
            lambda seconds: alone.embed_images(seconds, batch=next(iter(images_alone))),
            plan=plan,
            seconds=plan.images_seconds,
            say=say,
        )
        texts = _rounds(
            service,
            {("text", 1): _text_requests(inputs, 1), ("texts", 16): _text_requests(inputs, 16)},
            lambda seconds: alone.embed_texts(seconds, batch=next(iter(texts_alone))),
            plan=plan,
            seconds=plan.texts_seconds,
            say=say,
        )
        say("searches")
        vectors = alone.query_vectors()
        searches = _searches(service, inputs, vectors.tolist(), alone.encoder.fingerprint, plan, alone.cores)
        service_peak = service.peak_memory_mebibytes()
    search_rate, latencies = search_alone(releases, vectors, min(2.0, plan.search_seconds))
    return Found(
        machine=machine,
        bundle=alone.encoder.name,
        device=str(alone.encoder.device),
        decode_alone=decoded,
        encode_alone=encoded,
        images_alone=images_alone,
        texts_alone=texts_alone,
        rebuilt=rebuilt,
        served=images + texts,
        searches=searches,
        search_alone=search_rate,
        search_alone_p50_milliseconds=quantile(latencies, 0.5) * 1e3,
        search_alone_p99_milliseconds=quantile(latencies, 0.99) * 1e3,
        service_peak_mebibytes=service_peak,
        seconds=time.monotonic() - started,
    )


def _rounds(
    service: Service,
    requests: dict[tuple[str, int], list[bytes]],
    measure_alone: Measure,
    *,
    plan: Plan,
    seconds: float,
    say: Say,
) -> list[Served]:
    """The encoder alone and each load in turn, several times over; keys are (what, items in a request)."""
    own: list[Rate] = []
    loads: dict[tuple[str, int, int], list[Load]] = {}
    for number in range(plan.rounds):
        say(f"{' and '.join(what for what, _ in requests)} over HTTP, round {number + 1} of {plan.rounds}")
        own.append(measure_alone(plan.alone_seconds))
        for (what, items), clients in itertools.product(requests, CLIENTS):
            load = service.put_load(
                requests[what, items],
                clients=clients,
                warm_up_seconds=plan.warm_up_seconds,
                seconds=seconds,
            )
            loads.setdefault((what, items, clients), []).append(load)
    cores = len(os.sched_getaffinity(0))
    return [
        compare(f"{what}, {items} a request", found, own, clients=clients, items=items, cores=cores)
        for (what, items, clients), found in loads.items()
    ]


def _searches(
    service: Service, inputs: Inputs, vectors: list[list[float]], fingerprint: str, plan: Plan, cores: int
) -> list[Served]:
    by_text = [post_json("/search/text", {"query": query, "k": NEIGHBOURS}) for query in inputs.queries]
    by_vector = [
        post_json("/search/vector", {"vector": vector, "model_fingerprint": fingerprint, "k": NEIGHBOURS})
        for vector in vectors
    ]
    served = []
    for (what, requests), clients in itertools.product(
        {"by text": by_text, "by vector": by_vector}.items(), CLIENTS
    ):
        load = service.put_load(
            requests, clients=clients, warm_up_seconds=plan.warm_up_seconds, seconds=plan.search_seconds
        )
        served.append(compare(what, [load], None, clients=clients, items=1, cores=cores))
    return served


def _image_requests(inputs: Inputs) -> list[bytes]:
    return [post("/embed/image", picture.data, media_type=picture.media_type) for picture in inputs.pictures]


def _text_requests(inputs: Inputs, items: int) -> list[bytes]:
    titles = itertools.cycle(inputs.titles)
    return [
        post_json("/embed/text", {"texts": list(itertools.islice(titles, items))})
        for _ in range(max(1, len(inputs.titles) // items))
    ]
