"""The `tensorbus` command comes with the package, and neither is slow to start."""

import json
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import tensorbus

COMMANDS = [[str(Path(sysconfig.get_path("scripts")) / "tensorbus")], [sys.executable, "-m", "tensorbus"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_installed(command: list[str]) -> None:
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert version.stdout == f"tensorbus {tensorbus.__version__}\n"
    wrong = subprocess.run([*command, "nonsense"], check=False, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "nonsense" in wrong.stderr


def test_it_sees_what_python_publishes(bus: tensorbus.Bus) -> None:
    publisher = bus.publisher("camera", slot_bytes=64, history=1)
    publisher.publish(np.array([1.5, 2.5]), metadata={"lens": "wide"})
    topics = subprocess.run([*COMMANDS[0], "topics", "--json"], check=True, capture_output=True, text=True)
    assert "camera" in topics.stdout
    json.loads(topics.stdout)
    echo = subprocess.Popen([*COMMANDS[0], "echo", "camera", "--count", "1"], stdout=subprocess.PIPE, text=True)
    publisher.wait_for_subscribers(1, timeout=60)
    publisher.publish(np.array([1.5, 2.5]), metadata={"lens": "wide"})
    said, _ = echo.communicate(timeout=60)
    assert echo.returncode == 0
    assert "2.5" in said
    assert "wide" in said


def test_ctrl_c_ends_it(bus: tensorbus.Bus) -> None:
    publisher = bus.publisher("camera", slot_bytes=64)
    echo = subprocess.Popen([*COMMANDS[0], "echo", "camera"], stdout=subprocess.PIPE, text=True)
    publisher.wait_for_subscribers(1, timeout=60)
    echo.send_signal(signal.SIGINT)
    echo.communicate(timeout=60)
    assert echo.returncode in (0, 130, -signal.SIGINT)


def test_starting_imports_only_what_it_needs() -> None:
    heavy = ("numpy", "asyncio", "typing", "ml_dtypes", "signal")
    program = f"import sys, tensorbus; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert said.stdout == "[]\n"
