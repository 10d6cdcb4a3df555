"""Processes made by `multiprocessing`: a forked child leaves its parent's ports alone, and is told so."""

import gc
import multiprocessing
import os
import pickle
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorbus

PORTS: dict[str, Any] = {}


def in_child(role: Callable[[], None]) -> int:
    """Runs `role` in a forked child and gives its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            role()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_is_told_that_nothing_is_its_own(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    asynchronous = bus.async_subscriber("numbers")
    publisher.publish(np.arange(3))
    held = subscriber.recv(timeout=10).first
    array = held.numpy()
    loan = publisher.loan(3, np.int64)

    def use() -> None:
        import asyncio

        calls: list[Callable[[], Any]] = [
            lambda: publisher.publish(np.arange(3)),
            lambda: publisher.loan(3, np.int64),
            lambda: loan.publish(),
            lambda: publisher.wait_for_subscribers(1, timeout=1),
            lambda: subscriber.recv(timeout=1),
            lambda: subscriber.try_recv(),
            lambda: subscriber.arm(),
            lambda: asyncio.run(asynchronous.recv(timeout=1)),
            lambda: bus.subscriber("other"),
            lambda: bus.publisher("other", slot_bytes=8),
            lambda: bus.topics(),
            lambda: bus.members(),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(tensorbus.Forked, match="forked") as raised:
                call()
            assert isinstance(raised.value, RuntimeError), number
        with tensorbus.Bus() as own:
            assert own.subscriber("other").try_recv() is None

    assert in_child(use) == 0
    loan.publish()
    assert subscriber.recv(timeout=10).sequence == 1
    assert array.tolist() == held.numpy().tolist() == [0, 1, 2]


def test_a_forked_child_that_drops_everything_drops_nothing(session: str) -> None:
    bus = tensorbus.Bus(service_interval=0.005)
    PORTS.update(bus=bus, subscriber=bus.subscriber("numbers"), publisher=bus.publisher("numbers"))
    PORTS["publisher"].publish(np.arange(3))
    message = PORTS["subscriber"].recv(timeout=10)
    PORTS.update(message=message, array=message.first.numpy(), loan=PORTS["publisher"].loan(3, np.uint8))
    PORTS["written"] = PORTS["loan"].numpy()
    del bus, message

    def drop() -> None:
        PORTS["subscriber"].close()
        PORTS["publisher"].close()
        PORTS["bus"].close()
        PORTS.clear()
        gc.collect()

    assert in_child(drop) == 0
    PORTS.pop("written")
    PORTS.pop("loan").publish()
    for number in range(100):
        PORTS["publisher"].publish(np.array([number]))
        while PORTS["subscriber"].recv(timeout=10).sequence != number + 2:
            pass
    assert PORTS["array"].tolist() == [0, 1, 2]
    assert [topic.name for topic in PORTS["bus"].topics()] == ["numbers"]
    PORTS.clear()


def test_a_fork_while_another_thread_waits(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    received: list[tensorbus.Message] = []
    waiting = threading.Thread(target=lambda: received.append(subscriber.recv(timeout=60)))
    waiting.start()

    def use() -> None:
        with pytest.raises(tensorbus.Forked):
            subscriber.recv(timeout=1)
        with tensorbus.Bus() as own:
            own.publisher("other", slot_bytes=8).publish(b"x")

    for _ in range(20):
        assert in_child(use) == 0
    publisher.publish(np.arange(3))
    waiting.join(60)
    assert received[0].first.numpy().tolist() == [0, 1, 2]


def exchange(count: int) -> int:
    """The part of a child: answers on `pong` what comes on `ping`."""
    with tensorbus.Bus() as bus:
        ping, pong = bus.subscriber("ping"), bus.publisher("pong", slot_bytes=800)
        pong.publish(np.array([-1]))
        return sum(pong.publish(ping.recv(timeout=60).first) for _ in range(count))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_multiprocessing(bus: tensorbus.Bus, method: str) -> None:
    pong, ping = bus.subscriber("pong"), bus.publisher("ping", slot_bytes=800)
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        answers = pool.apply_async(exchange, (50,))
        assert pong.recv(timeout=60).first.numpy()[0] == -1
        for number in range(50):
            assert ping.publish(np.full(100, number)) == 1
            np.testing.assert_array_equal(pong.recv(timeout=60).first.numpy(), np.full(100, number))
        assert answers.get(60) == 50
        pool.close()
        pool.join()
    # The parent's ports are as they were.
    ping.publish(np.array([1]))
    assert bus.members()[1] == []


def test_ports_do_not_go_through_pickle(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.arange(3))
    message = subscriber.recv(timeout=10)
    for port in (bus, subscriber, publisher, message, message.first):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(port)
    assert pickle.loads(pickle.dumps(message.first.numpy())).tolist() == [0, 1, 2]
