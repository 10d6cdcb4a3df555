"""PyTorch reads received tensors where they lie, writes loans, and its tensors are published."""

import importlib.util
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorbus

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")

NAMES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
NAMES += ["complex64", "complex128", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(bus: tensorbus.Bus, name: str) -> None:
    import torch

    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 16)
    sent = torch.arange(12).reshape(3, 4).to(getattr(torch, name))
    assert str(tensorbus.Dtype(sent.dtype)) == name
    publisher.publish(sent)
    tensor = subscriber.recv(timeout=10).first
    with pytest.warns(tensorbus.ReadOnlyWarning, match="copy=True"):
        received = tensor.torch()
    assert received.dtype == sent.dtype
    assert (received.to(torch.complex128) == sent.to(torch.complex128)).all()
    assert received.data_ptr() == np.frombuffer(tensor.raw, np.uint8).ctypes.data, "no copy"
    copy = tensor.torch(copy=True)
    copy[0, 0] = copy[1, 1]
    assert copy.data_ptr() != received.data_ptr()
    assert (received.to(torch.complex128) == sent.to(torch.complex128)).all()


def test_a_loan_is_written_in_place(bus: tensorbus.Bus) -> None:
    import torch

    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    with publisher.loan((3, 4), torch.bfloat16) as loan:
        loan.torch().fill_(2.5)
    assert publisher.stats().copied_bytes == 0
    assert (subscriber.recv(timeout=10).first.torch(copy=True) == 2.5).all()
    loan = publisher.loan(3, torch.float32)
    kept = loan.torch()
    kept.fill_(1)
    with pytest.warns(tensorbus.CopyWarning):
        loan.publish()
    received = subscriber.recv(timeout=10).first.numpy()
    kept.fill_(9)
    assert received.tolist() == [1, 1, 1]


def test_strides_and_what_cannot_travel(bus: tensorbus.Bus) -> None:
    import torch

    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers", max_slot_bytes=1 << 16)
    base = torch.arange(24).reshape(2, 3, 4)
    for sent in (base.permute(2, 0, 1), base[:, ::2], base[0].expand(5, 3, 4), base[:0], base[0, 0, 0]):
        publisher.publish(sent)
        received = subscriber.recv(timeout=10).first.torch(copy=True)
        assert torch.equal(received, sent)
    publisher.publish(base.permute(2, 0, 1))
    assert subscriber.recv(timeout=10).first.strides == (1, 12, 4)
    with pytest.raises(BufferError, match="detach"):
        publisher.publish(torch.zeros(3, requires_grad=True))
    with pytest.raises(ValueError, match="meta"):
        publisher.publish(torch.zeros(3, device="meta"))


def test_a_tensor_keeps_its_memory(bus: tensorbus.Bus) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    publisher.publish(np.arange(1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tensorbus.ReadOnlyWarning)
        tensor = subscriber.recv(timeout=10).first.torch()[5:10]
    for number in range(50):
        publisher.publish(np.full(1000, number))
        subscriber.recv(timeout=10)
    assert tensor.tolist() == [5, 6, 7, 8, 9]


def test_a_write_that_was_warned_of_ends_only_the_writer(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    subscriber, publisher = bus.subscriber("numbers"), bus.publisher("numbers")
    other = node("write_torch")
    other.expect("ready")
    publisher.publish(np.zeros(3, np.float32))
    frame = subscriber.recv(timeout=60).first.numpy()
    other.expect("received")
    other.tell()
    assert other.line() == "", "it says nothing more"
    assert other.end() == -signal.SIGSEGV
    bus.remove_dead()
    assert frame.tolist() == [0, 0, 0]
    publisher.publish(np.ones(3, np.float32))
    assert subscriber.recv(timeout=60).first.numpy().tolist() == [1, 1, 1]


def test_a_module_takes_weights_where_they_lie(bus: tensorbus.Bus) -> None:
    """`load_state_dict(assign=True)` of shared weights copies nothing."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
    weights = tensorbus.SharedWeights.publish("net", net.state_dict(), bus=bus)
    attached = tensorbus.SharedWeights.attach("net", bus=bus)
    with torch.device("meta"):
        other = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
    with pytest.warns(tensorbus.ReadOnlyWarning):
        other.load_state_dict(attached.torch(), assign=True)
    x = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.equal(other(x), net(x))
    where = np.frombuffer(attached["0.weight"].raw, np.uint8).ctypes.data
    assert other[0].weight.data_ptr() == where
    del weights


def test_modules_are_measured() -> None:
    import torch

    registry = tensorbus.ModelRegistry()
    registry.get_or_load("net", lambda: torch.nn.Linear(10, 3))
    [model] = registry.list_models()
    assert (model.memory_bytes, model.device) == (33 * 4, "cpu")
