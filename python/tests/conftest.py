import faulthandler
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

import tensorbus

# Longest time for anything to happen that must happen.
PATIENCE = 60.0
# A test that hangs ends the run, and says where it hangs.
WATCHDOG = 180.0
HERE = Path(__file__).parent
_numbers = itertools.count()

# A shell makes programs in the background ignore Ctrl-C, and what they start does too. Some tests are about it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A session of its own, for this process and its children. Nothing is left of it."""
    name = f"py{os.getpid()}-{next(_numbers)}"
    monkeypatch.setenv("TENSORBUS_SESSION", name)
    yield name
    # Tracebacks of errors that a test looked at keep what it held.
    gc.collect()
    left = [directory for directory in Path("/dev/shm").glob("tb-*") if directory.name.endswith(f"-{name}")]
    assert not left, f"{left} is left"


@pytest.fixture
def bus(session: str) -> Iterator[tensorbus.Bus]:
    with tensorbus.Bus() as bus:
        yield bus


class Node:
    """A process of `node.py`: it says lines and is told lines."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.timer = threading.Timer(PATIENCE, self.process.kill)
        self.timer.daemon = True
        self.timer.start()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def expect(self, line: str) -> None:
        said = self.line()
        assert said == line, f"{said!r} instead of {line!r}"

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """Close its stdin, which ends it."""
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def node(session: str) -> Iterator[Callable[..., Node]]:
    """Starts a process that plays a role of `node.py`."""
    nodes: list[Node] = []

    def start(role: str, *args: object) -> Node:
        nodes.append(Node([sys.executable, str(HERE / "node.py"), role, *map(str, args)]))
        return nodes[-1]

    yield start
    for each in nodes:
        each.__exit__()
