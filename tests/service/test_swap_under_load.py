"""Ten swaps between two galleries and encoders under load: no error, no mixed answer, nothing left behind."""

import gc
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_service import Running, image_file, publish, running, wait_until

from encoders.encoder import Encoder
from index.release import Release

SWAPS = 10
LEAST_REQUESTS = 2000
CALLERS = 4
QUERIES = ("a red dog", "the white cat on a car", "a dark circle")
PNG = {"content-type": "image/png"}


@dataclass(frozen=True)
class Side:
    """A release and what its answers must agree with."""

    release: str
    fingerprint: str
    ids: frozenset[str]
    best: dict[str, str]  # query -> the item found first
    vectors: dict[str, np.ndarray]

    @classmethod
    def of(cls, releases: Path, release_id: str, bundle: Path) -> "Side":
        encoder, release = Encoder.load(bundle, device="cpu"), Release.load(releases, release_id)
        vectors = encoder.encode_texts(QUERIES).vectors
        first = release.images.search(vectors, 1, corrected=True)[1][:, 0]
        ids = [release.items.id(row) for row in range(len(release.items))]
        return cls(
            release_id,
            encoder.fingerprint,
            frozenset(ids),
            {query: ids[row] for query, row in zip(QUERIES, first, strict=True)},
            dict(zip(QUERIES, vectors, strict=True)),
        )


def other_gallery(folder: Path) -> Path:
    """Other images under other ids, and fewer."""
    for number in range(17):
        (folder / "boats").mkdir(parents=True, exist_ok=True)
        (folder / "boats" / f"boat {number}.png").write_bytes(image_file(1000 + number))
    return folder


@dataclass
class Load:
    """Callers who search and embed until told to stop, and hold every answer against the side it names."""

    url: str
    sides: dict[str, Side]
    over: threading.Event = field(default_factory=threading.Event)
    answered: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def ask(self, number: int) -> None:
        turns = itertools.islice(itertools.cycle((self.text, self.image, self.batch, self.embed)), number, None)
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            for turn, query in zip(turns, itertools.cycle(QUERIES), strict=False):
                if self.over.is_set():
                    return
                try:
                    turn(client, query)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
                    self.problems.append(f"{turn.__name__}: {error!r}")
                    return

    def text(self, client: httpx.Client, query: str) -> None:
        answer = self.post(client, "/search/text", {"query": query, "k": 5})
        side = self.check(answer, [answer])
        assert answer["results"][0]["id"] == side.best[query], "another encoder's vector was searched"

    def batch(self, client: httpx.Client, query: str) -> None:
        answer = self.post(client, "/search/batch", {"queries": [{"text": text} for text in QUERIES], "k": 3})
        side = self.check(answer, answer["answers"])
        found = [each["results"][0]["id"] for each in answer["answers"]]
        assert found == [side.best[text] for text in QUERIES]

    def image(self, client: httpx.Client, query: str) -> None:
        response = client.post("/search/image?k=4", content=image_file(5), headers=PNG)
        assert response.status_code == 200, response.text
        self.check(response.json(), [response.json()])

    def embed(self, client: httpx.Client, query: str) -> None:
        answer = self.post(client, "/embed/text", {"texts": [query]})
        side = next(side for side in self.sides.values() if side.fingerprint == answer["model_fingerprint"])
        np.testing.assert_allclose(answer["data"][0]["embedding"], side.vectors[query], atol=1e-5)
        self.answered[side.release] += 1

    def post(self, client: httpx.Client, path: str, body: dict) -> dict:
        response = client.post(path, json=body)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        return response.json()

    def check(self, answer: dict, parts: list[dict]) -> Side:
        side = self.sides[answer["release"]]
        assert answer["model_fingerprint"] == side.fingerprint
        for part in parts:
            assert {hit["id"] for hit in part["results"]} <= side.ids, "ids of another gallery"
        self.answered[side.release] += 1
        return side


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, gallery: Path, tiny_bundle: Path, other_tiny_bundle: Path
) -> tuple[Path, list[Side]]:
    folder = tmp_path_factory.mktemp("swaps")
    second_gallery = other_gallery(folder / "gallery")
    releases = folder / "releases"
    published = [
        (publish(releases, second_gallery, other_tiny_bundle), other_tiny_bundle),
        (publish(releases, gallery, tiny_bundle), tiny_bundle),  # is current
    ]
    return releases, [Side.of(releases, release_id, bundle) for release_id, bundle in published]


def mapped(release: str) -> list[str]:
    """Lines of this process's memory map that belong to a release's vectors."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if release in line]


def freed(reference: "weakref.ref[object]") -> bool:
    gc.collect()
    return reference() is None


def test_ten_swaps_under_load_lose_nothing_mix_nothing_and_free_what_they_replace(
    both: tuple[Path, list[Side]], settings_for: Callable
):
    releases, sides = both
    names = {side.release: side for side in sides}
    gc.collect()
    with running(settings_for(releases)) as service:
        load = Load(service.url, names)
        callers = [threading.Thread(target=load.ask, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            replaced = [swap(service, releases, sides[number % 2], load) for number in range(SWAPS)]
            wait_until(lambda: load.problems or load.answered.total() >= LEAST_REQUESTS, seconds=240)
        finally:
            load.over.set()
            for caller in callers:
                caller.join()
        assert load.problems == []
        assert min(load.answered[side.release] for side in sides) > 100
        for reference in itertools.chain.from_iterable(replaced):
            wait_until(lambda reference=reference: freed(reference), seconds=30)
        served = service.serving.state.release.id
        (gone,) = names.keys() - {served}
        assert mapped(served)
        assert mapped(gone) == []  # not even its file of vectors is held
        text = service.client.get("/metrics").text
        assert f'twinlens_reloads_total{{outcome="swapped"}} {SWAPS}.0' in text


def swap(service: Running, releases: Path, side: Side, load: Load) -> "list[weakref.ref[object]]":
    """Make a side current and serve it, with some answers before and after; what was served, weakly."""
    state = service.serving.state
    references: list[weakref.ref[object]] = [weakref.ref(state.release), weakref.ref(state.encoder)]
    del state
    (releases / "CURRENT").write_text(side.release + "\n")
    answer = service.client.post("/release/reload").json()
    assert answer == {"release": side.release, "swapped": True}
    before = load.answered[side.release]
    wait_until(lambda: load.problems or load.answered[side.release] > before + 25, seconds=60)
    return references
