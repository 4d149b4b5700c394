"""A caller with much to do leaves room in the queues for the others."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from live_service import Running, device_held, metric, running, wait_until

from service.access.keys import create_key
from service.access.quotas import Quotas

FOUR = {"texts": ["a", "b", "c", "d"]}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def admitted(service: Running, count: int) -> None:
    wait_until(lambda: metric(service, "twinlens_pending_items", kind="text") == count)


def test_a_bulk_key_leaves_as_much_of_the_queue_free_as_it_holds(releases, settings_for, keys_file):
    keys = {name: create_key(keys_file, name, scopes=("read",)) for name in ("bulk", "shop")}
    settings = settings_for(releases, keys_file=keys_file, text_queue=12, max_texts=8)
    with running(settings) as service, ThreadPoolExecutor(4) as pool:

        def embed(name: str, body: object = FOUR) -> httpx.Response:
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                return client.post("/embed/text", json=body, headers={"x-api-key": keys[name]})

        with device_held(service):
            first = pool.submit(embed, "bulk")
            admitted(service, 4)
            second = pool.submit(embed, "bulk")  # 4 held and 4 more: as much as the 8 that are free
            admitted(service, 8)
            refused = embed("bulk", {"texts": ["a"]})
            other = pool.submit(embed, "shop")  # the last 4
            admitted(service, 12)
            full = embed("shop")
        assert [each.result().status_code for each in (first, second, other)] == [200] * 3
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_share")
        assert int(refused.headers["retry-after"]) >= 1
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        admitted(service, 0)
        assert embed("bulk", {"texts": ["a"] * 8}).status_code == 200  # one large request has the whole queue


def test_a_bulk_key_leaves_room_among_the_searches_too(releases, settings_for, keys_file):
    keys = {name: create_key(keys_file, name, scopes=("read",)) for name in ("bulk", "shop")}
    with running(settings_for(releases, keys_file=keys_file, search_queue=4)) as service:
        item = service.serving.state.release.items.id(0)
        free = threading.Event()
        searcher = service.serving.searcher
        searcher._pool.submit(free.wait, 30)

        def search(name: str) -> httpx.Response:
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                return client.post("/search/item", json={"id": item}, headers={"x-api-key": keys[name]})

        with ThreadPoolExecutor(3) as pool:
            try:
                asked = []
                for name, waiting in (("bulk", 1), ("bulk", 2), ("shop", 3)):
                    asked.append(pool.submit(search, name))
                    wait_until(lambda: searcher._pending == waiting)  # noqa: B023 - called at once
                refused = search("bulk")
            finally:
                free.set()
        assert [each.result().status_code for each in asked] == [200] * 3
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_share")
        assert search("bulk").status_code == 200


def test_what_each_holds_is_counted_and_forgotten():
    shares = Quotas()
    assert [shares.excess("a", 100, free=100), shares.excess("", 100, free=1)] == [0, 0]
    shares.take("a", 6)
    assert [shares.excess("a", size, free=4) for size in (1, 2, 4)] == [2, 2, 3]
    assert shares.excess("b", 4, free=4) == 0
    shares.give_back("a", 6)
    assert not shares._held


def test_without_keys_one_may_fill_the_queue(releases, settings_for):
    with running(settings_for(releases, text_queue=8, max_texts=8)) as service, ThreadPoolExecutor(2) as pool:
        with device_held(service):
            asked = []
            for count in (4, 8):
                asked.append(
                    pool.submit(httpx.post, f"{service.url}/embed/text", json=FOUR, trust_env=False, timeout=60)
                )
                admitted(service, count)
        assert [each.result().status_code for each in asked] == [200, 200]
