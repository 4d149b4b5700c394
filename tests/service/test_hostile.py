"""Hundreds of hostile images, sent to the real service, several at once."""

import base64
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from hostile_files import ANY, OK, Hostile
from hostile_images import MARKER, all_hostile
from live_service import Running, image_file, running
from test_embed import direct

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.images import Preprocessing
from service.decoding.decoders import memory_bytes
from service.decoding.images import ImageLimits, decode_pixels
from service.errors import report

MAX_PIXELS = 4_000_000
AT_ONCE = 8
MEBIBYTE = 1 << 20
CODES_AND_STATUS = {
    "undecodable_image": 400,
    "image_too_large": 413,
    "image_too_small": 422,
    "image_too_narrow": 422,
}


@pytest.fixture(scope="module")
def hostile() -> list[Hostile]:
    return all_hostile(Path(tempfile.gettempdir()))


@pytest.fixture(scope="module")
def service(releases, settings_for) -> Iterator[Running]:
    settings = settings_for(
        releases, decode_workers=2, max_image_pixels=MAX_PIXELS, max_body_bytes=8 * MEBIBYTE
    )
    with running(settings) as started:
        yield started


def test_there_are_hundreds_each_under_its_own_name(hostile):
    assert len(hostile) >= 500
    assert len({one.name for one in hostile}) == len(hostile)
    assert len({one.data for one in hostile}) >= len(hostile) - 20


def test_every_hostile_image_gets_its_4xx_and_good_ones_their_vector_all_the_while(
    client, service, hostile, tiny_bundle
):
    good = image_file(3)
    expected = direct(Encoder.load(tiny_bundle, device="cpu"), good)[0]

    def ask(number: int) -> tuple[str, str]:
        one = hostile[number]
        if number % 16 == 0:
            told = send(client, 0, good)
            np.testing.assert_allclose(told.json()["data"][0]["embedding"], expected, atol=1e-6)
        return one.name, told_code(send(client, number, one.data))

    with ThreadPoolExecutor(AT_ONCE) as callers:
        told = dict(callers.map(ask, range(len(hostile))))
    wrong = {one.name: told[one.name] for one in hostile if one.code not in (ANY, told[one.name])}
    assert wrong == {}
    assert client.get("/readyz").status_code == 200
    assert peak_bytes(service) < memory_bytes(service.serving.settings) < 400 * MEBIBYTE
    assert 'decoder_ends_total{cause="crashed"}' not in client.get("/metrics").text
    assert not (Path(tempfile.gettempdir()) / MARKER).exists()  # no PostScript was run


def test_a_decoder_gives_the_pixels_and_the_words_that_a_thread_does(service, hostile):
    spec = Preprocessing(height=40, width=32, resize="shortest")
    limits = ImageLimits(MAX_PIXELS, 2)
    differing = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is odd in a file; a decoder has nobody to tell
        for one in hostile:
            there = outcome(lambda data=one.data: service.serving.decoders.pixels(data, spec))
            here = outcome(lambda data=one.data: decode_pixels(data, spec, limits=limits))
            if there != here:
                differing.append((one.name, there[:80], here[:80]))
    assert differing == []


def outcome(decode) -> bytes:
    """Pixels, or the error as a caller is told of it."""
    try:
        return decode().tobytes()
    except TwinlensError as error:
        return repr(report(error)).encode()


def send(client: httpx.Client, number: int, data: bytes) -> httpx.Response:
    """In each of the ways an image can come."""
    if number % 3 == 1 and data:
        return client.post("/embed/image", files={"images": ("a.png", data, "image/gif")})
    if number % 3 == 2 and data:
        return client.post("/embed/image", json={"images": base64.b64encode(data).decode()})
    return client.post("/embed/image", content=data, headers={"content-type": "image/jpeg"})


def told_code(answer: httpx.Response) -> str:
    if answer.status_code == 200:
        vector = np.array(answer.json()["data"][0]["embedding"])
        assert np.isfinite(vector).all()
        assert abs(np.linalg.norm(vector) - 1) < 1e-5
        return OK
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param", "type"}
    assert answer.status_code == CODES_AND_STATUS[error["code"]], answer.text
    return error["code"]


def peak_bytes(service: Running) -> int:
    """The most memory that any of the decoders now alive has had."""
    peaks = []
    for process_id in service.serving.decoders.process_ids():
        status = Path(f"/proc/{process_id}/status").read_text()
        peaks.append(int(status.split("VmHWM:")[1].split()[0]) * 1024)
    assert peaks
    return max(peaks)
