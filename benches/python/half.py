"""One of the two processes of a game, told by lines what to do. `rust_half.rs` is the same in Rust."""

import ctypes
import json
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import links
import numpy as np
from links import PATIENCE, SLOTS, WORD, Link, now

import tensorbus

# How long a side is busy before it sends to one that shall be asleep, in nanoseconds.
PAUSE = 100_000
# One message of a flow is written, two wait, one is read.
FLOW_DEPTH = 2
FLOW_SLOTS = 4
LARGEST = 100 << 20
VIEWS: dict[str, Callable[[tensorbus.Message], links.Words]] = {
    "numpy": lambda message: message.first.numpy(),
    "dlpack": lambda message: np.from_dlpack(message.first),
}
PR_SET_PDEATHSIG, SIGKILL = 1, 9


class Half:
    """`A` begins, `B` answers; in a flow `B` writes and `A` reads."""

    def __init__(self, directory: str, side: str, run: str, pipes: dict[str, int]) -> None:
        self.side = side
        self.bus = tensorbus.Bus("s", directory=directory)
        self.run = run
        self.pipes = pipes
        self.node: Any = None
        self.links: dict[tuple[str, str, str], Link] = {}
        self.writers: dict[str, tensorbus.Publisher] = {}
        self.readers: dict[str, tensorbus.Subscriber] = {}
        self.mappings: dict[str, links.PlainMapping] = {}
        self.pattern: links.Words = np.arange(0)

    def open(self, pair: str, size: str) -> dict[str, Any]:
        """Make this side's ends of a link of one size."""
        nbytes = int(size)
        names = f"ping/{pair}/{size}", f"pong/{pair}/{size}"
        to, source = names if self.side == "A" else names[::-1]
        if pair == "iceoryx2":
            import iceoryx2

            if self.node is None:
                iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
                self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
            prefix = f"{self.run}/"
            self.links[pair, size, "wakes"] = links.Iceoryx2(self.node, prefix + to, prefix + source, nbytes, True)
        elif pair == "pipe":
            to, source = (f"{self.run}-{name.replace('/', '-')}" for name in (to, source))
            self.links[pair, size, "wakes"] = links.PipeAndSharedMemory(
                Connection(self.pipes[size]), to, source, nbytes
            )
        else:
            publisher = self.bus.publisher(to, slots=SLOTS, slot_bytes=nbytes)
            subscriber = self.bus.subscriber(source)
            for view, of in VIEWS.items():
                self.links[pair, size, view] = links.Tensorbus(publisher, subscriber, nbytes // WORD, of)
        return {}

    def play(self, pair: str, size: str, view: str, wait: str, trips: str) -> dict[str, Any]:
        """Play ping-pong; `ages` and `trips` are in nanoseconds."""
        link = self.links[pair, size, view]
        send, take = link.send, link.poll if wait == "poll" else link.wait
        if isinstance(link, links.Iceoryx2):
            link.notifies = wait != "poll"
        pauses, begins = wait == "asleep", self.side == "A"
        round_trips, ages = [], []
        before = voluntary_switches()
        for _ in range(int(trips)):
            if begins:
                begin = now()
                if pauses:
                    work(PAUSE)
                send()
                ages.append(take())
                round_trips.append(now() - begin)
            else:
                ages.append(take())
                if pauses:
                    work(PAUSE)
                send()
        return {"trips": round_trips, "ages": ages, "sleeps": voluntary_switches() - before}

    def open_flow(self, pair: str, size: str) -> dict[str, Any]:
        """Make this side's end of a flow."""
        topic = f"flow/{pair}/{size}"
        settings: dict[str, Any] = {
            "depth": FLOW_DEPTH,
            "max_borrowed": 1,
            "overflow": "block",
            "block_timeout": PATIENCE,
        }
        if pair == "mapping":
            self.mappings[topic] = links.PlainMapping(f"{self.run}-flow-{size}", int(size), FLOW_SLOTS)
        elif self.side == "A":
            self.readers[topic] = self.bus.subscriber(topic, spin=PATIENCE, **settings)
        else:
            self.writers[topic] = self.bus.publisher(topic, slots=FLOW_SLOTS, slot_bytes=int(size), **settings)
        return {}

    def flow(self, pair: str, size: str, messages: str) -> dict[str, Any]:
        """Write all of each message, or read all of it and check the sum."""
        topic, words, count = f"flow/{pair}/{size}", int(size) // WORD, int(messages)
        if len(self.pattern) < words:
            self.pattern = np.arange(LARGEST // WORD, dtype=np.uint64)
        begin = now()
        if topic in self.readers:
            for number in range(count):
                check(self.readers[topic].recv(PATIENCE).first.numpy(), words, number)
        elif topic in self.writers:
            for number in range(count):
                with self.writers[topic].loan(words, np.uint64) as tensor:
                    # The array is gone before the message is published.
                    fill(tensor.numpy(), self.pattern[:words], number)
        elif self.side == "A":
            for number in range(count):
                check(self.mappings[topic].next_to_read(), words, number)
                self.mappings[topic].read()
        else:
            for number in range(count):
                fill(self.mappings[topic].next_to_write(), self.pattern[:words], number)
                self.mappings[topic].written()
        return {"ns": now() - begin}


def check(array: links.Words, words: int, number: int) -> None:
    """Read all of a message."""
    assert np.add.reduce(array) == number + words * (words - 1) // 2, f"message {number} has the wrong sum"


def fill(array: links.Words, pattern: links.Words, number: int) -> None:
    """Write all of a message. The pattern begins with 0."""
    array[:] = pattern
    array[0] = number


def work(nanoseconds: int) -> None:
    """Be busy."""
    end = now() + nanoseconds
    while now() < end:
        pass


def voluntary_switches() -> int:
    """How often this thread gave its core away."""
    with open("/proc/thread-self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


def main() -> None:
    """Carry out orders until there are no more."""
    directory, side, run, pipes = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[side == "B"]})
    half = Half(directory, side, run, json.loads(pipes))
    orders: dict[str, Callable[..., dict[str, Any]]] = {
        "open": half.open,
        "play": half.play,
        "open-flow": half.open_flow,
        "flow": half.flow,
    }
    print("ready", flush=True)
    for line in sys.stdin:
        order, *arguments = line.split()
        print(json.dumps(orders[order](*arguments)), flush=True)


if __name__ == "__main__":
    main()
