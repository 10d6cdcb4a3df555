"""Loans are published once, whole, and never change afterwards."""

import gc
import threading
import warnings
import weakref

import numpy as np
import pytest
from memory import from_dlpack, place

import tensorbus


def test_a_block_that_raises_publishes_nothing(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers", depth=1, max_borrowed=1), bus.publisher("numbers", slots=1)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), publisher.loan(3, np.uint8) as tensor:
            tensor.numpy()[:] = 1 // 0
    assert subscriber.try_recv() is None
    assert (publisher.stats().published, publisher.stats().loans_refused) == (0, 0)
    with publisher.loan(3, np.uint8):
        pass
    assert subscriber.recv(timeout=10).sequence == 0


def test_a_loan_ends_once(bus: tensorbus.Bus) -> None:
    publisher = bus.publisher("numbers")
    tensor = publisher.loan(3, np.uint8)
    tensor.publish()
    for call in (
        tensor.publish,
        tensor.numpy,
        lambda: tensor.raw,
        lambda: memoryview(tensor),
        lambda: from_dlpack(tensor),
        lambda: np.asarray(tensor),
    ):
        with pytest.raises(tensorbus.Closed, match="take a new one"):
            call()
    with publisher.loan(3, np.uint8) as tensor:
        tensor.publish()
    with publisher.loan(3, np.uint8) as tensor:
        tensor.discard()
    assert publisher.stats().published == 2
    with pytest.raises(tensorbus.Closed):
        tensor.copy_from(b"abc")


@pytest.mark.parametrize("how", ["array", "slice of an array", "memoryview", "raw", "dlpack"])
def test_what_is_written_after_the_end_never_reaches_the_message(bus: tensorbus.Bus, how: str) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    tensor = publisher.loan(8, np.uint8)
    kept = {
        "array": lambda: tensor.numpy(),
        "slice of an array": lambda: tensor.numpy()[::2],
        "memoryview": lambda: memoryview(tensor),
        "raw": lambda: tensor.raw,
        "dlpack": lambda: from_dlpack(tensor),
    }[how]()
    kept[:] = np.uint8(1) if not isinstance(kept, memoryview) else b"\1" * 8
    where = place(np.asarray(kept))
    tensor.metadata["how"] = how
    with pytest.warns(tensorbus.CopyWarning, match="del"):
        tensor.publish()
    assert publisher.stats().copied_bytes == 8
    message = subscriber.recv(timeout=10)
    received = message.first.numpy()
    before = received.tobytes()
    # The array has its slot to itself: it can be written, and nobody sees it.
    kept[:] = np.uint8(9) if not isinstance(kept, memoryview) else b"\x09" * 8
    assert received.tobytes() == before
    assert place(received).offset != where.offset
    assert message.metadata == {"how": how}
    # No later loan gets the slot while the array is there.
    others = [publisher.loan(8, np.uint8) for _ in range(8)]
    assert where not in [place(other.numpy()) for other in others]
    del kept
    others.append(publisher.loan(8, np.uint8))
    assert where in [place(other.numpy()) for other in others]


def test_an_array_that_is_gone_costs_no_copy(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    tensor = publisher.loan((2, 3), np.float32)
    array = tensor.numpy()
    part = array[0, ::2]
    array[...] = 1
    part[...] = 2
    del array, part
    capsule = tensor.__dlpack__(max_version=(1, 0))
    del capsule
    tensor.publish()
    assert publisher.stats().copied_bytes == 0
    assert subscriber.recv(timeout=10).first.numpy().tolist() == [[2, 1, 2], [1, 1, 1]]


def test_the_warning_can_be_an_error(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("error", tensorbus.CopyWarning)
        with pytest.raises(tensorbus.CopyWarning), publisher.loan(3, np.uint8) as tensor:
            kept = tensor.numpy()
    assert subscriber.try_recv() is None
    kept[:] = 1


def test_several_tensors_are_copied_together(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("batches"), bus.publisher("batches")
    loan = publisher.loan_message({"a": (3, "uint8"), "b": ((2, 2), "int64", "F")})
    kept = loan["a"].numpy()
    kept[:] = 1
    loan["b"].numpy()[...] = [[1, 2], [3, 4]]
    with pytest.warns(tensorbus.CopyWarning):
        loan.publish()
    message = subscriber.recv(timeout=10)
    kept[:] = 2
    assert message["a"].numpy().tolist() == [1, 1, 1]
    assert message["b"].numpy().tolist() == [[1, 2], [3, 4]]
    assert message["b"].strides == (1, 2)


def test_a_loan_that_is_dropped_gives_its_slot_back(bus: tensorbus.Bus) -> None:
    publisher = bus.publisher("numbers", slots=1, depth=1, max_borrowed=1)
    for _ in range(3):
        tensor = publisher.loan(3, np.uint8)
        array = tensor.numpy()
        reference = weakref.ref(tensor)
        del tensor
        assert reference() is None
        with pytest.raises(tensorbus.NoFreeSlot):
            publisher.loan(3, np.uint8)
        array[:] = 5
        del array
    # In a cycle, it takes the collector.
    cycle = [publisher.loan(3, np.uint8)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    publisher.loan(3, np.uint8).publish()


def test_copy_from_takes_what_fits(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    tensor = publisher.loan((2, 3), np.int16)
    for source in (np.zeros((3, 2), np.int16), np.zeros((2, 3), np.int32), np.zeros(6, np.int16)):
        with pytest.raises(ValueError, match="cannot be copied into"):
            tensor.copy_from(source)
    tensor.copy_from(np.arange(6, dtype=np.int16).reshape(3, 2).T)
    tensor.publish()
    assert subscriber.recv(timeout=10).first.numpy().tolist() == [[0, 2, 4], [1, 3, 5]]


def test_threads_share_a_publisher(bus: tensorbus.Bus) -> None:
    subscriber = bus.subscriber("numbers", depth=16, overflow="block", block_timeout=60)
    publisher = bus.publisher("numbers", slots=32, slot_bytes=800)

    def publish(worker: int) -> None:
        for number in range(200):
            with publisher.loan(100, np.int64) as tensor:
                tensor.numpy()[:] = worker * 1000 + number

    workers = [threading.Thread(target=publish, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    last = dict.fromkeys(range(4), -1)
    for sequence in range(800):
        message = subscriber.recv(timeout=60)
        assert (message.sequence, message.lost) == (sequence, 0)
        values = message.first.numpy()
        assert (values == values[0]).all(), "no message is torn"
        worker, number = divmod(int(values[0]), 1000)
        assert number == last[worker] + 1
        last[worker] = number
    for worker in workers:
        worker.join()
