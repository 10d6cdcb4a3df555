"""Views keep their memory (FR-009), whatever becomes of everything else."""

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from memory import descriptors, from_dlpack, place, resident
from node import pattern

import tensorbus


def test_an_array_keeps_the_slot_by_itself(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.arange(1000))
    message = subscriber.recv(timeout=10)
    tensor = message.first
    views: list[Any] = [tensor.numpy()[10:20], memoryview(tensor), from_dlpack(tensor)[5:], tensor.raw]
    references = [weakref.ref(message), weakref.ref(tensor)]
    del message, tensor
    assert [reference() for reference in references] == [None, None]
    for number in range(50):
        publisher.publish(np.full(1000, number))
        subscriber.recv(timeout=10)
    gc.collect()
    assert views[0].tolist() == list(range(10, 20))
    assert views[1].tolist() == list(range(1000))
    assert views[2].tolist() == list(range(5, 1000))
    while views:
        publisher.publish(np.zeros(1000, np.int64))
        views.pop()


def test_an_array_outlives_subscriber_publisher_and_bus(session: str) -> None:
    bus = tensorbus.Bus()
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.arange(1 << 20))
    array = subscriber.recv(timeout=10).first.numpy()
    publisher.close()
    subscriber.close()
    bus.close()
    del bus, subscriber, publisher
    gc.collect()
    assert (array == np.arange(1 << 20)).all()
    assert place(array).permissions == "r--s"


def test_an_array_outlives_a_publisher_that_is_killed(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    subscriber = bus.subscriber("numbers", overflow="block", block_timeout=60)
    other = node("publish", 3, 1 << 20)
    other.expect("ready")
    other.tell()
    other.expect("published")
    held = subscriber.recv(timeout=60).first.numpy()
    expected = held.copy()
    other.kill()
    bus.remove_dead()
    # What it had published is still received.
    assert [subscriber.recv(timeout=60).sequence for _ in range(2)] == [1, 2]
    with pytest.raises(tensorbus.Timeout):
        subscriber.recv(timeout=0.01)
    np.testing.assert_array_equal(held, expected)
    # And the topic goes on.
    bus.publisher("numbers", overflow="block", block_timeout=60).publish(np.array([1]))
    assert subscriber.recv(timeout=60).first.numpy().tolist() == [1]


def test_publishers_killed_at_random_points_publish_whole_messages(
    bus: tensorbus.Bus, node: Callable[..., Any]
) -> None:
    subscriber = bus.subscriber("numbers", max_borrowed=8)
    seed = int(os.environ.get("TENSORBUS_SEED", time.time_ns() % 1_000_000))
    print(f"TENSORBUS_SEED={seed}")
    random = np.random.default_rng(seed)
    held: list[tuple[int, Any]] = []
    for _ in range(8):
        other = node("publish_for_ever", 10_000)
        other.expect("ready")
        for _ in range(int(random.integers(1, 60))):
            message = subscriber.recv(timeout=60)
            np.testing.assert_array_equal(message.first.numpy(), pattern(message.metadata["n"], 10_000))
        held = [*held[-5:], (message.metadata["n"], message.first.numpy())]
        del message
        other.kill()
        bus.remove_dead()
        while (message := subscriber.try_recv()) is not None:
            np.testing.assert_array_equal(message.first.numpy(), pattern(message.metadata["n"], 10_000))
        for sequence, array in held:
            np.testing.assert_array_equal(array, pattern(sequence, 10_000))
    assert subscriber.stats().rejected == 0
    assert bus.members()[1] == []


def test_a_subscriber_that_is_killed_gives_its_messages_back(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    publisher = bus.publisher("numbers", slots=6, slot_bytes=800)
    other = node("hold")
    other.expect("ready")
    for number in range(4):
        publisher.wait_for_subscribers(1, timeout=60)
        publisher.publish(np.full(100, number))
    other.expect("holding")
    others = [publisher.loan(100, np.int64) for _ in range(2)]
    with pytest.raises(tensorbus.NoFreeSlot):
        publisher.loan(100, np.int64)
    other.kill()
    bus.remove_dead()
    assert len([publisher.loan(100, np.int64) for _ in range(4)] + others) == 6


def test_a_publisher_that_is_killed_with_a_loan_leaves_nothing(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    subscriber = bus.subscriber("numbers")
    other = node("hold_loan")
    other.expect("holding")
    other.kill()
    assert subscriber.recv(timeout=60).first.numpy().tolist() == [1, 2, 3]
    with pytest.raises(tensorbus.Timeout):
        subscriber.recv(timeout=0.01)
    assert bus.remove_dead() + len(bus.members()[1]) <= 1
    assert bus.members()[1] == []


def test_a_program_that_ends_with_everything_in_globals_leaves_nothing(node: Callable[..., Any]) -> None:
    from pathlib import Path

    other = node("globals_at_exit")
    directory = Path(other.line())
    assert other.end() == 0
    assert not directory.exists()


def test_arrays_are_dropped_by_other_threads(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers", max_borrowed=64), bus.publisher("numbers", slots=80)
    arrays: list[Any] = []
    for number in range(64):
        publisher.publish(np.array([number]))
        arrays.append(subscriber.recv(timeout=10).first.numpy())

    def drop(mine: list[Any]) -> None:
        while mine:
            mine.pop()

    threads = [threading.Thread(target=drop, args=(arrays[start::4],)) for start in range(4)]
    arrays.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del threads, thread
    for number in range(200):
        publisher.publish(np.array([number]))
        assert subscriber.recv(timeout=10).first.numpy()[0] == number


def test_a_hundred_thousand_messages_leave_nothing_behind(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", slot_bytes=4096)
    source = np.arange(512)

    def exchange(count: int) -> None:
        for number in range(count):
            if number % 3 == 0:
                publisher.publish(source, metadata={"n": number})
            else:
                with publisher.loan(512, np.int64) as tensor:
                    tensor.numpy()[0] = number
            message = subscriber.recv(timeout=10)
            tensor = message.first
            kept = [tensor.numpy(), from_dlpack(tensor), memoryview(tensor), tensor.__dlpack__(max_version=(1, 0))]
            assert len(kept) == 4

    exchange(2000)
    gc.collect()
    before, open_before = resident(), descriptors()
    exchange(98_000)
    gc.collect()
    assert descriptors() == open_before
    assert resident() - before < 4 << 20


def test_ports_that_come_and_go_leave_nothing_behind(bus: tensorbus.Bus) -> None:
    def come_and_go(times: int) -> None:
        for _ in range(times):
            subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
            publisher.publish(np.zeros(8))
            assert subscriber.recv(timeout=10).first.numpy().sum() == 0

    come_and_go(20)
    before, open_before = resident(), descriptors()
    come_and_go(200)
    assert descriptors() == open_before
    assert resident() - before < 4 << 20
