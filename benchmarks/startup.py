"""CPU seconds and memory of what must be quick: --help, list, cached and cold `get`, and exports of both formats.

Rounds are interleaved, with a bare interpreter among them, so that ratios hold on a noisy machine:

    python benchmarks/startup.py [rounds] [--against PYTHON]

With the Python of another installation (an older version, or one with TensorFlow) its times stand beside.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = "from bignas_zoo.cli.main import main; main()"
COLD = ("bignas-cifar10-smallest", "bignas-cifar10-m", "bignas-cifar10-biggest", "efficientnet-lite0-128",
        "efficientnet-lite0-224")  # fmt: skip
BOTH = ("--format", "tflite", "--format", "onnx", "--force")


@dataclass
class Times:
    """CPU seconds of each round, and the largest resident set in MB."""

    seconds: list[float] = field(default_factory=list)
    megabytes: float = 0.0

    def add(self, command: list[str], environment: dict[str, str]) -> None:
        """Run a command once."""
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, n) for n in range(3)]
        process = os.posix_spawn(command[0], command, environment, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        os.close(null)
        if status:
            raise SystemExit(f"{' '.join(command)}: status {status}")
        self.seconds.append(usage.ru_utime + usage.ru_stime)
        self.megabytes = max(self.megabytes, usage.ru_maxrss / 1024)


def cases(python: str, place: Path) -> dict[str, Callable[[int], list[str]]]:
    """Return the command of each case by the number of a round; cold ones have a cache of their own."""
    run = [python, "-c", COMMAND]
    made = place / "made"
    return {
        "bare python": lambda i: [python, "-c", "pass"],
        "--help": lambda i: [*run, "--help"],
        "list": lambda i: [*run, "list"],
        "get, cached": lambda i: [*run, "get", "--budget", "400MFLOPs", "--output", str(place / f"cached{i}")],
        **{
            f"get {name}, cold": lambda i, name=name: [*run, "get", name, "--output", str(place / f"{name}{i}")]
            for name in COLD
        },
        "export m, both": lambda i: [*run, "export", str(made / COLD[1]), *BOTH],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=15)
    parser.add_argument("--against", help="Python of another installation")
    options = parser.parse_args()
    pythons = [sys.executable, *([options.against] if options.against else [])]
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(pythons))]
        tables = [cases(python, place) for python, place in zip(pythons, places, strict=True)]
        times = [{name: Times() for name in table} for table in tables]
        for python, place in zip(pythons, places, strict=True):
            place.mkdir()
            for budget in (["--budget", "400MFLOPs"], [COLD[1]]):
                command = [python, "-c", COMMAND, "get", *budget, "--output", str(place / "made" / budget[-1])]
                Times().add(command, {**os.environ, "BIGNAS_ZOO_CACHE": str(place / "cache")})
        for i in range(options.rounds):
            for name in tables[0]:
                for place, table, mine in zip(places, tables, times, strict=True):
                    cache = place / (f"empty{i}-{name}" if name.endswith("cold") else "cache")
                    mine[name].add(table[name](i), {**os.environ, "BIGNAS_ZOO_CACHE": str(cache)})
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {options.rounds} interleaved rounds. CPU seconds: median (least); MB resident.")
    if options.against:
        print("Then those of the other installation, and the ratio of medians.")
    for name, mine in times[0].items():
        cells = [
            f"{statistics.median(t.seconds):7.3f} ({min(t.seconds):.3f}) {t.megabytes:6.0f}"
            for t in (other[name] for other in times)
        ]
        ratio = ""
        if options.against:
            ratio = f"  {statistics.median(mine.seconds) / statistics.median(times[1][name].seconds):.2f}"
        print(f"{name:<30}{'   '.join(cells)}{ratio}")


if __name__ == "__main__":
    main()
