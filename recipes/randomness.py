"""Random numbers by key: streams on the host, and bits computed inside a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

Tensor = Any


def philox(seed: int, *key: int | str) -> np.random.Generator:
    """Return the random generator that belongs to a key; equal keys give equal streams."""
    words = [seed]
    for part in key:
        words += [part] if isinstance(part, int) else list(part.encode())
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


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


def key_of(seed: int, step: int, child: int) -> np.ndarray:
    """Return the uint32 key of one child's draws in one step."""
    return np.asarray(np.random.SeedSequence([seed, step, child]).generate_state(1, np.uint32)[0])


def _mix(x: Tensor) -> Tensor:
    """Mix the bits of uint32 numbers: xor-shifts and multiplications, after MurmurHash3's finaliser."""
    x = ops.cast(x, "uint32")
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(16))) * _word(0x85EBCA6B)
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(13))) * _word(0xC2B2AE35)
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))


def _word(value: int) -> np.ndarray:
    return np.asarray(value, np.uint32)
