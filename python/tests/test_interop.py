"""Rust and Python speak with each other, in both directions."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Node
from node import pattern

import tensorbus

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def rust_binary() -> str:
    """The children of the Rust tests."""
    command = ["cargo", "build", "--quiet", "--package", "tensorbus-tests", "--bin", "node", "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    artifacts = (json.loads(line) for line in built.stdout.splitlines())
    return next(artifact["executable"] for artifact in artifacts if artifact.get("executable"))


@pytest.fixture
def rust(session: str, rust_binary: str) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def start(role: str, *args: object) -> Node:
        nodes.append(Node([rust_binary, role, *map(str, args)]))
        return nodes[-1]

    yield start
    for each in nodes:
        each.__exit__()


def test_rust_publishes_and_python_reads(bus: tensorbus.Bus, rust: Callable[..., Node]) -> None:
    subscriber = bus.subscriber("numbers", overflow="block", block_timeout=60)
    other = rust("publish", 100, 10_000)
    other.expect("ready")
    other.tell()
    for sequence in range(100):
        message = subscriber.recv(timeout=60)
        assert (message.sequence, message.lost, message.metadata) == (sequence, 0, {"n": sequence})
        np.testing.assert_array_equal(message.first.numpy(), pattern(sequence, 10_000))
    other.expect("published")
    assert other.end() == 0


def test_python_publishes_and_rust_answers(bus: tensorbus.Bus, rust: Callable[..., Node]) -> None:
    pong = bus.subscriber("pong")
    other = rust("echo", 100)
    other.expect("ready")
    ping = bus.publisher("ping", slot_bytes=8)
    for number in range(100):
        with ping.loan(1, np.uint64) as tensor:
            tensor.numpy()[0] = number
        assert pong.recv(timeout=60).first.numpy().tolist() == [number]
    assert other.end() == 0


def test_python_publishes_and_rust_checks_every_byte(bus: tensorbus.Bus, rust: Callable[..., Node]) -> None:
    publisher = bus.publisher("numbers", slot_bytes=40_000, overflow="block", block_timeout=60)
    other = rust("read-when-told", 3)
    other.expect("ready")
    for number in range(3):
        publisher.publish(np.array([number + 5], np.uint32))
    other.tell()
    for number in range(3):
        other.expect(str(number + 5))
    assert other.end() == 0


def test_python_to_python(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    publisher_node = node("publish", 50, 100_000)
    checker = node("check", 50, 100_000)
    publisher_node.expect("ready")
    checker.expect("ready")
    publisher_node.tell()
    checker.expect("checked")
    assert (publisher_node.end(), checker.end()) == (0, 0)


def test_rust_killed_and_python_goes_on(bus: tensorbus.Bus, rust: Callable[..., Node]) -> None:
    subscriber = bus.subscriber("numbers", overflow="block", block_timeout=60)
    other = rust("publish", 4, 1000)
    other.expect("ready")
    other.tell()
    other.expect("published")
    held = subscriber.recv(timeout=60).first.numpy()
    other.kill()
    bus.remove_dead()
    assert [subscriber.recv(timeout=60).sequence for _ in range(3)] == [1, 2, 3]
    np.testing.assert_array_equal(held, pattern(0, 1000))
