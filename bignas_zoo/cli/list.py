"""``bignas-zoo list``: every slice with its cost and accuracy."""

from __future__ import annotations

import click

from bignas_zoo.cli.common import (
    MACS_NOTE,
    accuracy,
    family_option,
    json_option,
    millions,
    print_json,
    print_table,
)
from bignas_zoo.registry import list_slices


@click.command("list")
@family_option
@json_option
def list_command(family: str | None, as_json: bool) -> None:
    """List slices with their cost and accuracy."""
    slices = list_slices(family)
    if as_json:
        print_json("list", {"slices": [s.to_json() for s in slices]})
        return
    print_table(
        ("slice", "family", ">MMACs", ">M params", ">TFLite MB", ">px", ">top-1 %", "measured on"),
        [
            (
                s.name,
                s.family,
                millions(s.macs),
                millions(s.parameters),
                millions(s.bytes),
                str(s.spec.resolution),
                accuracy(s),
                s.top1_source if s.statistics else "(the paper's figure; no weights)",
            )
            for s in slices
        ],
    )
    click.echo(f"\n{MACS_NOTE}")
