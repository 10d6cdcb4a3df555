"""JAX reads received tensors where they lie, and its arrays are published."""

import importlib.util

import ml_dtypes
import numpy as np
import pytest

import tensorbus

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint16, np.bool_, np.complex64, ml_dtypes.bfloat16])
def test_there_and_back(bus: tensorbus.Bus, dtype: type) -> None:
    import jax.numpy as jnp

    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 16)
    sent = jnp.asarray(np.arange(12).reshape(3, 4).astype(dtype))
    publisher.publish(sent)
    tensor = subscriber.recv(timeout=10).first
    received = tensor.jax()
    assert received.dtype == sent.dtype
    assert (received == sent).all()
    assert received.unsafe_buffer_pointer() == np.frombuffer(tensor.raw, np.uint8).ctypes.data, "no copy"


def test_an_array_keeps_its_memory(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.arange(1000, dtype=np.float32))
    array = subscriber.recv(timeout=10).first.jax()
    for number in range(50):
        publisher.publish(np.full(1000, number, np.float32))
        subscriber.recv(timeout=10)
    assert (array == np.arange(1000)).all()


def test_orders_and_computation(bus: tensorbus.Bus) -> None:
    import jax

    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 16)
    matrix = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    publisher.publish(matrix)
    result = jax.jit(lambda x: x @ x.T)(subscriber.recv(timeout=10).first.jax())
    np.testing.assert_allclose(result, matrix @ matrix.T)
    with publisher.loan((2, 2), np.float32) as loan:
        loan.copy_from(result)
    np.testing.assert_array_equal(subscriber.recv(timeout=10).first.numpy(), result)
