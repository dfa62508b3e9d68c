"""A table for another device from a few whole networks measured there (few-shot adaptation).

First one factor for everything, then factors for the overhead and for kinds of blocks, held near that one factor by a
ridge prior: with one network only the common factor moves, with many each kind finds its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bignas_zoo.errors import UsageError
from bignas_zoo.latency.keys import BlockKey, Network
from bignas_zoo.latency.prediction import Estimate, predict
from bignas_zoo.latency.table import DeviceTable, Measurement, Protocol
from bignas_zoo.latency.validation import Validation

#: How far kinds of blocks go apart from one device to another, and how far one measured network is off: standard
#: deviations, relative. Chosen once from the ratios of Pixel 1 tables (0.07 to 0.15 a block); not fitted to a device.
PRIOR, NOISE = 0.2, 0.03
LEAST_FACTOR = 0.05
OVERHEAD = "overhead"
#: Fewer networks than this say nothing of the table's error.
FEWEST_TO_VALIDATE = 5

Measured = tuple[Network, float]


def adapt(
    table: DeviceTable, measured: Sequence[Measured], *, name: str | None = None, protocol: Protocol | None = None
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
        UsageError: no networks, or a time that is not above zero.
        NotFoundError: a network has blocks that the table does not support.
    """
    if not measured:
        raise UsageError("adapt: needs at least one measured network.")
    times = [ms for _, ms in measured]
    if not all(isinstance(ms, int | float) and 0 < ms < float("inf") for ms in times):
        raise UsageError(f"adapt: times must be milliseconds above zero, got {times}.")
    parts = [_parts(predict(table, network)) for network, _ in measured]
    factors = fit(parts, times)
    return dataclasses.replace(
        _scaled(table, factors),
        name=name or f"{table.name[:56]}-adapted",
        protocol=protocol or table.protocol,
        validation=_left_out(parts, times),
        note=f"Adapted from '{table.name}' by {len(times)} measured networks. {table.note}".strip(),
    )


def group(key: BlockKey) -> str:
    """Return the kind that shares a factor: MBConv blocks by kernel, the others each their own."""
    return f"mbconv k{key.kernel}" if key.kind == "mbconv" else key.kind


def fit(parts: Sequence[Mapping[str, float]], times: Sequence[float]) -> dict[str, float]:
    """Return a factor for each group that best explains measured times.

    Args:
        parts: of each network, its predicted milliseconds by group.
        times: what each took.
    """
    names = sorted({name for part in parts for name in part})
    common = _common([sum(part.values()) for part in parts], times)
    # In units of the measured time, so that errors are relative; unknown are departures from the common factor.
    rows = [[common * part.get(name, 0.0) / ms for name in names] for part, ms in zip(parts, times, strict=True)]
    left = [1 - sum(row) for row in rows]
    ridge = (NOISE / PRIOR) ** 2
    matrix = [
        [sum(row[i] * row[j] for row in rows) + (ridge if i == j else 0.0) for j in range(len(names))]
        for i in range(len(names))
    ]
    right = [sum(row[i] * rest for row, rest in zip(rows, left, strict=True)) for i in range(len(names))]
    return {
        name: common * max(LEAST_FACTOR, 1 + change) for name, change in zip(names, solve(matrix, right), strict=True)
    }


def _common(predicted: Sequence[float], times: Sequence[float]) -> float:
    """Return the factor with the least squared relative error."""
    ratios = [p / t for p, t in zip(predicted, times, strict=True)]
    return sum(ratios) / sum(r * r for r in ratios)


def solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Solve a small symmetric positive definite system by elimination (this level has no numpy)."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][j] * solution[j] for j in range(i + 1, size))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution


def _parts(estimate: Estimate) -> dict[str, float]:
    parts = {OVERHEAD: estimate.overhead_ms} if estimate.overhead_ms else {}
    for block in estimate.blocks:
        parts[group(block.key)] = parts.get(group(block.key), 0.0) + block.ms
    return {name: ms for name, ms in parts.items() if ms > 0}


def _scaled(table: DeviceTable, factors: Mapping[str, float]) -> DeviceTable:
    """Apply factors; a group that no network had takes the mean of the others."""
    other = sum(factors.values()) / len(factors)

    def row(key: BlockKey, m: Measurement) -> Measurement:
        factor = table.scale * factors.get(group(key), other)
        return Measurement(m.mean_ms * factor, None if m.std_ms is None else m.std_ms * factor, m.count)

    return dataclasses.replace(
        table,
        rows={key: row(key, m) for key, m in table.rows.items()},
        overhead_ms=table.overhead_ms * factors.get(OVERHEAD, other),
        scale=1.0,
    )


def _left_out(parts: Sequence[Mapping[str, float]], times: Sequence[float]) -> Validation | None:
    """Predict each network by factors fitted to the others."""
    if len(times) < FEWEST_TO_VALIDATE:
        return None
    pairs = []
    for i, (part, ms) in enumerate(zip(parts, times, strict=True)):
        factors = fit([*parts[:i], *parts[i + 1 :]], [*times[:i], *times[i + 1 :]])
        other = sum(factors.values()) / len(factors)
        pairs.append((sum(factors.get(name, other) * value for name, value in part.items()), ms))
    return Validation.of(pairs, "each network of the adaptation, predicted from the others")
