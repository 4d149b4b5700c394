"""`/embed` and `/v1`: every way in, every form out, and one bad item among good ones."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from live_service import Running, image_file
from PIL import Image

from encoders.encoder import Encoder
from encoders.images import decode_image
from service.device.texts import longest_run

PNG = {"content-type": "image/png"}
LONG_TEXT = "a b c d e f g h i j k l m n o p q r s t"


@pytest.fixture(scope="module")
def encoder(tiny_bundle):
    """Another instance than the service's, which its device thread owns."""
    return Encoder.load(tiny_bundle, device="cpu")


def vectors_in(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], dtype=np.float32)


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def direct(encoder: Encoder, *images: bytes) -> np.ndarray:
    return encoder.encode_images([decode_image(data) for data in images])


def test_an_image_as_body_form_base64_and_data_uri_gives_the_encoders_own_vector(client, encoder):
    data = image_file(100)
    expected = direct(encoder, data)
    ways = (
        client.post("/embed/image", content=data, headers=PNG),
        client.post("/embed/image", files={"images": ("a.png", data, "image/png")}),
        client.post("/embed/image", json={"images": as_base64(data)}),
        client.post("/embed/image", json={"images": [f"data:image/png;base64,{as_base64(data)}"]}),
        client.post("/v1/embeddings", json={"input": as_base64(data), "modality": "image"}),
        client.post("/v1/embeddings", json={"input": [{"image": as_base64(data)}], "model": "tiny"}),
    )
    for response in ways:
        np.testing.assert_allclose(vectors_in(response), expected, atol=1e-6)


def test_texts_give_the_encoders_own_vectors_in_order(client, encoder):
    texts = ["a red dog", "the blue car on a square", "cat"]
    expected = encoder.encode_texts(texts).vectors
    for path, body in (("/embed/text", {"texts": texts}), ("/v1/embeddings", {"input": texts})):
        np.testing.assert_allclose(vectors_in(client.post(path, json=body)), expected, atol=1e-6)
    np.testing.assert_allclose(
        vectors_in(client.post("/embed/text", json={"texts": texts[0]})), expected[:1], atol=1e-6
    )


def test_the_answer_names_the_model_and_its_fingerprint(client, encoder):
    answer = client.post("/embed/text", json={"texts": "a dog"}).json()
    assert (answer["model"], answer["model_fingerprint"], answer["dim"]) == ("tiny", encoder.fingerprint, 16)


def test_base64_and_octets_carry_the_same_numbers_as_the_list(client):
    body = {"texts": ["a red dog", "a cat"]}
    listed = vectors_in(client.post("/embed/text", json=body))
    coded = client.post("/embed/text", json=body | {"encoding_format": "base64"}).json()["data"]
    raw = client.post("/embed/text", json=body, headers={"accept": "application/octet-stream"})
    unpacked = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in coded]
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["x-dim"] == "16"
    np.testing.assert_array_equal(unpacked, listed)
    np.testing.assert_array_equal(np.frombuffer(raw.content, "<f4").reshape(2, 16), listed)


def test_dimensions_cut_the_vector_and_make_it_unit_again(client):
    whole = vectors_in(client.post("/embed/text", json={"texts": "a dog"}))[0]
    cut = vectors_in(client.post("/embed/text", json={"texts": "a dog", "dimensions": 5}))[0]
    np.testing.assert_allclose(cut, whole[:5] / np.linalg.norm(whole[:5]), atol=1e-6)
    image = client.post("/embed/image?dimensions=5&encoding_format=base64", content=image_file(1), headers=PNG)
    assert len(base64.b64decode(image.json()["data"][0]["embedding"])) == 20


def test_one_bad_item_never_fails_the_others(client, encoder):
    good = image_file(7)
    sent = [as_base64(good), "!!!", as_base64(b"no image"), "https://example.com/a.png", as_base64(good)]
    response = client.post("/embed/image", json={"images": sent})
    data = response.json()["data"]
    assert [item.get("error", {}).get("code") for item in data] == [
        None,
        "invalid_base64",
        "undecodable_image",
        "url_not_fetched",
        None,
    ]
    np.testing.assert_allclose(
        [data[0]["embedding"], data[4]["embedding"]], direct(encoder, good, good), atol=1e-6
    )
    raw = client.post("/embed/image", json={"images": sent}, headers={"accept": "application/octet-stream"})
    rows = np.frombuffer(raw.content, "<f4").reshape(5, 16)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True, True, False]
    assert raw.headers["x-item-errors"] == "1:invalid_base64,2:undecodable_image,3:url_not_fetched"


def image_of(size: tuple[int, int], mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "undecodable_image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 400, "undecodable_image"),
        (image_file(1)[:-40], 400, "undecodable_image"),
        (image_of((1, 1)), 422, "image_too_small"),
        (image_of((9000, 8000), "1"), 413, "image_too_large"),
        (image_of((2, 5000)), 422, "image_too_narrow"),
    ],
)
def test_a_hostile_image_is_a_client_error_and_the_next_one_is_served(client, data, status, code):
    response = client.post("/embed/image", content=data, headers=PNG)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert client.post("/embed/image", content=image_file(1), headers=PNG).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_when_every_item_is_bad_the_request_fails_with_their_status_or_400(client):
    agreed = client.post("/embed/text", json={"texts": ["", "  "]})
    differing = client.post("/embed/image", json={"images": ["!!!", as_base64(b"no image")]})
    assert (agreed.status_code, agreed.json()["error"]["code"]) == (422, "empty_text")
    assert (differing.status_code, differing.json()["error"]["code"]) == (400, "all_items_failed")


def test_a_long_text_is_cut_with_a_word_or_refused_with_count_and_limit(client):
    cut = client.post("/embed/text", json={"texts": [LONG_TEXT, "a dog"]}).json()["data"]
    refused = client.post("/embed/text", json={"texts": [LONG_TEXT], "truncate": "none"})
    assert [item["truncated"] for item in cut] == [True, False]
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_too_long")
    assert "22 tokens" in refused.json()["error"]["message"]
    assert "reads 16" in refused.json()["error"]["message"]


def test_openai_inputs_may_mix_texts_and_images_and_keep_their_order(client, encoder):
    data = image_file(3)
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{as_base64(data)}"}}
    parted = client.post("/v1/embeddings", json={"input": [part, {"type": "text", "text": "a dog"}]})
    mixed = [{"text": "a dog"}, {"image": as_base64(data)}, "a cat"]
    response = client.post("/v1/embeddings", json={"input": mixed, "encoding_format": "base64", "user": "x"})
    answer = response.json()
    vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    texts = encoder.encode_texts(["a dog", "a cat"]).vectors
    np.testing.assert_allclose(vectors, [texts[0], direct(encoder, data)[0], texts[1]], atol=1e-6)
    np.testing.assert_allclose(vectors_in(parted), [vectors[1], vectors[0]], atol=1e-6)
    assert answer["object"] == "list"
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"input": [[1, 2, 3]]}, 422, "token_ids_not_taken"),
        ({"input": [1, 2, 3]}, 422, "token_ids_not_taken"),
        ({"input": "a", "model": "gpt"}, 404, "model_not_found"),
        ({"input": ["a", ""]}, 422, "empty_text"),
        ({"input": [{"text": "a", "image": "b"}]}, 422, "invalid_field"),
        (
            {"input": [{"type": "image_url", "image_url": {"url": "https://x.org/"}}]},
            422,
            "url_not_fetched",
        ),
        ({"input": []}, 422, "invalid_field"),
    ],
)
def test_openai_errors_fail_the_whole_request(client, body, status, code):
    response = client.post("/v1/embeddings", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["param"] in {"input", "model"}


def test_models_lists_the_one_that_is_served(client, encoder):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["model_fingerprint"]) == ("tiny", "model", encoder.fingerprint)


def test_32_callers_at_once_each_get_the_vector_of_their_own_image(service: Running, encoder):
    images = [image_file(1000 + caller) for caller in range(32)]
    expected = direct(encoder, *images)
    before = service.serving.telemetry.registry.get_sample_value(
        "twinlens_batch_items_count", {"kind": "image"}
    )

    def ask(caller: int) -> list[np.ndarray]:
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            sent = [client.post("/embed/image", content=images[caller], headers=PNG) for _ in range(4)]
        return [vectors_in(response)[0] for response in sent]

    with ThreadPoolExecutor(32) as pool:
        for caller, vectors in enumerate(pool.map(ask, range(32))):
            np.testing.assert_allclose(vectors, np.tile(expected[caller], (4, 1)), atol=1e-6)
    after = service.serving.telemetry.registry.get_sample_value("twinlens_batch_items_count", {"kind": "image"})
    assert after - (before or 0) < 128  # 128 requests shared batches


def test_very_many_failures_stay_a_header_that_proxies_take(client):
    body = {"texts": ["a", *[" "] * 511]}
    raw = client.post("/embed/text", json=body, headers={"accept": "application/octet-stream"})
    told = raw.headers["x-item-errors"]
    assert told.startswith("1:empty_text,2:empty_text,")
    assert told.endswith(",64:empty_text,+447")
    assert np.isnan(np.frombuffer(raw.content, "<f4").reshape(512, 16)[1:]).all()


def test_letters_or_signs_without_a_break_are_measured_and_only_they(client):
    assert (
        longest_run("a" * 501)
        == longest_run("word " + "é" * 501)
        == longest_run("9" * 9 + "!_" * 250 + "!")
        == 501
    )
    assert longest_run("word, " * 200) < 10
    assert longest_run("7" * 1000) == 0
    assert client.post("/embed/text", json={"texts": "a" * 600}).status_code == 200  # no such bound here
