"""Weights that processes share: FR-008, SC-001."""

import gc
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Node
from memory import address, from_dlpack, place

import tensorbus
from tensorbus import SharedWeights


def state() -> dict[str, npt.NDArray[np.generic]]:
    return {
        "fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "fc.bias": np.array([1, -2, 3], np.int8),
        "scale": np.array(0.5, np.float64),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float16),
    }


def check(weights: Mapping[str, tensorbus.MappedTensor]) -> None:
    expected = state()
    assert sorted(weights) == sorted(expected)
    for name, array in expected.items():
        tensor = weights[name]
        assert (tensor.name, tensor.shape, tensor.ndim, tensor.nbytes) == (name, array.shape, array.ndim, array.nbytes)
        seen = tensor.numpy()
        assert seen.dtype == array.dtype
        np.testing.assert_array_equal(seen, array)


def test_what_is_published_is_attached(bus: tensorbus.Bus) -> None:
    published = SharedWeights.publish("net/1", state(), bus=bus)
    check(published)
    attached = SharedWeights.attach("net/1", bus=bus)
    check(attached)
    assert attached.digest == published.digest
    assert len(attached.digest) == 64
    attached.verify()
    assert attached.nbytes == sum(array.nbytes for array in state().values())


def test_weights_are_a_mapping(bus: tensorbus.Bus) -> None:
    weights = SharedWeights.publish("net", state(), bus=bus)
    assert isinstance(weights, Mapping)
    assert len(weights) == 5
    assert "scale" in weights
    assert "other" not in weights
    assert 7 not in weights
    assert list(weights) == list(weights.keys()) == [name for name, _ in weights.items()]
    assert [tensor.name for tensor in weights.values()] == list(weights)
    assert weights.get("other") is None
    with pytest.raises(tensorbus.NoSuchTensor, match="other"):
        weights["other"]
    assert "3, 4" in repr(weights["fc.weight"])


def test_tensors_are_read_where_they_lie(bus: tensorbus.Bus) -> None:
    weights = SharedWeights.publish("net", state(), bus=bus)
    again = SharedWeights.attach("net", bus=bus)
    tensor = weights["fc.weight"]
    arrays = [tensor.numpy(), np.asarray(tensor), from_dlpack(tensor), np.asarray(memoryview(tensor))]
    assert len({address(array) for array in arrays}) == 1
    assert address(arrays[0]) % 64 == 0
    where = place(arrays[0])
    assert not where.permissions.startswith("rw")
    assert place(again["fc.weight"].numpy())[:2] == where[:2], "one file, whatever the mapping"
    for array in arrays:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    copy = tensor.numpy(copy=True)
    copy[0, 0] = 7
    assert tensor.numpy()[0, 0] == 0


def test_arrays_keep_the_weights(bus: tensorbus.Bus) -> None:
    weights = SharedWeights.publish("net", state(), bus=bus)
    array = weights["fc.weight"].numpy()
    del weights
    gc.collect()
    np.testing.assert_array_equal(array, state()["fc.weight"])
    check(SharedWeights.attach("net", bus=bus))
    del array
    gc.collect()
    with pytest.raises(tensorbus.NoSuchWeights, match="net"):
        SharedWeights.attach("net", bus=bus)


def test_they_outlive_a_publisher_that_is_killed(session: str, node: Callable[..., Node]) -> None:
    publisher = node("publish_weights")
    publisher.expect("published")
    weights = SharedWeights.attach("net")
    publisher.kill()
    check(weights)
    weights.verify()


def test_one_copy_for_all_processes(session: str, node: Callable[..., Node]) -> None:
    """SC-001: each process sees the same bytes of the same file."""
    first = node("publish_weights")
    first.expect("published")
    others = [node("attach_weights") for _ in range(2)]
    places = {other.line() for other in others}
    mine = place(SharedWeights.attach("net")["fc.weight"].numpy())
    assert places == {f"{mine.inode} {mine.offset}"}
    assert [each.end() for each in (first, *others)] == [0, 0, 0]


def test_without_a_bus_the_default_session_is_used(session: str) -> None:
    weights = SharedWeights.publish("net", state())
    check(SharedWeights.attach("net"))
    del weights


def test_strided_arrays_are_put_in_order(bus: tensorbus.Bus) -> None:
    array = np.arange(24, dtype=np.int16).reshape(4, 6)
    tensors = {"t": array.T, "steps": array[::2, ::-3]}
    weights = SharedWeights.publish("net", tensors, bus=bus)
    for name, expected in tensors.items():
        np.testing.assert_array_equal(weights[name].numpy(), expected)
        assert weights[name].numpy().flags.c_contiguous


def test_ml_dtypes(bus: tensorbus.Bus) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.arange(8, dtype=np.float32).astype(ml_dtypes.bfloat16)
    weights = SharedWeights.publish("net", {"w": array}, bus=bus)
    assert weights["w"].numpy().dtype == array.dtype
    np.testing.assert_array_equal(weights["w"].numpy(), array)
    assert bytes(weights["w"].raw) == array.tobytes()
    published = SharedWeights.publish("again", weights, bus=bus)
    np.testing.assert_array_equal(published["w"].numpy(), array)


def test_weights_are_published_as_messages_too(bus: tensorbus.Bus) -> None:
    weights = SharedWeights.publish("net", state(), bus=bus)
    subscriber = bus.subscriber("weights")
    publisher = bus.publisher("weights")
    publisher.publish({"w": weights["fc.weight"]})
    np.testing.assert_array_equal(subscriber.recv(10)["w"].numpy(), state()["fc.weight"])


def test_bad_arguments_are_told(bus: tensorbus.Bus) -> None:
    with pytest.raises(tensorbus.InvalidArgument, match="name"):
        SharedWeights.publish("no spaces", state(), bus=bus)
    with pytest.raises(tensorbus.InvalidArgument, match="at least one tensor"):
        SharedWeights.publish("net", {}, bus=bus)
    with pytest.raises(tensorbus.UnsupportedTensor) as raised:
        SharedWeights.publish("net", {"fine": np.zeros(2), "wrong": "text"}, bus=bus)  # type: ignore[dict-item]
    assert any("wrong" in note for note in raised.value.__notes__)
    with pytest.raises(tensorbus.NoSuchWeights, match="nothing is published"):
        SharedWeights.attach("net", bus=bus)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(SharedWeights.publish("net", state(), bus=bus))


def safetensors(path: Path, array: npt.NDArray[np.float32]) -> Path:
    """A file as others write it."""
    entry = {"dtype": "F32", "shape": array.shape, "data_offsets": [0, array.nbytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": entry}).encode()
    header += b" " * (-len(header) % 64)
    path.write_bytes(len(header).to_bytes(8, "little") + header + array.tobytes())
    return path


def test_a_file_is_mapped(tmp_path: Path, bus: tensorbus.Bus) -> None:
    array = np.arange(1000, dtype=np.float32)
    path = safetensors(tmp_path / "model.safetensors", array)
    weights = SharedWeights.open(path)
    np.testing.assert_array_equal(weights["w"].numpy(), array)
    assert weights.metadata == {"format": "pt"}
    assert place(weights["w"].numpy()).inode == path.stat().st_ino
    copied = weights.publish_copy("net", bus=bus)
    assert place(copied["w"].numpy()).inode != path.stat().st_ino
    arrays = weights.numpy()
    assert list(arrays) == ["w"]
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")
    digest = copied.digest
    copied.verify()
    assert copied.digest == digest


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "model.safetensors", np.ones(10, np.float32))
    weights = SharedWeights.open(path)
    assert weights.digest
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0")
    with pytest.raises(tensorbus.WeightsChanged, match="changed in place"):
        weights.verify()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        SharedWeights.open(tmp_path / "none")
    assert raised.value.filename == str(tmp_path / "none") or raised.value.filename == tmp_path / "none"
    path = safetensors(tmp_path / "model.safetensors", np.ones(10, np.float32))
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:7], b"", whole + b"x"):
        path.write_bytes(broken)
        with pytest.raises(tensorbus.InvalidArgument):
            SharedWeights.open(path)
    with pytest.raises(tensorbus.InvalidArgument, match="no regular file"):
        SharedWeights.open(tmp_path)
