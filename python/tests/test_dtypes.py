"""Every dtype travels (FR-016): NumPy's own, and those of `ml_dtypes`."""

import contextlib
import pickle
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorbus

NATIVE = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NATIVE += ["float16", "float32", "float64", "complex64", "complex128"]
WHOLE = ["bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"]
WHOLE += ["float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
PACKED = ["int1", "int2", "int4", "uint1", "uint2", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"]
# Older `ml_dtypes` have none of a bit.
PACKED = [name for name in PACKED if hasattr(ml_dtypes, name) or name not in ("int1", "uint1")]


def numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(name if name in NATIVE else getattr(ml_dtypes, name))


def samples(name: str) -> np.ndarray[Any, Any]:
    """Every bit pattern of small elements, some of larger ones."""
    dtype = numpy_dtype(name)
    if name in PACKED:
        bits = tensorbus.Dtype(name).bits
        patterns = np.arange(1 << bits, dtype=np.uint8)
        if name.startswith("int"):
            # `ml_dtypes` keeps them with their sign.
            patterns = ((patterns.astype(np.int8) << (8 - bits)) >> (8 - bits)).view(np.uint8)
        return np.concatenate([patterns, patterns[:1]]).view(dtype)
    if name == "bool":
        return np.array([True, False, True])
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, 33 * dtype.itemsize, np.uint8).view(dtype)


@pytest.mark.parametrize("name", NATIVE + WHOLE + PACKED)
def test_every_pattern_comes_back(bus: tensorbus.Bus, name: str) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 12)
    sent = samples(name)
    publisher.publish(sent)
    tensor = subscriber.recv(timeout=10).first
    assert str(tensor.dtype) == name
    received = tensor.numpy()
    assert received.dtype == sent.dtype == tensor.dtype.numpy
    assert received.tobytes() == sent.tobytes()
    if name in PACKED:
        assert len(tensor.raw) == -(-len(sent) * tensor.dtype.bits // 8)
        assert received.flags.writeable, "a copy"
        with pytest.raises(TypeError, match="packed"):
            tensor.numpy(copy=False)
        with pytest.raises(TypeError, match="copy_from"):
            publisher.loan(3, name).numpy()
    else:
        assert not received.flags.writeable
        assert np.shares_memory(received, np.frombuffer(tensor.raw, np.uint8))
    if name not in NATIVE:
        with pytest.raises(BufferError, match="numpy"):
            memoryview(tensor)
        assert np.asarray(tensor).dtype == sent.dtype
    # Into a loan, and from what was received.
    with publisher.loan(len(sent), sent.dtype) as loan:
        loan.copy_from(tensor)
    assert subscriber.recv(timeout=10).first.numpy().tobytes() == sent.tobytes()
    if name not in PACKED:
        with publisher.loan(len(sent), sent.dtype) as loan:
            assert loan.numpy().dtype == sent.dtype
            loan.numpy()[...] = sent
        assert subscriber.recv(timeout=10).first.numpy().tobytes() == sent.tobytes()


@pytest.mark.parametrize("name", ["bfloat16", "int4", "float16"])
def test_shapes_and_strides_survive_too(bus: tensorbus.Bus, name: str) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 12)
    base = np.arange(24).reshape(2, 3, 4).astype(numpy_dtype(name))
    for array in (base, base.T, base[:, ::-1, ::2], base[:0], base[0, 0, 0]):
        publisher.publish(array)
        received = subscriber.recv(timeout=10).first.numpy()
        assert received.shape == array.shape
        np.testing.assert_array_equal(received.astype(np.float32), array.astype(np.float32))


def test_a_dtype_has_many_names() -> None:
    same: list[Any] = ["float32", np.float32, np.dtype("f4"), np.dtype("<f4"), tensorbus.Dtype("float32")]
    assert len({tensorbus.Dtype(each) for each in same}) == 1
    assert [str(tensorbus.Dtype(each)) for each in (bool, int, float, complex)] == [
        "bool",
        "int64",
        "float64",
        "complex128",
    ]
    assert tensorbus.Dtype(ml_dtypes.bfloat16) == tensorbus.Dtype("bfloat16") != tensorbus.Dtype("float16")
    assert (tensorbus.Dtype("int4").itemsize, tensorbus.Dtype("int4").bits, tensorbus.Dtype("complex64").itemsize) == (
        None,
        4,
        8,
    )
    tensor = np.zeros(3, np.float32)
    references = sys.getrefcount(tensor)
    with contextlib.suppress(TypeError):
        tensorbus.Dtype(tensor)
    for wrong in ([1], {}, None, 3):
        with pytest.raises(TypeError, match="no dtype"):
            tensorbus.Dtype(wrong)
    assert sys.getrefcount(tensor) == references, "only names of dtypes are kept"
    vector = tensorbus.Dtype("float32x4")
    assert (vector.lanes, vector.itemsize, str(vector)) == (4, 16, "float32x4")
    assert pickle.loads(pickle.dumps(vector)) == vector


@pytest.mark.parametrize("name", ["int128", "uint128", "float32x4", "complex32"])
def test_what_numpy_has_no_type_for_is_there_as_bytes(bus: tensorbus.Bus, name: str) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    with publisher.loan(2, name) as loan:
        loan.raw[:] = bytes(range(loan.nbytes))
        with pytest.raises(TypeError, match="raw"):
            loan.numpy()
    tensor = subscriber.recv(timeout=10).first
    assert bytes(tensor.raw) == bytes(range(tensor.nbytes))
    with pytest.raises(TypeError, match="raw"):
        tensor.numpy()
    publisher.publish(tensor)
    assert bytes(subscriber.recv(timeout=10).first.raw) == bytes(tensor.raw)
