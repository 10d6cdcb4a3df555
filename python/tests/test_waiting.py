"""Who waits lets others run, and can be interrupted."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorbus


@pytest.mark.parametrize("how", ["recv", "iterate"])
def test_ctrl_c_ends_a_wait(node: Callable[..., Any], how: str) -> None:
    other = node("wait_for_ever", how)
    other.expect("ready")
    # It may not have begun to wait; then the signal comes before the wait, which ends as well.
    other.process.send_signal(signal.SIGINT)
    other.expect("interrupted")
    assert other.end() == 0


def test_a_signal_handler_runs_while_waiting(bus: tensorbus.Bus) -> None:
    subscriber = bus.subscriber("numbers")
    publisher = bus.publisher("numbers", slot_bytes=64)
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: (seen.append(number), publisher.publish(b"x"), None)[2])
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert bytes(subscriber.recv(timeout=60).first.raw) == b"x"
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_others_run_while_one_waits(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    received: list[tensorbus.Message] = []
    waiting = threading.Thread(target=lambda: received.append(subscriber.recv(timeout=60)))
    waiting.start()
    publisher.publish(np.array([7]))
    waiting.join(60)
    assert received[0].first.numpy()[0] == 7


def test_a_publisher_that_blocks_lets_its_subscriber_run(bus: tensorbus.Bus) -> None:
    subscriber = bus.subscriber("numbers", depth=1, overflow="block", block_timeout=60)
    publisher = bus.publisher("numbers", slots=8, slot_bytes=8)
    loan = [publisher.loan(1, np.int64)]

    def publish() -> None:
        for number in range(100):
            publisher.publish(np.array([number]))

    # To drop a loan takes the port, which the publisher has while it waits for this thread.
    threads = [threading.Thread(target=publish), threading.Thread(target=loan.clear)]
    for thread in threads:
        thread.start()
    for number in range(100):
        assert subscriber.recv(timeout=60).first.numpy()[0] == number
    for thread in threads:
        thread.join(60)


def test_a_subscriber_that_is_closed_stops_waiting(bus: tensorbus.Bus) -> None:
    subscriber = bus.subscriber("numbers")
    ended: list[str] = []

    def wait() -> None:
        for _ in subscriber:
            pass
        ended.append("iteration")

    waiting = threading.Thread(target=wait)
    waiting.start()
    subscriber.close()
    waiting.join(60)
    assert ended == ["iteration"]


def test_time_that_is_over_is_told(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", slot_bytes=8)
    begin = time.monotonic()
    with pytest.raises(tensorbus.Timeout, match="numbers") as raised:
        subscriber.recv(timeout=0.25)
    assert time.monotonic() - begin >= 0.25
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(tensorbus.Timeout):
        subscriber.recv(timeout=0)
    assert publisher.wait_for_subscribers(1, timeout=10) == 1
    with pytest.raises(tensorbus.Timeout, match="1 of 2"):
        publisher.wait_for_subscribers(2, timeout=0.01)
    publisher.drain(timeout=10)


def test_the_descriptor_tells_of_messages(bus: tensorbus.Bus) -> None:
    import select

    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    subscriber.arm()
    assert subscriber.try_recv() is None
    assert select.select([subscriber], [], [], 0)[0] == []
    publisher.publish(np.array([1]))
    assert select.select([subscriber], [], [], 60)[0] == [subscriber]
    assert subscriber.recv(timeout=10).first.numpy()[0] == 1
