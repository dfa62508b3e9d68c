"""What tests of latency share: small tables with times made by hand."""

from __future__ import annotations

from typing import Any

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Protocol
from bignas_zoo.latency.coverage import space_blocks

PHONE = Protocol(
    device="a phone", runtime="TFLite", version="2.20", threads=1, delegate="XNNPACK", precision="float32", batch=1,
    clocks=None, time="wall", date="2026-01-01",
)  # fmt: skip


def time_of(key: BlockKey) -> float:
    """Return a time that is a line in area and in each width: a microsecond a channel and pixel."""
    return (key.cin * key.size_in**2 + (key.mid + key.cout) * key.size_out**2) / 1000


def table_of(space: SearchSpace, /, **changes: Any) -> DeviceTable:
    """Return a table that holds every block of a space."""
    rows = {key: Measurement(time_of(key), 0.0, 10) for key in space_blocks(space)}
    return DeviceTable(**{"name": "phone", "protocol": PHONE, "rows": rows, **changes})


def row(size: int = 8, width: int = 16, kernel: int = 3, **changes: Any) -> BlockKey:
    """Return the key of a block that keeps its width, expansion 2."""
    values = {
        "kind": "mbconv", "size_in": size, "size_out": size, "cin": width, "mid": 2 * width, "cout": width,
        "kernel": kernel, "stride": 1, "expands": True, "shortcut": "identity", "activation": "swish",
    }  # fmt: skip
    return BlockKey(**{**values, **changes})
