"""``bignas-zoo get``: from a budget to a folder that runs on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bignas_zoo.architecture import cost
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
from bignas_zoo.files.say import Say, silent
from bignas_zoo.search import ON_DEMAND_CHILDREN
from bignas_zoo.tasks import get as delivery
from bignas_zoo.tasks.opening import is_address
from bignas_zoo.zoo.family import DEFAULT_SUPERNET
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    from bignas_zoo.files.formats import Export
    from bignas_zoo.latency import DeviceTable
    from bignas_zoo.tasks.export import Exported


@click.command("get")
@click.argument("name", type=SliceName(), required=False)
@click.option(
    "--budget",
    metavar="BUDGET",
    help="E.g. 400MFLOPs, 5Mparams, 4MB, 96KBram, 8ms@DEVICE, 'top1>=80', or several with commas.",
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
@click.option(
    "--spec",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Cut this child of the family that is named, and calibrate it on --images; as `show --json` prints one.",
)
@format_options
@family_option
@click.option(
    "--classes",
    metavar="FAMILY",
    help="Choose among all families with the classes of this one [default: efficientnet-lite, ImageNet's 1,000].",
)
@click.option(
    "--verify-key", metavar="KEY", type=click.Path(path_type=Path),
    help="For hf://: public key (Ed25519) that must have signed it.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the slice's name].")
@click.option("--force", is_flag=True, help="Replace the output folder if it is there already.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the folder's path only.")
def get_command(**given: Any) -> None:
    """Take the most accurate slice within a budget, export it, and prove the export; or fetch hf://ORG/NAME.

    The folder holds model.tflite, labels.txt, slice.json, model.safetensors and README.md, and what --format and
    --precision ask for (`export` has more options, and adds files to a folder later).
    """
    options = _Options(**given)
    exports = chosen_exports(options.formats, options.precisions, options.normalize_in_graph)
    tables = read_tables(options.device_tables)
    _check_search(options)
    if options.spec is not None:
        result = _child(options, options.spec, exports, tables)
        asked = options.formats or options.precisions  # the images are for calibrating as well
        _show(options, result, _exported(options, result.path, exports) if asked else [])
        return
    if options.search:
        options = _searched(options, tables)
    result = delivery.get(
        options.name, budget=options.budget, family=options.family, classes=options.classes, output=options.output,
        force=options.force, risk=options.risk, tables=tables, verify_key=options.verify_key, say=options.say,
        **_accepting(options, exports),
    )  # fmt: skip
    _show(options, result, _exported(options, result.path, exports))


def _child(
    options: _Options, spec: Path, exports: Sequence[Export], tables: Sequence[DeviceTable]
) -> delivery.GetResult:
    """Get a child of one's own."""
    if options.name is None or options.images is None:
        raise click.UsageError("--spec needs the name or folder of a family, and --images.")
    given = {
        "--search": options.search,
        "--family": options.family,
        "--classes": options.classes,
        "--verify-key": options.verify_key,
    }
    for option, value in given.items():
        if value:
            raise click.UsageError(f"{option} does not go with --spec; name the family in place of a slice.")
    from bignas_zoo.tasks.get_child import get_child

    return get_child(
        options.name, spec, options.images, budget=options.budget, output=options.output, force=options.force,
        risk=options.risk, tables=tables, say=options.say, **_accepting(options, exports),
    )  # fmt: skip


@dataclass(frozen=True)
class _Options:
    """The command line, an option a field."""

    name: str | None
    budget: str | None
    risk: str
    device_tables: tuple[Path, ...]
    search: bool
    data: str | None
    spec: Path | None
    children: int | None
    workers: int | str | None
    formats: Sequence[str]
    precisions: Sequence[str]
    images: str | None
    test_data: str | None
    normalize_in_graph: bool
    family: str | None
    classes: str | None
    verify_key: Path | None
    output: Path | None
    force: bool
    as_json: bool
    quiet: bool

    @property
    def silent(self) -> bool:
        """Whether nothing is said but the result."""
        return self.quiet or self.as_json

    @property
    def say(self) -> Say:
        """Where sentences on what is going on go."""
        return silent if self.silent else say

    @property
    def asks_memory(self) -> bool:
        """Whether the budget is a microcontroller's."""
        return self.budget is not None and Budget.parse(self.budget).of_microcontroller

    @property
    def exports(self) -> bool:
        """Whether any option asks for exports, or for the proof of one."""
        return any((self.formats, self.precisions, self.images, self.test_data, self.normalize_in_graph))


def _check_search(options: _Options) -> None:
    if not options.search:
        given = {"--data": options.data, "--children": options.children, "--workers": options.workers}
        for option, value in given.items():
            if value is not None:
                raise click.UsageError(f"{option} belongs to --search.")
    elif options.name is not None or options.budget is None or options.data is None:
        raise click.UsageError("--search needs --budget and --data, and no slice's name.")
    elif options.classes is not None:
        raise click.UsageError("--search is inside one family: name it with --family, and leave out --classes.")


def _searched(options: _Options, tables: Sequence[DeviceTable]) -> _Options:
    """Search for a slice; return the options that get it."""
    from bignas_zoo.tasks import search as searching

    with search_progress(silent=options.silent) as report:
        result = searching.search_for(
            options.family or DEFAULT_SUPERNET, str(options.budget), str(options.data),
            children=options.children or ON_DEMAND_CHILDREN, workers=options.workers, risk=options.risk, tables=tables,
            test_data=options.test_data, say=options.say, report=report,
        )  # fmt: skip
    slice_, budget = searching.outcome_of(result, str(options.budget))
    return replace(options, name=slice_.name, budget=budget, family=str(result.path))


def _accepting(options: _Options, exports: Sequence[Export]) -> dict[str, Any]:
    """Return what makes `get` refuse a slice whose exports lack images, before it is made."""
    if not options.exports:
        return {}
    from bignas_zoo.tasks.export import needs

    return {"accept": needs(exports, options.images)}


def _exported(options: _Options, folder: Path, exports: Sequence[Export]) -> list[Exported]:
    if not options.exports:
        return []
    from bignas_zoo.tasks.export import export_slice

    return export_slice(
        folder, exports, images=options.images, test_data=options.test_data, force=options.force, say=options.say
    )


def _show(options: _Options, result: delivery.GetResult, exported: Sequence[Exported]) -> None:
    if options.as_json:
        more = {"exports": [e.to_json() for e in exported]} if exported else {}
        print_json("get", {**result.to_json(), **more})
    elif options.quiet:
        click.echo(result.path)
    else:
        _print(options, result)
        if exported:
            click.echo()
            print_exports(exported)


def _figure(slice_: Slice) -> str:
    """Return the accuracy, with its standard error where makers' figures of other images make one ask for it."""
    error = "" if slice_.published is None else f" ± {slice_.top1_standard_error:.2f}"
    return f"{slice_.top1:.2f}{error}"


def _published(figure: Mapping[str, Any]) -> str:
    return f"{figure['top1']:.1f} % on {figure['images']:,} other images ({figure['source']})"


def _classes(result: delivery.GetResult) -> str:
    """Say what the slice tells apart: the task that it was chosen for."""
    names = result.class_names
    return f"{len(names):,}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _print(options: _Options, result: delivery.GetResult) -> None:
    slice_, parity = result.slice, result.parity
    size = result.files[names.TFLITE]["bytes"]
    top1 = "not measured" if slice_.top1 is None else f"{_figure(slice_)} % on {slice_.top1_source}"
    published = [] if slice_.published is None else [("published", _published(slice_.published))]
    for label, value in (
        ("slice", f"{slice_.name} (family {slice_.family})"),
        ("MACs", f"{amount('macs', slice_.macs)} at {slice_.network.resolution} px"),
        ("classes", _classes(result)),
        ("parameters", f"{slice_.parameters:,}"),
        *((f"on {entry['device']}", _latency(entry)) for entry in result.latency or ()),
        (names.TFLITE, f"{size:,} bytes, float32"),
        *([("memory", _memory(slice_))] if options.asks_memory else []),
        ("top-1", top1),
        *published,
        (
            "parity",
            f"log-probabilities differ from numpy's by at most {parity['max_abs']:.1e} on {parity['images']} "
            f"{parity['inputs']}",
        ),
        ("written to", f"{result.path}{' (from the cache)' if result.cached else ''}"),
    ):
        click.echo(f"{label:<13} {value}")
    if result.hint:
        click.echo(f"\nNote: {result.hint}")
    if options.name is not None and is_address(options.name):
        click.echo(
            "\nNote: the files are those its owner pushed; accuracy and parity are what the owner says of them. "
            f"`bignas-zoo verify {result.path}` compares them here."
        )
    click.echo(f"\n{MACS_NOTE}")


def _memory(slice_: Slice) -> str:
    return (
        f"{amount('arena_bytes', slice_.arena_bytes)} under tflite-micro as int8, "
        f"{amount('bytes', cost.activations(slice_.network))} of it activations; "
        f"the int8 file takes at most {amount('bytes', slice_.int8_bytes)}"
    )


def _latency(entry: Mapping[str, Any]) -> str:
    protocol = entry["protocol"]
    threads = protocol["threads"] or "?"
    return (
        f"{milliseconds(entry['predicted_ms'])} ms predicted "
        f"({milliseconds(entry['low_ms'])} to {milliseconds(entry['high_ms'])}), "
        f"{protocol['runtime']}, {protocol['precision']}, {threads} thread{'s'[: threads != 1]}"
    )
