"""Ends of links: tensorbus, the iceoryx2 wheel, and `multiprocessing.shared_memory` with a `Pipe`.

Each has a pair of ports for one size, sends a message that carries the time of sending in its first word, and hands out
what it receives as a NumPy array of all of it.
"""

import ctypes
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import tensorbus

Words = npt.NDArray[Any]

# One is written while the other one is read.
SLOTS = 2
PATIENCE = 60.0
WORD = 8
now = time.monotonic_ns


class Link(Protocol):
    """One end."""

    def send(self) -> None:
        """Take a slot, write the time into it, send it, and wake the other side."""

    def poll(self) -> int:
        """Look until there is a message. Returns how old it was when the view of it was in hands, in nanoseconds."""

    def wait(self) -> int:
        """As `poll`, but sleep until there is one."""


class Tensorbus:
    """The bus. `view` makes an array of a message."""

    def __init__(
        self,
        publisher: tensorbus.Publisher,
        subscriber: tensorbus.Subscriber,
        words: int,
        view: Callable[[tensorbus.Message], Words],
    ) -> None:
        self.publisher, self.subscriber, self.words, self.view = publisher, subscriber, words, view

    def send(self) -> None:
        """Write in place."""
        tensor = self.publisher.loan(self.words, np.uint64)
        tensor.numpy()[0] = now()
        tensor.publish()

    def poll(self) -> int:
        """Look without sleeping."""
        receive = self.subscriber.try_recv
        while (message := receive()) is None:
            pass
        view = self.view(message)
        return now() - int(view[0])

    def wait(self) -> int:
        """Look for a short while, then sleep."""
        view = self.view(self.subscriber.recv(PATIENCE))
        return now() - int(view[0])


class Iceoryx2:
    """The iceoryx2 wheel: publish-subscribe, and an event service that wakes, as its examples do it."""

    def __init__(self, node: Any, to: str, source: str, nbytes: int, notifies: bool) -> None:
        import iceoryx2

        def service(name: str) -> Any:
            builder = node.service_builder(iceoryx2.ServiceName.new(name))
            return builder.publish_subscribe(iceoryx2.Slice[ctypes.c_uint8]).open_or_create()

        def event(name: str) -> Any:
            return node.service_builder(iceoryx2.ServiceName.new(name)).event().open_or_create()

        self.nbytes = nbytes
        self.notifies = notifies
        self.longest_sleep = iceoryx2.Duration.from_secs(1)
        self.publisher = service(to).publisher_builder().initial_max_slice_len(nbytes).create()
        self.subscriber = service(source).subscriber_builder().create()
        self.notifier = event(to).notifier_builder().create()
        self.listener = event(source).listener_builder().create()

    def send(self) -> None:
        """Write in place, send, and notify."""
        sample = self.publisher.loan_slice_uninit(self.nbytes)
        array = np.frombuffer(sample.payload().as_memory_view(), np.uint64)
        array[0] = now()
        sample.assume_init().send()
        if self.notifies:
            self.notifier.notify()

    def poll(self) -> int:
        """Look without sleeping."""
        receive = self.subscriber.receive
        while (sample := receive()) is None:
            pass
        view = np.frombuffer(sample.payload().as_memory_view(), np.uint64)
        return now() - int(view[0])

    def wait(self) -> int:
        """Look, and sleep in the listener where there is nothing."""
        receive = self.subscriber.receive
        while (sample := receive()) is None:
            self.listener.timed_wait(self.longest_sleep)
        view = np.frombuffer(sample.payload().as_memory_view(), np.uint64)
        return now() - int(view[0])


class PipeAndSharedMemory:
    """What the standard library has: arrays in shared memory, the number of the one that was written through a pipe."""

    def __init__(self, connection: Connection, to: str, source: str, nbytes: int) -> None:
        self.connection = connection
        memories = [attach(name) for name in (to, source)]
        self.outgoing, self.incoming = (
            [np.ndarray(nbytes // WORD, np.uint64, memory.buf, slot * nbytes) for slot in range(SLOTS)]
            for memory in memories
        )
        # Closed with this, after the arrays are gone.
        self.memories = memories
        self.slot = 0

    def send(self) -> None:
        """Write in place, and send the number of the slot."""
        self.slot = (self.slot + 1) % SLOTS
        self.outgoing[self.slot][0] = now()
        self.connection.send_bytes(self.slot.to_bytes(8, "little"))

    def poll(self) -> int:
        """Look without sleeping."""
        ready = self.connection.poll
        while not ready(0):
            pass
        return self.wait()

    def wait(self) -> int:
        """Sleep in the pipe."""
        view = self.incoming[int.from_bytes(self.connection.recv_bytes(), "little")]
        return now() - int(view[0])


class PlainMapping:
    """Slots in shared memory and two counters, and nothing else: what Python's own loops take."""

    # Counters stand apart, in a page of their own.
    HEAD, APART = 4096, 16

    def __init__(self, name: str, nbytes: int, slots: int) -> None:
        memory = attach(name)
        self.counters: Words = np.ndarray(self.HEAD // WORD, np.uint64, memory.buf)
        offsets = (self.HEAD + slot * nbytes for slot in range(slots))
        self.slots: list[Words] = [np.ndarray(nbytes // WORD, np.uint64, memory.buf, offset) for offset in offsets]
        # Closed with this, after the arrays are gone.
        self.memory = memory

    def next_to_write(self) -> Words:
        """Look until a slot is free."""
        produced = int(self.counters[0])
        while produced - int(self.counters[self.APART]) == len(self.slots):
            pass
        return self.slots[produced % len(self.slots)]

    def written(self) -> None:
        """Hand the slot over."""
        self.counters[0] += 1

    def next_to_read(self) -> Words:
        """Look until a slot is written."""
        consumed = int(self.counters[self.APART])
        while int(self.counters[0]) == consumed:
            pass
        return self.slots[consumed % len(self.slots)]

    def read(self) -> None:
        """Give the slot back."""
        self.counters[self.APART] += 1


def attach(name: str) -> SharedMemory:
    """Open shared memory that whoever runs the benchmark made, and removes."""
    memory = SharedMemory(name)
    # Each process that opens it would remove it at its end.
    resource_tracker.unregister(f"/{name}", "shared_memory")
    return memory
