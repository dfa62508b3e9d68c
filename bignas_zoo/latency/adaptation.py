"""A table for another device from a few whole networks measured there (few-shot adaptation).

First one factor for everything and one time that each block takes more (launches, on a GPU at batch 1 most of the
time); then factors for the overhead and for kinds of blocks, held near that one factor by a ridge prior: with one
network only the common factor moves, with many each kind finds its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bignas_zoo.errors import UsageError
from bignas_zoo.latency.files import MOST_MS, NAME
from bignas_zoo.latency.keys import BlockKey, Measurable
from bignas_zoo.latency.least_squares import least_squares
from bignas_zoo.latency.measurement import Measurement
from bignas_zoo.latency.prediction import Estimate, predict
from bignas_zoo.latency.table import DeviceTable, Protocol
from bignas_zoo.latency.validation import Validation

#: How far kinds of blocks go apart from one device to another, how much of a network's time launches may take, and how
#: far one measured network is off: standard deviations, relative. The first is chosen from the ratios of Pixel 1 tables
#: (0.07 to 0.15 a block); none is fitted to a device.
PRIOR, LAUNCHES, NOISE = 0.2, 0.5, 0.03
LEAST_FACTOR = 0.05
OVERHEAD = "overhead"
#: Fewer networks than this say nothing of the table's error.
FEWEST_TO_VALIDATE = 5

TimedNetwork = tuple[Measurable, float]


@dataclass(frozen=True)
class Parts:
    """A network's predicted time before the adaptation.

    Attributes:
        groups: milliseconds by kind of block, and of the overhead.
        blocks: how many blocks have a time of their own.
    """

    groups: Mapping[str, float]
    blocks: int

    @property
    def total(self) -> float:
        """All milliseconds."""
        return sum(self.groups.values())


@dataclass(frozen=True)
class Fit:
    """What turns a table into another device's.

    Attributes:
        factors: of each group.
        other: factor of groups that no network had.
        each_ms: what every block takes more.
    """

    factors: Mapping[str, float]
    other: float
    each_ms: float

    def predict(self, parts: Parts) -> float:
        """Return the new time of a network in milliseconds."""
        return (
            sum(self.factors.get(name, self.other) * ms for name, ms in parts.groups.items())
            + self.each_ms * parts.blocks
        )


def adapt(
    table: DeviceTable, measured: Sequence[TimedNetwork], *, name: str | None = None, protocol: Protocol | None = None
) -> DeviceTable:
    """Fit a table to a new device.

    Args:
        table: of a device whose blocks behave alike.
        measured: networks, each a child or its blocks, and what it takes on the new device in milliseconds.
        name: of the new device [the table's, with ``-adapted``].
        protocol: of the measurement [the table's].

    Returns:
        A table with scaled rows. Its validation holds each network predicted from the others, if there are at least
        five; otherwise the new table counts as never validated.

    Raises:
        UsageError: no networks, a time that is not above zero or beyond reason, a name that is none, or a table that
            has no blocks, or none that take any time.
        NotFoundError: a network has blocks that the table does not support.

    Of a table with parts every part is fitted alike. Networks that others measured as a whole are left behind.
    """
    if not measured:
        raise UsageError("adapt: needs at least one measured network.")
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 and not isinstance(pair[0], str) for pair in measured):
        raise UsageError("adapt: each measured network is a pair of a child (or its blocks) and milliseconds.")
    times = [ms for _, ms in measured]
    if not all(isinstance(ms, int | float) and not isinstance(ms, bool) and 0 < ms <= MOST_MS for ms in times):
        raise UsageError(f"adapt: times must be milliseconds above zero and up to {MOST_MS:,.0f}, got {times}.")
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"adapt: {name!r:.80} is no name for a device: letters, digits, '.', '_' and '-', up to 64.")
    table = dataclasses.replace(table, networks=())
    if not table.rows:
        raise UsageError(f"adapt: '{table.name}' holds whole networks and no blocks, so there is nothing to adapt.")
    parts = [_parts(predict(table, network)) for network, _ in measured]
    if not all(part.total > 0 for part in parts):
        raise UsageError(f"adapt: by '{table.name}' a network takes no time at all, so there is nothing to scale.")
    return dataclasses.replace(
        _fitted(table, fit(parts, times)),
        name=name or f"{table.name[:56]}-adapted",
        protocol=protocol or table.protocol,
        validation=_left_out(parts, times),
        note=f"Adapted from '{table.name}' by {len(times)} measured networks. {table.note}".strip(),
    )


def group(key: BlockKey) -> str:
    """Return the name of the blocks that share a factor: those of one kind with one kernel size."""
    return f"{key.kind} k{key.kernel}"


def fit(parts: Sequence[Parts], times: Sequence[float]) -> Fit:
    """Return what best explains measured times, by least squares of relative errors.

    Args:
        parts: of each network.
        times: what each took, in milliseconds.
    """
    common, each = _common(parts, times)
    names = sorted({name for part in parts for name in part.groups})
    # In units of the measured time, so that errors are relative; unknown are departures from the common factor.
    rows = [[common * p.groups.get(name, 0.0) / ms for name in names] for p, ms in zip(parts, times, strict=True)]
    left = [1 - sum(row) - each * p.blocks / ms for row, p, ms in zip(rows, parts, times, strict=True)]
    changes = least_squares(rows, left, [(NOISE / PRIOR) ** 2] * len(names))
    return Fit(
        {name: common * max(LEAST_FACTOR, 1 + change) for name, change in zip(names, changes, strict=True)},
        common,
        each,
    )


def _common(parts: Sequence[Parts], times: Sequence[float]) -> tuple[float, float]:
    """Return one factor for all blocks, and the milliseconds that each block takes more."""
    unit = sum(times) / sum(p.blocks for p in parts) if any(p.blocks for p in parts) else 1.0
    rows = [[p.total / ms, unit * p.blocks / ms] for p, ms in zip(parts, times, strict=True)]
    factor, each = least_squares(rows, [1.0] * len(rows), [0.0, (NOISE / LAUNCHES) ** 2])
    least = LEAST_FACTOR * sum(times) / sum(p.total for p in parts)
    if each < 0:
        return least_squares([row[:1] for row in rows], [1.0] * len(rows))[0], 0.0
    if factor < least:  # nearly all of the time is launches
        rest = [1 - least * row[0] for row in rows]
        return least, unit * least_squares([row[1:] for row in rows], rest)[0]
    return factor, each * unit


def _parts(estimate: Estimate) -> Parts:
    groups = {OVERHEAD: estimate.overhead_ms} if estimate.overhead_ms else {}
    own = [block for block in estimate.blocks if block.source != "in overhead"]
    for block in own:
        groups[group(block.key)] = groups.get(group(block.key), 0.0) + block.ms
    return Parts(groups, len(own))


def _fitted(table: DeviceTable, change: Fit) -> DeviceTable:
    def row(key: BlockKey, m: Measurement) -> Measurement:
        factor = table.scale * change.factors.get(group(key), change.other)
        return Measurement(
            m.mean_ms * factor + change.each_ms, None if m.std_ms is None else m.std_ms * factor, m.count
        )

    return dataclasses.replace(
        table,
        rows={key: row(key, m) for key, m in table.rows.items()},
        overhead_ms=table.overhead_ms * change.factors.get(OVERHEAD, change.other),
        scale=1.0,
        model=table.model and table.model.scaled(table.scale * change.other, change.each_ms),
        parts=tuple(_fitted(part, change) for part in table.parts),
    )


def _left_out(parts: Sequence[Parts], times: Sequence[float]) -> Validation | None:
    """Predict each network by what was fitted to the others."""
    if len(times) < FEWEST_TO_VALIDATE:
        return None
    pairs = [
        (fit([*parts[:i], *parts[i + 1 :]], [*times[:i], *times[i + 1 :]]).predict(part), ms)
        for i, (part, ms) in enumerate(zip(parts, times, strict=True))
    ]
    return Validation.of(pairs, "each network of the adaptation, predicted from the others")
