"""What several commands share: JSON output, tables, completion of slice names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bignas_zoo.budget import milliseconds
from bignas_zoo.cli.interrupt import INTERRUPT
from bignas_zoo.errors import NotFoundError
from bignas_zoo.zoo.registry import families
from bignas_zoo.zoo.selection import RISKS
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable, Estimate

MOST_WORKERS = 1_024
RAM_NOTE = "RAM is what tflite-micro needs for the int8 file: activations, and an estimate of the rest for 64 bits."
MACS_NOTE = "MACs are multiply-adds counted once; mobile papers call the same count FLOPs."


class Workers(click.ParamType):  # type: ignore[type-arg]
    """A number of processes, or the address of a Dask scheduler."""

    name = "workers"

    def convert(self, value: object, param: object, ctx: object) -> int | str:
        """Return a number, or text with ``://``."""
        text = str(value)
        if "://" in text:
            return text
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:5]) <= MOST_WORKERS:
            raise click.BadParameter(
                f"{text[:80]!r} is neither a number from 1 to {MOST_WORKERS} nor an address such as tcp://HOST:8786."
            )
        return int(text)


class SliceName(click.ParamType):  # type: ignore[type-arg]
    """A slice's name, completed by the shell."""

    name = "slice"

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        """Return the names that begin with what was typed."""
        from click.shell_completion import CompletionItem

        names = [s.name for f in families() for s in f.slices]
        return [CompletionItem(n) for n in names if n.startswith(incomplete)]


class DeviceName(click.ParamType):  # type: ignore[type-arg]
    """A device's name, completed by the shell."""

    name = "device"

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        """Return the names that begin with what was typed."""
        from click.shell_completion import CompletionItem

        from bignas_zoo.latency.devices import list_devices

        return [CompletionItem(n) for n in list_devices() if n.startswith(incomplete)]


def device_option(help_text: str, *, required: bool = False) -> Callable[[Any], Any]:
    """Add ``--device``."""
    return click.option("--device", type=DeviceName(), metavar="NAME|FILE", required=required, help=help_text)


def risk_option(command: Any) -> Any:
    """Add ``--risk``."""
    return click.option(
        "--risk",
        type=click.Choice(RISKS),
        default=RISKS[0],
        show_default=True,
        help="What of a predicted latency must meet the budget: the upper end of its bar, or its mean.",
    )(command)


def device_tables_option(command: Any) -> Any:
    """Add ``--device-table``."""
    return click.option(
        "--device-table",
        "device_tables",
        type=click.Path(path_type=Path),
        multiple=True,
        help="A device's table of your own, so that the budget can name it.",
    )(command)


def read_tables(paths: Sequence[Path]) -> list[DeviceTable]:
    """Read what ``--device-table`` names."""
    if not paths:
        return []
    from bignas_zoo.latency import read_table

    return [read_table(path) for path in paths]


def family_option(command: Any) -> Any:
    """Add ``--family``."""
    return click.option(
        "--family", metavar="NAME|FOLDER", help="Where to look: a family's name, or a folder made by `train`."
    )(command)


def license_option(otherwise: str) -> Callable[[Any], Any]:
    """Add ``--license``; `otherwise`: what holds without it."""
    return click.option(
        "--license",
        metavar="NAME",
        help=f"Licence of the weights, e.g. Apache-2.0 or CC-BY-NC-4.0 [default: {otherwise}].",
    )


def json_option(command: Any) -> Any:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def printable(text: str) -> str:
    """Return text in which what could steer a terminal or hide other text (control, bidi, zero width) is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode()


def print_json(schema: str, data: dict[str, Any]) -> None:
    """Print one JSON object with its schema first."""
    text = json.dumps({"schema": f"bignas-zoo/{schema}/1", **data}, indent=2, ensure_ascii=False)
    if not text.replace("\n", "").isprintable():  # only in strings, where JSON has escapes of its own
        text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; a heading that begins with ``>`` puts its column to the right.

    Plain formatting, not a table library: loading one takes a quarter of `list`'s time, and none leaves
    names uncut in a narrow terminal, where they must stay fit to be copied.

    Args:
        headings: one a column.
        rows: cells as text.
    """
    lines = [[h.lstrip(">") for h in headings], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if heading.startswith(">") else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def say(message: str) -> None:
    """Print a remark to stderr; between two steps, so a lost Ctrl-C is noticed here."""
    INTERRUPT.check()
    click.echo(printable(message), err=True)


def millions(value: int | None) -> str:
    """Return a count in millions with two decimals, or a dash."""
    return "-" if value is None else f"{value / 1e6:,.2f}"


def accuracy(slice_: Slice) -> str:
    """Return the accuracy in percent, marked if it is not our own measurement."""
    if slice_.top1 is None:
        return "-"
    return f"{slice_.top1:.2f}" if slice_.has_weights else f"({slice_.top1:.1f})"


def estimates(device: str | None, slices: Sequence[Slice]) -> tuple[list[Estimate | None], str | None]:
    """Predict slices on a device.

    Returns:
        A prediction for each, None without a device or where its table lacks blocks; and the first such case in words.
    """
    if device is None:
        return [None] * len(slices), None
    from bignas_zoo.latency import find_device, predict

    table = find_device(device)
    predicted: list[Estimate | None] = []
    problem = None
    for slice_ in slices:
        try:
            predicted.append(predict(table, slice_.network))
        except NotFoundError as error:
            predicted.append(None)
            problem = problem or f"{slice_.name}: {error}"
    return predicted, problem


def bar(estimate: Estimate) -> str:
    """Return a predicted latency with its bar, e.g. ``7.95 (7.60 to 8.30)``."""
    low, middle, high = map(milliseconds, (estimate.low_ms, estimate.latency_ms, estimate.high_ms))
    return f"{middle} ({low} to {high})"
