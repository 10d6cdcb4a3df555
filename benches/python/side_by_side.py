"""What Python costs on the bus, beside Rust, the iceoryx2 wheel, and `multiprocessing.shared_memory` with a `Pipe`.

    benches/python/run [--rounds N] [--json FILE]

makes an environment of its own under `target/`, builds the Rust half, and runs this.

Two processes, each on a core of its own, play ping-pong; every message carries the time at which it was published. All
links take turns, round by round, and ratios and differences are formed inside each round; printed are medians over
rounds with 95 % intervals (bootstrap). The data of a hand-over is not touched but for its first word. In a *flow* all
of it is written and read: one side writes, the other adds all words up and compares the sum; who waits spins.

- *poll*: both sides look for messages without sleeping, and nobody needs to be woken.
- *recv*: both call what waits for a message (tensorbus spins for 20 us before it sleeps), in a tight game.
- *asleep*: as *recv*, but each side is busy for 100 us before it sends, so that the other one sleeps. Only ages can be
  told then; `sleeps` counts how often the receiver gave its core away for a message.

The *age* lies between the call of publish and the view of the message in the receiver's hands; *one way* is half of a
round trip and holds all that a node does for a message: loan, write, publish, receive, view, drop.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from multiprocessing import Pipe
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple

from figures import Estimate
from half import FLOW_SLOTS
from links import SLOTS, PlainMapping

KIB, MIB = 1 << 10, 1 << 20
SIZES = {"1 KiB": KIB, "1 MiB": MIB, "10 MiB": 10 * MIB, "100 MiB": 100 * MIB}
FLOW_SIZES = {name: size for name, size in SIZES.items() if size >= MIB}
# Who plays: `A` begins and `B` answers.
PAIRS = {
    "rust": ("rust", "rust"),
    "rust-python": ("rust", "python"),
    "python": ("python", "python"),
    "iceoryx2": ("python", "python"),
    "pipe": ("python", "python"),
    # Shared memory and two counters: what Python's own loops take. For flows only.
    "mapping": ("python", "python"),
}
FLOWS = ["rust", "python", "mapping"]
TRIPS = {"poll": 400, "recv": 200, "asleep": 100}
FLOW_MIB = 400
KINDS = [*TRIPS, "flow"]


class Case(NamedTuple):
    """What takes a turn."""

    pair: str
    view: str
    wait: str
    nbytes: int


class Half:
    """One process."""

    def __init__(self, command: list[str], pipes: dict[int, int]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=list(pipes.values()),
            # Threads that nobody needs would share a core with what is measured.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        said = self.line()
        assert said == "ready\n", f"{command} said {said!r}"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        line = self.line()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Game:
    """The four processes: two of each language."""

    def __init__(self, rust_half: str, directory: str) -> None:
        self.run = f"bench-{os.getpid()}"
        here = Path(__file__).parent
        self.halves: dict[tuple[str, str], Half] = {}
        self.memories = [
            SharedMemory(f"{self.run}-{way}-pipe-{size}", create=True, size=size * SLOTS)
            for way in ("ping", "pong")
            for size in SIZES.values()
        ]
        self.memories += [
            SharedMemory(f"{self.run}-flow-{size}", create=True, size=PlainMapping.HEAD + size * FLOW_SLOTS)
            for size in FLOW_SIZES.values()
        ]
        connections = {size: Pipe() for size in SIZES.values()}
        for number, side in enumerate("AB"):
            pipes = {size: ends[number].fileno() for size, ends in connections.items()}
            python = [sys.executable, str(here / "half.py"), directory, side, self.run, json.dumps(pipes)]
            self.halves["rust", side] = Half([rust_half, directory, side], {})
            self.halves["python", side] = Half(python, pipes)

    def order(self, pair: str, order: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both sides carry it out, and answer."""
        both = [self.halves[language, side] for language, side in zip(PAIRS[pair], "AB", strict=True)]
        for half in both:
            half.tell(order)
        first, second = (half.hear() for half in both)
        return first, second

    def close(self) -> None:
        """End all."""
        for half in self.halves.values():
            half.process.communicate()
        for memory in self.memories:
            memory.close()
            memory.unlink()


def cases() -> list[Case]:
    found = []
    for wait in TRIPS:
        for nbytes in SIZES.values():
            for pair in [pair for pair in PAIRS if pair != "mapping"]:
                views = {"iceoryx2": ["wakes"], "pipe": ["wakes"], "rust": ["numpy"]}.get(pair, ["numpy", "dlpack"])
                found += [Case(pair, view, wait, nbytes) for view in views if wait == "poll" or view != "dlpack"]
    return found


class Figures:
    """One figure a round of each case, in microseconds, and of each flow, in GB/s."""

    def __init__(self) -> None:
        self.ages: dict[Case, list[float]] = defaultdict(list)
        self.one_way: dict[Case, list[float]] = defaultdict(list)
        self.sleeps: dict[Case, list[float]] = defaultdict(list)
        self.rates: dict[tuple[str, int], list[float]] = defaultdict(list)

    def play(self, game: Game, case: Case, keep: bool) -> None:
        trips = TRIPS[case.wait]
        first, second = game.order(case.pair, f"play {case.pair} {case.nbytes} {case.view} {case.wait} {trips}")
        if keep:
            self.ages[case].append(statistics.median(second["ages"]) / 1000)
            self.one_way[case].append(statistics.median(first["trips"]) / 2000)
            self.sleeps[case].append(second["sleeps"] / trips)

    def flow(self, game: Game, pair: str, nbytes: int, keep: bool) -> None:
        messages = max(4, FLOW_MIB * MIB // nbytes)
        first, _ = game.order(pair, f"flow {pair} {nbytes} {messages}")
        if keep:
            self.rates[pair, nbytes].append(messages * nbytes / first["ns"])


def measure(game: Game, rounds: int, kinds: list[str]) -> Figures:
    figures, all_cases = Figures(), [case for case in cases() if case.wait in kinds]
    flows = [(pair, nbytes) for nbytes in FLOW_SIZES.values() for pair in FLOWS if "flow" in kinds]
    for nbytes in SIZES.values():
        for pair in PAIRS:
            if pair != "mapping":
                game.order(pair, f"open {pair} {nbytes}")
    for pair, nbytes in flows:
        game.order(pair, f"open-flow {pair} {nbytes}")
    # The first round warms up. There and back again, so that a drift hits all alike.
    for number in range(rounds + 1):
        back = -1 if number % 2 else 1
        for case in all_cases[::back]:
            figures.play(game, case, number > 0)
        for pair, nbytes in flows[::back]:
            figures.flow(game, pair, nbytes, number > 0)
    return figures


def table(figures: Figures, kinds: list[str]) -> list[dict[str, Any]]:
    """All that is compared: a row for each."""
    rows: list[dict[str, Any]] = []

    def row(what: str, size: str, unit: str, value: Estimate, **beside: float) -> None:
        rows.append({"what": what, "size": size, "unit": unit, **value._asdict(), "beside": beside})

    def median(of: dict[Any, list[float]], case: Any) -> float:
        return statistics.median(of[case])

    for view in ("numpy", "dlpack") if "poll" in kinds else ():
        for name, nbytes in SIZES.items():
            this, rust = Case("rust-python", view, "poll", nbytes), Case("rust", "numpy", "poll", nbytes)
            extra = Estimate.difference(figures.ages[this], figures.ages[rust])
            beside = {"python": median(figures.ages, this), "rust": median(figures.ages, rust)}
            row(f"receive and {view} view, beyond Rust", name, "us", extra, **beside)
    for name, nbytes in FLOW_SIZES.items() if "flow" in kinds else ():
        python, rust_rate = figures.rates["python", nbytes], figures.rates["rust", nbytes]
        beside = {"python_gbps": statistics.median(python), "rust_gbps": statistics.median(rust_rate)}
        row("all written and read, rate to Rust", name, "ratio", Estimate.ratio(python, rust_rate), **beside)
        more = Estimate.difference(
            [nbytes / rate / 1000 for rate in python], [nbytes / rate / 1000 for rate in rust_rate]
        )
        row("the same, time of a message beyond Rust", name, "us", more)
        plain = figures.rates["mapping", nbytes]
        beside = {"python_gbps": statistics.median(python), "mapping_gbps": statistics.median(plain)}
        row("the same, rate to a plain mapping", name, "ratio", Estimate.ratio(python, plain), **beside)
    for peer in "iceoryx2", "pipe":
        for wait in [wait for wait in TRIPS if wait in kinds]:
            of = figures.ages if wait == "asleep" else figures.one_way
            what = "age" if wait == "asleep" else "one way"
            for name, nbytes in SIZES.items():
                ours, theirs = Case("python", "numpy", wait, nbytes), Case(peer, "wakes", wait, nbytes)
                rust = Case("rust", "numpy", wait, nbytes)
                beside = {
                    "tensorbus": median(of, ours),
                    peer: median(of, theirs),
                    "rust": median(of, rust),
                    "sleeps": median(figures.sleeps, ours),
                    f"{peer}_sleeps": median(figures.sleeps, theirs),
                }
                row(f"{what} to {peer}, {wait}", name, "ratio", Estimate.ratio(of[ours], of[theirs]), **beside)
    return rows


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write all rows and all figures into this file too")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="leave the others out")
    parser.add_argument("--rust-half", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="bench-", dir=base) as directory:
        game = Game(options.rust_half, directory)
        try:
            figures = measure(game, options.rounds, options.only)
        finally:
            game.close()
    rows = table(figures, options.only)
    print(f"medians of {options.rounds} rounds [95 % interval]; times in us, rates in GB/s")
    for row in rows:
        value = Estimate(row["median"], row["low"], row["high"])
        beside = ", ".join(f"{name} {figure:.2f}" for name, figure in row["beside"].items())
        print(f"{row['what']:<40}{row['size']:<10}{value!s:<24}{beside}")
    if options.json:
        every = {
            name: [{**case._asdict(), "figures": values} for case, values in getattr(figures, name).items()]
            for name in ("ages", "one_way", "sleeps")
        }
        rates = [{"pair": pair, "nbytes": size, "figures": values} for (pair, size), values in figures.rates.items()]
        report = {"rounds": options.rounds, "rows": rows, **every, "rates": rates}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
