"""Measurements for workers to make: functions of a module, as a process of its own needs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError


def truth(spec: ChildSpec) -> float:
    """Return what a worker should answer."""
    return cost.macs(spec) % 1000 / 10


def fatal(spec: ChildSpec) -> bool:
    """Return whether a child is one that `deadly` dies over."""
    return sum(stage.depth for stage in spec.stages) % 2 == 0


def plain() -> Callable[[ChildSpec], float]:
    return truth


def uneven(folder: str) -> Callable[[ChildSpec], float]:
    """Take longer over some children than over others, and note who measured what."""

    def measure(spec: ChildSpec) -> float:
        time.sleep(0.02 * (cost.macs(spec) % 3))
        with (Path(folder) / str(os.getpid())).open("a") as file:
            file.write(f"{truth(spec)}\n")
        return truth(spec)

    return measure


def deadly(folder: str, times: int) -> Callable[[ChildSpec], float]:
    """Die over some children, so many times over each."""

    def measure(spec: ChildSpec) -> float:
        place = Path(folder) / str(cost.macs(spec))
        deaths = len(place.read_text()) if place.is_file() else 0
        if fatal(spec) and deaths < times:
            place.write_text("x" * (deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return truth(spec)

    return measure


def refusing() -> Callable[[ChildSpec], float]:
    def measure(spec: ChildSpec) -> float:
        raise UsageError("no such images")

    return measure


def broken() -> Callable[[ChildSpec], float]:
    def measure(spec: ChildSpec) -> float:
        raise ZeroDivisionError("over\nlines")

    return measure


def slow(folder: str) -> Callable[[ChildSpec], float]:
    def measure(spec: ChildSpec) -> float:
        (Path(folder) / "begun").touch()
        time.sleep(3)
        return truth(spec)

    return measure
