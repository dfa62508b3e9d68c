"""Drawings of latency: a slice's blocks, predicted against measured, a family's front on a device.

In the style of `plots`, PNG or SVG by the file's suffix.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.budget import milliseconds
from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.hub_cards.drawing import BLUE, GREY, INK, LIGHT_BLUE, ORANGE, new_figure, place_labels, write_drawing
from bignas_zoo.hub_cards.plots import PLAIN_FILL, STAGE_FILLS
from bignas_zoo.latency import DeviceTable, Estimate, Validation, predict
from bignas_zoo.zoo.family import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR = 0.23  # inches a block takes
HATCH = "///"
WRAP = 125  # characters of a line below
STEPS = 40  # points of a bar that labels keep off


def plot_breakdown(estimate: Estimate, table: DeviceTable, name: str, path: Path) -> None:
    """Draw what each block of a slice is predicted to take.

    Args:
        estimate: of the slice on the device.
        table: of the device.
        name: of the slice.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: the network was measured as a whole, another suffix, or matplotlib is not installed.
        LocalIOError: the file cannot be written.
    """
    if not estimate.blocks:
        raise UsageError(f"drawing: {name} is known as a whole on '{table.name}', so there are no blocks to draw.")
    write_drawing(path, lambda: _breakdown(estimate, table, name))


def plot_validation(validation: Validation, title: str, path: Path) -> None:
    """Draw predicted over measured latency, one dot a network.

    Args:
        validation: with pairs.
        title: usually the device.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: no pairs, another suffix, or matplotlib is not installed.
        LocalIOError: the file cannot be written.

    Reference: TuNAS (Bender et al., CVPR 2020), supplement, Figure 4.
    """
    if not validation.pairs:
        raise UsageError("drawing: the validation holds no pairs of predicted and measured times.")
    write_drawing(path, lambda: _validation(validation, title))


def plot_latency_front(family: Family, table: DeviceTable, path: Path) -> None:
    """Draw accuracy over predicted latency of a family's slices.

    Args:
        family: one whose slices were measured.
        table: of the device.
        path: the file to write, .png or .svg.

    Raises:
        NotFoundError: the table lacks blocks of every slice.
        UsageError: another suffix, or matplotlib is not installed.
        LocalIOError: the file cannot be written.
    """
    points = []
    problem: NotFoundError | None = None
    for slice_ in family.slices:
        if slice_.top1 is None:
            continue
        try:
            points.append((predict(table, slice_.network), slice_.top1, slice_.name.removeprefix(f"{family.name}-")))
        except NotFoundError as error:
            problem = error
    if not points:
        raise problem or NotFoundError(f"family '{family.name}': none of its slices has an accuracy.")
    sources = "; ".join(dict.fromkeys(s.top1_source for s in family.slices if s.top1))
    write_drawing(path, lambda: _front(points, family.name, table, sources))


def _breakdown(estimate: Estimate, table: DeviceTable, name: str) -> Figure:
    factor, unit = (1, "ms") if estimate.latency_ms >= 1 else (1000, "µs")
    rows = [("overhead", factor * estimate.overhead_ms, PLAIN_FILL, "")]
    for block in estimate.blocks:
        stage = int(block.name[5:].partition(".")[0]) - 1 if block.name.startswith("stage") else -1
        fill = STAGE_FILLS[stage % len(STAGE_FILLS)] if stage >= 0 else PLAIN_FILL
        rows.append((block.name, factor * block.ms, fill, HATCH if block.source == "interpolated" else ""))
    figure = new_figure(7.2, 1.5 + BAR * len(rows))
    axes = figure.add_subplot()
    names, times, fills, hatches = zip(*rows, strict=True)
    places = range(len(rows))
    bars = axes.barh(places, times, color=fills, edgecolor="#555555", linewidth=0.7, height=0.78)
    for patch, hatch in zip(bars, hatches, strict=True):
        patch.set_hatch(hatch)
    for place, time in zip(places, times, strict=True):
        text = f"{_plain(time)} {unit}" if time or not place else "in the overhead"
        axes.annotate(text, (time, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12, y=0.01)
    note = " (hatched: interpolated)" if any(hatches) else ""
    axes.set_xlabel(f"predicted {'milliseconds' if factor == 1 else 'microseconds'}{note}")
    low, middle, high = map(milliseconds, (estimate.low_ms, estimate.latency_ms, estimate.high_ms))
    title = f"{name} on {table.name}: {middle} ms ({low} to {high})"
    axes.set_title(title, loc="left", fontweight="bold", x=0)
    figure.text(0.01, 0.005, str(table.protocol), fontsize=7.5, color=GREY, in_layout=False)
    figure.get_layout_engine().set(rect=(0, 0.22 / figure.get_figheight(), 1, 1 - 0.22 / figure.get_figheight()))  # type: ignore[union-attr, call-arg]
    return figure


def _plain(value: float) -> str:
    """Return a number with about three digits and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _validation(validation: Validation, title: str) -> Figure:
    predicted, measured = zip(*validation.pairs, strict=True)
    low, high = min(*predicted, *measured), max(*predicted, *measured)
    margin = 0.05 * (high - low) or 0.05 * high
    ends = (max(0.0, low - margin), high + margin)
    figure = new_figure(5.4, 5.4)
    axes = figure.add_subplot()
    axes.fill_between(ends, [0.9 * e for e in ends], [1.1 * e for e in ends], color=LIGHT_BLUE, alpha=0.25, linewidth=0)
    axes.plot(ends, ends, color=GREY, linewidth=1)
    axes.plot(measured, predicted, "o", color=BLUE, markersize=4, markeredgewidth=0)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.set_xlabel("measured milliseconds")
    axes.set_ylabel("predicted milliseconds")
    axes.set_title(f"{title}: {validation.networks} networks", loc="left", fontweight="bold")
    axes.text(0.04, 0.96, _figures(validation), transform=axes.transAxes, va="top", fontsize=8, color=INK)
    axes.text(0.98, 0.02, "band: ±10 %", transform=axes.transAxes, ha="right", fontsize=8, color=GREY)
    return figure


def _figures(v: Validation) -> str:
    lines = [
        f"MAPE {v.mape:.2%}, bias {v.bias:+.2%}",
        f"within 5 %: {v.within_5:.0%}, within 10 %: {v.within_10:.0%}",
        f"p95 {v.p95:.2%}, worst {v.worst:.2%}",
    ]
    if v.r is not None and v.rank is not None:
        lines.append(f"r {v.r:.4f}, rank {v.rank:.4f}")
    return "\n".join(lines)


def _front(points: Sequence[tuple[Estimate, float, str]], family: str, table: DeviceTable, sources: str) -> Figure:
    figure = new_figure(7.2, 5.4)
    axes = figure.add_subplot()
    times = [e.latency_ms for e, _, _ in points]
    bars = [[e.latency_ms - e.low_ms for e, _, _ in points], [e.high_ms - e.latency_ms for e, _, _ in points]]
    axes.errorbar(
        times, [top1 for _, top1, _ in points], xerr=bars, fmt="none", ecolor=LIGHT_BLUE, elinewidth=2, zorder=1
    )
    front = _undominated(points)
    others = [(e.latency_ms, top1) for e, top1, _ in points if (e.latency_ms, top1) not in front]
    line, rest = zip(*front, strict=True), zip(*others, strict=True)
    axes.plot(
        *line, "-D", color=ORANGE, linewidth=1, markersize=6, markeredgecolor="white", markeredgewidth=0.8,
        label=f"front: {len(front)} slices that none is faster and more accurate than",
    )  # fmt: skip
    if others:
        axes.plot(*rest, "D", color=GREY, markersize=5, markeredgecolor="white", label=f"other slices ({len(others)})")
    axes.set_title(f"{family} on {table.name}", loc="left", fontweight="bold")
    axes.set_xlabel("predicted milliseconds (bars: 95 % of the prediction)")
    axes.set_ylabel("top-1 %")
    axes.margins(0.07)
    axes.legend(loc="lower right", fontsize=8)
    below = [*textwrap.wrap(str(table.protocol), WRAP), *textwrap.wrap(f"accuracy on {sources}", WRAP)]
    figure.text(0.01, 0.005, "\n".join(below), fontsize=7.5, color=GREY, in_layout=False)
    share = (0.05 + 0.13 * len(below)) / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))  # type: ignore[union-attr, call-arg]
    _labels(figure, axes, points)
    return figure


def _undominated(points: Sequence[tuple[Estimate, float, str]]) -> list[tuple[float, float]]:
    """Return milliseconds and accuracy of the slices that are more accurate than all faster ones, fastest first."""
    front: list[tuple[float, float]] = []
    for ms, top1 in sorted(((e.latency_ms, top1) for e, top1, _ in points), key=lambda point: (point[0], -point[1])):
        if not front or top1 > front[-1][1]:
            front.append((ms, top1))
    return front


def _labels(figure: Figure, axes: Axes, points: Sequence[tuple[Estimate, float, str]]) -> None:
    ends = [(e.low_ms, e.high_ms, top1) for e, top1, _ in points]
    bars = [(low + (high - low) * i / STEPS, top1) for low, high, top1 in ends for i in range(STEPS + 1)]
    place_labels(figure, axes, [(e.latency_ms, top1, name) for e, top1, name in points], bars)
