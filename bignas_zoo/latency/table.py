"""A device's latency table: measured blocks, with the protocol they were measured by."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bignas_zoo.errors import UsageError
from bignas_zoo.latency.cost_model import CostModel
from bignas_zoo.latency.interpolation import HeldOut, Index, Value, clamped
from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.measurement import Measurement
from bignas_zoo.latency.validation import Validation
from bignas_zoo.latency.whole_networks import MeasuredNetwork


@dataclass(frozen=True)
class Protocol:
    """How times were measured. Two tables with another protocol are about different things.

    Attributes:
        device: hardware in words.
        runtime, version: what ran the networks; the version is None if it is not published.
        threads: of the runtime; None if it is not published.
        delegate: what it handed work to, e.g. ``XNNPACK``; None if none or not published.
        precision: "float32", "float16", "dynamic" or "int8".
        batch: images a call; times are those of a call.
        clocks: pinning and frequencies, in words; None if not published.
        time: "wall" or "thread_cpu": which clock a time is of; None if not published.
        date: of the measurement, or of its publication; not compared.
    """

    device: str
    runtime: str
    version: str | None
    threads: int | None
    delegate: str | None
    precision: str
    batch: int
    clocks: str | None
    time: str | None
    date: str | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the protocol as JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it in a line."""
        threads = (
            "threads not published" if self.threads is None else f"{self.threads} thread{'s'[: self.threads != 1]}"
        )
        runtime = " ".join(filter(None, (self.runtime, self.version)))
        parts = [self.device, runtime, self.delegate, self.precision, threads, f"batch {self.batch}"]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class DeviceTable:
    """A table of blocks; a network takes ``overhead_ms + scale * sum of its blocks``. Or one of whole networks.

    Attributes:
        name: what budgets call the device.
        protocol: how it was measured.
        rows: block to its time.
        space: name of the space that its blocks are of; empty for tables of others.
        parts: the same device by the same protocol, for blocks of other spaces: tables with an overhead, a scale and
            errors of their own, without parts. A network is predicted by the one that knows its blocks best.
        model: what blocks beside the rows take, if it was fitted.
        networks: whole networks with their times, which go before sums of blocks.
        fixed_share: part of a network's time that does not depend on the area of its input; None if nobody knows it,
            so that networks are quoted at their own sizes and between them only.
        overhead_ms: what a network takes apart from its blocks.
        scale: of the sum of blocks, fitted on whole networks; 1 if it never was.
        in_overhead: blocks whose time is part of the overhead, so that they add nothing of their own.
        interpolation: errors of held-out rows: "area", "channels", "both", "model", and of networks at held-out sizes:
            "between sizes", "beyond sizes"; a kind that is missing was not measured.
        validation: errors on whole networks that no figure of the table was fitted on; None if there were none.
        source, license, coverage, note: in words: who measured it, under which terms it is here, which blocks
            of which spaces it holds, what else to know.
    """

    name: str
    protocol: Protocol
    rows: Mapping[BlockKey, Measurement]
    overhead_ms: float = 0.0
    scale: float = 1.0
    in_overhead: frozenset[BlockKey] = frozenset()
    interpolation: Mapping[str, HeldOut] = field(default_factory=dict)
    validation: Validation | None = None
    source: str = ""
    license: str = ""
    coverage: str = ""
    note: str = ""
    space: str = ""
    parts: tuple[DeviceTable, ...] = ()
    model: CostModel | None = None
    networks: tuple[MeasuredNetwork, ...] = ()
    fixed_share: float | None = None

    def value(self, key: BlockKey) -> Value | None:
        """Return a block's time before the scale: measured, interpolated, modelled, or None if nothing supports one."""
        if self.has_in_overhead(key):
            return Value(0.0, 0.0)
        return self.index.value(key) or (self.model.value(key) if self.model else None)

    def has_in_overhead(self, key: BlockKey) -> bool:
        """Return whether a block's time is part of the overhead."""
        return clamped(key) in self._in_overhead

    @functools.cached_property
    def _in_overhead(self) -> frozenset[BlockKey]:
        return frozenset(map(clamped, self.in_overhead))

    @functools.cached_property
    def index(self) -> Index:
        """Lookup with interpolation, built on first use."""
        return Index(self.rows)

    @functools.cached_property
    def spread_known(self) -> bool:
        """Whether every row has a standard deviation."""
        return all(row.std_ms is not None for row in self.rows.values())

    def with_part(self, part: DeviceTable) -> DeviceTable:
        """Return the table with what was measured for another space, in place of what it had for that space.

        Raises:
            UsageError: the protocols differ.
        """
        check_same_protocol(self.name, self.protocol, part.name, part.protocol)
        if part.space == self.space:
            return dataclasses.replace(part, parts=self.parts)
        others = tuple(known for known in self.parts if known.space != part.space)
        return dataclasses.replace(self, parts=(*others, part))

    def merged(self, other: DeviceTable) -> DeviceTable:
        """Return the table with another one's rows added; its own come first.

        Raises:
            UsageError: their protocols differ, or how rows become a network's time does.
        """
        check_same_protocol(self.name, self.protocol, other.name, other.protocol)
        for what in ("overhead_ms", "scale", "in_overhead"):
            if getattr(self, what) != getattr(other, what):
                raise UsageError(f"latency: tables '{self.name}' and '{other.name}' have another {what}: never mixed.")
        return dataclasses.replace(self, rows={**other.rows, **self.rows})


def check_same_protocol(name: str, mine: Protocol, other_name: str, other: Protocol) -> None:
    """Raise UsageError if two protocols differ, naming what differs; the date does not count."""
    if mine == other:
        return
    pairs = {f.name: (getattr(mine, f.name), getattr(other, f.name)) for f in dataclasses.fields(mine) if f.compare}
    differing = "; ".join(f"{k} {a!r} and {b!r}" for k, (a, b) in pairs.items() if a != b)
    raise UsageError(
        f"latency: '{name}' and '{other_name}' were measured by different protocols ({differing}), so their times are "
        "never mixed. Use one table at a time, or measure both alike."
    )
