"""Weights on disk: safetensors, name to array, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.store import atomic_write

MAX_BYTES = 2 << 30
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
    try:
        with safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())
            for name in names:
                kind = file.get_slice(name).get_dtype()
                if kind not in DTYPES:
                    raise IntegrityError(f"{path}: '{name}' has type {kind}; allowed: {', '.join(DTYPES)}.")
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise IntegrityError(f"{path}: damaged or not a safetensors file ({error}).") from error
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return the free text entries of a safetensors header.

    Raises:
        IntegrityError: it is not a valid safetensors file.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
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
