"""The log of a run: ``metrics.jsonl``, and the same figures for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bignas_zoo.files import names
from bignas_zoo.files.store import append_line, atomic_write
from bignas_zoo.runtime.quiet import quiet_native

TENSORBOARD = "tensorboard"


class RunLog:
    """Writes each record as one JSON line, flushed to the disk, and to TensorBoard if it can."""

    def __init__(self, workdir: Path, keep_until: int, say: Callable[[str], None]) -> None:
        """Open the log of a new or a resumed run.

        Args:
            workdir: the run's folder.
            keep_until: the step the run starts from; records of later steps are cut off, so that the
                log holds each step once.
            say: told what is missing.

        Raises:
            LocalIOError: the log cannot be written.
        """
        self.path = workdir / names.METRICS
        self.records = _cut(self.path, keep_until, say)
        self._board = _board(workdir / TENSORBOARD, say)
        for record in self.records:
            _draw(self._board, record)

    def add(self, record: dict[str, Any]) -> None:
        """Add a record; it has a ``step``."""
        append_line(self.path, json.dumps(record, allow_nan=False))
        _draw(self._board, record)
        if self._board:
            self._board.flush()

    def evaluated(self, step: int) -> bool:
        """Return whether the log that was found held an evaluation of this step."""
        return any(r["step"] == step and "evaluation" in r for r in self.records)

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._board:
            self._board.close()


def _cut(path: Path, keep_until: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the records up to a step, and make the file hold just these."""
    old = path.read_bytes() if path.is_file() else b""
    *lines, _ = old.split(b"\n")  # a killed process may have left part of a line
    records = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            say(f"{path}: line {number} is damaged and left out")
        elif record["step"] <= keep_until:
            records.append(record)
    new = "".join(json.dumps(r) + "\n" for r in records).encode()
    if new != old or not path.is_file():
        atomic_write(path, new)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        return record if isinstance(record["step"], int) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _board(folder: Path, say: Callable[[str], None]) -> Any:
    """Return a new event file, alone in its folder, or None without TensorFlow.

    All points come from the records, those of before an interruption too, so none stands twice whatever
    the viewer. The writer of TensorFlow 1 is the one that claims no accelerator for itself.
    """
    try:
        with quiet_native():
            import tensorflow as tf
    except ImportError:
        say("no TensorBoard log: TensorFlow is not installed; metrics.jsonl holds the same figures")
        return None
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with tf.Graph().as_default():
        return tf.compat.v1.summary.FileWriter(str(folder))


def _draw(board: Any, record: dict[str, Any]) -> None:
    if not board:
        return
    from tensorflow.compat.v1 import Summary

    figures = {f"training/{k}": v for k, v in record.items() if k not in ("step", "seconds", "evaluation")}
    figures |= {f"evaluation/{k}": v for k, v in record.get("evaluation", {}).items()}
    values = [Summary.Value(tag=k, simple_value=v) for k, v in figures.items() if isinstance(v, int | float)]
    board.add_summary(Summary(value=values), record["step"])
