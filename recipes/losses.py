"""Losses of the sandwich: labels for the biggest child, its soft predictions for all others."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


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


def soft_labels(logits: Tensor) -> Tensor:
    """Return a teacher's probabilities, with the gradient stopped.

    Reference: BigNAS section 3.1, "inplace distillation": children see only these, never the labels.
    """
    return ops.stop_gradient(ops.softmax(logits, axis=-1))


def l2(weights: dict[str, Tensor]) -> Tensor:
    """Return half the sum of squares of all kernels (no biases, no batch norms)."""
    return sum(ops.sum(ops.square(w)) for name, w in weights.items() if name.endswith("kernel")) / 2
