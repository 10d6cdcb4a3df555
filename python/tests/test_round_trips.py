"""Any array comes back as it was: shape, strides, dtype and values (hypothesis)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from memory import from_dlpack

import tensorbus

DTYPES = [
    np.dtype(name) for name in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
]


@st.composite
def any_array(draw: st.DrawFn) -> npt.NDArray[Any]:
    """An array, and some view of it: transposed, sliced forwards and backwards, broadcast."""
    shapes = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)
    array = draw(arrays.arrays(st.sampled_from(DTYPES), shapes))
    if draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    if array.ndim and draw(st.booleans()):
        array = array[draw(arrays.basic_indices(array.shape, allow_newaxis=True, max_dims=6))]
        array = np.asarray(array)
    if draw(st.booleans()):
        array = np.broadcast_to(array, (draw(st.integers(0, 3)), *array.shape))
    return array


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(any_array(), min_size=1, max_size=3))
def test_any_arrays_come_back(bus: tensorbus.Bus, sent: list[npt.NDArray[Any]]) -> None:
    subscriber, publisher = bus.subscriber("any"), bus.publisher("any", max_slot_bytes=1 << 22, prefault=False)
    named = {f"t{index}": array for index, array in enumerate(sent)}
    publisher.publish(named)
    with publisher.loan_message({name: (array.shape, array.dtype) for name, array in named.items()}) as loan:
        for name, array in named.items():
            if array.size % 2:
                loan[name].numpy()[...] = array
            else:
                loan[name].copy_from(array)
    for _ in range(2):
        message = subscriber.recv(timeout=60)
        assert list(message) == list(named)
        for name, array in named.items():
            for received in (message[name].numpy(), from_dlpack(message[name]), np.asarray(message[name])):
                assert (received.dtype, received.shape) == (array.dtype, array.shape)
                assert received.tobytes() == array.tobytes()
            assert message[name].numpy(copy=True).tobytes() == array.tobytes()
            assert message[name].numpy().ctypes.data % 64 == 0 or array.size == 0
