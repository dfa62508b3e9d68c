"""CPU seconds of the commands that must start fast: --help, list, and a get served from the cache.

Rounds are interleaved with a bare interpreter, so that ratios hold on a noisy machine:

    python benchmarks/startup.py [rounds]
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = "from bignas_zoo.cli.main import main; main()"


def cpu_seconds(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BIGNAS_ZOO_CACHE"] = str(Path(folder) / "cache")
        get = ["get", "--budget", "400MFLOPs", "--output"]
        first = cpu_seconds([sys.executable, "-c", COMMAND, *get, str(Path(folder) / "first")])
        cases = {
            "bare python": lambda i: [sys.executable, "-c", "pass"],
            "--help": lambda i: [sys.executable, "-c", COMMAND, "--help"],
            "list": lambda i: [sys.executable, "-c", COMMAND, "list"],
            "get, cached": lambda i: [sys.executable, "-c", COMMAND, *get, str(Path(folder) / f"out{i}")],
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for i in range(rounds):
            for name, arguments in cases.items():
                times[name].append(cpu_seconds(arguments(i)))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {rounds} interleaved rounds; CPU seconds")
    print(f"{'get, first':<14}{first:7.2f}")
    bare = statistics.median(times["bare python"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<14}{median:7.3f}  min {min(values):.3f}  {median / bare:5.1f} x bare python")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
