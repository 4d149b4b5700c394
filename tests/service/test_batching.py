"""The device thread: batches across callers, poison alone, bounds, deadlines, turns, and a watchdog."""

import asyncio
import threading
import time

import pytest
from string_machine import ENCODER, POISON, hold, started, submit, vectors

from service.device.batching import Device
from service.device.texts import INLINE_CHARACTERS, TextItem, Tokenizing
from service.errors import DeadlineExceeded, EncodingFailed, QueueFull


def test_what_queues_while_the_device_is_busy_becomes_one_batch(device, machine):
    async def scenario() -> None:
        first = await hold(device, machine)
        waiting = [submit(device, name) for name in "abc"]
        machine.free.set()
        await asyncio.gather(first.done, *(ticket.done for ticket in waiting))
        assert [vectors(ticket) for ticket in waiting] == [["a"], ["b"], ["c"]]

    asyncio.run(scenario())
    assert machine.batches == [["first"], ["a", "b", "c"]]


def test_one_poisoned_input_fails_only_itself(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        tickets = [submit(device, "a", "b"), submit(device, "c", POISON, "d"), submit(device, "e")]
        machine.free.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))
        assert [vectors(ticket) for ticket in tickets] == [["a", "b"], ["c", EncodingFailed, "d"], ["e"]]

    asyncio.run(scenario())
    assert device.unhealthy_reason() is None


def test_requests_take_turns_and_so_do_images_and_texts(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        large = submit(device, *(f"large{i}" for i in range(12)))
        small = submit(device, "small")
        text = submit(device, "text", kind="text")
        machine.free.set()
        await asyncio.gather(large.done, small.done, text.done)

    asyncio.run(scenario())
    assert machine.batches[1] == ["text"]
    assert machine.batches[2][:2] == ["small", "large0"]
    assert [len(batch) for batch in machine.batches[2:]] == [8, 5]


def test_a_batch_never_mixes_two_encoders(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        tickets = [
            submit(device, name, encoder=encoder) for name, encoder in zip("abcd", (1, 2, 1, 2), strict=True)
        ]
        machine.free.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))

    asyncio.run(scenario())
    assert machine.batches[1:] == [["a", "c"], ["b", "d"]]


def test_a_full_queue_refuses_and_takes_again_when_it_has_room(machine):
    async def scenario(device: Device) -> None:
        first = await hold(device, machine)
        submit(device, "a", "b")
        with pytest.raises(QueueFull, match="3 images wait and the queue takes 3") as refusal:
            submit(device, "c")
        assert refusal.value.retry_after_seconds >= 1
        machine.free.set()
        await first.done
        while device._queues["image"].pending:
            await asyncio.sleep(0.001)
        await submit(device, "c", "d", "e").done

    for device in started(machine.device(queue_limit=3)):
        asyncio.run(scenario(device))


def test_what_cannot_be_served_before_its_deadline_is_refused_at_once(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        device._queues["image"].device_seconds_per_item = 5.0
        with pytest.raises(
            QueueFull, match=r"takes about 20\.0 s and the request's deadline leaves 1\.0 s"
        ) as refusal:
            submit(device, "late", seconds=1)
        assert refusal.value.code == "deadline_unreachable"
        machine.free.set()

    asyncio.run(scenario())


def test_items_whose_caller_left_or_whose_deadline_passed_are_not_encoded(device, machine):
    async def scenario() -> None:
        await hold(device, machine)
        left, late, kept = submit(device, "left"), submit(device, "late", seconds=0.05), submit(device, "kept")
        left.abandoned = True
        await asyncio.sleep(0.06)
        machine.free.set()
        await asyncio.gather(left.done, late.done, kept.done)
        assert [vectors(ticket) for ticket in (left, late, kept)] == [
            [DeadlineExceeded],
            [DeadlineExceeded],
            ["kept"],
        ]

    asyncio.run(scenario())
    assert machine.batches == [["first"], ["kept"]]


def test_a_device_that_fails_on_known_good_input_is_trouble_until_it_recovers(device, machine):
    async def scenario() -> None:
        machine.broken = True
        await submit(device, "a").done
        assert "known good input: no good at all" in device.unhealthy_reason()
        machine.broken = False
        until = time.monotonic() + 10
        while device.unhealthy_reason() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert device.unhealthy_reason() is None

    asyncio.run(scenario())


def test_trouble_is_over_with_the_first_good_batch_however_busy_the_device_is(device, machine):
    async def scenario() -> None:
        machine.broken = True
        await submit(device, "a").done
        assert device.unhealthy_reason()
        first = await hold(device, machine)
        waiting = submit(device, "b")  # so that the device is never idle, when it would probe by itself
        machine.broken = False
        machine.free.set()
        await asyncio.gather(first.done, waiting.done)
        await asyncio.wrap_future(device.call(lambda: None))  # the probe after the batch has run
        assert device.unhealthy_reason() is None

    asyncio.run(scenario())


def test_trouble_is_over_when_another_encoder_takes_the_place_of_the_one_that_fails(device, machine):
    async def scenario() -> None:
        machine.broken = True
        await submit(device, "a").done
        assert device.unhealthy_reason()
        await asyncio.wrap_future(device.call(lambda: device.adopt("another")))
        assert device.unhealthy_reason() is None
        await submit(device, "b").done  # a straggler for the one that fails says nothing of the new one
        await asyncio.wrap_future(device.call(lambda: None))
        assert device.unhealthy_reason() is None

    asyncio.run(scenario())


def test_a_batch_that_never_comes_back_is_trouble(machine):
    async def scenario(device: Device) -> None:
        await hold(device, machine)
        await asyncio.sleep(0.03)
        assert "on the device for" in device.unhealthy_reason()
        machine.free.set()

    for device in started(machine.device(stall_seconds=0.02)):
        asyncio.run(scenario(device))


def test_what_waits_when_the_device_stops_is_told_so(machine):
    async def scenario(device: Device) -> None:
        first = await hold(device, machine)
        waiting = submit(device, "a")
        undecoded = device.admit("image", ENCODER, size=1, deadline=time.perf_counter() + 600)
        unasked = device.call(lambda: None)
        stopping = asyncio.create_task(asyncio.to_thread(device.stop, timeout_seconds=10))
        while not device._stopping:
            await asyncio.sleep(0.001)
        machine.free.set()
        await asyncio.gather(first.done, waiting.done, stopping)
        assert vectors(first) == ["first"]
        device.put(undecoded, 0, "decoded too late")
        await asyncio.wait_for(undecoded.done, 10)
        for told in (waiting.outcomes[0], undecoded.outcomes[0], unasked.exception(10)):
            assert "shutting down" in str(told)

    device = machine.device()
    device.start()
    asyncio.run(scenario(device))


def test_texts_of_a_caller_who_left_before_their_turn_are_not_tokenized(device):
    async def scenario() -> None:
        tokenizing, free = Tokenizing(device, max_characters=1000), threading.Event()
        tokenizing._thread.submit(free.wait, 10)
        encoder = object()  # nobody may ask it
        tickets = [device.admit("text", encoder, size=1, deadline=time.perf_counter() + 60) for _ in range(2)]
        tickets[1].deadline = time.perf_counter()
        for ticket in tickets:
            tokenizing.begin(ticket, [TextItem("x" * (INLINE_CHARACTERS + 1), may_be_cut=True)])
        device.abandon(tickets[0])
        free.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))
        assert [vectors(ticket) for ticket in tickets] == [[DeadlineExceeded], [DeadlineExceeded]]
        tokenizing.stop()

    asyncio.run(scenario())
