"""``bignas-zoo list``: every slice with its cost and accuracy."""

from __future__ import annotations

import click

from bignas_zoo.cli.common import (
    MACS_NOTE,
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
from bignas_zoo.registry import list_slices


@click.command("list")
@family_option
@device_option("Add what each slice is predicted to take there.")
@json_option
def list_command(family: str | None, device: str | None, as_json: bool) -> None:
    """List slices with their cost and accuracy."""
    slices = list_slices(family)
    found, problem = estimates(device, slices)
    if as_json:
        extra = [{} if device is None else {"latency": e and e.to_json()} for e in found]
        print_json("list", {"slices": [{**s.to_json(), **more} for s, more in zip(slices, extra, strict=True)]})
        return
    latency = () if device is None else (">ms (95 %)",)
    print_table(
        ("slice", "family", ">MMACs", ">M params", ">TFLite MB", ">px", *latency, ">top-1 %", "measured on"),
        [
            (
                s.name,
                s.family,
                millions(s.macs),
                millions(s.parameters),
                millions(s.bytes),
                str(s.spec.resolution),
                *([] if device is None else [bar(e) if e else "-"]),
                accuracy(s),
                s.top1_source if s.statistics else "(the paper's figure; no weights)",
            )
            for s, e in zip(slices, found, strict=True)
        ],
    )
    if problem:
        say(f"- stands for: {problem}")
    click.echo(f"\n{MACS_NOTE}")
