"""``bignas-zoo show``: one slice, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.forms import to_json
from bignas_zoo.architecture.plan import plan
from bignas_zoo.cli.common import (
    MACS_NOTE,
    SliceName,
    accuracy,
    bar,
    device_option,
    estimates,
    family_option,
    json_option,
    millions,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from bignas_zoo.architecture.blocks import Block
    from bignas_zoo.latency import Estimate
    from bignas_zoo.zoo.slice import Slice


@click.command("show")
@click.argument("name", type=SliceName())
@family_option
@device_option("Add what it is predicted to take there.")
@json_option
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the architecture into a .png or .svg file.")
def show_command(name: str, family: str | None, device: str | None, as_json: bool, plot: Path | None) -> None:
    """Show one slice (or slice folder): cost, accuracy, and its blocks."""
    from bignas_zoo.tasks.slices import find

    slice_ = find(name, family)
    (estimate,), problem = estimates(device, [slice_])
    if plot:
        from bignas_zoo.hub_cards.plots import plot_architectures

        plot_architectures([slice_], plot)
        say(f"drawn: {plot}")
    if as_json:
        extra: dict[str, Any] = {} if device is None else {"latency": estimate and estimate.to_json()}
        extra |= {
            "peak_activation_bytes": cost.peak_activation_bytes(slice_.network),
            "activation_bytes": cost.activations(slice_.network),
        }
        rows = [{**to_json(b), "macs": b.macs} for b in plan(slice_.network)]
        child = slice_.spec and slice_.spec.to_json()
        print_json("show", {**slice_.to_json(), **extra, "child": child, "blocks": rows})
        return
    _print_facts(slice_, estimate)
    if problem:
        say(problem)
    click.echo(f"peak activation memory: {cost.peak_activation_bytes(slice_.network) / 1e6:.2f} MB float32, batch 1")
    click.echo(
        f"on a microcontroller, int8: {cost.activations(slice_.network):,} bytes of activations, about "
        f"{slice_.arena_bytes:,} in all (tflite-micro; the rest is an estimate for 64 bits, less on 32)\n"
    )
    headings = ("block", ">input px", ">channels", ">kernel", ">stride", "shortcut", ">MMACs", ">M params")
    print_table(headings, [_row(block) for block in plan(slice_.network)])
    click.echo(f"\n{MACS_NOTE}")


def _print_facts(slice_: Slice, estimate: Estimate | None) -> None:
    """Print what is known of a slice as a whole."""
    click.echo(f"{slice_.name}: {millions(slice_.macs)} MMACs, {millions(slice_.parameters)} M parameters, ", nl=False)
    click.echo(
        f"{slice_.network.resolution} px, "
        + (f"top-1 {accuracy(slice_)} %" if slice_.top1 is not None else "top-1 not measured here")
    )
    if slice_.top1_source:
        click.echo(f"measured on: {slice_.top1_source}")
    if slice_.top1 is None and slice_.published:
        click.echo(f"its makers say {slice_.published['top1']:.1f} %: {slice_.published['source']}")
    click.echo(f"licence: {slice_.license}{f'; source: {slice_.source}' if slice_.source else ''}")
    if not slice_.has_weights:
        click.echo("weights: none published; train the space to have them")
    if estimate:
        click.echo(f"on {estimate.device}: {bar(estimate)} ms predicted; `bignas-zoo latency` has it block by block")


def _row(block: Block) -> tuple[str, ...]:
    channels = (block.cin, block.mid, block.cout) if block.expands else (block.cin, block.cout)
    return (
        block.name,
        str(block.size_in),
        " > ".join(map(str, channels)),
        str(block.kernel),
        str(block.stride),
        "" if block.shortcut == "none" else block.shortcut,
        f"{block.macs / 1e6:.3f}",
        f"{sum(op.parameters for op in block.ops) / 1e6:.3f}",
    )
