"""The picture of a slice's card: its family's slices over their cost, this one marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.hub_cards.drawing import INK, LIGHT_BLUE, ORANGE, log_axis, new_figure, place_labels, write_drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_slice(description: Mapping[str, Any], path: Path) -> bool:
    """Draw accuracy over MACs of a family's slices, with one marked.

    Args:
        description: the content of its slice.json; of it `name`, `family`, `macs`, `top1`, `top1_source` and `front`.
        path: the file to write, .png or .svg.

    Returns:
        Whether there was anything to draw: a measured slice among others of its family.

    Raises:
        UsageError: another suffix, or matplotlib is not installed.
        LocalIOError: the file cannot be written.
    """
    others = [s for s in description.get("front") or () if s["top1"] is not None and s["name"] != description["name"]]
    if not others or description["top1"] is None:
        return False
    write_drawing(path, lambda: _draw(description, others))
    return True


def _draw(description: Mapping[str, Any], others: list[Mapping[str, Any]]) -> Figure:
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    family = description["family"]
    points = [(s["macs"] / 1e6, s["top1"], s["name"].removeprefix(f"{family}-")) for s in others]
    this = (description["macs"] / 1e6, description["top1"], description["name"].removeprefix(f"{family}-"))
    axes.plot(
        [x for x, _, _ in points], [y for _, y, _ in points], "o", color=LIGHT_BLUE, markersize=6,
        label=f"the other slices of {family}",
    )  # fmt: skip
    axes.plot([this[0]], [this[1]], "D", color=ORANGE, markersize=9, markeredgecolor=INK, label="this slice")
    axes.set_title(f"{description['name']} among its family", loc="left", fontweight="bold")
    axes.set_xlabel("MACs (multiply-adds, millions)")
    axes.set_ylabel(f"top-1 %, on {description['top1_source']}")
    axes.margins(0.1)
    log_axis(axes)
    axes.legend(loc="lower right", fontsize=8)
    place_labels(figure, axes, [*points, this], [])
    return figure
