"""The latency table of a device: measure the blocks of a space, fit whole networks, check on others.

Each block is a file of its own, measured in groups that share an anchor, so that a machine that grows slower or busier
shows: such a group is measured again. Every file is measured in two groups, each time among others, so that what a
group was slower or faster can be told from what a file takes (a median polish); where the two times differ, a third
decides. The time of an almost empty file is
taken off every block. Overhead and scale are then fitted to whole networks, and the table is checked on other ones.
Everything measured goes to a log at once; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.sampling import uniform
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.files import store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Validation, predict
from bignas_zoo.latency import Protocol as TableProtocol
from bignas_zoo.latency.interpolation import held_out
from bignas_zoo.latency.profiling.fitting import fit
from bignas_zoo.latency.profiling.log import ANCHOR, FLOOR, LOG_SCHEMA, ProfileLog
from bignas_zoo.latency.profiling.workload import Workload

#: Files measured together. Each is a process of its own.
GROUP = 8
#: A group whose anchor took so much longer than in the fastest quarter of groups is measured again, so often in all.
SLOW, TRIES = 1.03, 3
#: How often each file is measured. Two sessions on one machine differed by 2.4 % a file: 1.4 % a group, 1.4 % the rest.
PASSES = 2
#: A file whose times differ by more than this share is measured once more: the middle one of three counts. A moment's
#: other work had one file in twenty measured 10 to 33 % too slow, and one network in fifty 12 % beside its prediction.
DIFFER = 0.03
#: Files are kept from one pass to the next as long as they take no more together.
KEPT_BYTES = 4 << 30


class Meter(Protocol):
    """What measures files: this machine, or a phone."""

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Return the time of each file, all measured in turns."""


class Builder(Protocol):
    """What makes files; see `latency.profiling.files`."""

    def make(self, parts: Sequence[tuple[Block | ChildSpec, Path]]) -> None:
        """Write the files of blocks and children."""

    def floor(self, path: Path) -> None:
        """Write a file that computes almost nothing."""


def profile(
    workload: Workload,
    name: str,
    protocol: TableProtocol,
    folder: Path,
    *,
    meter: Meter,
    builder: Builder,
    say: Say = silent,
    report: Callable[[int, int], None] = lambda done, total: None,
    log_name: str | None = None,
) -> DeviceTable:
    """Measure what is not in the log yet, and return the table.

    Args:
        workload: what to measure.
        name: of the device.
        protocol: how it is measured.
        folder: for the log; the table is not written.
        meter, builder: measure and make files.
        say: told what is going on.
        report: told how many of all files are measured.
        log_name: of the log, which ends in ``.log.jsonl`` [the device's].

    Raises:
        UsageError: the log is of another protocol or workload.
        LocalIOError, IntegrityError: files or the log cannot be used.
    """
    log = _open_log(folder / f"{log_name or name}.log.jsonl", workload, protocol)
    blocks, children = workload.blocks(), workload.children()
    jobs: list[Job] = [(_block_name(key), block) for key, block in blocks.items()]
    jobs += [(_network_name(spec), spec) for spec in children]
    say(
        f"{len(blocks)} blocks and {len(children)} networks, each measured {PASSES} times; "
        f"{_count_left(jobs, log, workload.seed)} measurements are still to be made"
    )
    with store.working_folder(folder) as temporary:
        _measure_all(jobs, workload, _Groups(temporary, meter, builder, log), say, report)
    rows = {key: _above(log.steady(_block_name(key)), log.floor_ms) for key in blocks}
    alone = DeviceTable(name, protocol, rows, overhead_ms=log.floor_ms, interpolation=held_out(rows))
    times = [log.steady(_network_name(spec)).mean_ms for spec in children]
    timed = list(zip(children, times, strict=True))
    return check(fit(alone, timed[: workload.fit]), timed[workload.fit :])


def _open_log(path: Path, workload: Workload, protocol: TableProtocol) -> ProfileLog:
    space, seed = workload.space.to_json(), workload.seed
    return ProfileLog(path, {"schema": LOG_SCHEMA, "space": space, "seed": seed, "protocol": protocol.to_json()})


def _measure_all(
    jobs: Sequence[Job], workload: Workload, groups: _Groups, say: Say, report: Callable[[int, int], None]
) -> None:
    """Measure what every pass has still to measure, in groups, and once more what differs from pass to pass."""
    total = PASSES * len(jobs)
    done = total - _count_left(jobs, groups.log, workload.seed)
    anchor = workload.anchor()
    for number in range(PASSES + 1):
        pending = _left(jobs, groups.log, number, workload.seed)
        if number == PASSES and pending:
            total += len(pending)
            say(f"{len(pending)} files took {DIFFER:.0%} longer one time than the other: once more")
        for start in range(0, len(pending), GROUP):
            report(done, total)
            group = pending[start : start + GROUP]
            groups.measure(group, anchor, keep=number < PASSES)
            done += len(group)
    report(total, total)


Job = tuple[str, Block | ChildSpec]


def _count_left(jobs: Sequence[Job], log: ProfileLog, seed: int) -> int:
    return sum(len(_left(jobs, log, number, seed)) for number in range(PASSES))


def _left(jobs: Sequence[Job], log: ProfileLog, number: int, seed: int) -> list[Job]:
    """Return what a pass has still to measure, in its own random order; of the last one, what the others differ in.

    A machine differs by some percent from minute to minute: in any order of kinds, one kind would get the slow ones.
    """
    done = log.passes
    left = [job for job in jobs if done[job[0]] <= number]
    if number >= PASSES:
        differing = log.differing(DIFFER)
        left = [job for job in left if job[0] in differing]
    return sorted(left, key=lambda job: uniform(("profile order", seed, number, job[0])))


class _Groups:
    """Makes files and measures them in groups."""

    def __init__(self, folder: Path, meter: Meter, builder: Builder, log: ProfileLog) -> None:
        self.folder, self.meter, self.builder, self.log = folder, meter, builder, log
        self.ends: list[Path] = []
        self.files: dict[str, Path] = {}
        self.number = 0

    def prepare(self, child: ChildSpec) -> None:
        """Make the two files of every group: a network that shows the machine's speed, and an almost empty one."""
        self.ends = [self.folder / f"{name}.tflite" for name in (ANCHOR, FLOOR)]
        self.builder.make([(child, self.ends[0])])
        self.builder.floor(self.ends[1])

    def measure(self, jobs: Sequence[Job], anchor: ChildSpec, *, keep: bool) -> None:
        """Measure a group with the child that every group has; keep its files for the next pass, or not."""
        if not self.ends:
            self.prepare(anchor)
        missing = [job for job in jobs if job[0] not in self.files]
        paths = {name: self.folder / f"{self.number + i}.tflite" for i, (name, _) in enumerate(missing)}
        self.number += len(missing)
        self.builder.make([(part, paths[name]) for name, part in missing])
        self.files |= paths
        files = [self.files[name] for name, _ in jobs]
        whole, floor, *times = _steadiest([*self.ends, *files], self.meter, self.log.brisk)
        group = self.log.next_group
        for (name, _), measured in zip(jobs, times, strict=True):
            self.log.add(name, group, measured, floor.mean_ms, whole.mean_ms)
        if not keep or sum(path.stat().st_size for path in self.folder.iterdir()) > KEPT_BYTES:
            for name, _ in jobs:
                self.files.pop(name).unlink()


def _steadiest(paths: Sequence[Path], meter: Meter, brisk: float) -> list[Measurement]:
    """Measure files, again while the machine is slow; return the time in which the first of them was fastest."""
    best = meter.measure(paths)
    for _ in range(TRIES - 1):
        if best[0].mean_ms <= SLOW * brisk:
            break
        best = min(best, meter.measure(paths), key=lambda times: times[0].mean_ms)
    return best


def _block_name(key: BlockKey) -> str:
    return "block " + json.dumps(key.to_json())


def _network_name(spec: ChildSpec) -> str:
    return "network " + json.dumps(spec.to_json())


def _above(measured: Measurement, floor_ms: float) -> Measurement:
    """Return a block's time without what any file takes."""
    return dataclasses.replace(measured, mean_ms=max(0.0, measured.mean_ms - floor_ms))


def check(table: DeviceTable, measured: Sequence[tuple[ChildSpec, float]]) -> DeviceTable:
    """Return the table with its errors on networks that nothing was fitted to."""
    if not measured:
        return table
    pairs = [(predict(table, spec).latency_ms, ms) for spec, ms in measured]
    return dataclasses.replace(table, validation=Validation.of(pairs, "random children, none used in the fit"))
