"""``bignas-zoo list``: every slice with its cost and accuracy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from bignas_zoo.cli.common import (
    MACS_NOTE,
    RAM_NOTE,
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
from bignas_zoo.errors import UsageError
from bignas_zoo.zoo.family import DEFAULT_FAMILY, Family
from bignas_zoo.zoo.registry import get_family, list_slices
from bignas_zoo.zoo.slice import Slice


@click.command("list")
@family_option
@device_option("Add what each slice is predicted to take there.")
@click.option("--hub", metavar="ORG", help="List the slices of a user or organisation on the Hugging Face Hub instead.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Draw the family's front into a .png or .svg file: over MACs, or over milliseconds with --device.",
)
@json_option
def list_command(family: str | None, device: str | None, hub: str | None, plot: Path | None, as_json: bool) -> None:
    """List slices with their cost and accuracy."""
    if hub is not None:
        if family or device or plot:
            raise UsageError("list: with --hub leave out --family, --device and --plot; they are about local families.")
        _print_hub(hub, as_json)
        return
    slices = list_slices(family)
    predicted, problem = estimates(device, slices)
    if plot:
        _draw(get_family(family or _predictable(slices, predicted)), device, plot)
        say(f"drawn: {plot}")
    if as_json:
        extra = [{} if device is None else {"latency": e and e.to_json()} for e in predicted]
        print_json("list", {"slices": [{**s.to_json(), **more} for s, more in zip(slices, extra, strict=True)]})
        return
    latency = () if device is None else (">ms (95 %)",)
    print_table(
        ("slice", "family", ">MMACs", ">M params", ">TFLite MB", ">RAM kB", ">px", *latency, ">top-1 %", "measured on"),
        [
            (
                s.name,
                s.family,
                millions(s.macs),
                millions(s.parameters),
                millions(s.bytes),
                f"{s.arena_bytes / 1e3:,.1f}",
                str(s.network.resolution),
                *([] if device is None else [bar(e) if e else "-"]),
                accuracy(s),
                _measured_on(s),
            )
            for s, e in zip(slices, predicted, strict=True)
        ],
    )
    if problem:
        without = sum(e is None for e in predicted)
        several = f" The same, with other blocks, of {without - 1} more." if without > 1 else ""
        say(f"No prediction (-) for {problem}{several}")
    click.echo(f"\n{RAM_NOTE}\n{MACS_NOTE}")


def _measured_on(slice_: Slice) -> str:
    """Return which images an accuracy is of; without one, what the makers of the weights say."""
    if not slice_.has_weights:
        return "(the paper's figure; no weights)"
    if slice_.top1 is None and slice_.published:
        return f"(not measured here; its makers say {slice_.published['top1']:.1f} %)"
    return slice_.top1_source


def _predictable(slices: Sequence[Slice], predicted: Sequence[object]) -> str:
    """Return the first family that a device's table covers, else the default one."""
    known = (slice_.family for slice_, estimate in zip(slices, predicted, strict=True) if estimate is not None)
    return DEFAULT_FAMILY if all(estimate is None for estimate in predicted) else next(known)


def _draw(family: Family, device: str | None, path: Path) -> None:
    if device is None:
        from bignas_zoo.hub_cards.plots import plot_front

        plot_front(family, path)
        return
    from bignas_zoo.hub_cards.latency_plots import plot_latency_front
    from bignas_zoo.latency import find_device

    plot_latency_front(family, find_device(device), path)


def _print_hub(owner: str, as_json: bool) -> None:
    """Print the slices of a user or organisation on the Hub."""
    from bignas_zoo.tasks.listing import list_hub

    if not as_json and sys.stderr.isatty():  # the client tries for half a minute to reach a host
        say(f"asking the Hub for the slices of {owner}")
    slices = list_hub(owner)
    if as_json:
        print_json("hub-list", {"owner": owner, "slices": [row.to_json() for row in slices]})
        return
    if not slices:
        say(f"'{owner}' has no slices that you may see on the Hub.")
        return
    print_table(
        ("address", "slice", ">MMACs", ">M params", ">TFLite MB", ">px", ">top-1 %", "changed"),
        [
            (
                f"hf://{row.repo}",
                row.name or "-",
                millions(row.macs),
                millions(row.parameters),
                millions(row.bytes),
                str(row.resolution or "-"),
                "-" if row.top1 is None else f"{row.top1:.2f}",
                row.modified[:10],
            )
            for row in slices
        ],
    )
    click.echo("\nFigures are those of the cards, as their owners wrote them.")
