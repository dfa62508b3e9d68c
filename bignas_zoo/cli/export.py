"""``bignas-zoo export``: a slice to any format and precision, each file proven."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bignas_zoo.cli.common import SliceName, family_option, json_option, print_json, print_table, say
from bignas_zoo.files.formats import AGREEMENT_WITHOUT_LABELS, FORMATS, LAYOUTS, PRECISIONS, TYPES, Export
from bignas_zoo.files.say import silent

if TYPE_CHECKING:
    from bignas_zoo.tasks.export import Exported

IMAGES = (
    "Real images, best of the training: a folder of them, class folders, CIFAR-10's files, or TFRecords. int8 and "
    "dynamic need at least 64."
)
TEST_DATA = "Labelled images to measure accuracy on [default: the test part of --images]."


def format_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to export and how to prove it."""
    for option in reversed(
        (
            click.option(
                "--format", "formats", type=click.Choice(list(FORMATS)), multiple=True,
                help="May be given several times [default: tflite].",
            ),
            click.option(
                "--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True,
                help="May be given several times [default: float32].",
            ),
            click.option("--images", metavar="PLACE", help=IMAGES),
            click.option("--test-data", metavar="PLACE", help=TEST_DATA),
            click.option("--normalize-in-graph", is_flag=True, help="The file takes pixel values 0 to 255."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("export")
@click.argument("name", type=SliceName(), metavar="SLICE|FOLDER")
@format_options
@click.option(
    "--io",
    type=click.Choice(TYPES),
    help="Ends of int8 TFLite files [float32] and of C source [int8]; uint8 takes pixels.",
)
@click.option("--layout", type=click.Choice(LAYOUTS), default="nhwc", help="Of ONNX inputs.")
@click.option("--batch", type=click.IntRange(1, 1024), default=1, help="Images a call of TFLite files.")
@family_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the slice's name].")
@click.option("--force", is_flag=True, help="Make files anew that are there, and replace a folder that differs.")
@json_option
def export_command(
    name: str,
    formats: Sequence[str],
    precisions: Sequence[str],
    images: str | None,
    test_data: str | None,
    normalize_in_graph: bool,
    io: str | None,
    layout: str,
    batch: int,
    family: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export a slice, or the slice in a FOLDER, and prove every file.

    The files go into the slice's folder, beside those of `get`. Each is run and compared with the network before
    it gets its name; one that misses its gate stays as NAME.rejected, and the exit code is 9. exports.json holds the
    reports.
    """
    from bignas_zoo.tasks.export import export_slice

    exports = chosen_exports(formats, precisions, normalize_in_graph, io=io, layout=layout, batch=batch)
    exported = export_slice(
        name, exports, family=family, output=output, images=images, test_data=test_data, force=force,
        say=silent if as_json else say,
    )  # fmt: skip
    if as_json:
        print_json("export", {"exports": [e.to_json() for e in exported]})
    else:
        print_exports(exported)


def chosen_exports(
    formats: Sequence[str],
    precisions: Sequence[str],
    normalize_in_graph: bool,
    *,
    io: str | None = None,
    layout: str = "nhwc",
    batch: int = 1,
) -> list[Export]:
    """Return each format in each precision; options that only some of them have go to those.

    Raises:
        UsageError: a format lacks a precision, or an option fits none of the exports.
    """
    pairs = list(dict.fromkeys(_pairs(formats or ("tflite",), precisions)))
    given: dict[str, tuple[Any, Any]] = {
        "io": (io or "float32", "float32"),
        "layout": (layout, "nhwc"),
        "batch": (batch, 1),
    }
    asked = {key: value for key, (value, default) in given.items() if value != default}
    exports = []
    for name, precision in pairs:
        if name == "c":
            alone = len(pairs) == 1  # then it takes all options, or says why not
            own: dict[str, Any] = {"layout": layout, "batch": batch, "normalize_in_graph": normalize_in_graph}
            exports.append(Export("c", precision, io=io or "int8", **(own if alone else {})))
            continue
        export = Export(name, precision, normalize_in_graph=normalize_in_graph)
        # Of several exports each takes what fits it; one alone takes all, or says why not.
        fitting = {key: value for key, value in asked.items() if len(pairs) == 1 or _fits(key, export)}
        exports.append(replace(export, **fitting))
    for key, value in asked.items():
        if not any(getattr(export, key) == value or export.format == "c" for export in exports):
            changes: dict[str, Any] = {key: value}
            replace(exports[0], **changes)  # raises, in words
    return exports


def _pairs(formats: Sequence[str], precisions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each format in each precision, its first one where none is named: int8 for C source, else float32."""
    for name in formats:
        for precision in precisions or (FORMATS[name][0],):
            yield name, precision


def _fits(option: str, export: Export) -> bool:
    if option == "io":
        return (export.format, export.precision) == ("tflite", "int8")
    return export.format == ("onnx" if option == "layout" else "tflite")


def print_exports(exported: Sequence[Exported]) -> None:
    """Print what was exported as a table."""
    print_table(
        ("file", ">bytes", "precision", ">parity", ">same top-1", ">top-1 %", ">loss", "compared on"),
        [_row(e) for e in exported],
    )
    folder = exported[0].path.parent
    click.echo(f"\nwritten to    {folder.absolute()}{' (were there)' if all(e.cached for e in exported) else ''}")
    if any("random inputs" in e.entry["parity"]["inputs"] for e in exported):
        click.echo("Note: give --images (and --test-data) to prove files on real images and measure their accuracy.")
    elif not all(e.entry["accuracy"] for e in exported):
        click.echo("Note: no labels are known, so accuracy was not measured: name labelled images with --test-data.")


def _row(exported: Exported) -> tuple[str, ...]:
    entry, parity = exported.entry, exported.entry["parity"]
    accuracy = entry["accuracy"]
    coarse = parity["max_abs"] is None or entry["precision"] in ("int8", "dynamic")
    distance = parity["score_max_abs"] if coarse else parity["max_abs"]
    return (
        str(entry["file"]),
        f"{entry['bytes']:,}",
        str(entry["precision"]),
        f"{distance:.1e}{' of scores' if coarse else ''}",
        _agreement(parity),
        f"{accuracy['top1']:.2f}" if accuracy else "-",
        f"{accuracy['loss']:.2f}" if accuracy else "-",
        _images(entry),
    )


def _agreement(parity: Mapping[str, Any]) -> str:
    """Return the part of first classes that are the same; of the sure ones too, where those decided."""
    text = f"{100 * parity['top1_agreement']:.1f} %"
    sure = parity.get("sure_agreement")
    if sure is None or parity["top1_agreement"] >= AGREEMENT_WITHOUT_LABELS:
        return text
    return f"{text} ({100 * sure:.0f} % of {parity['sure_images']} sure)"


def _images(entry: Mapping[str, Any]) -> str:
    """Return what a file was compared on, and what its accuracy was measured on where that is something else."""
    parity, accuracy = entry["parity"], entry["accuracy"]
    text = f"{parity['images']} {parity['inputs']}"
    if accuracy and (accuracy["images"], accuracy["source"]) != (parity["images"], parity["inputs"]):
        text += f"; top-1 on {accuracy['images']:,} {accuracy['source']}"
    return text
