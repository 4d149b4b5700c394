"""The search thread's queue: who is refused, and when they are told to come again."""

import asyncio
import time

import pytest

from service.errors import QueueFull
from service.search.thread import Searcher
from service.watch.telemetry import Telemetry, Timings

SECONDS = 0.6  # of one search


def test_who_is_refused_comes_again_when_there_is_room_and_after_those_before_him():
    async def scenario() -> list[int]:
        searcher = Searcher(queue_limit=2, telemetry=Telemetry(), stall_seconds=30)

        async def search() -> None:
            await searcher.run(lambda: time.sleep(SECONDS), timings=Timings())

        await search()
        waiting = [asyncio.ensure_future(search()) for _ in range(2)]
        await asyncio.sleep(0)
        told = []
        for _ in range(6):
            with pytest.raises(QueueFull, match=r"2 searches wait .* send this again in \d s") as refused:
                await search()
            told.append(refused.value.retry_after_seconds)
        await asyncio.gather(*waiting)
        await search()
        searcher.stop()
        return told

    told = asyncio.run(scenario())
    assert told == sorted(told)
    assert told[0] == 1
    assert 6 * SECONDS < told[-1] <= 12 * SECONDS
