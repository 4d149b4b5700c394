"""Short queries of a real service, asked by the templates of its bundle, and queries that it does not know."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_service import Running, publish, running

from encoders.encoder import Encoder
from encoders.lexicon import Lexicon
from encoders.short_queries import SHORT_QUERIES, PhraseMemory, ShortQueries, short_queries_bytes
from service.settings import Settings

TEMPLATES = ("{}", "a {}", "a photo of a {}")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable,
    gallery: Path,
    settings_for: Callable[..., Settings],
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("expanded")
    plain = make_bundle(folder / "bundle")
    encoder = Encoder.load(plain, device="cpu")
    keys = encoder.encode_texts(["dog", "cat"]).vectors
    memory = PhraseMemory(keys, -0.5 * keys[::-1], width=0.5)
    short = ShortQueries(TEMPLATES, plain.fingerprint, memory, Lexicon("# animals\ndog: puppy\ncat:\n"))
    stored = plain.with_file(SHORT_QUERIES, short_queries_bytes(short))
    assert stored.fingerprint == plain.fingerprint
    publish(folder / "releases", gallery, stored.path)
    with running(settings_for(folder / "releases")) as started:
        yield started


def found_by(service: Running, text: str) -> np.ndarray:
    """The vector that a short query is searched for with."""
    encoder = service.serving.state.encoder
    sentences = encoder.short_queries.texts_for(text)
    return encoder.short_queries.combined(encoder.encode_texts(sentences).vectors[None])[0]


def asked(client: httpx.Client, **body: object) -> dict:
    response = client.post("/search/text", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def scores(answer: dict) -> list[float]:
    return [hit["score"] for hit in answer["results"]]


def expected_scores(service: Running, vector: np.ndarray) -> list[float]:
    return service.serving.state.release.images.search(vector[None], 3)[0][0].tolist()


def test_a_few_words_are_asked_by_the_templates_and_the_answer_says_so(client, service):
    found = asked(client, query="red dog", k=3)
    assert found["templates"] == list(TEMPLATES)
    assert scores(found) == pytest.approx(expected_scores(service, found_by(service, "red dog")), abs=1e-5)
    again = asked(client, query="red dog", k=3)
    assert scores(again) == scores(found)
    sentence = asked(client, query="A red dog runs over the grass.", k=3)
    assert sentence["templates"] is None


def test_expansion_is_off_or_forced_as_asked_and_stays_out_of_embeddings(client, service):
    encoder = service.serving.state.encoder
    plain = encoder.encode_texts(["red dog"]).vectors[0]
    off = asked(client, query="red dog", k=3, expand="off")
    assert off["templates"] is None
    assert scores(off) == pytest.approx(expected_scores(service, plain), abs=1e-5)
    forced = asked(client, query="A red dog runs over the grass.", k=3, expand="templates")
    assert forced["templates"] == list(TEMPLATES)
    embedded = client.post("/embed/text", json={"texts": ["red dog"]}).json()["data"][0]["embedding"]
    assert embedded == pytest.approx(plain.tolist(), abs=1e-5)
    among_texts = asked(client, query="red dog", k=3, **{"in": "texts"})
    assert among_texts["templates"] is None


def test_a_batch_expands_each_of_its_queries_by_itself(client, service):
    queries = [{"text": "red dog"}, {"text": "cat", "expand": "off"}, {"text": "A dog is here."}]
    answers = client.post("/search/batch", json={"queries": queries, "k": 3}).json()["answers"]
    assert [each["templates"] for each in answers] == [list(TEMPLATES), None, None]
    assert scores(answers[0]) == scores(asked(client, query="red dog", k=3))


def test_the_model_says_how_short_queries_are_asked(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert model["short_queries"] == {
        "templates": list(TEMPLATES),
        "most_words": 4,
        "remembered_phrases": 2,
    }


def test_without_templates_to_ask_for_them_is_an_error_that_says_so(service_without, client_without):
    response = client_without.post("/search/text", json={"query": "dog", "expand": "templates"})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "expand"
    assert asked(client_without, query="dog")["templates"] is None


@pytest.fixture(scope="module")
def service_without(releases: Path, settings_for: Callable[..., Settings]) -> Iterator[Running]:
    with running(settings_for(releases)) as started:
        yield started


@pytest.fixture
def client_without(service_without: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service_without.url, timeout=30) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "unknown"),
    [("puppies", None), ("dog", None), ("собака", ["собака"]), ("🐶", ["🐶"]), ("dog собака", None)],
)
def test_words_that_the_text_tower_never_learned_are_told(client, text, unknown):
    assert asked(client, query=text)["unknown_words"] == unknown
