"""What an int8 TFLite file needs of a microcontroller's memory, counted by tflite-micro itself, in a child process.

The interpreter of the PyPI package ``tflite-micro`` (extra "micro"; Linux, x86-64) has the reference kernels of a
64-bit machine. An arena that is too small may end its process, so every attempt has one of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.files import names, store

#: The largest arena that is tried, bytes.
MOST = 64 << 20
#: Arenas are found to so many bytes.
STEP = 16
SECONDS = 300
#: Says what an interpreter's recording allocator counted.
COUNTING = """
import sys
from tflite_micro.python.tflite_micro import runtime
config = runtime.InterpreterConfig.kAllocationRecording
data = open(sys.argv[1], "rb").read()
runtime.Interpreter.from_bytes(data, arena_size=int(sys.argv[2]), intrepreter_config=config).print_allocations()
"""
#: Runs a file once in an arena of a size.
RUNNING = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
interpreter = runtime.Interpreter.from_bytes(open(sys.argv[1], "rb").read(), arena_size=int(sys.argv[2]))
entry = interpreter.get_input_details(0)
draw = np.random.default_rng(0)  # a blank image can end in a softmax of equal values, which the kernel refuses
values = draw.integers(0, 100, entry["shape"]) if entry["dtype"] != np.float32 else draw.normal(size=entry["shape"])
interpreter.set_input(values.astype(entry["dtype"]), 0)
interpreter.invoke()
"""


@dataclass(frozen=True)
class MicroMemory:
    """Bytes of an arena.

    Attributes:
        arena: the smallest that the file runs in.
        activations: of it, tensors and what operators need while they run.
        bookkeeping: of it, what the interpreter knows of tensors and operators.
    """

    arena: int
    activations: int
    bookkeeping: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON data."""
        return asdict(self)


def measure(file: bytes | Path) -> MicroMemory:
    """Measure what a TFLite file needs under tflite-micro.

    Raises:
        UsageError: tflite-micro is not installed.
        IntegrityError: it cannot run the file: it lacks an operator, or 64 MiB are not enough.
        LocalIOError: the file cannot be read.
    """
    need_micro()
    if isinstance(file, Path):
        return _measured(file, str(file))
    with store.scratch_folder() as folder:
        path = folder / names.TFLITE
        path.write_bytes(file)
        return _measured(path, "the file")


def need_micro() -> None:
    """Refuse to measure where tflite-micro is not installed; raises UsageError."""
    if find_spec("tflite_micro") is None:
        raise UsageError("bench --micro: needs tflite-micro. Install it with pip install 'bignas-zoo[micro]'")


def _measured(path: Path, name: str) -> MicroMemory:
    with path.open("rb") as stream:
        if stream.read(8)[4:] != b"TFL3":
            raise IntegrityError(f"{name}: is no TFLite file, which is all that tflite-micro runs.")
    counted = _run(COUNTING, path, MOST)
    text = counted.stdout + counted.stderr
    parts = [re.search(rf"Arena allocation {part} (\d+)", text) for part in ("head", "tail")]
    if counted.returncode or not all(parts):
        words = next((line for line in reversed(text.splitlines()) if line.strip()), "no word why")
        raise IntegrityError(
            f"{name}: tflite-micro cannot run it ({words[:200]}). Export it with --precision int8 --io int8."
        )
    head, tail = (int(part[1]) for part in parts if part)
    if (whole := _run(RUNNING, path, MOST)).returncode:
        ended = f"signal {-whole.returncode}" if whole.returncode < 0 else "an error"
        raise IntegrityError(f"{name}: tflite-micro ended with {ended} as it ran the file, however much memory it had.")
    low, high = 0, head + tail + 4_096
    while _run(RUNNING, path, high).returncode:
        low, high = high, 2 * high
        if high > MOST:
            raise IntegrityError(f"{name}: {MOST >> 20} MiB of memory are not enough for it under tflite-micro.")
    low = max(low, head // STEP * STEP - STEP)
    while high - low > STEP:
        middle = (low + high) // (2 * STEP) * STEP
        low, high = (middle, high) if _run(RUNNING, path, middle).returncode else (low, middle)
    return MicroMemory(high, head, tail)


def _run(program: str, path: Path, arena: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(path), str(arena)]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise IntegrityError(f"{path}: tflite-micro did not finish a call of it within {SECONDS} s.") from error
