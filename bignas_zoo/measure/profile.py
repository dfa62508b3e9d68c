"""The latency table of a device: measure the blocks of a space, fit whole networks, check on others.

Each block is a file of its own, measured in groups that share an anchor, so that a machine that grows slower or busier
shows: such a group is measured again, and if that does not help its times are scaled. The time of an almost empty file
is taken off every block. Overhead and scale are then fitted to random whole networks, and the table is checked on other
ones. Everything measured goes to a log at once; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bignas_zoo import store
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Validation, predict
from bignas_zoo.latency import Protocol as TableProtocol
from bignas_zoo.latency.coverage import thinned_blocks
from bignas_zoo.latency.fitting import fit
from bignas_zoo.latency.interpolation import held_out
from bignas_zoo.latency.validation import number
from bignas_zoo.plan import Block
from bignas_zoo.sampling import choose, mutate, uniform, uniform_child
from bignas_zoo.space import ChildSpec, SearchSpace

LOG_SCHEMA = "bignas-zoo/profile-log/1"
#: Files measured together. Each is a process of its own.
GROUP = 8
#: A group whose anchor took so much longer than in the fastest quarter of groups is measured again, so often in all.
SLOW, TRIES = 1.03, 3
FLOOR, ANCHOR = "floor", "anchor"
#: Part of the choices in which a child near the smallest or biggest one differs from it.
NEAR = 0.2
TIMES = ("ms", "std", FLOOR, ANCHOR)
Say = Callable[[str], None]


class Meter(Protocol):
    """What measures files: this machine, or a phone."""

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Return the time of each file, all measured in turns."""


class Builder(Protocol):
    """What makes files; see `measure.profile_files`."""

    def make(self, parts: Sequence[tuple[Block | ChildSpec, Path]]) -> None:
        """Write the files of blocks and children."""

    def floor(self, path: Path) -> None:
        """Write a file that computes almost nothing."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        space: whose blocks.
        most_blocks: measure no more than about so many; the others are interpolated.
        fit: networks that overhead and scale are fitted to.
        networks: other networks that the table is checked on.
        seed: of the random networks.
    """

    space: SearchSpace
    most_blocks: int = 300
    fit: int = 30
    networks: int = 100
    seed: int = 0

    def blocks(self) -> dict[BlockKey, Block]:
        """Return the blocks to measure."""
        return thinned_blocks(self.space, self.most_blocks)

    def children(self) -> tuple[ChildSpec, ...]:
        """Return different children: those to fit, then those to check, which are uniformly random.

        Half of those to fit are random too. The others are the smallest and the biggest child and some near them:
        uniform draws are of middle size, so a fit to them alone was 3 to 7 % off at the ends, where slices are.
        """
        random = self._different(
            lambda turn: uniform_child(self.space, ("profile", self.seed, turn)), self.fit + self.networks
        )
        known = set(random)
        near = self._different(self._near_an_end, self.fit - self.fit // 2, known)
        fitted = [*near, *random[self.networks :]][: self.fit]
        return (*fitted, *random[: self.networks])

    def _different(
        self, draw: Callable[[int], ChildSpec], count: int, without: Collection[ChildSpec] = ()
    ) -> list[ChildSpec]:
        found: dict[ChildSpec, None] = {}
        for turn in range(50 * count):
            if len(found) == count:
                break
            child = draw(turn)
            if child not in without:
                found.setdefault(child)
        return list(found)

    def _near_an_end(self, turn: int) -> ChildSpec:
        end = self.space.biggest if turn % 2 else self.space.smallest
        if turn < 2:
            return end
        key = ("profile end", self.seed, turn)
        child = mutate(end, key, NEAR)
        return dataclasses.replace(child, resolution=choose(self.space.resolutions, (*key, "size")))

    def anchor(self) -> ChildSpec:
        """Return the child that is measured again with every group."""
        return uniform_child(self.space, ("profile anchor", self.seed))


Entry = dict[str, Any]


class Log:
    """What has been measured, one JSON object a line."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.entries = path, dict[str, Entry]()
        if not path.exists():
            store.append_line(path, json.dumps(header))
            return
        *lines, unfinished = path.read_bytes().split(b"\n")
        if unfinished:  # a line that was being written; the next one must not go behind it
            store.atomic_write(path, b"".join(line + b"\n" for line in lines))
        try:
            first, *entries = (json.loads(line) for line in lines)
            found = {**first, "protocol": {**first["protocol"], "date": None}}
            wanted = {**header, "protocol": {**header["protocol"], "date": None}}
            for entry in entries:
                self.entries[str(entry["name"])] = {**entry, **{key: _time(entry, key) for key in TIMES}}
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path}: not a log of `profile` ({error}). Remove it to measure again.") from error
        if found != wanted:
            differing = [k for k in wanted if found.get(k) != wanted[k]]
            raise UsageError(
                f"{path}: was measured with another {', '.join(differing)}; times of another protocol are never mixed. "
                "Choose another name, or remove it to measure again."
            )

    def add(self, name: str, measured: Measurement, floor_ms: float, anchor_ms: float) -> None:
        """Store a measurement, on the disk before anything goes on."""
        entry = {
            "name": name,
            "ms": measured.mean_ms,
            "std": measured.std_ms or 0.0,
            "count": measured.count,
            FLOOR: floor_ms,
            ANCHOR: anchor_ms,
        }
        store.append_line(self.path, json.dumps(entry))
        self.entries[name] = entry

    @property
    def brisk(self) -> float:
        """What the anchor took at most in the fastest quarter of groups; infinite before the first.

        Not at its fastest: a clock that was raised for a moment would have everything after it measured thrice.
        """
        anchors = sorted(entry[ANCHOR] for entry in self.entries.values())
        return float(anchors[len(anchors) // 4]) if anchors else math.inf

    def steady(self, name: str) -> Measurement:
        """Return a measurement as if the machine had always been as fast as in its middle group."""
        entry, drift = self.entries[name], self._drift(self.entries[name])
        return Measurement(entry["ms"] * drift, entry["std"] * drift, entry["count"])

    @functools.cached_property
    def floor_ms(self) -> float:
        """What any file takes, likewise."""
        return float(statistics.median(entry[FLOOR] * self._drift(entry) for entry in self.entries.values()))

    @functools.cached_property
    def _middle(self) -> float:
        return float(statistics.median(entry[ANCHOR] for entry in self.entries.values()))

    def _drift(self, entry: Mapping[str, Any]) -> float:
        return float(self._middle / entry[ANCHOR])


def _time(entry: Mapping[str, Any], key: str) -> float:
    return number(entry[key], key, 1e-9 if key == ANCHOR else 0.0, 1e9)


def profile(
    plan: Plan,
    name: str,
    protocol: TableProtocol,
    folder: Path,
    *,
    meter: Meter,
    builder: Builder,
    say: Say = lambda message: None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> DeviceTable:
    """Measure what is not in the log yet, and return the table.

    Args:
        plan: what to measure.
        name: of the device.
        protocol: how it is measured.
        folder: for ``NAME.log.jsonl``; the table is not written.
        meter, builder: measure and make files.
        say: told what is going on.
        report: told how many of all files are measured.

    Raises:
        UsageError: the log is of another protocol or plan.
        LocalIOError, IntegrityError: files or the log cannot be used.
    """
    header = {"schema": LOG_SCHEMA, "space": plan.space.to_json(), "seed": plan.seed, "protocol": protocol.to_json()}
    log = Log(folder / f"{name}.log.jsonl", header)
    blocks, children = plan.blocks(), plan.children()
    jobs: list[Job] = [(_block_name(key), block) for key, block in blocks.items()]
    jobs += [(_network_name(spec), spec) for spec in children]
    # A machine differs by some percent from minute to minute: in any order of kinds, one kind would get the slow ones.
    jobs.sort(key=lambda job: uniform(("profile order", plan.seed, job[0])))
    left = [job for job in jobs if job[0] not in log.entries]
    say(f"{len(blocks)} blocks and {len(children)} networks; {len(left)} files are still to be measured")
    with store.working_folder(folder) as temporary:
        ends = _ends(temporary, builder, plan.anchor()) if left else {}
        for start in range(0, len(left), GROUP):
            report(len(jobs) - len(left) + start, len(jobs))
            _measure_group(left[start : start + GROUP], temporary, ends, meter, builder, log)
    report(len(jobs), len(jobs))
    rows = {key: _above(log.steady(_block_name(key)), log.floor_ms) for key in blocks}
    raw = DeviceTable(name, protocol, rows, overhead_ms=log.floor_ms, interpolation=held_out(rows))
    times = [log.steady(_network_name(spec)).mean_ms for spec in children]
    measured = list(zip(children, times, strict=True))
    return check(fit(raw, measured[: plan.fit]), measured[plan.fit :])


Job = tuple[str, Block | ChildSpec]


def _ends(folder: Path, builder: Builder, child: ChildSpec) -> dict[str, Path]:
    """Make the two files that every group holds: an almost empty one, and a network that shows the machine's speed."""
    paths = {name: folder / f"{name}.tflite" for name in (FLOOR, ANCHOR)}
    builder.floor(paths[FLOOR])
    builder.make([(child, paths[ANCHOR])])
    return paths


def _measure_group(
    jobs: Sequence[Job], folder: Path, ends: dict[str, Path], meter: Meter, builder: Builder, log: Log
) -> None:
    paths = [folder / f"{i}.tflite" for i in range(len(jobs))]
    builder.make([(part, path) for (_, part), path in zip(jobs, paths, strict=True)])
    anchor, floor, *found = _steadiest([ends[ANCHOR], ends[FLOOR], *paths], meter, log.brisk)
    for (name, _), measured in zip(jobs, found, strict=True):
        log.add(name, measured, floor.mean_ms, anchor.mean_ms)
    for path in paths:
        path.unlink()


def _steadiest(paths: Sequence[Path], meter: Meter, brisk: float) -> list[Measurement]:
    """Measure files, again while the machine is slow; return the time in which the first of them was fastest."""
    best = meter.measure(paths)
    for _ in range(TRIES - 1):
        if best[0].mean_ms <= SLOW * brisk:
            break
        best = min(best, meter.measure(paths), key=lambda found: found[0].mean_ms)
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


def coverage_text(space: SearchSpace, blocks: int) -> str:
    """Return a table's coverage in words."""
    sizes = ", ".join(map(str, space.resolutions))
    return f"Children of '{space.name}' at {sizes} px: {blocks} blocks measured, the others interpolated."
