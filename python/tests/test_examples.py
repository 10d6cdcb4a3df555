"""The examples and the README's programs do what they say."""

import re
import signal
import sys
from pathlib import Path

import pytest
from conftest import Node

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/python"


def readme_program(name: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if block.startswith(f"# {name}\n"))


def run_beside(camera: Path, viewer: Path) -> list[str]:
    """Five lines that the viewer says. Both are then interrupted."""
    nodes = [Node([sys.executable, str(program)]) for program in (viewer, camera)]
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
    lines = run_beside(EXAMPLES / "camera.py", EXAMPLES / "viewer.py")
    numbers = [int(line.split()[0]) for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert "(480, 640, 3) uint8" in lines[0]
    assert "exposure_ms" in lines[0]


@pytest.mark.usefixtures("session")
def test_a_viewer_in_an_event_loop() -> None:
    lines = run_beside(EXAMPLES / "camera.py", EXAMPLES / "viewer_asyncio.py")
    assert any(line.startswith("second") for line in lines)
    assert any(not line.startswith("second") for line in lines)


@pytest.mark.usefixtures("session")
def test_the_page_on_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), {})


@pytest.mark.usefixtures("session")
def test_the_readme(tmp_path: Path) -> None:
    programs = [tmp_path / name for name in ("camera.py", "viewer.py")]
    for program in programs:
        program.write_text(readme_program(program.name))
    assert all("(480, 640, 3) 127" in line for line in run_beside(*programs))
