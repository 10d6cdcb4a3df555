"""Where arrays lie."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Older ones ask for DLPack's old structure, which cannot say that memory is read-only.
NUMPY_READS_DLPACK = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def from_dlpack(tensor: Any) -> npt.NDArray[Any]:
    """`np.from_dlpack` where NumPy has it for read-only memory, else what takes its place."""
    return np.from_dlpack(tensor) if NUMPY_READS_DLPACK else np.asarray(tensor)


class Place(NamedTuple):
    """A byte of a file: two processes that see the same place see the same memory."""

    inode: int
    offset: int
    permissions: str


def address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def place(array: npt.NDArray[Any]) -> Place:
    """Where an array's first byte lies, as the kernel says it."""
    wanted = address(array)
    for line in Path("/proc/self/maps").read_text().splitlines():
        area, permissions, offset, _, inode, *_ = line.split()
        begin, end = (int(part, 16) for part in area.split("-"))
        if begin <= wanted < end:
            return Place(int(inode), int(offset, 16) + wanted - begin, permissions)
    raise AssertionError(f"nothing is mapped at {wanted:#x}")


def resident() -> int:
    """Bytes of this process that are in memory and its own, shared memory not counted."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
