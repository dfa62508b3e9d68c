"""TFLite's benchmark_model on a phone, through adb: the commands, and how its answer is read.

The binary is TensorFlow's own (docs: "LiteRT benchmark tools"); it is put on the phone by whoever measures. Nothing
here has been tried on a phone: none was at hand. The answers that tests read are recorded ones.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from bignas_zoo.errors import BigNASError, LocalIOError, UsageError
from bignas_zoo.latency import Measurement

FOLDER = "/data/local/tmp/bignas-zoo"
BINARY = "/data/local/tmp/benchmark_model"
#: Statistics of a series of calls, in microseconds; the tool prints those of the warm-up first.
SERIES = re.compile(
    r"count=(?P<count>[0-9]{1,9}) (?:first=\S+ )?(?:curr=\S+ )?min=\S+ max=\S+ avg=(?P<avg>[0-9.e+]{1,20}) "
    r"std=(?P<std>[0-9.e+]{1,20})(?:.* median=(?P<median>[0-9.e+]{1,20}))?"
)
SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
MOST_OUTPUT = 1 << 20


def push_command(serial: str, file: Path) -> list[str]:
    """Return the command that copies a file to the phone."""
    return ["adb", "-s", _serial(serial), "push", str(file), f"{FOLDER}/{file.name}"]


def benchmark_command(
    serial: str, file: str, *, threads: int, runs: int, cores: str | None = None, binary: str = BINARY
) -> list[str]:
    """Return the command that measures a file that is on the phone.

    Args:
        serial: of the phone, as `adb devices` prints it.
        file: its name.
        threads: of the interpreter.
        runs: calls, at least; the tool takes a second at the shortest.
        cores: mask for taskset in hexadecimal, e.g. ``f0`` for the big ones of eight.
        binary: where benchmark_model is.
    """
    if cores is not None and not re.fullmatch(r"[0-9a-f]{1,16}", cores):
        raise UsageError(f"adb: cores must be a hexadecimal mask such as f0, got {cores!r:.40}.")
    words = [
        *(["taskset", cores] if cores else []),
        binary,
        f"--graph={FOLDER}/{file}",
        f"--num_threads={threads}",
        f"--num_runs={runs}",
        "--warmup_runs=3",
        "--use_xnnpack=true",
    ]
    return ["adb", "-s", _serial(serial), "shell", shlex.join(words)]


def parse(output: str) -> Measurement:
    """Read what benchmark_model printed: the last series, which is the one after the warm-up.

    Raises:
        BigNASError: there is none.
    """
    series = list(SERIES.finditer(output[-MOST_OUTPUT:]))
    if not series:
        words = " ".join(output.split())[-300:]
        raise BigNASError(f"adb: benchmark_model printed no timings. Its last words: {words or 'none'}")
    last = series[-1]
    try:
        ms, std = float(last["median"] or last["avg"]) / 1000, float(last["std"]) / 1000
    except ValueError:
        raise BigNASError(f"adb: benchmark_model printed no numbers: {last[0][:200]}") from None
    return Measurement(ms, std, int(last["count"]))


def run(command: list[str], timeout: float = 600) -> str:
    """Run adb and return what it printed.

    Raises:
        UsageError: adb is not installed.
        LocalIOError: it failed, e.g. because there is no such phone.
        BigNASError: it took too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    except FileNotFoundError:
        raise UsageError("adb: not found. Install Android's platform tools and put adb on the PATH.") from None
    except subprocess.TimeoutExpired:
        raise BigNASError(f"adb: no answer within {timeout:g} seconds. Is the phone awake and unlocked?") from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-300:]
        raise LocalIOError(f"adb: failed with {done.returncode}: {words}. `adb devices` lists the phones.")
    return done.stdout + done.stderr


def _serial(serial: str) -> str:
    if not SERIAL.fullmatch(serial):
        raise UsageError(f"adb: {serial!r:.100} is no serial number; `adb devices` lists them.")
    return serial
