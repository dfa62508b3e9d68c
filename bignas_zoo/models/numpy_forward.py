"""A network as its plan says, in plain numpy: what every other way to run one is compared with.

It needs no framework, and is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.operations import Gate, Operations
from bignas_zoo.architecture.plan import plan

Array = Any  # of numpy, of the images' type


def numpy_forward(network: Network, weights: Mapping[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Run a network with the statistics of its batch norms.

    Args:
        network: what to run.
        weights: by the names of its plan, with ``NAME.bn.mean`` and ``NAME.bn.variance``, as
            `bignas_zoo.models.slicing.child_shapes` lists them.
        images: ``[batch, resolution, resolution, 3]``, normalised, float32 or float64; all is computed in this type.

    Returns:
        Logits ``[batch, classes]``.
    """
    run = numpy_operations(weights, network.bn_epsilon)
    x: Array = images
    for block in plan(network):
        x = run_block(run, x, block)
    return np.asarray(x)


def numpy_operations(
    weights: Mapping[str, np.ndarray],
    epsilon: float,
    seen: Callable[[Op, Array], None] = lambda op, x: None,
    memo: dict[str, Array] | None = None,
) -> Operations:
    """Return what blocks are run with on arrays.

    Args:
        weights: see `numpy_forward`.
        epsilon: of batch norms.
        seen: called with the operation and what a batch norm is given, before it reads its statistics.
        memo: keeps what each convolution gave, by its name, for images that are run again; None keeps nothing.
    """
    return _Numpy(weights, epsilon, seen, memo)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # without an overflow


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "swish": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * _hard_sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
}


@dataclass(frozen=True)
class _Numpy(Operations):
    """The operations on arrays; `seen` and `memo`: see `numpy_operations`."""

    weights: Mapping[str, np.ndarray]
    epsilon: float
    seen: Callable[[Op, Array], None]
    memo: dict[str, Array] | None

    def conv(self, x: Array, op: Op, activation: str | None = None, gate: Gate | None = None) -> Array:
        y = self._convolved(x, op)
        y = self._normalise(y, op) if op.batch_norm else y
        y = ACTIVATIONS[activation](y) if activation else y
        return self._scale(y, gate) if gate else y

    def _convolved(self, x: Array, op: Op) -> Array:
        if self.memo is None:
            return _convolve(x, self._of(op, "kernel", x), op)
        if op.name not in self.memo:
            self.memo[op.name] = _convolve(x, self._of(op, "kernel", x), op)
        return self.memo[op.name]

    def _of(self, op: Op, key: str, like: Array) -> Array:
        return self.weights[f"{op.name}.{key}"].astype(like.dtype)

    def _normalise(self, x: Array, op: Op) -> Array:
        self.seen(op, x)
        gamma, beta, mean, variance = (self._of(op, f"bn.{key}", x) for key in ("gamma", "beta", "mean", "variance"))
        return (x - mean) / np.sqrt(variance + self.epsilon) * gamma + beta

    def _scale(self, x: Array, gate: Gate) -> Array:
        hidden = self.dense(x.mean((1, 2)), gate.squeeze, gate.form.activation)
        return x * self.dense(hidden, gate.excite, gate.form.gate)[:, None, None]

    def dense(self, x: Array, op: Op, activation: str | None = None) -> Array:
        y = x @ self._of(op, "kernel", x)
        y = y + self._of(op, "bias", x) if op.bias else y
        return ACTIVATIONS[activation](y) if activation else y

    def mean(self, x: Array) -> Array:
        return x.mean((1, 2)) if x.ndim == 4 else x

    def activate(self, x: Array, activation: str, block: Block) -> Array:
        return ACTIVATIONS[activation](x)

    def add(self, shortcut: Array, branch: Array, block: Block) -> Array:
        return shortcut + branch

    def halve(self, x: Array, block: Block) -> Array:
        if block.pooling == "subsample":
            return x[:, ::2, ::2]
        odd = x.shape[1] % 2
        if block.pooling == "average_padded":
            return _mean_of_pairs(np.pad(x, [(0, 0), (odd, 0), (odd, 0), (0, 0)]))
        ends = [(0, 0), (0, odd), (0, odd), (0, 0)]  # pixels beyond the map are left out of the mean
        return _mean_of_pairs(np.pad(x, ends)) / _mean_of_pairs(np.pad(np.ones_like(x), ends))

    def resize(self, x: Array, block: Block) -> Array:
        return np.pad(x[..., : block.cout], [(0, 0)] * 3 + [(0, max(0, block.cout - block.cin))])


def _mean_of_pairs(x: Array) -> Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _convolve(x: Array, kernel: Array, op: Op) -> Array:
    """Sum over the kernel's pixels: each multiplies a shifted and strided copy of the map."""
    k, stride = op.kernel, op.stride
    before = k // 2
    if op.padding == "same":  # the rest of what must be added lies in front, rounded down
        before = max((op.size - 1) * stride + k - x.shape[1], 0) // 2
    reach = (op.size - 1) * stride + 1
    after = max(reach - 1 + k - x.shape[1] - before, 0)
    x = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    y = np.zeros((*x.shape[:1], op.size, op.size, op.cout), x.dtype)
    for i in range(k):
        for j in range(k):
            part = x[:, i : i + reach : stride, j : j + reach : stride]
            y += part * kernel[i, j, :, 0] if op.kind == "depthwise" else part @ kernel[i, j]
    return y
