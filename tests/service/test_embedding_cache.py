"""Embeddings given again: never another's, never an error's, computed once for all who ask at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from live_service import device_held, image_file, metric, publish, running, wait_until

from service.device.cache import ENTRY_BYTES, EmbeddingCache, VectorCache
from service.device.tickets import Embedded
from service.errors import EncodingFailed
from service.watch.telemetry import Telemetry

PNG = {"content-type": "image/png"}


def embedded(value: float, *, dim: int = 4) -> Embedded:
    return Embedded(np.full(dim, value, dtype=np.float32), tokens=3)


def items_encoded(service, kind: str) -> float:
    return metric(service, "twinlens_batch_items_sum", kind=kind)


@pytest.fixture
def cached(releases, settings_for):
    with running(settings_for(releases, cache_bytes=1 << 20)) as service:
        yield service


def test_the_least_recently_used_goes_first_and_the_bytes_stay_within_the_bound():
    one = 16 + ENTRY_BYTES
    cache = VectorCache(3 * one)
    for name in (b"a", b"b", b"c"):
        cache.put(name, embedded(1))
    assert cache.get(b"a")
    cache.put(b"d", embedded(2))
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    cache.put(b"a", embedded(3))
    assert (len(cache), cache.size_bytes) == (3, 3 * one)
    cache.put(b"huge", embedded(4, dim=4096))
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_what_is_kept_is_no_part_of_a_batch_and_nobody_can_change_it():
    batch = np.ones((64, 4), dtype=np.float32)
    cache = VectorCache(1 << 20)
    cache.put(b"a", Embedded(batch[3]))
    batch[:] = 7
    kept = cache.get(b"a").vector
    assert kept.base is None
    assert kept.tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 5


def test_many_threads_at_once_leave_the_books_in_order():
    cache = VectorCache(50 * (16 + ENTRY_BYTES))

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 200, 2000).tolist():
            name = str(number).encode()
            found = cache.get(name)
            assert found is None or found.vector[0] == number
            cache.put(name, embedded(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert cache.size_bytes == len(cache) * (16 + ENTRY_BYTES) == 50 * (16 + ENTRY_BYTES)


def test_an_image_or_text_asked_for_again_is_not_encoded_again(cached):
    for kind, ask in (
        ("image", lambda: cached.client.post("/embed/image", content=image_file(1), headers=PNG)),
        ("text", lambda: cached.client.post("/embed/text", json={"texts": "a dog"})),
    ):
        first = ask()
        before = items_encoded(cached, kind)
        again = ask()
        assert again.status_code == 200
        assert again.content == first.content
        assert items_encoded(cached, kind) == before
    assert metric(cached, "twinlens_cache_lookups_total", outcome="hit") == 2
    assert metric(cached, "twinlens_cache_lookups_total", outcome="miss") == 2
    assert metric(cached, "twinlens_cache_entries") == 2
    assert 0 < metric(cached, "twinlens_cache_bytes") <= metric(cached, "twinlens_cache_limit_bytes")


def test_two_images_of_one_size_never_share(cached, service):
    for seed in (1, 2, 1, 2):
        answer = cached.client.post("/embed/image", content=image_file(seed), headers=PNG).json()
        sure = service.client.post("/embed/image", content=image_file(seed), headers=PNG).json()
        assert np.allclose(answer["data"][0]["embedding"], sure["data"][0]["embedding"], atol=1e-6)


def test_dimensions_and_cut_texts_are_answered_right_from_what_is_kept(cached):
    whole = cached.client.post("/embed/text", json={"texts": "a red dog"}).json()["data"][0]["embedding"]
    head = cached.client.post("/embed/text", json={"texts": "a red dog", "dimensions": 4}).json()["data"][0]
    assert np.allclose(head["embedding"], np.array(whole[:4]) / np.linalg.norm(whole[:4]), atol=1e-6)
    long = "white " * 50
    assert cached.client.post("/embed/text", json={"texts": long}).json()["data"][0]["truncated"]
    refused = cached.client.post("/embed/text", json={"texts": long, "truncate": "none"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_too_long")


def test_another_encoder_never_serves_the_old_ones_vector(
    tmp_path, gallery, tiny_bundle, other_tiny_bundle, settings_for
):
    folder = tmp_path / "releases"
    publish(folder, gallery, tiny_bundle)
    with running(settings_for(folder, cache_bytes=1 << 20)) as service:
        for bundle in (tiny_bundle, other_tiny_bundle, tiny_bundle):
            publish(folder, gallery, bundle)
            service.client.post("/release/reload")
            encoder = service.serving.state.encoder
            answer = service.client.post("/embed/text", json={"texts": "a dog"}).json()
            expected = encoder.encode_texts(["a dog"]).vectors[0]
            assert np.allclose(answer["data"][0]["embedding"], expected, atol=1e-6)


def test_errors_are_not_kept(cached):
    for _ in range(2):
        broken = cached.client.post("/embed/image", content=b"no image", headers=PNG)
        assert broken.json()["error"]["code"] == "undecodable_image"
    assert cached.client.post("/embed/text", json={"texts": " "}).status_code == 422
    assert metric(cached, "twinlens_cache_entries") == 0
    assert metric(cached, "twinlens_cache_lookups_total", outcome="hit") == 0


def test_equal_requests_at_once_are_computed_once(cached):
    def ask(_: int) -> object:
        return cached.client.post("/embed/text", json={"texts": ["a cat", "a cat"]}).json()["data"]

    before = items_encoded(cached, "text")
    with ThreadPoolExecutor(8) as clients:
        with device_held(cached):
            answers = [clients.submit(ask, number) for number in range(8)]
            wait_until(lambda: cached.serving.in_flight == 8)
        found = [answer.result() for answer in answers]
    assert items_encoded(cached, "text") == before + 1
    assert all(data[row]["embedding"] == found[0][0]["embedding"] for data in found for row in (0, 1))


@pytest.mark.parametrize("end", ["cancelled", "fails", "raises"])
def test_who_waits_for_a_computation_that_comes_to_nothing_computes_it_himself(end):
    async def scenario() -> None:
        cache, entered = EmbeddingCache(1 << 20, Telemetry()), asyncio.Event()
        go_on = asyncio.Event()

        async def ends(rows):
            entered.set()
            await go_on.wait()
            if end == "raises":
                raise EncodingFailed("refused")
            return [EncodingFailed("failed") for _ in rows]

        async def works(rows):
            return [embedded(1) for _ in rows]

        first = asyncio.create_task(cache.through([b"a"], ends))
        await entered.wait()
        waiting = [asyncio.create_task(cache.through([b"a"], works)) for _ in range(3)]
        leaver = asyncio.create_task(cache.through([b"a"], works))
        await asyncio.sleep(0)
        leaver.cancel()
        if end == "cancelled":
            first.cancel()
        go_on.set()
        for task in waiting:
            (outcome,) = await task
            assert outcome.vector.tolist() == [1, 1, 1, 1]
        with pytest.raises(asyncio.CancelledError):
            await leaver
        (told,) = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(
            told, {"cancelled": asyncio.CancelledError, "fails": list, "raises": EncodingFailed}[end]
        )
        assert not cache._under_way

    asyncio.run(scenario())


def test_a_follower_that_leaves_does_not_take_the_computation_with_it():
    async def scenario() -> None:
        cache, go_on = EmbeddingCache(1 << 20, Telemetry()), asyncio.Event()
        computed = []

        async def compute(rows):
            await go_on.wait()
            computed.extend(rows)
            return [embedded(2) for _ in rows]

        leader, leaver, stays = (asyncio.create_task(cache.through([b"a"], compute)) for _ in range(3))
        await asyncio.sleep(0.01)
        leaver.cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert (await leader)[0].vector.tolist() == (await stays)[0].vector.tolist() == [2, 2, 2, 2]
        assert computed == [0]

    asyncio.run(scenario())


def test_without_cache_bytes_nothing_is_kept(service):
    assert service.serving.embedder._cache is None
    assert metric(service, "twinlens_cache_entries") == 0
