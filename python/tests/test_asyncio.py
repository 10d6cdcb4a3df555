"""Receiving in an event loop: no thread, no busy loop, nothing lost by a cancellation."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

import tensorbus


def readers(loop: asyncio.AbstractEventLoop) -> int:
    return len(loop._selector.get_map()) - 1


async def test_messages_are_awaited(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.async_subscriber("numbers"), bus.publisher("numbers")
    before = threading.active_count()
    loop = asyncio.get_running_loop()
    watched = readers(loop)
    for number in range(100):
        loop.call_soon(publisher.publish, np.array([number]))
        assert (await subscriber.recv(timeout=60)).first.numpy()[0] == number
    assert threading.active_count() == before
    assert readers(loop) == watched
    assert isinstance(subscriber, tensorbus.AsyncSubscriber)


async def test_async_for(bus: tensorbus.Bus) -> None:
    async with bus.async_subscriber("numbers", depth=8) as subscriber:
        publisher = bus.publisher("numbers")
        for number in range(5):
            publisher.publish(np.array([number]))
        seen = []
        async for message in subscriber:
            seen.append(int(message.first.numpy()[0]))
            if len(seen) == 5:
                asyncio.get_running_loop().call_soon(subscriber.close)
        assert seen == [0, 1, 2, 3, 4]


async def test_a_timeout_leaves_nothing(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.async_subscriber("numbers"), bus.publisher("numbers")
    watched = readers(asyncio.get_running_loop())
    for _ in range(3):
        with pytest.raises(tensorbus.Timeout, match="numbers"):
            await subscriber.recv(timeout=0.01)
        assert readers(asyncio.get_running_loop()) == watched
    publisher.publish(np.array([1]))
    assert (await subscriber.recv(timeout=60)).first.numpy()[0] == 1


async def test_a_cancellation_loses_no_message(bus: tensorbus.Bus) -> None:
    subscriber = bus.async_subscriber("numbers", depth=64, max_borrowed=64)
    publisher = bus.publisher("numbers", slots=200)
    received: list[int] = []

    async def receive() -> None:
        while True:
            received.append(int((await subscriber.recv()).first.numpy()[0]))

    generator = np.random.default_rng(7)
    tasks = [asyncio.create_task(receive()) for _ in range(4)]
    for number in range(300):
        publisher.publish(np.array([number]))
        victim = int(generator.integers(4))
        for _ in range(int(generator.integers(3))):
            await asyncio.sleep(0)
        tasks[victim].cancel()
        tasks[victim] = asyncio.create_task(receive())
    while len(received) < 300:
        await asyncio.sleep(0.001)
    assert sorted(received) == list(range(300))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_message_goes_to_one_of_several_tasks(bus: tensorbus.Bus) -> None:
    subscriber, publisher = (
        bus.async_subscriber("numbers", depth=16, max_borrowed=16),
        bus.publisher("numbers", slots=40),
    )
    tasks = [asyncio.create_task(subscriber.recv(timeout=60)) for _ in range(10)]
    await asyncio.sleep(0)
    for number in range(10):
        publisher.publish(np.array([number]))
    numbers = []
    for task in asyncio.as_completed(tasks):
        message: Any = await task
        numbers.append(int(message.first.numpy()[0]))
        del message
    assert sorted(numbers) == list(range(10))


async def test_closing_wakes_whoever_waits(bus: tensorbus.Bus) -> None:
    subscriber = bus.async_subscriber("numbers")
    tasks = [asyncio.create_task(subscriber.recv()) for _ in range(3)]
    await asyncio.sleep(0.01)
    subscriber.close()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, tensorbus.Closed)


def test_another_loop_is_refused_while_one_waits(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.async_subscriber("numbers"), bus.publisher("numbers")

    async def wait() -> None:
        task = asyncio.create_task(subscriber.recv(timeout=60))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, subscriber.recv())
        publisher.publish(np.array([1]))
        await task

    asyncio.run(wait())
    publisher.publish(np.array([2]))
    assert asyncio.run(subscriber.recv(timeout=60)).first.numpy()[0] == 2
