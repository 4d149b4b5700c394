"""Nobody is starved by who asks for much; batches put together ahead; a device thread thrown out of work."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from live_service import image_file, metric, running, wait_until
from string_machine import DEATH, ENCODER, POISON, SPOILS, Machine, hold, started, submit, vectors

from service.device.health import MOST_DEATHS
from service.errors import EncodingFailed, Unavailable


@pytest.mark.parametrize("bulk_kind", ["image", "text"])
def test_a_short_text_comes_into_the_next_batch_whatever_a_bulk_client_has_queued(device, machine, bulk_kind):
    async def scenario() -> None:
        await hold(device, machine)
        bulk = [submit(device, *(f"bulk{i}" for i in range(9)), kind=bulk_kind) for _ in range(5)]
        short = submit(device, "short", kind="text")
        machine.free.set()
        await asyncio.gather(short.done, *(ticket.done for ticket in bulk))

    asyncio.run(scenario())
    before = [batch for batch in machine.batches[1:] if "short" not in batch]
    position = next(i for i, batch in enumerate(machine.batches[1:]) if "short" in batch)
    assert position <= 1  # at most one batch of images goes first
    assert len(before) >= 5


def test_callers_take_turns_however_many_requests_each_has(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        many = [submit(device, f"many{i}", caller="many") for i in range(12)]
        one = submit(device, "one", "two", caller="one")
        machine.free.set()
        await asyncio.gather(one.done, *(ticket.done for ticket in many))

    asyncio.run(scenario())
    assert machine.batches[1][:4] == ["many0", "one", "many1", "two"]


def test_requests_of_one_size_go_in_the_order_they_came_so_that_none_is_late(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        tickets = [submit(device, *(f"{name}{i}" for i in range(6))) for name in "abcd"]
        machine.free.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))

    asyncio.run(scenario())
    assert (
        "".join(item[0] for batch in machine.batches[1:] for item in batch)
        == "a" * 6 + "b" * 6 + "c" * 6 + "d" * 6
    )


def test_a_large_request_has_its_share_however_many_small_ones_keep_coming(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        large = submit(device, *(f"large{i}" for i in range(16)))
        machine.free.set()
        small = [submit(device, f"small{i}") for i in range(8)]
        for number in range(200):
            if large.done.done():
                break
            await small.pop(0).done
            small.append(submit(device, f"small{number + 8}"))
        assert large.done.done()
        await asyncio.gather(*(ticket.done for ticket in small))

    asyncio.run(scenario())


def test_small_requests_that_pass_a_large_one_make_it_wait_by_half_as_long_again_at_most(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        large = submit(device, *(f"large{i}" for i in range(16)))
        small = [submit(device, f"small{i}") for i in range(60)]
        machine.free.set()
        await asyncio.gather(large.done, *(ticket.done for ticket in small))

    asyncio.run(scenario())
    order = [item[0] for batch in machine.batches[1:] for item in batch]
    assert "".join(order) == "s" * 8 + "l" * 16 + "s" * 52


def ahead(machine: Machine, **more: object):
    return machine.device(ahead=True, **more)


def test_the_next_batch_is_put_together_while_the_device_is_busy_and_open_until_it_is_free(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        machine.filled.acquire(blocking=False)
        early = submit(device, "early")
        assert await asyncio.to_thread(machine.filled.acquire, timeout=10)  # and the device is still held
        assert device._queues["image"].ahead.items
        later = submit(device, "later")
        machine.free.set()
        await asyncio.gather(early.done, later.done)

    for device in started(ahead(machine)):
        asyncio.run(scenario(device))
    assert machine.batches == [["first"], ["early", "later"]]


def test_a_batch_that_was_begun_before_the_limit_grew_stays_within_its_builder(machine):
    async def scenario(device) -> None:
        limit = device._queues["image"].limit
        limit.items = 2
        await hold(device, machine)
        machine.filled.acquire(blocking=False)
        early = submit(device, "early")
        assert await asyncio.to_thread(machine.filled.acquire, timeout=10)  # into a builder for two
        limit.items = 8
        later = submit(device, *"abcd")
        machine.free.set()
        await asyncio.gather(early.done, later.done)

    for device in started(ahead(machine)):
        asyncio.run(scenario(device))
    assert machine.batches[1:] == [["early", "a"], ["b", "c", "d"]]


def test_put_together_ahead_or_not_everybody_gets_his_own_answer(machine):
    async def scenario(device) -> None:
        tickets = []
        for number in range(300):
            names = [f"{number}.{item}" for item in range(number % 11 + 1)]
            if number % 50 == 7:
                names[0] = (POISON, SPOILS)[number // 50 % 2]
            tickets.append((names, submit(device, *names, kind=("image", "text")[number % 2], seconds=600)))
            if number % 3 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*(ticket.done for _, ticket in tickets))
        for names, ticket in tickets:
            expected = [EncodingFailed if name in (POISON, SPOILS) else name for name in names]
            assert vectors(ticket) == expected
        assert all(queue.pending == 0 for queue in device._queues.values())

    for device in started(ahead(machine, queue_limit=10_000, queue_bytes=1 << 20)):
        asyncio.run(scenario(device))


def test_what_died_after_it_was_put_together_is_taken_out_again(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        machine.filled.acquire(blocking=False)
        late, kept = submit(device, "late", seconds=0.05), submit(device, "kept")
        await asyncio.to_thread(machine.filled.acquire, timeout=10)
        await asyncio.sleep(0.06)
        machine.free.set()
        await asyncio.gather(late.done, kept.done)

    for device in started(ahead(machine)):
        asyncio.run(scenario(device))
    assert machine.batches == [["first"], ["kept"]]


def test_a_device_thread_that_is_thrown_out_of_a_batch_answers_it_and_goes_on_with_the_next(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        held, waiting = submit(device, "a", DEATH), submit(device, "b", kind="text")
        machine.free.set()
        await asyncio.gather(held.done, waiting.done)
        assert vectors(held) == [EncodingFailed, EncodingFailed]
        assert "the driver gave up" in str(held.outcomes[0])
        assert vectors(waiting) == ["b"]
        assert device.unhealthy_reason() is None

    asyncio.run(scenario())


def test_a_device_thread_that_dies_again_and_again_is_trouble_and_leaves_nobody_waiting(device, machine):
    async def scenario() -> None:
        undecoded = device.admit("image", ENCODER, size=1, deadline=time.perf_counter() + 600)
        for _ in range(MOST_DEATHS + 1):
            await submit(device, DEATH).done
        until = time.monotonic() + 10
        while not device.unhealthy_reason() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert "died 4 times" in device.unhealthy_reason()
        assert device.unhealthy_seconds() > 0
        with pytest.raises(Unavailable, match="the driver gave up"):
            submit(device, "a")
        with pytest.raises(Unavailable, match="the driver gave up"):
            await asyncio.wrap_future(device.call(lambda: None))
        device.put(undecoded, 0, "its image was being decoded meanwhile")
        await asyncio.wait_for(undecoded.done, 10)
        assert vectors(undecoded) == [Unavailable]

    asyncio.run(scenario())


def test_one_image_is_decoded_before_the_rest_of_a_bulk_request(releases, settings_for):
    settings = settings_for(releases, decode_workers=0, decode_threads=1)
    with running(settings) as service:
        decoders, free = service.serving.decoders, threading.Event()
        order, pixels = [], decoders.pixels

        def noted(source, spec):
            order.append(source)
            return pixels(source, spec)

        decoders.pixels = noted
        decoders.submit(free.wait, 10)
        bulk, one = [image_file(number) for number in range(40)], image_file(99)
        with ThreadPoolExecutor(2) as clients:
            files = [("images", data) for data in bulk]
            answers = [clients.submit(service.client.post, "/embed/image", files=files)]
            wait_until(lambda: metric(service, "twinlens_pending_items", kind="image") == 40)
            headers = {"content-type": "image/png"}
            answers.append(clients.submit(service.client.post, "/embed/image", content=one, headers=headers))
            wait_until(lambda: metric(service, "twinlens_pending_items", kind="image") == 41)
            free.set()
            assert [answer.result().status_code for answer in answers] == [200, 200]
        assert order.index(one) <= 1
        assert len(order) == 41


def test_a_kind_that_is_slow_takes_no_longer_turns_than_one_that_is_fast(machine):
    async def scenario(device) -> None:
        device._queues["image"].device_seconds_per_item = 0.05  # four are a turn, though eight are a batch
        await hold(device, machine)
        images = submit(device, *(f"image{i}" for i in range(8)))
        texts = submit(device, *(f"text{i}" for i in range(8)), kind="text")
        machine.free.set()
        await asyncio.gather(images.done, texts.done)

    machine.seconds_per_item = 0.05
    for device in started(machine.device()):
        asyncio.run(scenario(device))
    sizes = [(batch[0][:4], len(batch)) for batch in machine.batches[1:]]
    assert sizes[:2] == [("text", 8), ("imag", 4)]  # how long texts take is not known yet
