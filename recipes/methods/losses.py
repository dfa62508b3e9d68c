"""Losses, and what is measured of logits: pure functions of `keras.ops`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bignas_zoo.models.backend import ops

Tensor = Any
#: An alpha as close to 0 or 1 counts as that: the formulas of others divide by the difference.
NEAR = 1e-3


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of soft targets.

    Args:
        logits: ``[batch, classes]`` float32.
        targets: ``[batch, classes]``, rows summing to 1.

    Returns:
        A scalar: ``-mean(sum(targets * log_softmax(logits)))``.
    """
    return -ops.mean(ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1))


def smooth_labels(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return one-hot labels mixed with the uniform distribution.

    Args:
        labels: ``[batch]`` integers.
        classes: number of classes.
        smoothing: weight of the uniform part (Szegedy et al. 2016).

    Returns:
        ``[batch, classes]`` float32.
    """
    return ops.one_hot(labels, classes, dtype="float32") * (1 - smoothing) + smoothing / classes


def soft_labels(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return a teacher's probabilities at a temperature, with the gradient stopped.

    Reference: BigNAS section 3.1, "inplace distillation": children see only these, never the labels.
    """
    return ops.stop_gradient(ops.softmax(logits / temperature, axis=-1))


def l2(weights: Mapping[str, Tensor]) -> Tensor:
    """Return half the sum of squares of all kernels (no biases, no batch norms)."""
    return sum(ops.sum(ops.square(w)) for name, w in weights.items() if name.endswith("kernel")) / 2


def l2_of(weights: Mapping[str, Tensor], extents: Tensor) -> Tensor:
    """Return half the sum of squares of those parts of the kernels that a child uses.

    Args:
        weights: the supernet's.
        extents: ``[kernels, 3]`` integers, kernels in the order of their names: spatial size (the centre
            counts), inputs, outputs; zeros for a kernel the child does not have.
    """
    # By name: a compiler may hand a mapping back in another order than it was given.
    kernels = [weights[name] for name in sorted(weights) if name.endswith("kernel")]
    total = 0.0
    for i, kernel in enumerate(kernels):
        size, inputs, outputs = (extents[i][j] for j in range(3))
        squares = ops.square(kernel)
        if len(kernel.shape) == 4:
            reach = np.abs(np.arange(kernel.shape[0]) - kernel.shape[0] // 2).astype(np.int32)
            ring = np.maximum(reach[:, None], reach[None, :])
            squares = ops.sum(squares * ops.cast(ring * 2 < size, "float32")[:, :, None, None], axis=(0, 1))
        squares = squares * ops.cast(ops.arange(kernel.shape[-2]) < inputs, "float32")[:, None]
        total = total + ops.sum(squares * ops.cast(ops.arange(kernel.shape[-1]) < outputs, "float32"))
    return total / 2


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the part of a batch that is classified right."""
    return ops.mean(ops.cast(ops.equal(ops.cast(ops.argmax(logits, -1), "int32"), labels), "float32"))


def log_labels(logits: Tensor) -> Tensor:
    """Return a teacher's log-probabilities, with the gradient stopped: what `alpha_divergence` learns from."""
    return ops.stop_gradient(ops.log_softmax(logits, axis=-1))


def alpha_divergence(logits: Tensor, teacher: Tensor, alphas: tuple[float, float], clip: float) -> Tensor:
    """Return AlphaNet's adaptive alpha-divergence of a student from its teacher, averaged over the batch.

    Of each image the larger of two divergences counts: with a small alpha a student is held not to be sure where its
    teacher is not, with a large one not to miss what its teacher sees. The value is the divergence itself. Its gradient
    is that of ``-sum(q rho log q)`` with ``q rho`` held fast, AlphaNet's estimate, which the clipped ratio
    keeps bounded. Ratios are differences of logarithms, so that no probability of zero makes them infinite.

    Args:
        logits: the student's, ``[batch, classes]`` float32.
        teacher: log-probabilities, ``[batch, classes]``, see `log_labels`.
        alphas: the smaller and the larger alpha.
        clip: the most that ``(p / q) ** alpha`` counts; the Kullback-Leibler divergence, alpha 1, is not clipped.

    Returns:
        A scalar.

    Reference: AlphaNet (Wang et al. 2021, arXiv 2102.07954), section 3.2, equations 7 to 9.
    """
    student = ops.log_softmax(logits, axis=-1)
    fixed = ops.stop_gradient(student)
    (low, low_weights), (high, high_weights) = (_divergence(fixed, teacher, alpha, clip) for alpha in alphas)
    first = ops.expand_dims(low > high, -1)
    weights = ops.where(first, low_weights, high_weights)
    surrogate = -ops.sum(ops.stop_gradient(weights) * student, axis=-1)
    value = ops.where(low > high, low, high)
    return ops.mean(ops.stop_gradient(value - surrogate) + surrogate)


def _divergence(student: Tensor, teacher: Tensor, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Return one divergence ``[batch]``, and what ``-log q`` is weighted by in its gradient, ``[batch, classes]``."""
    q, log_ratio = ops.exp(student), teacher - student
    if abs(alpha - 1) < NEAR:
        p = ops.exp(teacher)
        return ops.sum(p * log_ratio, axis=-1), p
    if abs(alpha) < NEAR:
        clipped = ops.minimum(log_ratio, np.log(clip).astype(np.float32))
        return -ops.sum(q * clipped, axis=-1), q * (clipped - 1)
    power = ops.exp(ops.minimum(alpha * log_ratio, np.log(clip).astype(np.float32)))
    factor = 1 / (alpha * (alpha - 1))
    return ops.sum(q * (power - 1), axis=-1) * factor, q * (power / alpha + factor)
