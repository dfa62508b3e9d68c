"""A batch norm folded into the convolution before it, on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bignas_zoo.architecture.blocks import Op
from bignas_zoo.architecture.cost import ops
from bignas_zoo.architecture.network import Network


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


def folded(network: Network, weights: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return kernel and bias of each operation of a network, batch norms folded in, by the operation's name.

    Args:
        network: of which all is needed.
        weights: by the names of its plan, statistics included.

    Returns:
        Kernels in the Keras layout (`Op.kernel_shape`) and biases ``[cout]``, float32; zeros where there is no bias.
    """
    return {op.name: _folded(op, weights, network.bn_epsilon) for op in ops(network)}


def _folded(op: Op, weights: Mapping[str, np.ndarray], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(weights[f"{op.name}.kernel"], np.float32)
    bias = weights[f"{op.name}.bias"] if op.bias else None
    if not op.batch_norm:
        return kernel, np.zeros(op.cout, np.float32) if bias is None else np.asarray(bias, np.float32)
    norm = [weights[f"{op.name}.bn.{key}"] for key in ("gamma", "beta", "mean", "variance")]
    return fold(kernel, bias, norm, epsilon, depthwise=op.kind == "depthwise")
