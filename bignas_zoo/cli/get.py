"""``bignas-zoo get``: from a budget to a folder that runs on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bignas_zoo import delivery
from bignas_zoo.budget import amount
from bignas_zoo.cli.common import MACS_NOTE, SliceName, family_option, json_option, print_json, say
from bignas_zoo.cli.export import chosen_exports, format_options, print_exports
from bignas_zoo.selection import RISKS

if TYPE_CHECKING:
    from bignas_zoo.exporting import Exported
    from bignas_zoo.latency import DeviceTable


@click.command("get")
@click.argument("name", type=SliceName(), required=False)
@click.option(
    "--budget",
    metavar="BUDGET",
    help="E.g. 400MFLOPs, 5Mparams, 4MB, 8ms@DEVICE, 'top1>=80', or several with commas.",
)
@click.option(
    "--risk",
    type=click.Choice(RISKS),
    default=RISKS[0],
    show_default=True,
    help="What of a predicted latency must meet the budget: the upper end of its bar, or its mean.",
)
@click.option(
    "--device-table",
    "device_tables",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A device's table of your own, so that the budget can name it.",
)
@format_options
@family_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the slice's name].")
@click.option("--force", is_flag=True, help="Replace the output folder if it is there already.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the folder's path only.")
def get_command(
    name: str | None,
    budget: str | None,
    risk: str,
    device_tables: tuple[Path, ...],
    formats: Sequence[str],
    precisions: Sequence[str],
    images: str | None,
    test_data: str | None,
    normalize_in_graph: bool,
    family: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take the most accurate slice within a budget, export it, and prove the export.

    The folder holds model.tflite, labels.txt, slice.json, model.safetensors and README.md, and what --format and
    --precision ask for (`export` has more options, and adds files to a folder later).
    """
    silent = quiet or as_json
    exports = chosen_exports(formats, precisions, normalize_in_graph)
    result = delivery.get(
        name,
        budget=budget,
        family=family,
        output=output,
        force=force,
        risk=risk,
        tables=_tables(device_tables),
        say=(lambda message: None) if silent else say,
    )
    found: list[Exported] = []
    if formats or precisions or images or test_data or normalize_in_graph:
        from bignas_zoo.exporting import export_slice

        found = export_slice(
            result.path, exports, images=images, test_data=test_data, force=force,
            say=(lambda message: None) if silent else say,
        )  # fmt: skip
    if as_json:
        more = {"exports": [e.to_json() for e in found]} if found else {}
        print_json("get", {**result.to_json(), **more})
    elif quiet:
        click.echo(result.path)
    else:
        _print(result)
        if found:
            click.echo()
            print_exports(found)


def _tables(paths: Sequence[Path]) -> list[DeviceTable]:
    if not paths:
        return []
    from bignas_zoo.latency import read_table

    return [read_table(path) for path in paths]


def _print(result: delivery.GetResult) -> None:
    chosen, parity = result.slice, result.parity
    size = result.files["model.tflite"]["bytes"]
    top1 = "not measured" if chosen.top1 is None else f"{chosen.top1:.2f} % on {chosen.top1_source}"
    for label, value in (
        ("slice", f"{chosen.name} (family {chosen.family})"),
        ("MACs", f"{amount('macs', chosen.macs)} at {chosen.spec.resolution} px"),
        ("parameters", f"{chosen.parameters:,}"),
        *((f"on {entry['device']}", _latency(entry)) for entry in result.latency or ()),
        ("model.tflite", f"{size:,} bytes, float32"),
        ("top-1", top1),
        (
            "parity",
            f"logits differ from Keras by at most {parity['max_abs']:.1e} on {parity['images']} {parity['inputs']}",
        ),
        ("written to", f"{result.path}{' (from the cache)' if result.cached else ''}"),
    ):
        click.echo(f"{label:<13} {value}")
    if result.hint:
        click.echo(f"\nNote: {result.hint}")
    click.echo(f"\n{MACS_NOTE}")


def _latency(entry: Mapping[str, Any]) -> str:
    protocol = entry["protocol"]
    return (
        f"{entry['predicted_ms']:.2f} ms predicted ({entry['low_ms']:.2f} to {entry['high_ms']:.2f}), "
        f"{protocol['runtime']}, {protocol['precision']}, {protocol['threads'] or '?'} threads"
    )
