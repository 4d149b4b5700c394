"""When memory runs out: decoders are the first to go, and what can keep them from that is told at the start."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hostile_files import png
from live_service import image_file, spawned, until_it_serves, wait_until
from memory_group import MemoryGroup, memory_group
from processes import children_of, is_running

PNG = {"content-type": "image/png"}
ROOM_BYTES = 96 << 20  # a small image takes a tenth of it, the large one three times as much
LARGE = png(8000, 8000, rows=bytes(24_001 * 8000))


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group() as made:
        yield made


def embed(url: str, data: bytes) -> httpx.Response:
    return httpx.post(f"{url}/embed/image", content=data, headers=PNG, timeout=120, trust_env=False)


def test_large_images_get_503_and_small_ones_200_when_memory_runs_out(group, releases):
    variables = {"TWINLENS_RELEASES": str(releases), "TWINLENS_DECODE_WORKERS": "2"}
    with spawned("--port", "0", "--device", "cpu", **variables) as process:
        group.limit(16 << 30)
        group.take(process.pid)
        url, _ = until_it_serves(process)
        assert embed(url, LARGE).status_code == 200
        assert embed(url, image_file(1)).status_code == 200
        group.limit(group.used_bytes() + ROOM_BYTES)  # the service holds much more than half of it
        with ThreadPoolExecutor(2) as callers:
            large = callers.submit(lambda: [embed(url, LARGE) for _ in range(4)])
            small = []
            while not large.done():
                small.append(embed(url, image_file(len(small))))
        assert process.poll() is None
        assert {(answer.status_code, answer.headers.get("retry-after")) for answer in large.result()} == {
            (503, "1")
        }
        assert {answer.status_code for answer in small} == {200}
        group.limit(None)
        assert embed(url, LARGE).status_code == 200
        processes = [process.pid, *children_of(process.pid)]
    wait_until(lambda: not any(map(is_running, processes)))
