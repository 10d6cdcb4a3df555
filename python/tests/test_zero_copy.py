"""The subscriber reads the bytes that the publisher wrote, where it wrote them (FR-007), and cannot write them."""

import ctypes
from array import array as Doubles  # noqa: N812
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from memory import NUMPY_READS_DLPACK, address, from_dlpack, place

import tensorbus


def test_the_bytes_received_are_those_written(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("camera"), bus.publisher("camera")
    tensor = publisher.loan((64, 64), np.float32)
    tensor.numpy()[...] = 1
    written = place(tensor.numpy())
    tensor.publish()
    frame = subscriber.recv(timeout=10).first
    views = [
        frame.numpy(),
        np.asarray(frame),
        np.array(frame, copy=False),
        from_dlpack(frame),
        np.asarray(memoryview(frame)),
        np.frombuffer(frame, np.float32).reshape(64, 64),
        np.frombuffer(frame.raw, np.float32).reshape(64, 64),
        np.asarray(type("Interface", (), {"__array_interface__": frame.__array_interface__, "frame": frame})()),
    ]
    for view in views:
        read = place(view)
        assert (read.inode, read.offset) == (written.inode, written.offset)
        assert np.shares_memory(view, views[0])
        assert (view == 1).all()
    assert publisher.stats().copied_bytes == 0


def test_another_process_reads_the_same_memory(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    size = 3 << 20
    subscriber = bus.subscriber("numbers")
    other = node("publish_place", size)
    other.expect("ready")
    other.tell()
    frame = subscriber.recv(timeout=60).first.numpy()
    inode, offset = map(int, other.line().split())
    read = place(frame)
    assert (read.inode, read.offset) == (inode, offset)
    assert read.permissions == "r--s"
    assert frame.size == size
    assert (frame == 7).all()


def test_what_is_received_cannot_be_written(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("camera"), bus.publisher("camera")
    publisher.publish(np.arange(6, dtype=np.int16).reshape(2, 3))
    frame = subscriber.recv(timeout=10).first
    for array in (frame.numpy(), np.asarray(frame), from_dlpack(frame), np.asarray(memoryview(frame))):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)
    with pytest.raises(TypeError, match="read-only"):
        memoryview(frame)[0, 0] = 1
    with pytest.raises(TypeError, match="read-only"):
        frame.raw[0] = 1
    with pytest.raises(TypeError, match="not writable"):
        ctypes.c_char.from_buffer(frame)
    interface = frame.__array_interface__
    assert interface["data"] == (address(frame.numpy()), True)
    copy = frame.numpy(copy=True)
    copy[0, 0] = 77
    assert frame.numpy()[0, 0] == 0


def test_dlpack_says_what_it_gives(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("camera"), bus.publisher("camera")
    publisher.publish(np.arange(6.0))
    frame = subscriber.recv(timeout=10).first
    assert frame.__dlpack_device__() == (1, 0)
    assert "dltensor_versioned" in repr(frame.__dlpack__(max_version=(1, 0)))
    for refused in ({}, {"max_version": (0, 8)}, {"max_version": (1, 0), "dl_device": (2, 0)}, {"stream": 1}):
        with pytest.raises(BufferError):
            frame.__dlpack__(**refused)
    for copied in ({"copy": True}, {"copy": True, "max_version": (1, 1), "dl_device": (1, 0)}):
        assert "dltensor" in repr(frame.__dlpack__(**copied))
    if NUMPY_READS_DLPACK:
        copy = np.from_dlpack(frame, copy=True)
        copy[0] = 9
        assert frame.numpy()[0] == 0
    else:
        with pytest.raises(BufferError, match="read-only"):
            np.from_dlpack(frame)


def test_buffers_are_given_as_they_are_asked_for(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("camera"), bus.publisher("camera", max_slot_bytes=1 << 16)
    rows = np.arange(6, dtype=np.uint16).reshape(2, 3)
    publisher.publish(rows)
    publisher.publish(np.asfortranarray(rows))
    in_rows, in_columns = (subscriber.recv(timeout=10).first for _ in range(2))
    view = memoryview(in_rows)
    assert (view.format, view.itemsize, view.shape, view.strides, view.readonly) == ("H", 2, (2, 3), (6, 2), True)
    assert view.tolist() == rows.tolist()
    assert bytes(in_rows) == rows.tobytes()
    view = memoryview(in_columns)
    assert (view.strides, view.c_contiguous, view.f_contiguous) == ((2, 4), False, True)
    assert view.tolist() == rows.tolist()
    # `join` asks for bytes in row-major order.
    assert b"".join([in_rows]) == rows.tobytes()
    with pytest.raises((BufferError, TypeError)):
        b"".join([in_columns])


def test_layouts_survive(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("layouts"), bus.publisher("layouts", max_slot_bytes=1 << 20)
    base = np.arange(2 * 3 * 4, dtype=np.int32).reshape(2, 3, 4)
    for array in (base, np.asfortranarray(base), base.transpose(1, 0, 2), base.transpose(2, 0, 1)):
        publisher.publish(array)
        received = subscriber.recv(timeout=10).first.numpy()
        assert received.strides == array.strides, "dense arrays keep their order"
        np.testing.assert_array_equal(received, array)
    for array in (base[::2], base[:, ::-1], base[..., ::2], np.broadcast_to(np.int32(3), (2, 3)), base[1:, 1:, 1:]):
        publisher.publish(array)
        received = subscriber.recv(timeout=10).first.numpy()
        assert received.flags.c_contiguous, "others are put in order"
        np.testing.assert_array_equal(received, array)
    with publisher.loan((3, 4), "int32", order="F") as tensor:
        assert tensor.numpy().flags.f_contiguous
        tensor.copy_from(base[0])
    received = subscriber.recv(timeout=10).first.numpy()
    assert received.flags.f_contiguous
    np.testing.assert_array_equal(received, base[0])
    fields = np.zeros(5, [("a", "u1"), ("b", "<f4")])
    fields["b"] = range(5)
    publisher.publish(fields["b"])
    assert subscriber.recv(timeout=10).first.numpy().tolist() == [0, 1, 2, 3, 4]


def test_arrays_are_converted_when_asked(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.arange(3, dtype=np.uint8))
    tensor = subscriber.recv(timeout=10).first
    assert np.asarray(tensor, dtype=np.float32).dtype == np.float32
    assert np.array(tensor, dtype=np.uint8).flags.writeable
    with pytest.raises(ValueError, match="copy"):
        tensor.__array__(np.float32, copy=False)
    assert np.add(tensor, 1).tolist() == [1, 2, 3]


def test_buffers_of_all_kinds_are_published(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 16)
    sources: list[Any] = [
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abcd")[::2],
        memoryview(b"abcd")[::-1],
        Doubles("d", [1.0, 2.0]),
        (ctypes.c_int32 * 3)(1, 2, 3),
        np.float32(1.5),
    ]
    for source in sources:
        publisher.publish(source)
        received = subscriber.recv(timeout=10).first.numpy()
        np.testing.assert_array_equal(received, np.asarray(memoryview(source)))
