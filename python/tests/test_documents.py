"""The programs of the documents do what they say."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Node

ROOT = Path(__file__).parents[2]


def blocks(document: str) -> list[str]:
    """The Python programs in a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def programs(document: str) -> dict[str, str]:
    """Those that are files: their first line is the name."""
    named = ((re.match(r"# (\w+\.py)\n", block), block) for block in blocks(document))
    return {name[1]: block for name, block in named if name}


def pieces(document: str) -> list[str]:
    """Those that are not."""
    files = programs(document).values()
    return [block for block in blocks(document) if block not in files]


DOCUMENTS = ["docs/python.md", "docs/tutorial-python.md"]
PIECES = [(document, number) for document in DOCUMENTS for number in range(len(pieces(document)))]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(("document", "number"), PIECES)
def test_each_piece_of_a_page_runs(document: str, number: int) -> None:
    """In a process of its own: what it leaves behind would be seen."""
    command = [sys.executable, "-W", "error", "-c", pieces(document)[number]]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    """The tutorial's files."""
    for name, program in programs("docs/tutorial-python.md").items():
        (tmp_path / name).write_text(program)
    return tmp_path


@pytest.mark.usefixtures("session")
def test_the_tutorials_two_processes(tutorial: Path) -> None:
    with Node([sys.executable, str(tutorial / "brightness.py")]) as viewer:
        with Node([sys.executable, str(tutorial / "camera.py")]) as camera:
            assert [viewer.line() for _ in range(10)] == [f"{number} {number}.0" for number in range(10)]
            assert camera.end() == 0
        assert viewer.end() == 0


@pytest.mark.usefixtures("session")
def test_the_tutorials_pipeline(tutorial: Path) -> None:
    with Node([sys.executable, str(tutorial / "pipeline.py")]) as pipeline:
        pipeline.expect("20 messages went through the pipeline")
        assert pipeline.end() == 0


@pytest.mark.usefixtures("session")
def test_the_readmes_camera_and_viewer(tmp_path: Path) -> None:
    for name, program in programs("README.md").items():
        (tmp_path / name).write_text(program)
    nodes = [Node([sys.executable, str(tmp_path / name)]) for name in ("viewer.py", "camera.py")]
    try:
        assert all("(480, 640, 3) 127" in nodes[0].line() for _ in range(5))
    finally:
        for node in nodes:
            node.process.send_signal(signal.SIGINT)
            node.process.communicate(timeout=60)
            node.__exit__()
