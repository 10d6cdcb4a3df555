"""The examples do what they say."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Node

import tensorbus

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/python"


def python(example: str, *args: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / example), *args]


def said_by(example: str, *args: str) -> list[str]:
    """The lines of an example that ends by itself."""
    told = subprocess.run(python(example, *args), check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    return told.stdout.splitlines()


def run_beside(camera: list[str], viewer: list[str]) -> list[str]:
    """Five lines that the viewer says. Both are then interrupted."""
    nodes = [Node(command) for command in (viewer, camera)]
    try:
        lines = [nodes[0].line() for _ in range(5)]
    finally:
        for node in nodes:
            node.process.send_signal(signal.SIGINT)
            node.process.communicate(timeout=60)
            node.__exit__()
    return lines


@pytest.mark.usefixtures("session")
def test_a_camera_and_a_viewer() -> None:
    lines = run_beside(python("camera.py"), python("viewer.py"))
    numbers = [int(line.split()[0]) for line in lines]
    # A viewer that is late misses the oldest, and gets each of the others once, in order.
    assert numbers == sorted(set(numbers))
    assert "(480, 640, 3) uint8" in lines[0]
    assert "exposure_ms" in lines[0]


@pytest.mark.usefixtures("session")
def test_a_viewer_in_an_event_loop() -> None:
    lines = run_beside(python("camera.py"), python("viewer_asyncio.py"))
    assert any(line.startswith("second") for line in lines)
    assert any(not line.startswith("second") for line in lines)


@pytest.mark.usefixtures("session")
def test_a_camera_and_a_model() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing runs the model")
    said = said_by("camera_to_model.py", "--frames", "100")
    assert said[-1].endswith("of 100 right")
    # The network's own accuracy, which `examples/digits` says, is 97 %.
    assert int(said[-1].split()[0]) >= 90
    assert len([line for line in said if re.fullmatch(r"frame \d+: a \d.*", line)]) == 100


@pytest.mark.usefixtures("session")
def test_speech_is_found() -> None:
    """The speech, and not the silence."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing runs the detector's model")
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("silero-vad is not installed: the detector has no model")
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: nobody speaks")
    segments: dict[str, list[tuple[float, float]]] = {"spoken": [], "heard": []}
    for line in said_by("speech.py"):
        found = re.fullmatch(r"(\w+) from ([\d.]+) to ([\d.]+) s", line)
        assert found, line
        segments[found[1]].append((float(found[2]), float(found[3])))
    assert len(segments["spoken"]) == 2
    # A pause within a sentence may be heard as one, those between them are not speech.
    tolerance = 0.2
    for begin, end in segments["heard"]:
        assert any(first - tolerance <= begin <= end <= last + tolerance for first, last in segments["spoken"])
    for first, last in segments["spoken"]:
        heard = sum(end - begin for begin, end in segments["heard"] if first - tolerance <= begin <= last)
        assert heard > (last - first) / 2


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("example", ["camera_to_model.py", "speech.py"])
def test_what_is_missing_is_said(example: str) -> None:
    """Without what it needs, an example says what to install, and starts nothing."""
    hide = "import runpy, shutil, sys; sys.modules['onnxruntime'] = None; shutil.which = lambda _: 'there'"
    run = f"{hide}; runpy.run_path({str(EXAMPLES / example)!r}, run_name='__main__')"
    told = subprocess.run([sys.executable, "-c", run], check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert "pip install onnxruntime" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.fixture(scope="session")
def rust_examples() -> Path:
    """The folder of the Rust examples, built."""
    command = [
        "cargo",
        "build",
        "--quiet",
        "--package",
        "tensorbus",
        "--example",
        "publisher",
        "--example",
        "subscriber",
    ]
    built = subprocess.run(
        [*command, "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    artifacts = (json.loads(line) for line in built.stdout.splitlines())
    return next(Path(artifact["executable"]).parent for artifact in artifacts if artifact.get("executable"))


def leave_no_dead() -> None:
    """The Rust examples have no handler for Ctrl-C: they are killed, and whoever comes next cleans up."""
    with tensorbus.Bus() as bus:
        assert bus.members()[1] == []


@pytest.mark.usefixtures("session")
def test_a_camera_in_rust_and_a_viewer_in_python(rust_examples: Path) -> None:
    lines = run_beside([str(rust_examples / "publisher")], python("viewer.py"))
    leave_no_dead()
    assert all("(480, 640, 3) uint8" in line for line in lines)


@pytest.mark.usefixtures("session")
def test_a_camera_in_python_and_a_viewer_in_rust(rust_examples: Path) -> None:
    lines = run_beside(python("camera.py"), [str(rust_examples / "subscriber")])
    leave_no_dead()
    assert all("[480, 640, 3] mean" in line for line in lines)
