"""JSON that is made to cost more than its bytes: refused, with a short word, before it does."""

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from service.wire.bodies import MANY, PLAIN
from service.wire.live import ChangeItemsRequest, PutItemRequest
from service.wire.schemas import EmbedImageRequest, EmbedTextRequest, SearchVectorRequest

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (EmbedTextRequest, "texts"),
        (EmbedImageRequest, "images"),
        (SearchVectorRequest, "vector"),
        (PutItemRequest, "vector"),
        (ChangeItemsRequest, "put"),
        (ChangeItemsRequest, "delete"),
    ],
)
def test_of_a_list_only_the_first_bad_one_is_told(model: type[BaseModel], name: str):
    body = orjson.dumps({"model_fingerprint": "f", name: [None] * 900})
    with pytest.raises(ValidationError) as refused:
        model.model_validate_json(body)
    assert refused.value.error_count() < 10


@pytest.mark.parametrize(
    ("part", "bound"),
    [(b"[],", "parts"), (b'{"a":1},', "parts"), (b'"a":1,', "parts"), (b"1,", "values")],
    ids=["lists", "objects", "fields", "numbers"],
)
def test_json_of_very_many_parts_is_413_before_it_is_parsed(client, part, bound):
    for path, bounds in (("/embed/image", PLAIN), ("/embed/text", PLAIN), ("/search/batch", MANY)):
        lists = b'{"images": [' + part * getattr(bounds, bound) + b"1]}"
        answer = client.post(path, content=lists, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        assert f"{bounds.parts} and {bounds.values} are taken" in answer.json()["error"]["message"]


def test_signs_within_long_texts_count_as_nothing(client):
    text = "red, [blue], {green: white}, " * 2800
    answer = client.post("/embed/text", json={"texts": [text] * 50})
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 50


def test_a_value_of_any_size_is_told_in_a_few_words(client):
    for k in ("x" * 100_000, [1] * 10_000, {"a": "b" * 100_000}, {f"k{n}": n for n in range(9999)}):
        answer = client.post("/search/text", json={"query": "a", "k": k})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "k")
        assert len(answer.json()["error"]["message"]) < 300


def test_a_filter_beside_an_image_that_is_no_json_is_told_as_such(client):
    answer = client.post("/search/image?filter={", content=b"x", headers={"content-type": "image/png"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_json", "filter")
    assert error["message"].startswith("filter is not JSON: ")
