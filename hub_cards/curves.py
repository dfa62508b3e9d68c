"""The learning curves of a run: read from its log, told in numbers, drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError
from bignas_zoo.files import names
from bignas_zoo.files.store import read_json, verify
from bignas_zoo.hub_cards.drawing import BLUE, GREEN, GREY, ORANGE, new_figure, write_drawing
from bignas_zoo.hub_cards.plots import REMAKE, mark_sandwich

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HELP = "Name a folder that `bignas-zoo train` writes to (its --output), or a family's folder."


@dataclass(frozen=True)
class Evaluation:
    """Held-out accuracies of both ends of the space, in percent, after `step` steps."""

    step: int
    smallest: float
    biggest: float


@dataclass(frozen=True)
class Point:
    """One logged training step: see `metrics.jsonl` in docs/FORMAT.md."""

    step: int
    phase: str
    loss: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class Curves:
    """What a run has logged so far, each list in the order of steps.

    Attributes:
        name: of the family that the run makes, or of the folder.
        steps: of the whole run; None if its recipe is not there.
        points: training steps.
        evaluations: of the supernet's ends.
    """

    name: str
    steps: int | None
    points: tuple[Point, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def best(self) -> Evaluation | None:
        """The first evaluation with the highest accuracy of the biggest child."""
        return max(self.evaluations, key=lambda e: (e.biggest, -e.step), default=None)

    @property
    def sandwich_after(self) -> int | None:
        """The logged step after which the sandwich rule began, if that was within the run."""
        changes = (a.step for a, b in pairwise(self.points) if (a.phase, b.phase) == ("biggest", "sandwich"))
        return next(changes, None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        return {
            "name": self.name,
            "steps": self.steps,
            "best": asdict(self.best) if self.best else None,
            "evaluations": [asdict(e) for e in self.evaluations],
            "training": [asdict(p) for p in self.points],
        }


def read_curves(folder: Path) -> Curves:
    """Read the log of a run, which may still go on, or of a family.

    Args:
        folder: the run's folder, or a family's.

    Returns:
        The curves.

    Raises:
        NotFoundError: no such folder, it holds no log, or nothing has been logged yet.
        IntegrityError: a line of the log is damaged (the last one may be unfinished), or a family's log is
            not the recorded one.
        LocalIOError: the log cannot be read.
    """
    path = folder / names.METRICS
    if not path.is_file():
        what = f"no {names.METRICS} in it" if folder.is_dir() else "no such folder"
        raise NotFoundError(f"{folder}: {what}. {HELP}")
    name, steps = _recipe(folder, path)
    try:
        *lines, _ = path.read_bytes().split(b"\n")  # after the last newline: nothing, or a line in the making
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    evaluations = tuple(r for r in records if isinstance(r, Evaluation))
    points = tuple(r for r in records if isinstance(r, Point))
    if not points and not evaluations:
        raise NotFoundError(f"{path}: nothing logged yet; the first line comes after 20 steps.")
    return Curves(name, steps, points, evaluations)


def plot_curves(curves: Curves, path: Path) -> None:
    """Draw held-out accuracy, training loss and learning rate over the steps.

    Args:
        curves: at least one record.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: another suffix, or matplotlib is not installed.
        LocalIOError: the file cannot be written.
    """
    write_drawing(path, lambda: _draw(curves))


def _record(path: Path, number: int, line: bytes) -> Evaluation | Point | None:
    try:
        data = json.loads(line)
        step = int(data["step"])
        if "evaluation" in data:
            ends = data["evaluation"]
            return Evaluation(step, float(ends["smallest"]), float(ends["biggest"])) if ends else None
        keys = ("loss", "learning_rate", "images_per_second")
        return Point(step, str(data["phase"]), *(float(data[k]) for k in keys)) if "loss" in data else None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path}: line {number} is damaged ({error!r}). Delete that line; the others are not affected."
        ) from error


def _recipe(folder: Path, log: Path) -> tuple[str, int | None]:
    """Return the family's name and the steps of the whole run, as far as the folder tells; check a family's log."""
    path = next((p for p in (folder / names.FAMILY, folder / names.RECIPE) if p.is_file()), None)
    if path is None:
        return folder.resolve().name, None
    data = read_json(path)
    try:
        if path.name == names.FAMILY:
            verify(log, str(data["metrics"]["sha256"]), fix=REMAKE)
            data = data["training"]["recipe"]
        return str(data["name"]), int(data["steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: not as this version writes it ({error!r}). {REMAKE}") from error


def _draw(curves: Curves) -> Figure:
    figure = new_figure(7.2, 5.4)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1.2))
    rates = low.twinx()
    for name, color in (("biggest", BLUE), ("smallest", ORANGE)):
        _line(top, [(e.step, getattr(e, name)) for e in curves.evaluations], color, f"{name} child, held-out top-1")
    losses = [(p.step, p.loss) for p in curves.points]
    low.plot(*zip(*losses, strict=True), color=GREY, linewidth=0.9, label="training loss") if losses else None
    pairs = [(p.step, p.learning_rate) for p in curves.points]
    rates.plot(*zip(*pairs, strict=True), color=GREEN, linewidth=1.2, label="learning rate") if pairs else None
    if curves.sandwich_after:
        mark_sandwich((top, low), curves.sandwich_after)
    logged = max([p.step for p in curves.points] + [e.step for e in curves.evaluations])
    of = f" of {curves.steps:,}" if curves.steps else ""
    top.set_title(f"{curves.name}: learning curves, {logged:,}{of} steps", loc="left", fontweight="bold")
    top.set_ylabel("top-1 %")
    low.set_ylabel("training loss")
    rates.set_ylabel("learning rate")
    rates.spines["right"].set_visible(True)
    rates.grid(visible=False)
    rates.set_ylim(bottom=0)
    low.set_xlabel("optimizer steps")
    low.xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels((top, low))
    figure.legend(loc="outside lower left", ncols=4, fontsize=8)
    return figure


def _line(axes: Axes, points: Sequence[tuple[int, float]], color: str, label: str) -> None:
    if not points:
        return
    axes.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=label)
    end = points[-1]
    axes.annotate(f"{end[1]:.1f}", end, (7, 0), textcoords="offset points", va="center", color=color)
