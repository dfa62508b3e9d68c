"""``bignas-zoo latency``: where the milliseconds of a slice go on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.budget import milliseconds
from bignas_zoo.cli.common import (
    SliceName,
    bar,
    device_option,
    family_option,
    json_option,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from bignas_zoo.latency import Estimate


@click.command("latency")
@click.argument("name", metavar="SLICE|FOLDER", type=SliceName())
@device_option("Whose table to take, see `bignas-zoo devices`.", required=True)
@family_option
@json_option
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the blocks' times into a .png or .svg file.")
def latency_command(name: str, device: str, family: str | None, as_json: bool, plot: Path | None) -> None:
    """Predict what a slice takes on a device, block by block.

    The sum has a bar meant to hold 95 % of networks: the table's error on whole networks, the spread of its rows, and
    what interpolated blocks may be off by.
    """
    from bignas_zoo.latency import find_device, predict
    from bignas_zoo.tasks.slices import find

    slice_, table = find(name, family), find_device(device)
    estimate = predict(table, slice_.network)
    if plot:
        from bignas_zoo.hub_cards.latency_plots import plot_breakdown

        plot_breakdown(estimate, table, slice_.name, plot)
        say(f"drawn: {plot}")
    if as_json:
        print_json("latency", {"name": slice_.name, **estimate.to_json(), "protocol": table.protocol.to_json()})
        return
    click.echo(f"{slice_.name} on {table.name}: {bar(estimate)} ms predicted")
    click.echo(table.protocol)
    if estimate.blocks:
        click.echo()
        print_table(("block", ">ms", ">%", "source", "what"), _block_lines(estimate))
    for note in estimate.notes:
        click.echo(f"\nNote: {note}.")


def _block_lines(estimate: Estimate) -> list[tuple[str, ...]]:
    def line(name: str, ms: float, source: str, what: str) -> tuple[str, ...]:
        return name, milliseconds(ms), f"{100 * ms / estimate.latency_ms:.1f}", source, what

    blocks = [line(b.name, b.ms, b.source, str(b.key)) for b in estimate.blocks]
    return [line("overhead", estimate.overhead_ms, "of the table", ""), *blocks]
