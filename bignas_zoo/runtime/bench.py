"""Speed and memory of exported files on this machine: TFLite by ai-edge-litert, ONNX by onnxruntime.

Each file is loaded in a process of its own, once for each number of threads, and calls are timed there. Files take
turns, round by round in changing order, so that a machine that grows slower or busier does so for all of them, and
ratios are taken within a round. Imports no numpy.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import UsageError
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.runtime.runner import LoadedFile, Timings

#: Without `runs`, a file is timed for about so many seconds, within these numbers of calls.
SECONDS, FEWEST, MOST = 1.5, 20, 1000
LARGEST_RUNS = 1_000_000
ROUNDS = 20
#: Calls before those that count, in every round after the first: other files have been in the caches.
WARM_UP_OF_A_ROUND = 1


@dataclass(frozen=True)
class BenchFile:
    """A file to measure.

    Attributes:
        path: of a .tflite or .onnx file.
        label: what to call it.
        macs: multiply-adds for one image, if known.
    """

    path: Path
    label: str
    macs: int | None = None


@dataclass(frozen=True)
class Spread:
    """A median, and what lies around it."""

    median: float
    p10: float
    p90: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Describe values; percentiles are interpolated as numpy does."""
        tenths = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
        return cls(statistics.median(values), tenths[0], tenths[-1], min(values), max(values))

    def to_json(self) -> dict[str, float]:
        """Return the figures as JSON data."""
        return {"median": self.median, "p10": self.p10, "p90": self.p90, "min": self.least, "max": self.most}


@dataclass(frozen=True)
class Bench:
    """What was measured of one file with one number of threads.

    Attributes:
        file: the file.
        format: "tflite" or "onnx".
        runtime: name and version.
        threads: that the runtime was given.
        batch: images a call.
        runs: calls timed.
        bytes: size of the file.
        wall_ms: of a call, by the wall clock.
        cpu_ms: of a call: CPU time of the calling thread, or of all threads together if there are several.
        peak_bytes: the most memory that the process had over the runtime alone: file, weights, activations.
        wall_ratio: in each round, its median over that of the first file with as many threads; None for that one.
        cpu_ratio: the same in CPU time.
    """

    file: BenchFile
    format: str
    runtime: str
    threads: int
    batch: int
    runs: int
    bytes: int
    wall_ms: Spread
    cpu_ms: Spread
    peak_bytes: int
    wall_ratio: Spread | None
    cpu_ratio: Spread | None

    @property
    def images_per_second(self) -> float:
        """Images a second of the wall clock."""
        return 1000 * self.batch / self.wall_ms.median

    @property
    def ms_per_100_mmacs(self) -> float | None:
        """Milliseconds for 100 million multiply-adds: of CPU time with one thread, of the wall clock with several."""
        if not self.file.macs:
            return None
        taken = self.cpu_ms if self.threads == 1 else self.wall_ms
        return taken.median / self.batch / (self.file.macs / 1e8)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON data."""
        return {
            "file": self.file.label,
            "path": str(self.file.path),
            "format": self.format,
            "runtime": self.runtime,
            "threads": self.threads,
            "batch": self.batch,
            "runs": self.runs,
            "bytes": self.bytes,
            "macs": self.file.macs,
            "wall_ms": self.wall_ms.to_json(),
            "cpu_ms": self.cpu_ms.to_json(),
            "cpu_of": "thread" if self.threads == 1 else "process",
            "images_per_second": self.images_per_second,
            "ms_per_100_mmacs": self.ms_per_100_mmacs,
            "peak_bytes": self.peak_bytes,
            "wall_ratio": self.wall_ratio and self.wall_ratio.to_json(),
            "cpu_ratio": self.cpu_ratio and self.cpu_ratio.to_json(),
        }


@dataclass(frozen=True)
class BenchReport:
    """All measurements, and where they were made.

    Attributes:
        rows: one a file and number of threads, in the order asked for.
        machine: processor and cores.
        load: the machine's load average of a minute before the first timing, or None where there is none.
        versions: of Python and packages.
    """

    rows: tuple[Bench, ...]
    machine: str
    load: float | None
    versions: dict[str, str]

    @property
    def busy(self) -> bool:
        """Whether others had more to do than the machine has cores."""
        return self.load is not None and self.load > (os.cpu_count() or 1)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "machine": self.machine,
            "load": self.load,
            "busy": self.busy,
            "versions": self.versions,
            "results": [row.to_json() for row in self.rows],
        }


class _Timed:
    """A loaded file with what has been measured of it."""

    def __init__(self, file: BenchFile, loaded: LoadedFile, threads: int, batch: int | None) -> None:
        self.file, self.loaded, self.threads = file, loaded, threads
        self.batch = loaded.batch(batch)
        self.asked = batch
        self.rounds: list[Timings] = []

    def warm_up(self, calls: int, runs: int | None) -> None:
        """Run it a few times, and decide how many calls to time."""
        first = self.loaded.time(1, warmup=max(calls - 1, 0), batch=self.asked)
        fit = round(SECONDS * 1e9 / max(first.wall[0], 1))
        self.runs = runs or max(FEWEST, min(MOST, fit))
        self.first_warm = calls > 0

    def go(self, number: int, rounds: int) -> None:
        """Time the calls of one round: all that are due by then."""
        calls = self.runs * (number + 1) // rounds - self.runs * number // rounds
        warmup = WARM_UP_OF_A_ROUND if self.first_warm else 0
        self.rounds.append(self.loaded.time(calls, warmup=warmup, batch=self.asked))

    def walls(self) -> list[list[float]]:
        """Return the milliseconds of the wall clock, round by round."""
        return [[ns / 1e6 for ns in r.wall] for r in self.rounds]

    def cpus(self) -> list[list[float]]:
        """Return the milliseconds of CPU time, round by round."""
        return [[ns / 1e6 for ns in (r.thread if self.threads == 1 else r.process)] for r in self.rounds]


def bench(
    files: Sequence[BenchFile],
    *,
    threads: Sequence[int] = (1,),
    batch: int | None = None,
    warmup: int = 3,
    runs: int | None = None,
    timeout: float = 600,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> BenchReport:
    """Measure files, in turns.

    Args:
        files: to measure; the first is what the others are compared with.
        threads: numbers of threads; each file is measured with each.
        batch: images a call of files that take any number [1].
        warmup: calls of each before anything is timed; with 0 no round is warmed up either.
        runs: calls to time; by default about 1.5 seconds' worth, 20 to 1,000.
        timeout: seconds that a file may take to load, and for its calls of one round.
        report: told the rounds done and in all.

    Raises:
        UsageError: no files, or a number that is not allowed, or a file that takes another batch.
        LocalIOError, IntegrityError, BigNASError: as `bignas_zoo.runtime.runner.describe_file`.
    """
    _check(files, threads, warmup, runs)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with ExitStack() as stack:
        timed = [
            _Timed(file, stack.enter_context(LoadedFile(file.path, threads=n, timeout=timeout)), n, batch)
            for n in threads
            for file in files
        ]
        for each in timed:
            each.warm_up(warmup, runs)
        rounds = min(ROUNDS, *(each.runs for each in timed))
        for number in range(rounds):
            for each in random.Random(number).sample(timed, len(timed)):
                each.go(number, rounds)
            report(number + 1, rounds)
        rows = [_row(each, timed[i - i % len(files)]) for i, each in enumerate(timed)]
    return BenchReport(tuple(rows), machine(), load, versions())


def _check(files: Sequence[BenchFile], threads: Sequence[int], warmup: int, runs: int | None) -> None:
    if not files:
        raise UsageError("bench: no file to measure.")
    if not threads or len(set(threads)) != len(threads):
        raise UsageError(f"bench: threads must be different whole numbers, got {list(threads)}.")
    if not 0 <= warmup <= LARGEST_RUNS:
        raise UsageError(f"bench: warmup must be within 0 and {LARGEST_RUNS:,}, got {warmup}.")
    if runs is not None and not 1 <= runs <= LARGEST_RUNS:
        raise UsageError(f"bench: runs must be within 1 and {LARGEST_RUNS:,}, got {runs}.")


def _row(timed: _Timed, first: _Timed) -> Bench:
    walls, cpus = timed.walls(), timed.cpus()
    same = timed is first
    return Bench(
        file=timed.file,
        format=timed.loaded.ends.format,
        runtime=timed.loaded.ends.runtime,
        threads=timed.threads,
        batch=timed.batch,
        runs=timed.runs,
        bytes=timed.file.path.stat().st_size,
        wall_ms=Spread.of([ms for r in walls for ms in r]),
        cpu_ms=Spread.of([ms for r in cpus for ms in r]),
        peak_bytes=timed.loaded.peak_memory(),
        wall_ratio=None if same else _ratios(walls, first.walls(), timed.batch / first.batch),
        cpu_ratio=None if same else _ratios(cpus, first.cpus(), timed.batch / first.batch),
    )


def _ratios(rounds: list[list[float]], base: list[list[float]], batches: float) -> Spread:
    """Return the ratio for one image of a round's medians."""
    tick = 1e-6  # a clock may stand still over a call of nanoseconds
    pairs = zip(rounds, base, strict=True)
    return Spread.of([statistics.median(a) / max(statistics.median(b), tick) / batches for a, b in pairs])
