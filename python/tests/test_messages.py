"""What is published is what is received (FR-001, FR-017), and what cannot be is an error that says so."""

import time
from collections.abc import Mapping

import numpy as np
import pytest

import tensorbus


def test_a_loan_is_written_in_place_and_received(bus: tensorbus.Bus) -> None:
    subscriber = bus.subscriber("camera")
    publisher = bus.publisher("camera", slots=8)
    before = time.monotonic_ns()
    with publisher.loan((4, 5, 3), np.uint8) as tensor:
        assert (tensor.shape, tensor.ndim, tensor.nbytes, tensor.name) == ((4, 5, 3), 3, 60, "tensor")
        tensor.numpy()[...] = np.arange(60).reshape(4, 5, 3)
    message = subscriber.recv(timeout=10)
    frame = message.first
    assert (frame.shape, frame.strides, frame.nbytes, len(frame)) == ((4, 5, 3), (15, 3, 1), 60, 4)
    assert frame.dtype == tensorbus.Dtype("uint8")
    np.testing.assert_array_equal(frame.numpy(), np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    assert before <= message.publish_time_ns <= time.monotonic_ns()
    assert (message.sequence, message.lost, message.source_time_ns) == (0, 0, None)
    assert message.publisher > 0
    assert publisher.stats().copied_bytes == 0
    assert (publisher.stats().published, subscriber.stats().received) == (1, 1)


def test_several_tensors_are_a_mapping(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("batches"), bus.publisher("batches")
    with publisher.loan_message({"images": ((8, 4, 4), "float32"), "labels": (8, np.uint8)}) as loan:
        assert isinstance(loan, Mapping)
        assert list(loan) == ["images", "labels"]
        loan["images"].numpy()[...] = 0.5
        loan["labels"].numpy()[...] = range(8)
        loan.source_time_ns = 17
        with pytest.raises(KeyError, match="it has"):
            loan["masks"]
    message = subscriber.recv(timeout=10)
    assert isinstance(message, Mapping)
    assert (len(message), list(message), "labels" in message, "masks" in message) == (
        2,
        ["images", "labels"],
        True,
        False,
    )
    assert [name for name, _ in message.items()] == list(message.keys())
    assert message["labels"].numpy().tolist() == list(range(8))
    assert {name: tensor.shape for name, tensor in message.items()} == {"images": (8, 4, 4), "labels": (8,)}
    assert message.source_time_ns == message["images"].source_time_ns == 17
    assert message["labels"].message.sequence == message["labels"].sequence == 0
    assert message.get("masks") is None
    with pytest.raises(tensorbus.NoSuchTensor, match="it has"):
        message["masks"]


def test_a_dict_of_arrays_is_one_message(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("batches"), bus.publisher("batches", max_slot_bytes=1 << 20)
    publisher.publish({"a": np.arange(3), "b": b"bytes"}, metadata={"n": 1}, source_time_ns=5)
    first = subscriber.recv(timeout=10)
    assert (first["a"].numpy().tolist(), bytes(first["b"].raw)) == ([0, 1, 2], b"bytes")
    assert (first.metadata, first.source_time_ns) == ({"n": 1}, 5)
    # A received message is one that can be published.
    publisher.publish(first)
    second = subscriber.recv(timeout=10)
    assert {name: tensor.numpy().tolist() for name, tensor in second.items()} == {
        name: tensor.numpy().tolist() for name, tensor in first.items()
    }


def test_metadata_comes_as_it_was(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("camera"), bus.publisher("camera")
    sent = {"lens": "wide", "gain": 1.5, "frame": -3, "dark": True, "key": b"\0\1", "ümlaut": "ß"}
    with publisher.loan(3, np.uint8) as tensor:
        tensor.metadata.update(sent)
    received = subscriber.recv(timeout=10).metadata
    assert received == sent
    assert [type(value) for value in received.values()] == [type(value) for value in sent.values()]
    publisher.publish(np.zeros(3, np.uint8), metadata={"numpy": np.float32(0.5), "int": np.int8(3), "bool": np.True_})
    assert subscriber.recv(timeout=10).metadata == {"numpy": 0.5, "int": 3, "bool": True}


def test_metadata_that_cannot_travel_is_named(bus: tensorbus.Bus) -> None:
    publisher = bus.publisher("camera")
    array = np.zeros(3, np.uint8)
    with pytest.raises(TypeError, match=r"metadata 'x' is builtins.list|metadata \"x\" is list"):
        publisher.publish(array, metadata={"x": [1]})
    with pytest.raises(TypeError, match="keys are str"):
        publisher.publish(array, metadata={1: 1})
    with pytest.raises(ValueError, match="64 bits"):
        publisher.publish(array, metadata={"x": 1 << 64})
    with pytest.raises(tensorbus.TooLarge, match="slot_bytes"):
        publisher.publish(array, metadata={"x": b"0" * 10_000})
    # A loan whose metadata is refused is still there.
    tensor = publisher.loan(3, np.uint8)
    tensor.metadata["x"] = [1]
    with pytest.raises(TypeError):
        tensor.publish()
    del tensor.metadata["x"]
    tensor.publish()


def test_empty_scalar_and_large_tensors(bus: tensorbus.Bus) -> None:
    subscriber, publisher = (
        bus.subscriber("camera", depth=1),
        bus.publisher("camera", slots=3, max_slot_bytes=300 << 20),
    )
    for shape in [(), (0,), (3, 0, 2), (1,) * 32]:
        publisher.publish(np.ones(shape, np.float64))
        array = subscriber.recv(timeout=10).first.numpy()
        assert array.shape == shape
        assert (array == 1).all()
    with publisher.loan((256, 1024, 1024), np.uint8) as tensor:
        tensor.numpy()[:, 0, 0] = np.arange(256)
    large = subscriber.recv(timeout=10).first.numpy()
    assert large.nbytes == 256 << 20
    assert (large[:, 0, 0] == np.arange(256)).all()


def test_what_cannot_be_is_an_error_that_says_what_to_do(bus: tensorbus.Bus) -> None:
    publisher = bus.publisher("camera", slots=2, slot_bytes=100)
    cases = [
        (lambda: publisher.loan((100, 100), np.uint8), tensorbus.TooLarge, "slot_bytes"),
        (lambda: publisher.loan((1,) * 33, np.uint8), ValueError, "reshape"),
        (lambda: publisher.loan((-1,), np.uint8), ValueError, "negative"),
        (lambda: publisher.loan("ab", np.uint8), TypeError, "object"),
        (lambda: publisher.loan(1.5, np.uint8), TypeError, "object"),
        (lambda: publisher.loan((2, 2), np.uint8, order="K"), ValueError, "'C'"),
        (lambda: publisher.loan((1 << 40, 1 << 40), np.uint8), ValueError, "larger than memory"),
        (lambda: publisher.publish([1, 2, 3]), TypeError, "np.asarray"),
        (lambda: publisher.publish(object()), TypeError, "no tensor"),
        (lambda: publisher.publish(np.array(["text"])), TypeError, "no dtype"),
        (lambda: publisher.publish(np.array([None])), TypeError, "no dtype"),
        (lambda: publisher.publish(np.zeros(3, ">f4")), TypeError, "byte order"),
        (lambda: publisher.publish(np.zeros(3, np.longdouble)), TypeError, "no dtype"),
        (lambda: publisher.publish(np.zeros(3, [("a", "f4")])), TypeError, "no dtype"),
        (lambda: publisher.publish({}), ValueError, "at least one tensor"),
        (lambda: publisher.publish({"": np.zeros(3)}), ValueError, "1 to 64 bytes"),
        (lambda: publisher.loan(3, "u8"), ValueError, "uint8"),
        (lambda: publisher.loan(3, "f4"), ValueError, "float32"),
        (lambda: publisher.loan(3, object), TypeError, "no dtype"),
        (lambda: bus.publisher("a b"), ValueError, "a-z"),
        (lambda: bus.publisher("camera", depth=99), tensorbus.Mismatch, "same setting"),
        (lambda: bus.publisher("x", overflow="block"), ValueError, "block_timeout"),
        (lambda: bus.publisher("x", overflow="drop"), ValueError, "drop-oldest"),
        (lambda: bus.publisher("x", slot_bytes=2, max_slot_bytes=1), ValueError, "slot_bytes"),
        (lambda: bus.publisher("x", slots=8, slot_bytes=1 << 50), MemoryError, "missing"),
        (lambda: bus.subscriber("camera").recv(timeout=-1), ValueError, "timeout"),
        (lambda: bus.subscriber("camera").recv(timeout=float("nan")), ValueError, "timeout"),
        (lambda: tensorbus.Bus("a/b"), ValueError, "a-z"),
        (lambda: tensorbus.Bus(backend="tape"), ValueError, "shm"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text) as raised:
            call()
        assert isinstance(raised.value, tensorbus.Error) or "object" in str(raised.value)
    assert publisher.stats().published == 0


def test_full_queues_and_slots_are_told(bus: tensorbus.Bus) -> None:
    subscriber = bus.subscriber("strict", depth=2, overflow="error")
    publisher = bus.publisher("strict", slots=3, slot_bytes=8)
    array = np.zeros(1)
    assert [publisher.publish(array), publisher.publish(array)] == [1, 1]
    with pytest.raises(tensorbus.Undelivered) as undelivered:
        publisher.publish(array)
    assert (undelivered.value.delivered, undelivered.value.missed) == (0, 1)
    loans = [publisher.loan(1, np.uint8)]
    with pytest.raises(tensorbus.NoFreeSlot, match="slots"):
        loans.append(publisher.loan(1, np.uint8))
    assert publisher.stats().loans_refused == 1
    held = [subscriber.recv(timeout=10) for _ in range(2)]
    assert [message.sequence for message in held] == [0, 1]


def test_too_many_held_messages_are_told(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", slots=12)
    for number in range(4):
        publisher.publish(np.array([number]))
    held = [subscriber.recv(timeout=10).first.numpy() for _ in range(4)]
    publisher.publish(np.array([4]))
    with pytest.raises(tensorbus.TooManyHeld, match="max_borrowed"):
        subscriber.recv(timeout=10)
    del held[0]
    assert subscriber.recv(timeout=10).first.numpy()[0] == 4


def test_history_reaches_who_comes_late(session: str) -> None:
    with tensorbus.Bus(service_interval=0.005) as bus:
        publisher = bus.publisher("latched", history=1, slots=12)
        publisher.publish(np.array([1]))
        publisher.publish(np.array([2]))
        assert bus.subscriber("latched").recv(timeout=10).first.numpy()[0] == 2


def test_what_is_closed_says_so(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.array([1]))
    held = subscriber.recv(timeout=10)
    subscriber.close()
    publisher.close()
    for call in (subscriber.try_recv, subscriber.fileno, publisher.stats, lambda: publisher.loan(1, np.uint8)):
        with pytest.raises(tensorbus.Closed, match="closed"):
            call()
    assert list(subscriber) == []
    assert held.first.numpy()[0] == 1
    assert "closed" in repr(subscriber) + repr(publisher)
    bus.close()
    with pytest.raises(ValueError, match="the bus is closed"):
        bus.publisher("numbers")
    assert held.first.numpy()[0] == 1


def test_topics_members_and_quota_are_seen(session: str) -> None:
    with tensorbus.Bus(session, quota_bytes=1 << 20) as bus:
        assert (bus.session, bus.backend, bus.quota()) == (session, "shm", (1 << 20, 0))
        publisher = bus.publisher("a/b", slots=2, slot_bytes=1000, depth=3)
        topics = bus.topics()
        assert [(topic.name, topic.publishers, topic.subscribers, topic.depth) for topic in topics] == [
            ("a/b", 1, 0, 3)
        ]
        quota = bus.quota()
        assert quota is not None
        assert quota[1] >= topics[0].pool_bytes > 2000
        with pytest.raises(MemoryError, match="quota"):
            bus.publisher("large", slot_bytes=1 << 20)
        alive, dead = bus.members()
        assert (len(alive), dead) == (1, [])
        with pytest.raises(tensorbus.Mismatch, match="quota"):
            tensorbus.Bus(quota_bytes=5)
        del publisher


def test_texts_for_people(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    loan = publisher.loan_message({"a": (3, "int4"), "b": ((), bool, "F")})
    assert repr(loan) == "<MessageMut with a: int4 (3,), b: bool ()>"
    assert repr(loan["a"]) == "<TensorMut a: int4 (3,)>"
    loan.publish()
    message = subscriber.recv(timeout=10)
    assert repr(message) == "<Message 0 with a: int4 (3,), b: bool ()>"
    assert repr(message["b"]) == "<Tensor b: bool ()>"
    assert repr(message["a"].dtype) == "Dtype('int4')"
