"""Times of a `get`: from the cache, from a Hub on the loopback interface, and from its copies without one.

    python benchmarks/hub_get.py [rounds]

The Hub is that of the tests, so what a network takes is not in these figures; huggingface_hub's own work is. Rounds are
interleaved with a bare interpreter, so that ratios hold on a noisy machine.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SLICE, REPO = "bignas-cifar10-s", "zoo/bignas-cifar10-s"
COMMAND = [sys.executable, "-c", "from bignas_zoo.cli.start import main; main()"]


def seconds(arguments: list[str], **environment: str) -> tuple[float, float]:
    """Run and return wall and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, check=True, capture_output=True, env={**os.environ, **environment})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    from hub_repos import WRITER
    from hub_server import HubServer

    with tempfile.TemporaryDirectory() as folder, HubServer() as server:
        place = Path(folder)
        os.environ |= {
            "BIGNAS_ZOO_CACHE": str(place / "cache"), "HF_HOME": str(place / "home"), "HF_ENDPOINT": server.url,
            "HF_TOKEN": WRITER, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        first = seconds([*COMMAND, "get", SLICE, "-o", str(place / "first")])
        seconds([*COMMAND, "push", str(place / "first"), "--repo", REPO, "--yes"])
        seconds([*COMMAND, "get", f"hf://{REPO}", "-o", str(place / "hub")])  # into the cache of the others
        bytes_ = sum(p.stat().st_size for p in (place / "hub").iterdir())
        out = place / "out"

        def get(name: str, **environment: str) -> Callable[[], tuple[float, float]]:
            return lambda: seconds([*COMMAND, "get", name, "-o", str(out)], **environment)

        cases = {
            "bare python": lambda: seconds([sys.executable, "-c", "pass"]),
            f"get {SLICE}, cached": get(SLICE),
            "get hf://, not in the cache": get(f"hf://{REPO}", BIGNAS_ZOO_CACHE=str(place / "new")),
            "get hf://, in the cache": get(f"hf://{REPO}"),
            "get hf://, offline": get(f"hf://{REPO}", HF_HUB_OFFLINE="1"),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        requests: dict[str, int] = {}
        for _ in range(rounds):
            for name, run in cases.items():
                before = len(server.requests)
                times[name].append(run())
                requests[name] = len(server.requests) - before
                for left in (out, place / "new"):
                    shutil.rmtree(left, ignore_errors=True)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {rounds} interleaved rounds, medians;", end=" ")
    print(f"{SLICE}: {bytes_:,} bytes; the first get, with TensorFlow: {first[0]:.2f} s")
    print(f"{'':<32}{'wall s':>8}{'CPU s':>8}{'x bare':>8}{'requests':>10}")
    bare = statistics.median(cpu for _, cpu in times["bare python"])
    for name, values in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:<32}{wall:>8.3f}{cpu:>8.3f}{cpu / bare:>8.1f}{requests[name]:>10}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
