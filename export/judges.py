"""Ask libraries that are not ours what they make of a TFLite file.

Each runs in a process of its own (`judge_process.py`), with any Python that has the library: tflite-support exists
up to Python 3.11 only and cannot share a process with TensorFlow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import BigNASError, LocalIOError, QualityError, UsageError

SCRIPT = Path(__file__).with_name("judge_process.py")
#: Each judge by the name that `judge_process.py` knows: what it is called, and the extra that installs it.
NAMES = {
    "task-library": ("the TensorFlow Lite Task Library", "task-library", " (Python 3.11 or older)"),
    "mediapipe": ("MediaPipe Tasks", "mediapipe", ""),
    "tflite-support": ("tflite-support", "task-library", " (Python 3.11 or older)"),
}
TIMEOUT = 600.0


@dataclass(frozen=True)
class Verdict:
    """What a judge sees in images.

    Attributes:
        judge: package and version.
        classes: for each image its best classes, best first, as name and score (0 to 1).
    """

    judge: str
    classes: tuple[tuple[tuple[str, float], ...], ...]


def ask_task_library(
    model: Path, images: Sequence[Path], *, top: int = 1, python: str | None = None, timeout: float = TIMEOUT
) -> Verdict:
    """Classify images with the ImageClassifier of the TensorFlow Lite Task Library.

    It resizes images itself, bilinearly: give it images of the model's size where the pixels matter. It takes
    float32 with metadata and uint8, and a batch of one.

    Args:
        model: a TFLite file with metadata.
        images: files of RGB images, such as PNG.
        top: how many classes to return for an image.
        python: the Python to run it with, this one by default.
        timeout: seconds that it may take.

    Raises:
        QualityError: it refuses the file.
        UsageError: that Python lacks it, or cannot be run.
        LocalIOError: the model or an image is not there.
        BigNASError: it crashed, or took too long.
    """
    return _classes(*_ask("task-library", model, images, top, python, timeout))


def ask_mediapipe(
    model: Path, images: Sequence[Path], *, top: int = 1, python: str | None = None, timeout: float = TIMEOUT
) -> Verdict:
    """Classify images with the ImageClassifier of MediaPipe Tasks; else as `ask_task_library`.

    It refuses a float32 input whose three channels differ in mean or std: such a file must normalise in its
    graph and say (0, 0, 0) and (1, 1, 1).
    """
    return _classes(*_ask("mediapipe", model, images, top, python, timeout))


def read_with_tflite_support(model: Path, *, python: str | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return what tflite-support's own reader finds in a TFLite file.

    Returns:
        ``{"metadata": the metadata in the names of their schema, "files": {name: text of a packed file}}``.

    Raises:
        QualityError, UsageError, LocalIOError, BigNASError: as `ask_task_library`.
    """
    _, answer = _ask("tflite-support", model, (), 0, python, timeout)
    return dict(answer)


def _classes(judge: str, answer: Any) -> Verdict:
    return Verdict(judge, tuple(tuple((str(name), float(score)) for name, score in image) for image in answer))


def _ask(
    judge: str, model: Path, images: Sequence[Path], top: int, python: str | None, timeout: float
) -> tuple[str, Any]:
    """Run a judge; return its version and its answer."""
    for path in (model, *images):
        if not path.is_file():
            raise LocalIOError(f"{path}: no such file.")
    name, extra, limit = NAMES[judge]
    request = {
        "judge": judge,
        "model": str(model.absolute()),
        "images": [str(i.absolute()) for i in images],
        "top": top,
    }
    reply = _run(name, python or sys.executable, json.dumps(request), timeout)
    if reply.get("error") == "missing":
        raise UsageError(
            f"{name} cannot be loaded by {python or sys.executable} ({reply['message'][:200]}): "
            f"pip install 'bignas-zoo[{extra}]'{limit}, or name the Python of an environment that has it."
        )
    if reply.get("error"):
        raise QualityError(f"{model}: refused by {name}: {reply['message'][:500]}")
    return str(reply["judge"]), reply["answer"]


def _run(name: str, python: str, request: str, timeout: float) -> dict[str, Any]:
    """Run the program with a Python and return its JSON object."""
    environment = dict(os.environ)
    if python != sys.executable:  # packages of this Python are not that one's
        environment = {k: v for k, v in environment.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [python, str(SCRIPT)],
            input=request, capture_output=True, text=True, errors="replace",
            env=environment, timeout=timeout, check=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"{python}: cannot be run ({error.strerror}). Name a Python that has {name}.") from error
    except subprocess.TimeoutExpired as error:
        raise BigNASError(f"{name}: no answer within {timeout:g} seconds. Give it fewer images.") from error
    try:
        reply = json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise BigNASError(f"{name} crashed ({_end(done.returncode)}), run by {python}: {_last_line(done.stderr)}")
    return reply


def _end(code: int) -> str:
    """Say how a process ended."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:500] if lines else "it said nothing."
