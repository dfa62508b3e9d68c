"""``bignas-zoo devices``: which devices latencies are known of, and how well."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.budget import milliseconds
from bignas_zoo.cli.common import DeviceName, json_option, print_json, print_table, printable
from bignas_zoo.errors import BigNASError

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable


@click.command("devices")
@click.argument("name", metavar="[NAME|FILE]", type=DeviceName(), required=False)
@json_option
def devices_command(name: str | None, as_json: bool) -> None:
    """List the devices whose latency can be predicted, or describe one: protocol, coverage, errors.

    Tables come with the package, from `bignas-zoo profile`, or from a file of the format in docs/FORMAT.md.
    """
    from bignas_zoo.latency import find_device
    from bignas_zoo.latency.devices import own_folder

    if name is not None:
        table = find_device(name)
        if as_json:
            print_json("device-detail", _described(table))
        else:
            describe(table)
        return
    tables, damaged = _tables()
    if as_json:
        rows = [{**_described(table), "path": str(path)} for table, path in tables.values()]
        print_json("devices", {"devices": rows})
    else:
        print_table(
            ("name", "device", "runtime", "precision", ">threads", ">batch", ">blocks", "error on networks", "from"),
            [_row(name, table, path) for name, (table, path) in tables.items()],
        )
        click.echo(f"\nYour own tables belong into {own_folder()}. `bignas-zoo devices NAME` tells what one covers.")
    if damaged:
        for error in damaged[:-1]:
            click.echo(f"Error: {printable(str(error))}", err=True)
        raise damaged[-1]


def _tables() -> tuple[dict[str, tuple[DeviceTable, Path]], list[BigNASError]]:
    """Return the tables that can be read, and what is wrong with each that cannot: one hides no others."""
    from bignas_zoo.latency import find_device, list_devices

    tables: dict[str, tuple[DeviceTable, Path]] = {}
    damaged: list[BigNASError] = []
    for name, path in list_devices().items():
        try:
            tables[name] = find_device(name), path
        except BigNASError as error:
            damaged.append(error)
    return tables, damaged


def _row(name: str, table: DeviceTable, path: Path) -> tuple[str, ...]:
    from bignas_zoo.latency.devices import SHIPPED

    p = table.protocol
    return (
        name,
        p.device,
        " ".join(filter(None, (p.runtime, p.version))),
        p.precision,
        "?" if p.threads is None else str(p.threads),
        str(p.batch),
        f"{sum(len(part.rows) for part in (table, *table.parts)):,}",
        _errors(table),
        "package" if path.parent == SHIPPED else "own",
    )


def _errors(table: DeviceTable) -> str:
    if not table.rows:
        return f"{len(table.networks)} networks of others"
    checked = [part.validation for part in (table, *table.parts)]
    return "; ".join("not validated" if v is None else f"{v.mape:.1%} MAPE on {v.networks}" for v in checked)


def _described(table: DeviceTable) -> dict[str, object]:
    return {
        "name": table.name,
        "protocol": table.protocol.to_json(),
        **_part_described(table),
        "networks": [
            {"name": n.name, "source": n.source, "latency_ms": {str(f.size): f.ms for f in n.figures}}
            for n in table.networks
        ],
        "fixed_share": table.fixed_share,
        "parts": [_part_described(part) for part in table.parts],
    }


def _part_described(table: DeviceTable) -> dict[str, object]:
    return {
        "space": table.space,
        "source": table.source,
        "license": table.license,
        "coverage": table.coverage,
        "note": table.note,
        "overhead_ms": table.overhead_ms,
        "scale": table.scale,
        "blocks": len(table.rows),
        "blocks_in_overhead": len(table.in_overhead),
        "model": table.model and dataclasses.asdict(table.model),
        "interpolation": {kind: vars(errors) for kind, errors in table.interpolation.items()},
        "validation": table.validation and table.validation.to_json(pairs=False),
    }


def describe(table: DeviceTable) -> None:
    """Print what a table says of itself."""
    click.echo(f"{'device':<12} {table.name}: {table.protocol}")
    for part in (table, *table.parts):
        if part is not table:
            click.echo()
        for label, value in _lines(part):
            if value:
                click.echo(f"{label:<12} {value}")


def _lines(table: DeviceTable) -> list[tuple[str, str]]:
    p, overhead = table.protocol, milliseconds(table.overhead_ms)
    times = f"{p.time or 'clock not published'}, clocks {p.clocks or 'not published'}, {p.date or 'no date'}"
    lines = [("space", table.space), ("times", times)]
    if table.rows:
        held = f"{len(table.rows):,}, and {len(table.in_overhead)} in the overhead of {overhead} ms"
        lines += [("blocks", held), ("scale", f"{table.scale:.4f} of the sum of blocks")]
    lines += [
        ("coverage", table.coverage),
        ("source", table.source),
        ("license", table.license.partition("\n")[0]),
        ("note", table.note),
    ]
    for network in table.networks:
        figures = ", ".join(f"{f.ms:g} ms at {f.size} px" for f in network.figures)
        lines.append(("network", f"{network.name}: {figures} ({network.source})"))
    for kind, e in table.interpolation.items():
        text = f"{e.mape:.2%} MAPE, {e.p95:.2%} p95, {e.worst:.2%} worst, of {e.rows:,}"
        lines.append((kind, f"held out: {text}"))
    return [*lines, ("networks", _checked(table))] if table.rows else lines


def _checked(table: DeviceTable) -> str:
    """Return how far predictions were off on whole networks, in words."""
    from bignas_zoo.latency.prediction import NEVER_VALIDATED

    checked = table.validation
    if checked is None:
        return f"never compared with whole networks: predictions carry a bar of {NEVER_VALIDATED:.0%}"
    correlation = "-" if checked.r is None else f"{checked.r:.4f}"
    rank = "-" if checked.rank is None else f"{checked.rank:.4f}"
    return (
        f"{checked.mape:.2%} MAPE on {checked.networks} networks ({checked.source}); within 5 %: "
        f"{checked.within_5:.0%}, within 10 %: {checked.within_10:.0%}; p95 {checked.p95:.2%}, worst "
        f"{checked.worst:.2%}, bias {checked.bias:+.2%}; r {correlation}, rank {rank}"
    )
