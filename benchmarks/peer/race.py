"""Both servers with the same weights, the same requests in turns, and their vectors beside the reference.

Each round puts one load after the other on each server, so that other work on the machine hits all alike.
"""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.comparison import corrected_rate
from benchmarks.http import BenchmarkFailed, Service, free_port, post_json, running, serving
from benchmarks.inputs import GALLERY, Inputs, write_gallery
from benchmarks.load import Load
from benchmarks.machine import usable_cores
from benchmarks.peer.environment import HERE, MODEL, Environment
from benchmarks.rebuild import rebuild_gallery

PEER = "infinity"
OURS = "twinlens"
CLIENTS = 32
TEXTS_IN_REQUEST = 16
PRECISIONS = ("fp32", "bf16")
PATH = "/v1/embeddings"
COMPARED = 32  # inputs whose vectors are set beside the reference


@dataclass(frozen=True)
class Runner:
    """A server in the race, and whether it is ours (with its precision) or the peer."""

    name: str
    service: Service


@dataclass(frozen=True)
class Result:
    """One server, one kind of request: items a second without the generator, CPU each, the least cosine."""

    server: str
    what: str
    per_second: float
    cpu_milliseconds: float
    to_peer: float
    to_peer_by_cpu: float
    least_cosine: float


@dataclass(frozen=True)
class Course:
    """Lengths of a race."""

    rounds: int
    seconds: float
    warm_up_seconds: float


def race(
    made: Environment, inputs: Inputs, course: Course, workplace: Path, *, say: Callable[[str], None]
) -> list[Result]:
    """Raises BenchmarkFailed for a server that does not start or does not answer 200."""
    requests = race_requests(inputs)
    reference = reference_vectors(made, inputs, workplace)
    with ExitStack() as running_servers:
        runners = [running_servers.enter_context(_started(name, made, workplace)) for name in _names()]
        loads: dict[tuple[str, str], list[Load]] = {}
        for number in range(course.rounds):
            for what, bodies in requests.items():
                for runner in runners:
                    say(f"{what}, {runner.name}, round {number + 1} of {course.rounds}")
                    load = runner.service.put_load(
                        bodies, clients=CLIENTS, warm_up_seconds=course.warm_up_seconds, seconds=course.seconds
                    )
                    loads.setdefault((runner.name, what), []).append(load)
        cosines = {}
        for runner in runners:
            say(f"{runner.name} beside transformers in fp32")
            cosines[runner.name] = _least_cosines(runner, inputs, reference)
    return [
        _result(name, what, loads, cosine=cosines[name]["image" if what == "images" else "text"])
        for name, what in loads
    ]


def race_requests(inputs: Inputs) -> dict[str, list[bytes]]:
    """By what is asked: the requests, in OpenAI's shape, which both servers take."""
    images, titles = _data_uris(inputs), inputs.titles
    groups = [titles[start : start + TEXTS_IN_REQUEST] for start in range(0, 512, TEXTS_IN_REQUEST)]
    return {
        "images": [_request([uri], modality="image") for uri in images],
        "texts, 16 a request": [_request(group, modality="text") for group in groups],
        "texts, one a request": [_request([title], modality="text") for title in titles[:512]],
    }


def reference_vectors(made: Environment, inputs: Inputs, workplace: Path) -> Mapping[str, np.ndarray]:
    """{"images", "texts"}: unit rows of the first inputs, by transformers in fp32."""
    images, texts, out = workplace / "images", workplace / "texts.json", workplace / "reference.npz"
    images.mkdir()
    for number, image in enumerate(_jpegs(inputs)[:COMPARED]):
        (images / f"{number:04}.jpg").write_bytes(image)
    texts.write_text(json.dumps(inputs.titles[:COMPARED]), encoding="utf-8")
    command = [
        str(made.python),
        str(HERE / "reference.py"),
        *map(str, (made.clip_folder, images, texts, out)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"transformers could not embed: {done.stderr[-2000:]}")
    return dict(np.load(out))


def _names() -> list[str]:
    return [PEER, *(f"{OURS} {precision}" for precision in PRECISIONS)]


@contextmanager
def _started(name: str, made: Environment, workplace: Path) -> Iterator[Runner]:
    folder = workplace / name.replace(" ", "-")
    folder.mkdir()
    if name == PEER:
        with _infinity(made, folder) as service:
            yield Runner(name, service)
        return
    releases = workplace / "releases"
    if not releases.exists():  # a service needs something to search, however little
        write_gallery(workplace / "gallery.jsonl", 16)
        rebuild_gallery(workplace / "gallery.jsonl", root=GALLERY, bundle=made.bundle, releases=releases)
    precision, patience = name.partition(" ")[2], "600"  # the peer has no deadline
    settings = {**os.environ, "TWINLENS_PRECISION": precision, "TWINLENS_DEADLINE_SECONDS": patience}
    with serving(releases, folder, settings) as service:
        yield Runner(name, service)


@contextmanager
def _infinity(made: Environment, folder: Path) -> Iterator[Service]:
    """Its server with its own defaults for a CPU; better-transformer does not know the newest PyTorch."""
    port = free_port()
    command = [
        str(made.infinity), "v2", "--model-id", str(made.clip_folder), "--served-model-name", MODEL,
        "--device", "cpu", "--engine", "torch", "--no-bettertransformer",
        "--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1",
    ]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
    with running(
        command, port=port, ready="/health", workplace=folder, settings={**os.environ, **quiet}
    ) as service:
        yield service


def _result(name: str, what: str, loads: Mapping[tuple[str, str], Sequence[Load]], *, cosine: float) -> Result:
    items, own, peers = (TEXTS_IN_REQUEST if "16" in what else 1), loads[name, what], loads[PEER, what]
    rates = [[corrected_rate(load, items=items, cores=usable_cores()) for load in of] for of in (own, peers)]
    cpu = [[load.server_cpu * load.wall_seconds / (items * load.answers) for load in of] for of in (own, peers)]
    return Result(
        server=name,
        what=what,
        per_second=median(rates[0]),
        cpu_milliseconds=median(cpu[0]) * 1e3,
        to_peer=median(mine / theirs for mine, theirs in zip(*rates, strict=True)),
        to_peer_by_cpu=median(theirs / mine for mine, theirs in zip(*cpu, strict=True)),
        least_cosine=cosine,
    )


def _least_cosines(runner: Runner, inputs: Inputs, reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    asked = {"image": _data_uris(inputs)[:COMPARED], "text": inputs.titles[:COMPARED]}
    found = {}
    for modality, items in asked.items():
        request = _body(items, modality=modality)
        with urlopen(_urllib(runner.service.port, request), timeout=120) as answer:  # noqa: S310 - loopback
            rows = np.array([each["embedding"] for each in json.load(answer)["data"]], dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found[modality] = float((rows * reference[f"{modality}s"]).sum(axis=1).min())
    return found


def _urllib(port: int, body: object) -> Request:
    return Request(
        f"http://127.0.0.1:{port}{PATH}", json.dumps(body).encode(), {"content-type": "application/json"}
    )


def _request(items: Sequence[str], *, modality: str) -> bytes:
    return post_json(PATH, _body(items, modality=modality))


def _body(items: Sequence[str], *, modality: str) -> dict[str, object]:
    return {"model": MODEL, "input": list(items), "modality": modality, "encoding_format": "float"}


def _jpegs(inputs: Inputs) -> list[bytes]:
    return [image.data for image in inputs.images if image.media_type == "image/jpeg"]


def _data_uris(inputs: Inputs) -> list[str]:
    return ["data:image/jpeg;base64," + base64.b64encode(jpeg).decode() for jpeg in _jpegs(inputs)]
