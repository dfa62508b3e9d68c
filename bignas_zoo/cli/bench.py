"""``bignas-zoo bench``: how fast exported files are here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.cli.common import SliceName, family_option, json_option, millions, print_json, print_table, say
from bignas_zoo.cli.progress import image_progress
from bignas_zoo.errors import BigNASError, LocalIOError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.formats import Export
from bignas_zoo.zoo import slice_folder

if TYPE_CHECKING:
    from bignas_zoo.runtime.bench import Bench, BenchFile, BenchReport, Spread

SUFFIXES = (".tflite", ".onnx")
#: What tflite-micro runs.
MICRO = Export("tflite", "int8", io="int8")


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers with commas between."""

    name = "numbers"

    def convert(self, value: object, param: object, ctx: object) -> tuple[int, ...]:
        """Read them."""
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(1 <= n <= 1024 for n in numbers):
            self.fail(f"{value!r} is not a list of numbers from 1 to 1024, such as 1 or 1,2.", param, ctx)  # type: ignore[arg-type]
        return tuple(dict.fromkeys(numbers))


@click.command("bench")
@click.argument("targets", metavar="FILE|SLICE|FOLDER|hf://ORG/NAME...", type=SliceName(), nargs=-1, required=True)
@family_option
@click.option("--threads", type=_Numbers(), default="1", show_default=True, help="Of the runtime; several as 1,2.")
@click.option("--batch", type=click.IntRange(1, 1024), help="Images a call, for files that take any number [1].")
@click.option("--warmup", type=click.IntRange(0), default=3, show_default=True, help="Calls before those that count.")
@click.option("--runs", type=click.IntRange(1), help="Calls to time [about 1.5 seconds' worth, at least 20].")
@click.option("--micro", is_flag=True, help="Measure memory under tflite-micro instead, of int8 .tflite files.")
@json_option
def bench_command(
    targets: tuple[str, ...],
    micro: bool,
    family: str | None,
    threads: tuple[int, ...],
    batch: int | None,
    warmup: int,
    runs: int | None,
    as_json: bool,
) -> None:
    """Measure exported files on this machine: time, memory, images a second.

    A .tflite file runs in ai-edge-litert (XNNPACK), an .onnx file in onnxruntime, on the CPU and in a process of
    its own. Several files take turns and are compared with the first. With --micro tflite-micro (Linux, x86-64;
    pip install 'bignas-zoo[micro]') counts what they need of a microcontroller's memory.

    \b
    Examples:
      bignas-zoo bench bignas-cifar10-s
      bignas-zoo bench model.tflite model-int8.tflite model.onnx --threads 1,2
      bignas-zoo bench model-int8-int8.tflite --micro
    """  # noqa: D301  click reads the escape as "keep these lines"
    from bignas_zoo.runtime.bench import bench

    if micro:
        if batch is not None or runs is not None or threads != (1,):
            raise UsageError("bench: --micro counts memory, so leave out --threads, --batch and --runs.")
        _bench_micro(targets, family, as_json)
        return
    with store.scratch_folder() as place:
        files = [file for number, t in enumerate(targets) for file in _files(t, family, place / str(number))]
        say(f"measuring {', '.join(f.label for f in files)}")
        with image_progress("measuring") as report:
            result = bench(files, threads=threads, batch=batch, warmup=warmup, runs=runs, report=report)
    if result.busy:
        say(
            f"Note: the machine is busy (load {result.load:.1f} on {os.cpu_count()} cores): these figures are not "
            "reliable. Of ratios and CPU times more remains than of wall times."
        )
    if as_json:
        print_json("bench", result.to_json())
    else:
        _print(result)


def _bench_micro(targets: Sequence[str], family: str | None, as_json: bool) -> None:
    """Measure memory and print it beside what is predicted for the slices that the files are of."""
    from bignas_zoo.runtime.micro import measure, need_micro

    need_micro()
    with store.scratch_folder() as place:
        files = [file for number, t in enumerate(targets) for file in _micro_files(t, family, place / str(number))]
        say(f"measuring {', '.join(label for _, label in files)}")
        measured = [(path, label, measure(path)) for path, label in files]
        rows = [
            {"file": label, "bytes": path.stat().st_size, **memory.to_json(), "predicted": _predicted_arena(path)}
            for path, label, memory in measured
        ]
    if as_json:
        print_json("bench-micro", {"results": rows})
        return
    print_table(
        ("file", ">bytes", ">arena", ">activations", ">rest", ">predicted"),
        [
            (
                row["file"],
                *(f"{row[key]:,}" for key in ("bytes", "arena", "activations", "bookkeeping")),
                f"{row['predicted']:,}" if row["predicted"] else "-",
            )
            for row in rows
        ],
    )
    click.echo("\nBytes on a 64-bit machine, reference kernels: of the rest, pointers are half as long on 32 bits.")


def _micro_files(target: str, family: str | None, folder: Path) -> list[tuple[Path, str]]:
    """Return the TFLite files of a target, those with int8 ends before others, and what to call them."""
    from bignas_zoo.runtime.runner import printable
    from bignas_zoo.tasks.export import export_slice
    from bignas_zoo.tasks.opening import local_path

    path = local_path(target)
    if os.path.isdir(path):
        exported = [p for p in _exports(path) if p.suffix == ".tflite"]
        files = [p for p in exported if p.name == MICRO.file] or _arrays(path, folder) or exported
        if not files:
            raise LocalIOError(f"{path}: holds no .tflite file.")
        if files is exported:
            say(f"Note: {path} has no file with int8 ends (export --precision int8 --io int8, or --format c).")
        return [(p, printable(str(p))) for p in files]
    if os.path.lexists(target) or path.suffix in SUFFIXES or os.sep in target:
        if not path.is_file():
            raise LocalIOError(f"{path}: no such file.")
        return [(path, printable(target))]
    try:
        (export,) = export_slice(target, MICRO, family=family, output=folder, say=say)
    except UsageError as error:
        raise UsageError(
            f"bench --micro: {target} has no int8 file yet, and one needs training images. Make it first: bignas-zoo "
            f"export {target} --precision int8 --io int8 --images FOLDER; then bench the folder."
        ) from error
    return [(export.path, target)]


def _arrays(folder: Path, place: Path) -> list[Path]:
    """Write the TFLite file inside a folder's C++ source into a folder of the same name elsewhere."""
    from bignas_zoo.export.c_source import SOURCE, array_of

    source = folder / Export("c", "int8", io="int8").file / SOURCE
    if not source.is_file():
        return []
    place.mkdir(parents=True, exist_ok=True)
    path = place / MICRO.file
    store.atomic_write(path, array_of(source.read_bytes()))
    store.copy(folder / names.SLICE, place / names.SLICE)
    return [path]


def _predicted_arena(path: Path) -> int | None:
    """Return what is predicted for a file, if it is a slice's with int8 ends."""
    from bignas_zoo.tasks.opening import holds_slice

    if path.name != MICRO.file or not holds_slice(path.parent):
        return None
    return slice_folder.describe(path.parent)[0].arena_bytes


def _files(target: str, family: str | None, folder: Path) -> list[BenchFile]:
    """Return the files of a file, a folder or a slice, which is exported into a folder first."""
    from bignas_zoo.runtime.bench import BenchFile
    from bignas_zoo.runtime.runner import printable
    from bignas_zoo.tasks.get import get
    from bignas_zoo.tasks.opening import local_path

    path = local_path(target)
    if os.path.isdir(path):
        bench_files = [BenchFile(p, printable(str(p)), _macs(path)) for p in _exports(path)]
        if not bench_files:
            raise LocalIOError(f"{path}: holds no {' or '.join(SUFFIXES)} file.")
        return bench_files
    if os.path.lexists(target) or path.suffix in SUFFIXES or os.sep in target:
        return [BenchFile(path, printable(target), _macs(path.parent))]
    slice_ = get(target, family=family, output=folder, say=say).slice
    return [BenchFile(folder / names.TFLITE, slice_.name, slice_.macs)]


def _exports(folder: Path) -> list[Path]:
    """Return a folder's exported files, ``model.tflite`` first."""
    exported = [p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file()]
    return sorted(exported, key=lambda p: (p.name != names.TFLITE, p.name))


def _macs(folder: Path) -> int | None:
    """Return the MACs of the slice that a folder's files belong to, if it says so."""
    from bignas_zoo.tasks.opening import holds_slice

    if not holds_slice(folder):
        return None
    try:
        return slice_folder.describe(folder)[0].macs
    except BigNASError as error:
        say(f"MACs are not known: {error}")
        return None


def _print(result: BenchReport) -> None:
    several = len({row.file for row in result.rows}) > 1
    headings = (
        "file", ">threads", ">batch", ">MB", ">MMACs", ">ms", ">p10 to p90", ">CPU ms", ">ms/100 MMACs", ">images/s",
        ">peak MiB", *((">time of first", ">CPU of first") if several else ()),
    )  # fmt: skip
    print_table(headings, [_cells(row, several) for row in result.rows])
    runtimes = sorted({row.runtime for row in result.rows})
    click.echo(f"\n{result.machine}; {', '.join(runtimes)}; medians of {_counts(result)} calls")
    click.echo("Peak is memory over the runtime alone; ms/100 MMACs is CPU time with one thread, else wall time.")


def _cells(row: Bench, several: bool) -> list[str]:
    per_macs = row.ms_per_100_mmacs
    cells = [
        row.file.label,
        str(row.threads),
        str(row.batch),
        f"{row.bytes / 1e6:.2f}",
        millions(row.file.macs),
        _ms(row.wall_ms.median),
        f"{_ms(row.wall_ms.p10)} to {_ms(row.wall_ms.p90)}",
        _ms(row.cpu_ms.median),
        "-" if per_macs is None else f"{per_macs:.2f}",
        f"{row.images_per_second:,.0f}" if row.images_per_second >= 10 else f"{row.images_per_second:.2g}",
        f"{row.peak_bytes / 2**20:.1f}",
    ]
    return [*cells, _ratio(row.wall_ratio), _ratio(row.cpu_ratio)] if several else cells


def _ms(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _ratio(spread: Spread | None) -> str:
    return "1" if spread is None else f"{spread.median:.2f} ({spread.p10:.2f} to {spread.p90:.2f})"


def _counts(result: BenchReport) -> str:
    counts = sorted({row.runs for row in result.rows})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
