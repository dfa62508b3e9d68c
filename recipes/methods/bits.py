"""Random numbers computed inside a step: functions of a key, on every backend the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from bignas_zoo.models.backend import ops

Tensor = Any


def uniform(key: Tensor, rows: Tensor, columns: int) -> Tensor:
    """Draw numbers that depend on key, row and column alone, on every backend and however sharded.

    Args:
        key: uint32 scalar.
        rows: ``[n]`` integers: the global index of each row.
        columns: how many numbers a row.

    Returns:
        ``[n, columns]`` float32, uniform in [0, 1) with 24 bits.
    """
    row = _mix(ops.bitwise_xor(_mix(ops.cast(rows, "uint32")), key))
    column = _mix(ops.arange(columns, dtype="int32") + 0x5EED)
    bits = _mix(ops.bitwise_xor(row[:, None], column[None, :]))
    return ops.cast(ops.cast(ops.right_shift(bits, _word(8)), "int32"), "float32") / float(1 << 24)


def _mix(x: Tensor) -> Tensor:
    """Mix the bits of uint32 numbers: xor-shifts and multiplications, after MurmurHash3's finaliser."""
    x = ops.cast(x, "uint32")
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(16))) * _word(0x85EBCA6B)
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(13))) * _word(0xC2B2AE35)
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))


def _word(value: int) -> np.ndarray:
    return np.asarray(value, np.uint32)
