"""Makes stand-ins for the CUDA libraries that PyTorch's wheel wants: its CPU part runs without the 4 GB of them.

`python ci/torch_stubs.py DIRECTORY`, then start Python with `LD_LIBRARY_PATH=DIRECTORY`. Every function of theirs
returns an error: there is no device.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

CUDA = re.compile(r"lib(cu|nccl|nvrtc|nvshmem).*\.so")
NO_DEVICE = 100  # cudaErrorNoDevice


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(directory: Path) -> None:
    """Write one library for each that is wanted."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit("PyTorch is not installed")
    own = sorted((Path(spec.origin).parent / "lib").glob("*.so*"))
    wanted = set()
    symbols = defaultdict(set)
    for library in own:
        wanted |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", str(library))))
        undefined = output("nm", "-D", "--undefined-only", "--with-symbol-versions", str(library))
        for symbol in (line.split()[-1] for line in undefined.splitlines()):
            name, _, version = symbol.partition("@")
            symbols[version].add(name)
    present = {library.name for library in own}
    libraries = sorted(name for name in wanted - present if CUDA.match(name))
    directory.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        versions = [version for version in symbols if version in (library, "NVSHMEM") and "nvshmem" in library]
        versions += [version for version in symbols if version == library]
        unversioned = {name for name in symbols[""] if re.match(r"cu|nccl|nvrtc|nvshmem", name)}
        make(directory / library, {version: symbols[version] for version in versions}, unversioned)


def make(target: Path, versions: dict[str, set[str]], unversioned: set[str]) -> None:
    """Compile a library with functions of these names."""
    names = sorted(set().union(*versions.values(), unversioned))
    script = "".join(f"{version} {{ global: {'; '.join(sorted(versions[version]))}; }};\n" for version in versions)
    with tempfile.TemporaryDirectory() as scratch:
        code, versions_file = Path(scratch) / "stub.c", Path(scratch) / "stub.map"
        # The device code that each library registers when it is loaded gets a handle that nobody reads.
        body = {"__cudaRegisterFatBinary": "static void *handle; return (long)&handle;"}
        code.write_text("".join(f"long {name}() {{ {body.get(name, f'return {NO_DEVICE};')} }}\n" for name in names))
        versions_file.write_text(script)
        map_option = [f"-Wl,--version-script={versions_file}"] if script else []
        options = ["-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{target.name}", *map_option]
        subprocess.run(["cc", *options, str(code), "-o", str(target)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
