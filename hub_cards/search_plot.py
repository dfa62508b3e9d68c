"""The drawing of a search, in the manner of the paper's Figure 8: what began it left, what it refined right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import BudgetError, NotFoundError
from bignas_zoo.hub_cards.drawing import BLUE, GREEN, GREY, INK, LIGHT_BLUE, ORANGE, log_axis, new_figure, write_drawing
from bignas_zoo.hub_cards.plots import read_front
from bignas_zoo.zoo.family import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
#: Origin of children to colour and words; left, then right.
LEFT = (
    ("grid", LIGHT_BLUE, "coarse grid"),
    ("random", LIGHT_BLUE, "random children"),
    ("earlier", GREEN, "slices of before"),
    ("corner", INK, "smallest and biggest child"),
)
RIGHT = (("mutation", BLUE, "mutated children"), ("crossover", GREEN, "crossovers"))
MOST_LINES = 8


def plot_search(family: Family, path: Path) -> None:
    """Draw accuracy over MACs of every measured child of a search.

    Left are the children that began it: the coarse grid, or random children; a large dot marks the best one under each
    budget, which is refined. Right are mutations and crossovers, the front over all children, and the best child under
    each budget. Budgets of MACs are dashed lines.

    Args:
        family: one that `search` made.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: another suffix, or matplotlib is not installed.
        NotFoundError: the family was not searched, or has no folder.
        IntegrityError: front.json is missing, damaged, or not the recorded one.
        LocalIOError: the file cannot be written.
    """
    record = family.training.get("search")
    if not isinstance(record, dict):
        raise NotFoundError(f"family '{family.name}': was not made by `bignas-zoo search`, so there is none to draw.")
    chosen_on, measured = read_front(family)
    write_drawing(path, lambda: _figure(family, record, chosen_on, measured))


def _figure(family: Family, record: Mapping[str, Any], chosen_on: str, measured: Mapping[str, Points]) -> Figure:
    figure = new_figure(10.5, 4.9)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, parts in ((left, LEFT), (right, RIGHT)):
        for origin, color, title in parts:
            if points := measured.get(origin, ()):
                _dots(axes, points, color, f"{title} ({len(points)})")
    everything = [point for points in measured.values() for point in points]
    right.step(
        *zip(*_front(everything), strict=True), where="post", color=GREY, linewidth=1, zorder=0,
        label="front of all children",
    )  # fmt: skip
    budgets = record.get("budgets") or ()
    _mark(left, budgets, "coarse", "best of the grid under a budget")
    _mark(right, budgets, "found", "best under a budget")
    for axes in (left, right):
        _lines(axes, budgets)
        axes.set_xlabel("MACs (multiply-adds, millions)")
    left.set_ylabel(f"top-1 %, on {chosen_on}", fontsize=8)
    left.set_title(
        f"{family.name}: {'coarse' if 'grid' in measured else 'first children'}", loc="left", fontweight="bold"
    )
    fine = "fine" if record.get("method") == "coarse-to-fine" else str(record.get("method"))
    right.set_title(f"{fine}: {record.get('measured')} children measured in all", loc="left", fontweight="bold")
    left.margins(0.05)
    front = record.get("front") or []
    if [*front] != ["macs", "top1"] or any("@" in str(b.get("budget", "")) for b in budgets):
        wanted = ", ".join(str(b.get("budget")) for b in budgets) or " and ".join(map(str, front))
        figure.text(0.01, 0.008, f"Searched for {wanted}; shown over MACs.", fontsize=7.5, color=GREY, in_layout=False)
        figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))  # type: ignore[union-attr, call-arg]
    log_axis(left)
    for axes in (left, right):
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=2, fontsize=8)  # below: points are everywhere
    return figure


def _dots(axes: Axes, points: Points, color: str, label: str) -> None:
    axes.plot(*zip(*points, strict=True), "o", color=color, markersize=3.5, markeredgewidth=0, label=label)


def _front(points: Points) -> Points:
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _mark(axes: Axes, budgets: Sequence[Mapping[str, Any]], key: str, label: str) -> None:
    points = [(b[key]["macs"] / 1e6, b[key]["top1"]) for b in budgets if b.get(key)]
    if points:
        axes.plot(
            *zip(*points, strict=True), "o", color=ORANGE, markersize=7, markeredgecolor="white", label=label, zorder=4
        )


def _lines(axes: Axes, budgets: Sequence[Mapping[str, Any]]) -> None:
    """Draw the budgets that limit MACs, unless they are too many to read."""
    limits = []
    for row in budgets:
        try:
            upper = Budget.parse(str(row["budget"]).replace(", ", ",")).upper
        except BudgetError:
            continue
        limits += [float(limit.value) / 1e6 for limit in upper if limit.quantity == "macs"]
    for limit in limits if len(limits) <= MOST_LINES else ():
        axes.axvline(limit, color=ORANGE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
