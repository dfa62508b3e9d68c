"""Drawings: the blocks of slices, a family's front, and its learning curve."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.plan import plan
from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.records import FileRecord, reading
from bignas_zoo.files.store import read_json, verify
from bignas_zoo.hub_cards.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT_BLUE,
    ORANGE,
    log_axis,
    new_figure,
    place_labels,
    write_drawing,
)
from bignas_zoo.zoo.family import Family, no_weights
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGE_FILLS = ("#cfe3f5", "#d6efd3", "#fdebc0", "#f8d5cc", "#e1d7f1", "#cdeeee", "#f5d9ea", "#e8e3c8")
PLAIN_FILL = "#ebebeb"

REMAKE = "Make the family again with `bignas-zoo train`."

# Measures of the architecture drawing, in inches.
ROW, STAGE_GAP, BLOCK_HEIGHT, BLOCK_WIDTH, COLUMN = 0.27, 0.09, 0.21, 1.5, 2.45
GUTTER, MARGIN, HEADING, LINE = 0.85, 0.2, 1.05, 0.16
PIXELS = 0.6  # of a column, left of its blocks: the sizes of the maps


@dataclass(frozen=True)
class _Curve:
    """Content of metrics.jsonl: pairs of step and value; after which step the sandwich rule began, if it did."""

    accuracies: Mapping[str, Sequence[tuple[int, float]]]
    learning_rates: Sequence[tuple[int, float]]
    sandwich_after: int | None


def plot_architectures(slices: Sequence[Slice], path: Path) -> None:
    """Draw slices side by side, block by block, rows aligned by stage and layer.

    Args:
        slices: at least one; they may be of different spaces.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: no slices, another suffix, or matplotlib is not installed.
        LocalIOError: the file cannot be written.
    """
    if not slices:
        raise UsageError("drawing: needs at least one slice.")
    write_drawing(path, lambda: _architectures(slices))


def plot_front(family: Family, path: Path) -> None:
    """Draw accuracy over MACs: every measured child, and the slices with their reported accuracy.

    Args:
        family: one with a folder; the children come from its front.json.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: another suffix, or matplotlib is not installed.
        NotFoundError: the family has no folder, being one without weights.
        IntegrityError: front.json is missing, damaged, or not the recorded one.
        LocalIOError: the file cannot be written.
    """
    # Nets that were trained one by one have no other children that anybody measured.
    front = read_front(family) if family.space is not None else ("", {})
    write_drawing(path, lambda: _front(family, *front))


def plot_curve(family: Family, path: Path) -> None:
    """Draw held-out accuracy and learning rate over the steps of the training.

    Args:
        family: one with a folder; the records come from its metrics.jsonl.
        path: the file to write, .png or .svg.

    Raises:
        UsageError: another suffix, or matplotlib is not installed.
        NotFoundError: the family has no folder, being one without weights.
        IntegrityError: metrics.jsonl is missing, damaged, or not the recorded one.
        LocalIOError: the file cannot be written.
    """
    write_drawing(path, lambda: _curve(family, _read_curve(family)))


def _architectures(slices: Sequence[Slice]) -> Figure:
    plans = [plan(s.network) for s in slices]
    rows = _row_heights(plans)
    width = GUTTER + COLUMN * len(slices) + MARGIN
    caption = textwrap.wrap(_caption(slices), int((width - 2 * MARGIN) / 0.058))
    depth = max(rows.values()) + ROW + LINE * (len(caption) + 1.5)
    figure = new_figure(width, HEADING + depth)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(depth, -HEADING))
    axes.axis("off")
    for stage in sorted({b.stage for blocks in plans for b in blocks if b.of_stage}):
        mine = [y for (s, _), y in rows.items() if s == stage]
        axes.text(MARGIN, (mine[0] + mine[-1]) / 2, f"stage {stage + 1}", va="center", color=GREY, fontsize=8)
    for i, (slice_, blocks) in enumerate(zip(slices, plans, strict=True)):
        _draw_column(axes, GUTTER + COLUMN * i, slice_, blocks, rows)
    for i, line in enumerate(caption, start=1):
        axes.text(MARGIN, depth - LINE * (len(caption) + 0.8 - i), line, fontsize=7.5, color=GREY)
    return figure


def _row_heights(plans: Iterable[Sequence[Block]]) -> dict[tuple[int, int], float]:
    """Return the height of each row's middle, in inches below the first one, in order."""
    keys = sorted({_row(block) for blocks in plans for block in blocks})
    rows, y = {keys[0]: 0.0}, 0.0
    for before, key in pairwise(keys):
        y += ROW + (STAGE_GAP if key[0] != before[0] else 0)
        rows[key] = y
    return rows


def _row(block: Block) -> tuple[int, int]:
    ends = {"stem": (-1, 0), "head": (1_000, 0), "classifier": (1_000, 1)}
    return ends.get(block.kind, (block.stage, block.layer))


def _draw_column(
    axes: Axes, left: float, slice_: Slice, blocks: Sequence[Block], rows: Mapping[tuple[int, int], float]
) -> None:
    middle = left + PIXELS + BLOCK_WIDTH / 2
    axes.text(middle, -HEADING + 0.27, slice_.name, ha="center", fontsize=10, fontweight="bold", color=INK)
    for i, line in enumerate(_figures(slice_)):
        axes.text(middle, -HEADING + 0.45 + LINE * i, line, ha="center", fontsize=8, color=INK)
    axes.plot([middle] * 2, [rows[_row(blocks[i])] for i in (0, -1)], color=GREY, linewidth=1, zorder=0)
    size = 0
    for block in blocks:
        y = rows[_row(block)]
        _draw_block(axes, middle, y, block)
        if block.size_in != size and block.kind != "classifier":
            size = block.size_in
            axes.text(left + PIXELS - 0.07, y, f"{size} px", ha="right", va="center", fontsize=7.5, color=INK)


def _draw_block(axes: Axes, middle: float, y: float, block: Block) -> None:
    from matplotlib.patches import Polygon

    half, tall = BLOCK_WIDTH / 2, BLOCK_HEIGHT / 2
    narrow = half - (0.16 if block.stride == 2 else 0)
    corners = [(-half, -tall), (half, -tall), (narrow, tall), (-narrow, tall)]
    fill = STAGE_FILLS[block.stage % len(STAGE_FILLS)] if block.of_stage else PLAIN_FILL
    axes.add_patch(
        Polygon([(middle + x, y + d) for x, d in corners], facecolor=fill, edgecolor="#555555", linewidth=0.7)
    )
    axes.text(middle, y, _block_label(block), ha="center", va="center", fontsize=7.5, color=INK)
    if block.stride == 2:
        axes.text(middle + half + 0.03, y, "/2", va="center", fontsize=7.5, fontweight="bold", color=ORANGE)


def _block_label(block: Block) -> str:
    if block.kind == "mbconv":
        expansion = f"×{block.mid // block.cin}  " if block.expands else ""
        return f"{expansion}k{block.kernel}x{block.kernel} → {block.cout}"
    if block.kind == "classifier":
        return f"pool, dense → {block.cout}"
    return f"{block.kind} {block.kernel}x{block.kernel} → {block.cout}"


def _figures(slice_: Slice) -> tuple[str, str, str]:
    """Return the lines under a slice's name; an accuracy that is the paper's stands in parentheses."""
    if slice_.top1 is None:
        top1 = "top-1 not measured"
    elif not slice_.has_weights:
        top1 = f"top-1 ({slice_.top1:.1f} %, the paper's)"
    else:
        top1 = f"top-1 {slice_.top1:.2f} %"
    return (
        f"{slice_.macs / 1e6:,.2f} MMACs, {slice_.network.resolution} px",
        f"{slice_.parameters / 1e6:,.2f} M parameters, {slice_.arena_bytes / 1e3:,.0f} kB RAM",
        top1,
    )


def _caption(slices: Sequence[Slice]) -> str:
    blocks = [b for b in plan(slices[0].network) if b.kernel > 1 and b.cin > 3]  # neither stem nor head
    block = next((b for b in blocks if b.expands), blocks[0])
    sources = dict.fromkeys(s.top1_source for s in slices if s.top1 is not None)
    return (
        f"From top to bottom: ×{block.mid // block.cin} the expansion, k{block.kernel}x{block.kernel} the depthwise "
        f"kernel, → {block.cout} the output channels of an MBConv block; "
        "px the side of the map a block takes in; narrowing blocks (/2) have stride 2. "
        "MMACs: million multiply-adds for one image; mobile papers say FLOPs. "
        "RAM: what tflite-micro needs for the int8 file, estimated for 64 bits. "
        + "".join(f"Top-1: {source}. " for source in sources)
    )


def _front(family: Family, chosen_on: str, measured: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    figure = new_figure(7.2, 5.4)
    axes = figure.add_subplot()
    for origin, color, title in (
        ("random", LIGHT_BLUE, "random children"),
        ("grid", LIGHT_BLUE, "children of the coarse grid"),
        ("mutation", BLUE, "mutated children"),
        ("crossover", GREEN, "crossovers"),
        ("earlier", GREY, "slices of before the search"),
        ("corner", INK, "smallest and biggest child"),
    ):
        pairs = measured.get(origin, ())
        if pairs:
            label = f"{title} ({len(pairs)}), on {chosen_on}"
            axes.plot(*zip(*pairs, strict=True), "o", color=color, markersize=3.5, markeredgewidth=0, label=label)
    own = f"{family.name}-"
    if not all(s.name.startswith(own) for s in family.slices):  # lite0-128 of efficientnet-lite
        own = own[: family.name.rfind("-") + 1]
    points = [(s.macs / 1e6, s.top1, s.name.removeprefix(own)) for s in family.slices if s.top1]
    sources = "; ".join(dict.fromkeys(s.top1_source for s in family.slices if s.top1))
    axes.plot(
        [x for x, _, _ in points], [y for _, y, _ in points], "D", color=ORANGE, markersize=6,
        markeredgecolor="white", markeredgewidth=0.8, label=f"slices ({len(points)}), on {sources}",
    )  # fmt: skip
    axes.set_title(f"{family.name}: accuracy over cost", loc="left", fontweight="bold")
    axes.set_xlabel("MACs (multiply-adds, millions)")
    axes.set_ylabel("top-1 %")
    axes.margins(0.07)
    log_axis(axes)
    figure.legend(loc="outside lower left", fontsize=8)
    place_labels(figure, axes, points, [pair for pairs in measured.values() for pair in pairs])
    return figure


def _curve(family: Family, curve: _Curve) -> Figure:
    figure = new_figure(7.2, 4.8)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, color in (("biggest", BLUE), ("smallest", ORANGE)):
        points = curve.accuracies[name]
        top.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=f"{name} child")
        end = points[-1]
        top.annotate(f"{end[1]:.1f}", end, (7, 0), textcoords="offset points", va="center", color=color)
    low.plot(*zip(*curve.learning_rates, strict=True), color=GREEN)
    if curve.sandwich_after:
        mark_sandwich((top, low), curve.sandwich_after)
    top.set_title(f"{family.name}: learning curve", loc="left", fontweight="bold")
    top.set_ylabel("top-1 %")
    low.set_ylabel("learning rate")
    low.set_xlabel("optimizer steps")
    low.set_ylim(bottom=0)
    low.xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels()
    title = f"top-1 on {family.training.get('held_out', '')} training images held out of training"
    figure.legend(loc="outside lower left", ncols=2, fontsize=8, title_fontsize=8, alignment="left", title=title)
    return figure


def mark_sandwich(panels: Sequence[Axes], step: int) -> None:
    """Draw a line where the sandwich rule began; the first panel names both sides."""
    for axes in panels:
        axes.axvline(step, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    where: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    for text, offset, side in (("biggest child alone", -5, "right"), ("sandwich rule", 5, "left")):
        panels[0].annotate(text, (step, 0.02), (offset, 0), **where, ha=side, fontsize=8, color=GREY)


def read_front(family: Family) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """Return which images the children were measured on, and by origin their MMACs and top-1 in percent."""
    path = _recorded(family, "front")
    with _reading(path):
        data = read_json(path)
        measured: dict[str, list[tuple[float, float]]] = {}
        for m in data["measured"]:
            measured.setdefault(str(m["origin"]), []).append((m["macs"] / 1e6, float(m["holdout_top1"])))
        return str(data["chosen_on"]), measured


def _read_curve(family: Family) -> _Curve:
    path = _recorded(family, "metrics")
    with _reading(path):
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        measured = [(r["step"], r["evaluation"]) for r in records if "evaluation" in r]
        training = [r for r in records if "learning_rate" in r]
        accuracies = {name: [(s, float(e[name])) for s, e in measured] for name in ("biggest", "smallest")}
        if not measured or not training:
            raise ValueError("no evaluation or no training step in it")
        changes = [a["step"] for a, b in pairwise(training) if (a["phase"], b["phase"]) == ("biggest", "sandwich")]
        rates = [(r["step"], float(r["learning_rate"])) for r in training]
        return _Curve(accuracies, rates, changes[0] if changes else None)


def _recorded(family: Family, key: str) -> Path:
    """Return the path of a file that family.json records, after checking its sha256."""
    if family.folder is None:
        raise NotFoundError(no_weights(family))
    if family.space is None:
        raise NotFoundError(
            f"family '{family.name}': its nets were trained by others, and its {key} is not known here."
        )
    description = family.folder / names.FAMILY
    with _reading(description):
        record = FileRecord.from_json(read_json(description)[key])
    verify(family.path(record), record.sha256, fix=REMAKE)
    return family.path(record)


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(f"{path}: not as this version writes it", REMAKE)
