"""``bignas-zoo get``: from a budget to a folder that runs on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bignas_zoo.budget import Budget, amount, milliseconds
from bignas_zoo.cli.common import (
    MACS_NOTE,
    SliceName,
    Workers,
    device_tables_option,
    family_option,
    json_option,
    print_json,
    read_tables,
    risk_option,
    say,
)
from bignas_zoo.cli.export import chosen_exports, format_options, print_exports
from bignas_zoo.cli.progress import search_progress
from bignas_zoo.files import names
from bignas_zoo.files.say import silent
from bignas_zoo.tasks import get as delivery
from bignas_zoo.tasks import search as searching
from bignas_zoo.tasks.opening import is_address
from bignas_zoo.tasks.search import ON_DEMAND_CHILDREN
from bignas_zoo.zoo.family import DEFAULT_FAMILY

if TYPE_CHECKING:
    from bignas_zoo.tasks.export import Exported


@click.command("get")
@click.argument("name", type=SliceName(), required=False)
@click.option(
    "--budget",
    metavar="BUDGET",
    help="E.g. 400MFLOPs, 5Mparams, 4MB, 8ms@DEVICE, 'top1>=80', or several with commas.",
)
@risk_option
@device_tables_option
@click.option("--search", is_flag=True, help="Search the supernet for a child made for exactly this budget (minutes).")
@click.option("--data", help="With --search: the images of the family's recipe, as for `train`.")
@click.option(
    "--children",
    type=click.IntRange(8, 1_000_000),
    help=f"With --search: to measure at most [default: {ON_DEMAND_CHILDREN}].",
)
@click.option(
    "--workers", type=Workers(), metavar="N|ADDRESS", help="With --search: as for `search`, e.g. 2 processes."
)
@format_options
@family_option
@click.option(
    "--verify-key", metavar="KEY", type=click.Path(path_type=Path),
    help="For hf://: public key (Ed25519) that must have signed it.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the slice's name].")
@click.option("--force", is_flag=True, help="Replace the output folder if it is there already.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the folder's path only.")
def get_command(
    name: str | None,
    budget: str | None,
    risk: str,
    device_tables: tuple[Path, ...],
    search: bool,
    data: str | None,
    children: int | None,
    workers: int | str | None,
    formats: Sequence[str],
    precisions: Sequence[str],
    images: str | None,
    test_data: str | None,
    normalize_in_graph: bool,
    family: str | None,
    verify_key: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take the most accurate slice within a budget, export it, and prove the export; or fetch hf://ORG/NAME.

    The folder holds model.tflite, labels.txt, slice.json, model.safetensors and README.md, and what --format and
    --precision ask for (`export` has more options, and adds files to a folder later).
    """
    hushed = quiet or as_json
    tell = silent if hushed else say
    exports = chosen_exports(formats, precisions, normalize_in_graph)
    tables = read_tables(device_tables)
    _check_search(search, name, budget, data, children, workers)
    if search:
        with search_progress(silent=hushed) as report:
            made = searching.search_for(
                family or DEFAULT_FAMILY, str(budget), str(data), children=children or ON_DEMAND_CHILDREN,
                workers=workers, risk=risk, tables=tables, test_data=test_data,
                say=tell, report=report,
            )  # fmt: skip
        # A least accuracy was met on the held-out images, which choose; on the reported ones it may be missed.
        family, (chosen,) = str(made.path), made.chosen.values()
        name, budget = chosen.name, ",".join(limit.text for limit in Budget.parse(str(budget)).upper) or None
    result = delivery.get(
        name,
        budget=budget,
        family=family,
        output=output,
        force=force,
        risk=risk,
        tables=tables,
        verify_key=verify_key,
        say=tell,
    )
    found: list[Exported] = []
    if formats or precisions or images or test_data or normalize_in_graph:
        from bignas_zoo.tasks.export import export_slice

        found = export_slice(
            result.path, exports, images=images, test_data=test_data, force=force,
            say=tell,
        )  # fmt: skip
    if as_json:
        more = {"exports": [e.to_json() for e in found]} if found else {}
        print_json("get", {**result.to_json(), **more})
    elif quiet:
        click.echo(result.path)
    else:
        _print(result, from_hub=name is not None and is_address(name))
        if found:
            click.echo()
            print_exports(found)


def _check_search(
    search: bool,
    name: str | None,
    budget: str | None,
    data: str | None,
    children: int | None,
    workers: int | str | None,
) -> None:
    if not search:
        given = {"--data": data, "--children": children, "--workers": workers}
        for option, value in given.items():
            if value is not None:
                raise click.UsageError(f"{option} belongs to --search.")
    elif name is not None or budget is None or data is None:
        raise click.UsageError("--search needs --budget and --data, and no slice's name.")


def _print(result: delivery.GetResult, *, from_hub: bool) -> None:
    chosen, parity = result.slice, result.parity
    size = result.files[names.TFLITE]["bytes"]
    top1 = "not measured" if chosen.top1 is None else f"{chosen.top1:.2f} % on {chosen.top1_source}"
    for label, value in (
        ("slice", f"{chosen.name} (family {chosen.family})"),
        ("MACs", f"{amount('macs', chosen.macs)} at {chosen.network.resolution} px"),
        ("parameters", f"{chosen.parameters:,}"),
        *((f"on {entry['device']}", _latency(entry)) for entry in result.latency or ()),
        (names.TFLITE, f"{size:,} bytes, float32"),
        ("top-1", top1),
        (
            "parity",
            f"log-probabilities differ from Keras by at most {parity['max_abs']:.1e} on {parity['images']} "
            f"{parity['inputs']}",
        ),
        ("written to", f"{result.path}{' (from the cache)' if result.cached else ''}"),
    ):
        click.echo(f"{label:<13} {value}")
    if result.hint:
        click.echo(f"\nNote: {result.hint}")
    if from_hub:
        click.echo(
            "\nNote: the files are those its owner pushed; accuracy and parity are what the owner says of them. "
            f"`bignas-zoo verify {result.path}` compares them here."
        )
    click.echo(f"\n{MACS_NOTE}")


def _latency(entry: Mapping[str, Any]) -> str:
    protocol = entry["protocol"]
    threads = protocol["threads"] or "?"
    return (
        f"{milliseconds(entry['predicted_ms'])} ms predicted "
        f"({milliseconds(entry['low_ms'])} to {milliseconds(entry['high_ms'])}), "
        f"{protocol['runtime']}, {protocol['precision']}, {threads} thread{'s'[: threads != 1]}"
    )
