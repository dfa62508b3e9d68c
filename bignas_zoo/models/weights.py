"""Weights on disk: safetensors, name to array, checked before anything is allocated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bignas_zoo.errors import IntegrityError, LocalIOError, reason
from bignas_zoo.files import strict_json
from bignas_zoo.files.store import atomic_write

MAX_BYTES = 2 << 30
#: A header is read and checked before the library sees the file: it takes 12 s and 0.85 GB over one of 500,000 tensors,
#: and lets pass keys that stand twice. The largest one here has 60 kB, 500 tensors of 4 axes.
MAX_HEADER, MAX_TENSORS, MAX_AXES = 4 << 20, 10_000, 8
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}")
DTYPES = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64}


def write_weights(path: Path, weights: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays as one safetensors file, atomically.

    Args:
        path: the final file.
        weights: name to array; float16, float32, int32 or int64.
        metadata: free text entries for the header.

    Raises:
        LocalIOError: the file cannot be written; an old one stays.
    """
    # asarray, not ascontiguousarray: the latter turns a scalar into a vector of one
    arrays = {name: np.asarray(weights[name], order="C") for name in sorted(weights)}
    atomic_write(path, save(arrays, metadata=dict(metadata) if metadata else None))


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Returns:
        Name to array, in the stored dtype.

    Raises:
        LocalIOError: the file cannot be opened.
        IntegrityError: it is not a valid safetensors file, or holds a type this package never writes.
    """
    if not path.is_file():
        raise LocalIOError(f"{path}: no such file.")
    if path.stat().st_size > MAX_BYTES:
        raise IntegrityError(f"{path}: larger than {MAX_BYTES >> 30} GiB; not one of this package's files.")
    _check_header(path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise IntegrityError(f"{path}: damaged or not a safetensors file ({error}).") from error
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _check_header(path: Path) -> None:
    """Refuse a header that is no JSON, too large, or holds a name, type or shape that this package never writes.

    Raises:
        LocalIOError: the file cannot be read.
        IntegrityError: its header is not as it should be.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8).ljust(8, b"\xff"), "little")
            data = file.read(size) if size <= MAX_HEADER else b""
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(data) != size:
        raise IntegrityError(f"{path}: damaged or not a safetensors file (header of {size:,} bytes).")
    try:
        header = strict_json.loads(data)
        header.pop("__metadata__", None)
        if len(header) > MAX_TENSORS:
            raise ValueError(f"{len(header):,} tensors, at most {MAX_TENSORS:,} are read")
        for name, entry in header.items():
            _check_entry(name, entry)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise IntegrityError(f"{path}: damaged or not a safetensors file ({reason(error, 200)}).") from error


def _check_entry(name: str, entry: Mapping[str, Any]) -> None:
    if not NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name[:80]!r} is no name of a tensor")
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"'{name}' has type {str(entry['dtype'])[:20]!r}; allowed: {', '.join(DTYPES)}")
    shape = entry["shape"]
    if len(shape) > MAX_AXES or not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
        raise ValueError(f"'{name}' has shape {str(shape)[:80]}")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the free text entries of a safetensors header.

    Raises:
        IntegrityError: it is not a valid safetensors file.
    """
    _check_header(path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise IntegrityError(f"{path}: damaged or not a safetensors file ({error}).") from error


def check_shapes(weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare names and shapes with what a space needs.

    Raises:
        IntegrityError: a weight is missing, unknown, of another shape, or not finite.
    """
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unknown:
        raise IntegrityError(f"{where}: missing weights {missing[:3]}, unknown weights {unknown[:3]}.")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise IntegrityError(f"{where}: '{name}' has shape {weights[name].shape}, expected {shape}.")
        if not np.isfinite(weights[name]).all():
            raise IntegrityError(f"{where}: '{name}' holds values that are not numbers.")
        if name.endswith(".variance") and (weights[name] < 0).any():
            raise IntegrityError(f"{where}: '{name}' holds variances below zero.")
