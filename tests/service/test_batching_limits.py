"""Bounds in items, bytes and tokens, honest refusals, and memory that runs out and comes back."""

import asyncio
import threading
import time

import pytest
import torch
from string_machine import hold, started, submit, vectors

from service.device.batches import is_out_of_memory
from service.device.queues import GROW_AFTER_BATCHES, BatchLimit
from service.device.tickets import Embedded
from service.errors import QueueFull, TooLarge, Unavailable


def limit_of(device) -> int:
    return device._queues["image"].limit.items


def test_a_queue_is_bounded_in_bytes_as_well(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        waiting = submit(device, "x" * 900)
        with pytest.raises(QueueFull, match="the queue takes 1000 bytes"):
            submit(device, "y" * 200)
        with pytest.raises(TooLarge, match="take 1001 bytes while they wait, and the queue holds 1000"):
            submit(device, "z" * 1001)
        submit(device, "y" * 200, kind="text")  # another queue
        machine.free.set()
        await waiting.done
        await submit(device, "y" * 200).done

    for device in started(machine.device()):
        asyncio.run(scenario(device))


def test_a_batch_of_texts_is_bounded_in_tokens_and_takes_one_that_is_too_long_alone(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        tickets = [
            submit(device, name, kind="text", cost=cost)
            for name, cost in (("a", 4), ("b", 4), ("c", 4), ("huge", 99), ("d", 1))
        ]
        machine.free.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))

    for device in started(machine.device(cost=10)):
        asyncio.run(scenario(device))
    assert machine.batches[1:] == [["a", "b"], ["c"], ["huge"], ["d"]]


@pytest.mark.parametrize("deadline_seconds", [60.0, 0.4])
def test_who_waits_as_long_as_the_refusal_says_gets_in(machine, deadline_seconds):
    """Against an encoder of 50 ms an item, whose throughput the device has to find out."""

    async def scenario(device) -> None:
        await submit(device, "a", "b", "c").done
        waiting = [submit(device, str(number), seconds=60) for number in range(20)]
        with pytest.raises(QueueFull) as refusal:
            submit(device, *"ABCD", seconds=deadline_seconds)
        seconds = refusal.value.retry_after_seconds
        assert 1 <= seconds <= 20 * 0.05 * 3 + 1  # a busy machine is slower than its encoder
        await asyncio.sleep(seconds)
        late = submit(device, *"ABCD", seconds=deadline_seconds if deadline_seconds > 1 else 10)
        await asyncio.gather(late.done, *(ticket.done for ticket in waiting))
        assert vectors(late) == list("ABCD")

    machine.seconds_per_item = 0.05
    for device in started(machine.device(queue_limit=20, timed=True)):
        asyncio.run(scenario(device))


def test_what_was_admitted_before_the_device_became_slow_is_refused_before_its_deadline(machine):
    told: dict[str, float] = {}
    codes: set[tuple[str, bool]] = set()

    async def scenario(device) -> None:
        queue, free, entered = device._queues["image"], threading.Event(), threading.Event()
        queue.device_seconds_per_item = 1e-4  # so fast it was
        device.call(lambda: (entered.set(), free.wait(10)))
        await asyncio.to_thread(entered.wait, 10)
        begun = time.monotonic()

        async def ask(name: str) -> list[object]:
            ticket = submit(device, name, seconds=2)
            try:
                await ticket.done
            except QueueFull as refusal:
                device.abandon(ticket)  # as the embedder does
                told[name] = time.monotonic() - begun
                codes.add((refusal.code, bool(refusal.retry_after_seconds)))
            return vectors(ticket)

        tasks = [asyncio.create_task(ask(f"{number}")) for number in range(40)]
        await asyncio.sleep(0)
        machine.seconds_per_item = 0.1
        queue.busy_from = time.perf_counter()
        free.set()
        answers = await asyncio.gather(*tasks)
        served = {name for (name,) in answers if isinstance(name, str)}
        assert told.keys() == {str(number) for number in range(40)} - served
        assert len(served) >= 8

    for device in started(machine.device(queue_limit=100, timed=True)):
        asyncio.run(scenario(device))
    assert len(told) >= 20
    assert max(told.values()) < 1.9
    assert codes == {("deadline_unreachable", True)}
    assert not told.keys() & {name for batch in machine.batches for name in batch}


def test_what_waits_of_a_caller_who_left_makes_room_at_once(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        gone = submit(device, "a", "b")
        with pytest.raises(QueueFull):
            submit(device, "c")
        device.abandon(gone)
        await gone.done
        kept = submit(device, "c", "d")
        machine.free.set()
        await kept.done

    for device in started(machine.device(queue_limit=3)):
        asyncio.run(scenario(device))
    assert machine.batches == [["first"], ["c", "d"]]


def test_a_device_that_is_stuck_takes_nothing_more(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        await asyncio.sleep(0.03)
        with pytest.raises(Unavailable, match="on the device for") as refusal:
            submit(device, "late")
        assert refusal.value.retry_after_seconds
        machine.free.set()

    for device in started(machine.device(stall_seconds=0.02)):
        asyncio.run(scenario(device))


def test_running_out_of_memory_halves_the_batch_loses_nothing_and_is_forgotten_slowly(machine):
    async def scenario(device) -> None:
        machine.fits = 3
        await hold(device, machine)
        tickets = [submit(device, name) for name in "abcdefgh"]
        machine.free.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))
        assert [vectors(ticket) for ticket in tickets] == [[name] for name in "abcdefgh"]
        assert [len(batch) for batch in machine.batches[1:]] == [8, 4, 2, 2, 2, 2]
        assert limit_of(device) == 2
        machine.fits = None
        for _ in range(12 * GROW_AFTER_BATCHES):
            await submit(device, "x").done
        assert limit_of(device) == 8
        await asyncio.wrap_future(device.call(lambda: None))
        assert device.unhealthy_reason() is None

    for device in started(machine.device()):
        asyncio.run(scenario(device))


def test_a_batch_put_together_before_the_limit_was_halved_does_not_halve_it_again():
    limit = BatchLimit(32)
    limit.shrink(32)
    limit.shrink(32)  # it waited while the first was tried
    assert limit.items == 16
    limit.shrink(16)
    assert limit.items == 8


def test_more_than_a_queue_holds_is_too_large_also_where_nothing_waits(machine):
    async def scenario(device) -> None:
        with pytest.raises(TooLarge, match="these 4 images are more than a queue of 3") as refusal:
            submit(device, *"abcd")
        assert refusal.value.code == "too_many_items"
        await submit(device, *"abc").done

    for device in started(machine.device(queue_limit=3)):
        asyncio.run(scenario(device))


def test_one_item_that_does_not_fit_is_a_503_of_its_own(machine):
    async def scenario(device) -> None:
        machine.fits = 0
        ticket = submit(device, "large")
        await ticket.done
        (error,) = ticket.outcomes
        assert isinstance(error, Unavailable)
        assert (error.code, error.status) == ("out_of_memory", 503)
        machine.fits = None
        again = submit(device, "large")
        await again.done
        assert isinstance(again.outcomes[0], Embedded)

    for device in started(machine.device()):
        asyncio.run(scenario(device))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_way_to_say_that_memory_is_out_is_known(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_a_real_allocation_that_cannot_be_had_is_known_for_what_it_is():
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)


def test_who_are_refused_one_after_the_other_are_not_all_told_to_come_at_once(machine):
    async def scenario(device) -> None:
        await hold(device, machine)
        device._queues["image"].device_seconds_per_item = 2.0
        waiting = submit(device, "a", "b", "c", seconds=1000)
        told = []
        for _ in range(4):
            with pytest.raises(QueueFull) as refusal:
                submit(device, "x", "y", seconds=1000)
            told.append(refusal.value.retry_after_seconds)
        assert told == [4, 8, 12, 16]  # each after the two items of the one before
        machine.free.set()
        await waiting.done

    for device in started(machine.device(queue_limit=4)):
        asyncio.run(scenario(device))
