"""What benchmarks/devices.md says of the shipped device tables: errors of what is held out, coverage, phones."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable

from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import SPACES, variant
from bignas_zoo.errors import NotFoundError
from bignas_zoo.latency import BlockKey, DeviceTable, predict
from bignas_zoo.latency.cost_model import model_held_out
from bignas_zoo.latency.coverage import coverage, space_blocks
from bignas_zoo.zoo.registry import get_family


def spaces() -> Iterable[tuple[str, SearchSpace, tuple[int, ...]]]:
    """Give the spaces that coverage is counted in, with their input sizes."""
    bignas = SPACES["bignas"]
    yield "bignas, 224 px", bignas, (224,)
    yield (
        "bignas without squeeze-excite, relu, 224 px",
        variant(bignas, squeeze_excite=False, activation="relu"),
        (224,),
    )
    yield "bignas-cifar10", SPACES["bignas-cifar10"], SPACES["bignas-cifar10"].resolutions


def report(made: list[DeviceTable], others: dict[BlockKey, float], no_projection: str) -> str:
    """Return the report as Markdown.

    Args:
        made: the tables.
        others: blocks of a Pixel 1 to compare with, which do not ship.
        no_projection: what none of the tables has, in words.
    """
    lines = [
        "# Shipped device tables",
        "",
        paragraph(
            "`python benchmarks/devices.py DATA` made these tables and this page from public data; sources, commits, "
            "licences and coverage are in the files (`bignas-zoo devices NAME`). None of the tables of blocks was "
            "compared with whole networks by those who published them. `pixel-1-spnas` was compared here, see below; "
            "predictions of the others carry a bar of 15 %."
        ),
        "",
        paragraph(
            "What is not in a table, held out: each row from its neighbours, which are then twice as far apart; by the "
            "model, all rows of an input size and widths from the others; networks of several input sizes, each size "
            "from others."
        ),
        "",
        "| device | rows | by | held out | MAPE | p95 | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for table in made:
        count = len(table.rows) or len(table.networks)
        for kind, e in table.interpolation.items() or [("nothing", None)]:
            cells = [f"{e.rows:,}", *(f"{100 * v:.2f} %" for v in (e.mape, e.p95, e.worst))] if e else ["-"] * 4
            lines.append(f"| {table.name} | {count:,} | {kind} | {' | '.join(cells)} |")
    lines += ["", *modelled(made), *phones(made)]
    made = [table for table in made if table.rows]
    lines += ["", "Different blocks of a space that a table holds, interpolates, and lacks:", ""]
    named = list(spaces())
    lines += ["| device | " + " | ".join(n for n, _, _ in named) + " |", "|---" * (len(named) + 1) + "|"]
    for table in made:
        counts = [coverage(table, space_blocks(space, sizes)) for _, space, sizes in named]
        cells = [f"{c.measured} / {c.interpolated} / {c.missing}" for c in counts]
        lines.append(f"| {table.name} | {' | '.join(cells)} |")
    lines += ["", no_projection, "", *agreement(made, others)]
    return "\n".join(lines) + "\n"


def paragraph(text: str) -> str:
    """Return text in lines."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def modelled(made: list[DeviceTable]) -> list[str]:
    """Say how far modelled blocks are off, and why one table has no model."""
    by = {table.name: table for table in made}
    spnas, tunas = by["pixel-1-spnas"], model_held_out(by["pixel-1-tunas"].rows)
    checked = spnas.validation
    assert tunas
    assert checked
    text = (
        "`pixel-1-spnas` has a model of blocks that are not in it: four numbers, of multiply-adds of full and of "
        "depthwise convolutions, values moved and weights read. Widths 48, 88, 112 and 120 of EfficientNet-Lite come "
        f"from it. Whole networks predicted through it, {checked.source}: {checked.networks} networks, MAPE "
        f"{checked.mape:.1%}, "
        f"95th percentile {checked.p95:.1%}, worst {checked.worst:.1%}, bias {checked.bias:+.1%}. That is the bar. Of "
        f"`pixel-1-tunas` the same model misses held-out groups by {tunas.mape:.1%} in the mean and {tunas.p95:.1%} at "
        "the 95th percentile (its blocks are differences within layers), so it has none."
    )
    return [paragraph(text), ""]


def phones(made: list[DeviceTable]) -> list[str]:
    """Predict the slices of ImageNet on the phones."""
    tables = [table for table in made if table.name.startswith("pixel") and (table.networks or table.model)]
    lines = [
        "What the slices of `efficientnet-lite` take there, in milliseconds, with the bar; quoted ones carry what they",
        "are rounded by:",
        "",
        "| slice | " + " | ".join(table.name for table in tables) + " |",
        "|---" * (len(tables) + 1) + "|",
    ]
    for slice_ in get_family("efficientnet-lite").slices:
        cells = [cell(table, slice_.network) for table in tables]
        lines.append(f"| {slice_.name} | {' | '.join(cells)} |")
    return lines


def cell(table: DeviceTable, network: Network) -> str:
    """Return a prediction with its bar, or nothing."""
    try:
        estimate = predict(table, network)
    except NotFoundError:
        return ""
    return f"{estimate.latency_ms:.3g} ({estimate.low_ms:.3g} to {estimate.high_ms:.3g})"


def agreement(made: list[DeviceTable], others: dict[BlockKey, float]) -> list[str]:
    """Compare what three groups measured on one phone, block by block."""
    phones = [table for table in made if table.rows and table.name.startswith("pixel-1")]
    known = {table.name: {key: row.mean_ms for key, row in table.rows.items()} for table in phones}
    known["ProxylessNAS (not shipped: its origin has no licence)"] = others
    names = list(known)
    lines = [
        "What different groups measured for the same block on a Pixel 1, which is why tables are never mixed:",
        "",
        "| tables | common blocks | mean ratio | deviation |",
        "|---|---|---|---|",
    ]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            ratios = [ms / known[second][key] for key, ms in known[first].items() if key in known[second]]
            deviation = statistics.stdev(ratios)
            lines.append(f"| {first} / {second} | {len(ratios)} | {statistics.fmean(ratios):.3f} | {deviation:.3f} |")
    return lines
