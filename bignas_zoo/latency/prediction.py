"""From a table and a network to milliseconds with an error bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bignas_zoo.errors import NotFoundError
from bignas_zoo.latency.cost_model import MODELLED
from bignas_zoo.latency.interpolation import Value
from bignas_zoo.latency.keys import BlockKey, Measurable, blocks_of
from bignas_zoo.latency.table import DeviceTable
from bignas_zoo.latency.whole_networks import MeasuredNetwork, Scaled, at_size, shape_of

#: Half-width of the bar of a table that was never compared with whole networks, as a fraction. Sums of blocks measured
#: here were 10 to 13 % too low, and tables that three groups made of one phone differ by 7 to 15 % a block.
NEVER_VALIDATED = 0.15
#: The same for an interpolated block, where nobody held rows out.
NEVER_HELD_OUT = 0.10
#: Standard deviations that a bar reaches.
DEVIATIONS = 2.0
NAMED_KEYS = 3


@dataclass(frozen=True)
class BlockTime:
    """What one block takes.

    Attributes:
        name: of the block, as in the plan.
        key: what was looked up.
        ms: milliseconds, the table's scale applied.
        source: "measured", "interpolated", "modelled" or "in overhead".
    """

    name: str
    key: BlockKey
    ms: float
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"name": self.name, "block": asdict(self.key), "ms": self.ms, "source": self.source}


@dataclass(frozen=True)
class Estimate:
    """A predicted latency.

    Attributes:
        device: name of the table.
        latency_ms: the prediction.
        low_ms, high_ms: ends of a bar meant to hold 95 % of networks.
        overhead_ms: the part that belongs to no block.
        blocks: the others, in order; none for a network that was measured as a whole.
        notes: what to know before trusting it.
    """

    device: str
    latency_ms: float
    low_ms: float
    high_ms: float
    overhead_ms: float
    blocks: tuple[BlockTime, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "device": self.device,
            "latency_ms": self.latency_ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "overhead_ms": self.overhead_ms,
            "blocks": [b.to_json() for b in self.blocks],
            "notes": list(self.notes),
        }


def predict(table: DeviceTable, network: Measurable) -> Estimate:
    """Predict what a network takes on a device: overhead + scale x sum of its blocks, or what others measured of it.

    The bar's half-width is the table's error on whole networks (95th percentile) and twice the spread of the rows,
    taken together as independent; what interpolation may be off by is added to that. A network that others measured is
    quoted, its bar being what their figure is rounded by; at another input size that size's held-out error is added.

    Args:
        table: of the device.
        network: a child, or the blocks of any network.

    Raises:
        NotFoundError: blocks that the table neither holds nor can interpolate; the message names them.
    """
    blocks = blocks_of(network)
    keys = [BlockKey.of(block) for block in blocks]
    whole = _whole(table, keys)
    if whole:
        return whole
    known = [(part, [part.value(key) for key in keys]) for part in (table, *table.parts)]
    part, looked_up = min(known, key=lambda pair: _unlike(pair[1]))
    values = [value for value in looked_up if value is not None]
    if len(values) < len(looked_up):
        missing = [f"{b.name} ({k})" for b, k, v in zip(blocks, keys, looked_up, strict=True) if v is None]
        raise NotFoundError(_missing(table, missing, len(blocks)))
    times = [
        BlockTime(block.name, key, part.scale * value.ms, _source(part, key, value))
        for block, key, value in zip(blocks, keys, values, strict=True)
    ]
    total = part.overhead_ms + sum(t.ms for t in times)
    half = _half_width(part, values, total)
    return Estimate(
        table.name, total, max(0.0, total - half), total + half, part.overhead_ms, tuple(times), _notes(part, values)
    )


def _unlike(values: Sequence[Value | None]) -> tuple[int, int]:
    """Return how many blocks a table lacks, and how many it has not measured."""
    return sum(value is None for value in values), sum(value is not None and bool(value.along) for value in values)


def _whole(table: DeviceTable, keys: Sequence[BlockKey]) -> Estimate | None:
    """Return what others measured of a network as a whole, None if nobody did, or not near this input size."""
    shape = shape_of(keys) if table.networks else ()
    for network in table.networks:
        if network.shape == shape:
            scaled = at_size(network.figures, keys[0].size_in, table.fixed_share)
            return _quoted(table, network, scaled) if scaled else None
    return None


def _quoted(table: DeviceTable, network: MeasuredNetwork, scaled: Scaled) -> Estimate:
    half = scaled.rounded_ms
    note = f"{network.name}: {scaled.ms:g} ms as published ({network.source}); the bar is what that is rounded by"
    if scaled.how is not None:
        known = table.interpolation.get(scaled.how)
        off = known.p95 if known else NEVER_VALIDATED
        half += off * scaled.ms
        sizes = " and ".join(map(str, scaled.sizes))
        note = (
            f"{network.name}: along a line in area from what was published at {sizes} px ({network.source}); the bar "
            f"takes {off:.0%} for that"
        )
    low, high = max(0.0, scaled.ms - half), scaled.ms + half
    return Estimate(table.name, scaled.ms, low, high, 0.0, (), (note,))


def _source(table: DeviceTable, key: BlockKey, value: Value) -> str:
    if table.has_in_overhead(key):
        return "in overhead"
    if MODELLED in value.along:
        return "modelled"
    return "interpolated" if value.along else "measured"


def _half_width(table: DeviceTable, values: Sequence[Value], total: float) -> float:
    residual = NEVER_VALIDATED if table.validation is None else table.validation.p95
    spread = DEVIATIONS * table.scale * math.sqrt(sum(v.std_ms**2 for v in values))
    interpolated = sum(table.scale * v.ms * _held_out(table, v) for v in values if v.along)
    return math.hypot(residual * total, spread) + interpolated


def _held_out(table: DeviceTable, value: Value) -> float:
    """Return the fraction that an interpolated block may be off by.

    Nothing for a modelled one where whole networks were predicted through the model: their error holds it.
    """
    known = table.interpolation
    if MODELLED in value.along and table.validation is not None:
        return 0.0
    if len(value.along) > 1 and "both" in known:
        return known["both"].p95
    return sum(known[kind].p95 if kind in known else NEVER_HELD_OUT for kind in value.along)


def _missing(table: DeviceTable, missing: Sequence[str], blocks: int) -> str:
    named = "; ".join(missing[:NAMED_KEYS])
    if len(missing) > NAMED_KEYS:
        named += f"; and {len(missing) - NAMED_KEYS} more"
    if not table.rows:
        known = ", ".join(f"{n.name} at {', '.join(str(f.size) for f in n.figures)} px" for n in table.networks)
        return (
            f"device '{table.name}': holds whole networks that others measured, and this one is not among them, nor is "
            f"one of them near its input size: {known}. Take another device (`bignas-zoo devices`) or measure one with "
            "`bignas-zoo profile`."
        )
    covered = " ".join(part.coverage for part in (table, *table.parts) if part.coverage)
    coverage = f" It covers: {covered}" if covered else ""
    return (
        f"device '{table.name}': {len(missing)} of {blocks} blocks are neither in its table nor between two of its "
        f"rows, so there is no honest prediction: {named}.{coverage} Take another device (`bignas-zoo devices`) or "
        "measure one with `bignas-zoo profile`."
    )


def _notes(table: DeviceTable, values: Sequence[Value]) -> tuple[str, ...]:
    notes = []
    if table.validation is None:
        notes.append(
            f"the table was never compared with whole networks: the bar takes {NEVER_VALIDATED:.0%} for what sums of "
            "blocks are usually off by"
        )
    modelled = sum(MODELLED in v.along for v in values)
    if modelled:
        notes.append(f"{modelled} of {len(values)} blocks are not in the table, but modelled from what they compute")
    interpolated = sum(bool(v.along) for v in values) - modelled
    if interpolated:
        kinds = " and ".join(sorted({kind for v in values for kind in v.along} - {MODELLED}))
        notes.append(f"{interpolated} of {len(values)} blocks are interpolated in {kinds}")
    if not table.spread_known:
        notes.append("the spread of its rows was not published and is not in the bar")
    return tuple(notes)
