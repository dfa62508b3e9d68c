"""The latency table of a device: measure the blocks of a space, fit whole networks, check on others.

Each block is a file of its own, measured in groups that share an anchor, so that a machine that grows slower or busier
shows. The time of an almost empty file is taken off every block. Overhead and scale are then fitted to random whole
networks, and the table is checked on other ones. Everything measured goes to a log at once; a run that was interrupted
goes on from there.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bignas_zoo import store
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Validation, predict
from bignas_zoo.latency import Protocol as TableProtocol
from bignas_zoo.latency.coverage import thinned_blocks
from bignas_zoo.latency.interpolation import held_out
from bignas_zoo.plan import Block
from bignas_zoo.sampling import uniform_child
from bignas_zoo.space import ChildSpec, SearchSpace

LOG_SCHEMA = "bignas-zoo/profile-log/1"
#: Files measured together. Each is a process of its own.
GROUP = 8
FLOOR, ANCHOR = "floor", "anchor"
Say = Callable[[str], None]


class Meter(Protocol):
    """What measures files: this machine, or a phone."""

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Return the time of each file, all measured in turns."""


class Builder(Protocol):
    """What makes files; see `measure.profile_files`."""

    def block(self, block: Block, path: Path) -> None:
        """Write the file of a block."""

    def network(self, spec: ChildSpec, path: Path) -> None:
        """Write the file of a child."""

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
        """Return different random children: those to fit, then those to check."""
        found: dict[ChildSpec, None] = {}
        for number in range(50 * (self.fit + self.networks)):
            if len(found) == self.fit + self.networks:
                break
            found.setdefault(uniform_child(self.space, ("profile", self.seed, number)))
        return tuple(found)


class Log:
    """What has been measured, one JSON object a line."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.entries = path, dict[str, dict[str, Any]]()
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
                self.entries[str(entry["name"])] = {**entry, "ms": float(entry["ms"]), "std": float(entry["std"])}
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path}: not a log of `profile` ({error}). Remove it to measure again.") from error
        if found != wanted:
            differing = [k for k in wanted if found.get(k) != wanted[k]]
            raise UsageError(
                f"{path}: was measured with another {', '.join(differing)}; times of another protocol are never mixed. "
                "Choose another name, or remove it to measure again."
            )

    def add(self, name: str, measured: Measurement, anchor_ms: float) -> None:
        """Store a measurement, on the disk before anything goes on."""
        entry = {
            "name": name,
            "ms": measured.mean_ms,
            "std": measured.std_ms or 0.0,
            "count": measured.count,
            "anchor": anchor_ms,
        }
        store.append_line(self.path, json.dumps(entry))
        self.entries[name] = entry

    def steady(self, name: str) -> Measurement:
        """Return a measurement as if the machine had always been as fast as in its middle group."""
        middle = statistics.median(float(e["anchor"]) for e in self.entries.values())
        entry = self.entries[name]
        drift = middle / float(entry["anchor"])
        return Measurement(entry["ms"] * drift, entry["std"] * drift, entry["count"])


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
    jobs = [(_block_name(key), lambda path, b=block: builder.block(b, path)) for key, block in blocks.items()]
    jobs += [(_network_name(spec), lambda path, s=spec: builder.network(s, path)) for spec in children]
    left = [job for job in jobs if job[0] not in log.entries]
    say(f"{len(blocks)} blocks and {len(children)} networks; {len(left)} files are still to be measured")
    with store.working_folder(folder) as temporary:
        ends = _ends(temporary, builder, blocks)
        for start in range(0, len(left), GROUP):
            report(len(jobs) - len(left) + start, len(jobs))
            _measure_group(left[start : start + GROUP], temporary, ends, meter, log)
    report(len(jobs), len(jobs))
    rows = {key: _above(log.steady(_block_name(key)), log.steady(FLOOR)) for key in blocks}
    raw = DeviceTable(name, protocol, rows, overhead_ms=log.steady(FLOOR).mean_ms, interpolation=held_out(rows))
    times = [log.steady(_network_name(spec)).mean_ms for spec in children]
    measured = list(zip(children, times, strict=True))
    return check(fit_line(raw, measured[: plan.fit]), measured[plan.fit :])


Job = tuple[str, Callable[[Path], None]]


def _ends(folder: Path, builder: Builder, blocks: dict[BlockKey, Block]) -> dict[str, Path]:
    """Make the two files that every group holds: an almost empty one, and a block of middle size."""
    by_cost = sorted(blocks.values(), key=lambda b: sum(op.macs for op in b.ops))
    paths = {name: folder / f"{name}.tflite" for name in (FLOOR, ANCHOR)}
    builder.floor(paths[FLOOR])
    builder.block(by_cost[len(by_cost) // 2], paths[ANCHOR])
    return paths


def _measure_group(jobs: Sequence[Job], folder: Path, ends: dict[str, Path], meter: Meter, log: Log) -> None:
    paths = [folder / f"{i}.tflite" for i in range(len(jobs))]
    for (_, make), path in zip(jobs, paths, strict=True):
        make(path)
    anchor, floor, *found = meter.measure([ends[ANCHOR], ends[FLOOR], *paths])
    if FLOOR not in log.entries:
        log.add(FLOOR, floor, anchor.mean_ms)
    for (name, _), measured in zip(jobs, found, strict=True):
        log.add(name, measured, anchor.mean_ms)
    for path in paths:
        path.unlink()


def _block_name(key: BlockKey) -> str:
    return "block " + json.dumps(key.to_json())


def _network_name(spec: ChildSpec) -> str:
    return "network " + json.dumps(spec.to_json())


def _above(measured: Measurement, floor: Measurement) -> Measurement:
    """Return a block's time without what any file takes."""
    return dataclasses.replace(measured, mean_ms=max(0.0, measured.mean_ms - floor.mean_ms))


def fit_line(table: DeviceTable, measured: Sequence[tuple[ChildSpec, float]]) -> DeviceTable:
    """Fit overhead and scale to whole networks, by least squares of relative errors.

    Args:
        table: with a scale of 1; its overhead stays if there are fewer than two networks.
        measured: children and their milliseconds.
    """
    if len(measured) < 2:
        return table
    sums = [sum(b.ms for b in predict(table, spec).blocks) for spec, _ in measured]
    times = [ms for _, ms in measured]
    overhead, scale = relative_line(sums, times)
    if overhead < 0:
        overhead, scale = (
            0.0,
            sum(s / t for s, t in zip(sums, times, strict=True))
            / sum((s / t) ** 2 for s, t in zip(sums, times, strict=True)),
        )
    return dataclasses.replace(table, overhead_ms=overhead, scale=scale)


def relative_line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return a and b of ``y = a + b x`` with the least squared error relative to y."""
    weights = [1 / y**2 for y in ys]
    total = sum(weights)
    x = sum(w * v for w, v in zip(weights, xs, strict=True)) / total
    y = sum(w * v for w, v in zip(weights, ys, strict=True)) / total
    spread = sum(w * (v - x) ** 2 for w, v in zip(weights, xs, strict=True))
    if spread == 0:
        return 0.0, y / x
    slope = sum(w * (v - x) * (u - y) for w, v, u in zip(weights, xs, ys, strict=True)) / spread
    return y - slope * x, slope


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
