"""What every drawing has in common: one style, a figure, an axis of costs, labels that do not overlap.

PNG or SVG by the file's suffix. The same input gives the same bytes with the same matplotlib: no dates, no random ids.
matplotlib is an extra, imported on first use; nothing here touches pyplot or its current figure.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import product
from math import cos, hypot, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import UsageError
from bignas_zoo.files.outputs import write_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
SUFFIXES = (".png", ".svg")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "bignas-zoo",
}
BLUE, LIGHT_BLUE, ORANGE, GREEN, INK, GREY = "#0072b2", "#8fc1e3", "#d55e00", "#009e73", "#222222", "#707070"

# Where a label may stand beside its point: points of distance, eighths of a turn.
DISTANCES, DIRECTIONS = (9, 15, 22, 30, 40, 52), (3, 2, 4, 1, 5, 0, 6, 7)


def write_drawing(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw a figure and write it, all under the one style: backends read it while they write."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UsageError(f"{path}: drawings are {' or '.join(SUFFIXES)} files; got suffix '{kind}'.")
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError('drawing: needs matplotlib. Install it with pip install "bignas-zoo[plots]".') from error
    metadata = {"Creator": "bignas-zoo", "Date": None} if kind == ".svg" else {"Software": "bignas-zoo"}
    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own style
        matplotlib.rcParams.update(STYLE)
        draw().savefig(buffer, format=kind[1:], dpi=DPI, metadata=metadata)
    write_output(path, buffer.getvalue(), kind)


def new_figure(width: float, height: float) -> Figure:
    """Return a new figure of a size in inches, on Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def log_axis(axes: Axes) -> None:
    """Make x logarithmic with plain numbers: 1, 2, 5, 10, or every whole step on a short range."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_locator(NullLocator())


def place_labels(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], dots: Sequence[tuple[float, float]]
) -> None:
    """Write a name beside each point, or at the end of a line, so that no two overlap, off the dots if possible."""
    figure.draw_without_rendering()  # fixes the layout, so that data have pixels
    unit = figure.dpi / 72
    centres = [axes.transData.transform((x, y)) for x, y, _ in points]
    hard = [_box(centre, 5 * unit) for centre in centres]
    soft = [_box(axes.transData.transform(dot), 2 * unit) for dot in dots]
    frame = axes.get_window_extent()
    for (x, y, text), centre in zip(points, centres, strict=True):
        label = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", ha="center", va="center", fontsize=8, color=INK,
            in_layout=False, zorder=5,
        )  # fmt: skip
        size = label.get_window_extent()
        shifts = [_shift(size, distance * unit, direction) for distance, direction in product(DISTANCES, DIRECTIONS)]
        boxes = [(dx, dy, size.translated(dx, dy)) for dx, dy in shifts]
        free = [
            (hypot(dx, dy) / unit + 12 * box.count_overlaps(soft), i)
            for i, (dx, dy, box) in enumerate(boxes)
            if not box.count_overlaps(hard) and frame.contains(*box.min) and frame.contains(*box.max)
        ]
        best = min(free, default=(0, 0))[1]
        dx, dy, box = boxes[best]
        hard.append(box)
        label.set_position((dx / unit, dy / unit))
        own = _gap(box, centre)
        # Too far, or nearer to another point: not seen to belong together.
        if best >= len(DIRECTIONS) or any(_gap(box, c) < own - unit for c in centres):
            turn, length = DIRECTIONS[best % len(DIRECTIONS)] * pi / 4, DISTANCES[best // len(DIRECTIONS)] - 2
            axes.annotate(
                "", (x, y), (length * cos(turn), length * sin(turn)), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
                in_layout=False, zorder=2,
            )  # fmt: skip


def _box(centre: Any, half: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(centre[0] - half, centre[1] - half, 2 * half, 2 * half)


def _gap(box: Any, point: Any) -> float:
    """Return the distance in pixels between a box and a point outside of it."""
    return hypot(
        max(box.x0 - point[0], point[0] - box.x1, 0.0),
        max(box.y0 - point[1], point[1] - box.y1, 0.0),
    )


def _shift(size: Any, distance: float, direction: int) -> tuple[float, float]:
    """Return how far a label's middle goes so that its edge is `distance` from the point."""
    turn = direction * pi / 4
    return cos(turn) * (distance + size.width / 2), sin(turn) * (distance + size.height / 2 - 2)
