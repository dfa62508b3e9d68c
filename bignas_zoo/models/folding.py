"""A batch norm folded into the convolution before it, on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fold(
    kernel: np.ndarray,
    bias: np.ndarray | None,
    norm: Sequence[np.ndarray],
    epsilon: float,
    *,
    depthwise: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of one convolution that computes what a convolution and its batch norm do.

    Computed in float64: ``kernel * s`` and ``beta + (bias - mean) * s`` with ``s = gamma / sqrt(variance + epsilon)``.

    Args:
        kernel: ``[k, k, cin, cout]``; of a depthwise convolution ``[k, k, channels, multiplier]``.
        bias: ``[cout]``, or None.
        norm: gamma, beta, mean and variance, ``[cout]`` each.
        epsilon: added to the variance.
        depthwise: whether each channel is convolved by itself.

    Returns:
        Kernel and bias, float32.
    """
    gamma, beta, mean, variance = (np.asarray(values, np.float64) for values in norm)
    scale = gamma / np.sqrt(variance + epsilon)
    by_channel = scale.reshape(kernel.shape[2:]) if depthwise else scale
    shift = -mean if bias is None else np.asarray(bias, np.float64) - mean
    return (np.asarray(kernel, np.float64) * by_channel).astype(np.float32), (beta + shift * scale).astype(np.float32)
