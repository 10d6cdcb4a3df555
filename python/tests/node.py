"""The children of the tests: each role is one process's part. A line on stdin lets it go on, its end ends it."""

import sys
import time

import numpy as np
from memory import place

import tensorbus

PATIENCE = 60.0


def say(line: object) -> None:
    print(line, flush=True)


def told() -> bool:
    """Wait for the parent: false when it closed stdin."""
    return sys.stdin.readline() != ""


def pattern(sequence: int, size: int) -> np.ndarray:
    """What `pattern` of the Rust tests is."""
    return (np.arange(size, dtype=np.uint32) * np.uint32(2_654_435_761) + np.uint32(sequence)).astype(np.uint32)


def publish(count: int, size: int) -> None:
    """Publish `count` messages of `size` numbers when told, then wait for the end."""
    bus = tensorbus.Bus()
    publisher = bus.publisher("numbers", slot_bytes=size * 4, overflow="block", block_timeout=PATIENCE)
    say("ready")
    told()
    for sequence in range(count):
        with publisher.loan(size, np.uint32) as tensor:
            tensor.numpy()[:] = pattern(sequence, size)
            tensor.metadata["n"] = sequence
    say("published")
    told()


def publish_for_ever(size: int) -> None:
    """Publish whole messages until it is killed."""
    bus = tensorbus.Bus()
    publisher = bus.publisher("numbers", slot_bytes=size * 4)
    say("ready")
    sequence = 0
    while True:
        if sequence % 2:
            publisher.publish(pattern(sequence, size), metadata={"n": sequence})
        else:
            with publisher.loan(size, np.uint32) as tensor:
                tensor.numpy()[:] = pattern(sequence, size)
                tensor.metadata["n"] = sequence
        sequence += 1


def publish_place(size: int) -> None:
    """Publish a message when told, and say where it was written."""
    bus = tensorbus.Bus()
    publisher = bus.publisher("numbers", slot_bytes=size)
    say("ready")
    told()
    tensor = publisher.loan(size, np.uint8)
    tensor.numpy()[:] = 7
    where = place(tensor.numpy())
    tensor.publish()
    say(f"{where.inode} {where.offset}")
    told()


def check(count: int, size: int) -> None:
    """Receive `count` messages, and check what is in them."""
    bus = tensorbus.Bus()
    subscriber = bus.subscriber("numbers", overflow="block", block_timeout=PATIENCE)
    say("ready")
    for sequence in range(count):
        message = subscriber.recv(PATIENCE)
        assert message.sequence == sequence
        assert message.metadata == {"n": sequence}
        np.testing.assert_array_equal(message.first.numpy(), pattern(sequence, size))
    say("checked")
    told()


def hold() -> None:
    """Take as many messages as there may be, and keep them."""
    bus = tensorbus.Bus()
    subscriber = bus.subscriber("numbers")
    say("ready")
    held = [subscriber.recv(PATIENCE) for _ in range(4)]
    say("holding")
    told()
    del held


def hold_loan() -> None:
    """Loan a slot, write half of it, and wait to be killed."""
    bus = tensorbus.Bus()
    publisher = bus.publisher("numbers")
    publisher.publish(np.array([1, 2, 3], np.uint32))
    tensor = publisher.loan(3, np.uint32)
    tensor.numpy()[:2] = 666
    say("holding")
    told()


def wait_for_ever(how: str) -> None:
    """Wait for a message that never comes; say what ends the wait."""
    bus = tensorbus.Bus()
    subscriber = bus.subscriber("numbers")
    try:
        say("ready")
        if how == "recv":
            subscriber.recv()
        else:
            for _ in subscriber:
                pass
    except KeyboardInterrupt:
        say("interrupted")


def own_model() -> None:
    """Announce a model, and hold it until it is killed."""
    bus = tensorbus.Bus()
    registry = tensorbus.ModelRegistry()
    announcing = registry.announce(bus)
    handle = registry.get_or_load("net", object)
    say("loaded")
    told()
    del announcing, handle


def models_at_exit() -> None:
    """End with models, some of which go just then, and weights in globals."""
    global kept
    bus = tensorbus.Bus()
    registry, shared = tensorbus.ModelRegistry(ttl=0.0), tensorbus.ModelRegistry.default()
    handles = [registry.get_or_load(f"net/{number}", lambda: type("Net", (), {})()) for number in range(50)]
    array = tensorbus.SharedWeights.publish("net", {"w": np.ones(3)}, bus=bus)["w"].numpy()
    kept = (
        bus,
        registry,
        shared.announce(bus),
        registry.announce(bus),
        handles,
        shared.get_or_load("m", object),
        array,
    )
    for handle in handles[::2]:
        handle.release()
    say("ends")


def wait_for_model() -> None:
    """Wait for a model that another thread never finishes to load; say what ends the wait."""
    import threading

    registry, begun, never = tensorbus.ModelRegistry(), threading.Event(), threading.Event()

    def loader() -> None:
        begun.set()
        never.wait(PATIENCE)

    loads = threading.Thread(target=registry.get_or_load, args=("m", loader))
    loads.start()
    begun.wait(PATIENCE)
    threading.Thread(target=lambda: (wait_until_waited(registry), say("waiting")), daemon=True).start()
    try:
        registry.get_or_load("m", loader)
    except KeyboardInterrupt:
        say("interrupted")
    never.set()
    loads.join()


def wait_until_waited(registry: tensorbus.ModelRegistry) -> None:
    while registry.metrics().waits == 0:
        time.sleep(0.001)


def publish_weights() -> None:
    """Publish the weights of `test_weights.py`, and hold them."""
    from test_weights import state

    weights = tensorbus.SharedWeights.publish("net", state())
    say("published")
    told()
    del weights


def attach_weights() -> None:
    """Say where a tensor of the weights lies, and hold it."""
    array = tensorbus.SharedWeights.attach("net")["fc.weight"].numpy()
    where = place(array)
    say(f"{where.inode} {where.offset}")
    told()


def write_torch() -> None:
    """Write into a received tensor through PyTorch, which cannot be kept from it."""
    import warnings

    bus = tensorbus.Bus()
    subscriber = bus.subscriber("numbers")
    say("ready")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = subscriber.recv(PATIENCE).first.torch()
    say("received")
    told()
    tensor[0] = 1
    say("written")


def globals_at_exit() -> None:
    """End with everything still in globals."""
    global kept
    bus = tensorbus.Bus()
    subscriber = bus.subscriber("numbers")
    publisher = bus.publisher("numbers")
    publisher.publish(np.zeros(3, np.float32))
    kept = (bus, subscriber, publisher, subscriber.recv(PATIENCE).first.numpy(), publisher.loan(3, np.uint8))
    say(bus.directory)


def echo(count: int, asleep: float = 0.0) -> None:
    """Answer each message on `ping` with the same array on `pong`."""
    bus = tensorbus.Bus()
    ping, pong = bus.subscriber("ping"), bus.publisher("pong")
    say("ready")
    for _ in range(count):
        time.sleep(asleep)
        pong.publish(ping.recv(PATIENCE).first)
    told()


def serve(count: int) -> None:
    """Answer `count` requests with what was asked, turned round."""
    bus = tensorbus.Bus()
    server = bus.service("health").server()
    say("ready")
    for _ in range(count):
        request = server.recv(PATIENCE)
        request.reply(request.data[::-1])
    told()


def serve_slowly() -> None:
    """Take a request and do not answer."""
    bus = tensorbus.Bus()
    server = bus.service("health").server()
    say("ready")
    request = server.recv(PATIENCE)
    say("asked")
    told()
    del request


def serve_for_ever() -> None:
    """Wait for a request that never comes; say what ends the wait."""
    bus = tensorbus.Bus()
    server = bus.service("health").server()
    try:
        say("ready")
        server.recv()
    except KeyboardInterrupt:
        say("interrupted")


def call_for_ever() -> None:
    """Wait for a reply that never comes; say what ends the wait."""
    bus = tensorbus.Bus()
    client = bus.service("silent").client()
    try:
        say("ready")
        client.call(b"abc", timeout=PATIENCE)
    except KeyboardInterrupt:
        say("interrupted")


def wait_for_deaths() -> None:
    """Wait for a death that never comes; say what ends the wait."""
    bus = tensorbus.Bus()
    deaths = bus.deaths()
    try:
        say("ready")
        deaths.recv()
    except KeyboardInterrupt:
        say("interrupted")


ROLES = {
    role.__name__: role
    for role in (
        publish,
        publish_for_ever,
        publish_place,
        check,
        hold,
        hold_loan,
        own_model,
        models_at_exit,
        publish_weights,
        attach_weights,
        wait_for_ever,
        wait_for_model,
        write_torch,
        globals_at_exit,
        echo,
        serve,
        serve_slowly,
        serve_for_ever,
        call_for_ever,
        wait_for_deaths,
    )
}

if __name__ == "__main__":
    arguments = [int(argument) if argument.isdecimal() else argument for argument in sys.argv[2:]]
    ROLES[sys.argv[1]](*arguments)
