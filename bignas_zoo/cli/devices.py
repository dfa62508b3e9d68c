"""``bignas-zoo devices``: which devices latencies are known of, and how well."""

from __future__ import annotations

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

    p, checked = table.protocol, table.validation
    return (
        name,
        p.device,
        " ".join(filter(None, (p.runtime, p.version))),
        p.precision,
        "?" if p.threads is None else str(p.threads),
        str(p.batch),
        f"{len(table.rows):,}",
        "not validated" if checked is None else f"{checked.mape:.1%} MAPE on {checked.networks}",
        "package" if path.parent == SHIPPED else "own",
    )


def _described(table: DeviceTable) -> dict[str, object]:
    return {
        "name": table.name,
        "protocol": table.protocol.to_json(),
        "source": table.source,
        "license": table.license,
        "coverage": table.coverage,
        "note": table.note,
        "overhead_ms": table.overhead_ms,
        "scale": table.scale,
        "blocks": len(table.rows),
        "blocks_in_overhead": len(table.in_overhead),
        "interpolation": {kind: vars(errors) for kind, errors in table.interpolation.items()},
        "validation": table.validation and table.validation.to_json(pairs=False),
    }


def describe(table: DeviceTable) -> None:
    """Print what a table says of itself."""
    from bignas_zoo.latency.prediction import NEVER_VALIDATED

    p, overhead = table.protocol, milliseconds(table.overhead_ms)
    lines = [
        ("device", f"{table.name}: {p}"),
        ("times", f"{p.time or 'clock not published'}, clocks {p.clocks or 'not published'}, {p.date or 'no date'}"),
        ("blocks", f"{len(table.rows):,}, and {len(table.in_overhead)} in the overhead of {overhead} ms"),
        ("scale", f"{table.scale:.4f} of the sum of blocks"),
        ("coverage", table.coverage),
        ("source", table.source),
        ("license", table.license.partition("\n")[0]),
        ("note", table.note),
    ]
    for kind, e in table.interpolation.items():
        text = f"{e.mape:.2%} MAPE, {e.p95:.2%} p95, {e.worst:.2%} worst, of {e.rows:,} rows held out"
        lines.append((f"in {kind}", f"interpolated: {text}"))
    checked = table.validation
    if checked is None:
        text = f"never compared with whole networks: predictions carry a bar of {NEVER_VALIDATED:.0%}"
    else:
        correlation = "-" if checked.r is None else f"{checked.r:.4f}"
        rank = "-" if checked.rank is None else f"{checked.rank:.4f}"
        text = (
            f"{checked.mape:.2%} MAPE on {checked.networks} networks ({checked.source}); within 5 %: "
            f"{checked.within_5:.0%}, within 10 %: {checked.within_10:.0%}; p95 {checked.p95:.2%}, worst "
            f"{checked.worst:.2%}, bias {checked.bias:+.2%}; r {correlation}, rank {rank}"
        )
    lines.append(("networks", text))
    for label, value in lines:
        if value:
            click.echo(f"{label:<12} {value}")
