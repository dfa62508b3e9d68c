"""``bignas-zoo report``: a training on one's own photographs as one page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.budget import milliseconds
from bignas_zoo.cli.common import DeviceName, say
from bignas_zoo.errors import NotFoundError
from bignas_zoo.files import names

if TYPE_CHECKING:
    from bignas_zoo.zoo.slice import Slice


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page [default: RUN/report.html].")
@click.option(
    "--device", "devices", type=DeviceName(), metavar="NAME|FILE", multiple=True, help="Add predicted milliseconds."
)
def report_command(run: Path, output: Path | None, devices: tuple[str, ...]) -> None:
    """Write the report of RUN, a folder of `train photos`, as one HTML page to send to a colleague.

    It holds the table of slices, the front, what is taken for what, the surest mistakes as pictures, the images a class
    and the learning curve, and fetches nothing.
    """
    from bignas_zoo.files.outputs import write_output
    from bignas_zoo.hub_cards.report import render_report

    page = render_report(run, {name: _milliseconds_on(name) for name in devices})
    path = output or run / names.REPORT
    write_output(path, page.encode(), ".html")
    say(f"written: {path}")


def _milliseconds_on(device: str) -> Callable[[Slice], str]:
    from bignas_zoo.latency import find_device, predict

    table = find_device(device)

    def say_of(slice_: Slice) -> str:
        try:
            return milliseconds(predict(table, slice_.network).latency_ms)
        except NotFoundError:
            return "-"

    return say_of
