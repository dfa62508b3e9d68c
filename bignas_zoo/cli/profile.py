"""``bignas-zoo profile``: the latency table of this machine, or of a phone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.cli.common import say
from bignas_zoo.cli.devices import describe
from bignas_zoo.cli.interrupt import INTERRUPT
from bignas_zoo.cli.progress import file_progress
from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError, UsageError
from bignas_zoo.files.formats import PRECISIONS
from bignas_zoo.files.locks import exclusive
from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.zoo.family import DEFAULT_SUPERNET
from bignas_zoo.zoo.license import license_of

if TYPE_CHECKING:
    from bignas_zoo.architecture.space import SearchSpace
    from bignas_zoo.latency import DeviceTable, Protocol
    from bignas_zoo.latency.profiling.profile import Meter


@click.command("profile")
@click.argument("name")
@click.option(
    "--space", default=DEFAULT_SUPERNET, show_default=True, metavar="SPACE|FAMILY", help="Whose blocks to measure."
)
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of the runtime.")
@click.option(
    "--blocks",
    type=click.IntRange(10),
    default=300,
    show_default=True,
    help="Measure about so many, or the fewest that cover the space.",
)
@click.option("--fit", type=click.IntRange(0, 1000), default=30, show_default=True, help="Networks to fit.")
@click.option("--networks", type=click.IntRange(0, 1000), default=100, show_default=True, help="Others to check on.")
@click.option(
    "--rounds", type=click.IntRange(2, 1000), default=18, show_default=True, help="Times each file has a turn."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that make files, none of which runs while one is "
    "measured [default: one a core, at most 4; each takes 2 GB].",
)
@click.option("--adb", "serial", metavar="SERIAL", help="Measure on this phone, by TFLite's benchmark_model there.")
@click.option("--device-name", help="With --adb: the phone in words.")
@click.option("--runtime-version", help="With --adb: the version of benchmark_model.")
@click.option("--cores", metavar="MASK", help="With --adb: cores to run on, for taskset, e.g. f0.")
@click.option("--license", metavar="NAME", help="Licence of the table, which is your own measuring [default: unknown].")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the table [that of your own devices].")
def profile_command(
    name: str,
    space: str,
    precision: str,
    threads: int,
    blocks: int,
    fit: int,
    networks: int,
    rounds: int,
    workers: int | None,
    serial: str | None,
    device_name: str | None,
    runtime_version: str | None,
    cores: str | None,
    license: str | None,
    output: Path | None,
) -> None:
    """Measure the latency table NAME of this machine, or of a phone, and check it on random networks.

    The table goes to NAME.json, what was measured to NAME.log.jsonl, the picture of predicted against measured times to
    NAME.png and NAME.svg. The same command goes on after an interruption. With another --space the same table learns
    further blocks; log and picture are then called NAME.SPACE. No phone was at hand: --adb is tested on recorded
    output. docs/latency.md says more.
    """
    need_keras("profile")
    _refuse_without_phone(
        serial, {"--cores": cores, "--device-name": device_name, "--runtime-version": runtime_version}
    )
    from bignas_zoo.latency import write_table
    from bignas_zoo.latency.files import NAME
    from bignas_zoo.latency.profiling.files import ParallelBuilder, TFLiteBuilder
    from bignas_zoo.latency.profiling.profile import profile
    from bignas_zoo.latency.profiling.workload import Workload, described
    from bignas_zoo.runtime.workers import default_workers

    if not NAME.fullmatch(name):
        raise UsageError(f"profile: {name!r:.80} is no name for a device: letters, digits, '.', '_' and '-', up to 64.")
    license = license_of(license)
    workload = Workload(_space(space), blocks, fit, networks)
    if serial is None:
        meter, protocol = _this_machine(threads, rounds, precision)
    else:
        meter, protocol = _phone(serial, threads, cores, precision, device_name or "", runtime_version)
    folder = _folder(output)
    earlier = _earlier(folder / f"{name}.json")
    if earlier:
        _check_same(earlier, protocol, folder / f"{name}.json")
    adds = earlier is not None and earlier.space not in ("", workload.space.name)
    if earlier and not adds and earlier.space:
        say(f"{folder / f'{name}.json'}: its blocks of '{workload.space.name}' are measured anew, then replaced")
    stem = f"{name}.{workload.space.name}" if adds else name
    if (least := len(workload.blocks())) > blocks:
        space_name = workload.space.name
        say(f"--blocks {blocks}: the fewest that cover the space '{space_name}' are {least}; those are measured")
    with exclusive(folder / f"{name}.lock", "another `profile`", folder / name) as problem:
        if problem:
            say(problem)
        INTERRUPT.resumable = True
        parallel = ParallelBuilder(TFLiteBuilder(workload.space, precision), workers or default_workers())
        with parallel as builder, file_progress("measuring") as report:
            table = profile(
                workload, name, protocol, folder, meter=meter, builder=builder, say=say, report=report, log_name=stem
            )
        table = described(table, workload, license)
        write_table(folder / f"{name}.json", earlier.with_part(table) if earlier and earlier.space else table)
    describe(table)
    _draw(table, folder / stem)
    say(f"written: {folder / f'{name}.json'}")


def _refuse_without_phone(serial: str | None, of_phones: dict[str, str | None]) -> None:
    """Refuse options about a phone where none is named."""
    for option, given in of_phones.items():
        if serial is None and given is not None:
            raise click.UsageError(f"{option} belongs to --adb.")


def _this_machine(threads: int, rounds: int, precision: str) -> tuple[Meter, Protocol]:
    """Return what measures here, and what the table says of that."""
    from bignas_zoo.latency.profiling.files import LocalMeter
    from bignas_zoo.latency.profiling.profile import PASSES

    meter = LocalMeter(threads, -(-rounds // PASSES))
    return meter, meter.protocol(precision)


def _phone(
    serial: str, threads: int, cores: str | None, precision: str, device_name: str, version: str | None
) -> tuple[Meter, Protocol]:
    """Return what measures on a phone, and what the table says of that."""
    from bignas_zoo.latency.profiling.files import AdbMeter

    meter = AdbMeter(serial, threads, cores=cores)
    return meter, meter.protocol(precision, device_name, version)


def _earlier(path: Path) -> DeviceTable | None:
    """Return the table that is there already, to which another space's blocks are added.

    Raises:
        LocalIOError: it is damaged, so that it cannot be told what would be lost with it.
    """
    from bignas_zoo.latency import read_table

    if not path.exists():
        return None
    try:
        return read_table(path)
    except IntegrityError as error:
        raise LocalIOError(
            f"{path}: is there, and no table that can be read: move it away, then measure. {error}"
        ) from error


def _check_same(earlier: DeviceTable, protocol: Protocol, path: Path) -> None:
    """Refuse to add to a table of another protocol; raises UsageError."""
    from bignas_zoo.latency.table import check_same_protocol

    try:
        check_same_protocol(earlier.name, earlier.protocol, "this measurement", protocol)
    except UsageError as error:
        raise UsageError(f"{path}: {error} Give this one another NAME, or another --output.") from error


def _folder(output: Path | None) -> Path:
    """Return the folder for the table, made if need be."""
    from bignas_zoo.latency.devices import own_folder

    folder = output or own_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"{folder}: cannot be created ({error.strerror}).") from error
    return folder


def _space(name: str) -> SearchSpace:
    from bignas_zoo.architecture.hull import hull
    from bignas_zoo.architecture.spaces import get_space
    from bignas_zoo.zoo.registry import get_family

    try:
        return get_space(name)
    except NotFoundError:
        family = get_family(name)
    if family.space is not None:
        return family.space
    specs = [slice_.spec for slice_ in family.slices if slice_.spec is not None]
    if not specs:
        raise UsageError(
            f"--space: family '{name}' has no slices, or only lists of blocks, between which nothing lies."
        )
    return hull(name, specs)


def _draw(table: DeviceTable, stem: Path) -> None:
    if table.validation is None:
        return
    from bignas_zoo.hub_cards.latency_plots import plot_validation

    for path in (stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")):
        try:
            plot_validation(table.validation, table.name, path)
        except UsageError as error:  # matplotlib is an extra
            say(f"not drawn: {error}")
            return
        say(f"drawn: {path}")
