"""Batch norm with the batch's own moments, in the ways that backends are good at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bignas_zoo.models.backend import keras, ops

Tensor = Any
BATCH_NORMS = ("fused", "two_pass", "one_pass", "lean", "synchronised")


def default_batch_norm() -> str:
    """Return the batch norm for one device of the current backend: TensorFlow has a fused kernel."""
    return "fused" if keras.backend.backend() == "tensorflow" else "one_pass"


@dataclass(frozen=True)
class Moments:
    """Mean and population variance of a batch norm's input, each ``[channels]`` float32."""

    mean: Tensor
    variance: Tensor


def batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, form: str, pack: int = 1
) -> tuple[Tensor, Moments]:
    """Normalise with the batch's own moments.

    Args:
        x: ``[batch, height, width, channels]``.
        gamma, beta: ``[channels]``.
        epsilon: added to the variance.
        form: how they are taken, see `elastic.Execution`.
        pack: how many images lie side by side in `x`, see `elastic.packed`.

    Returns:
        The normalised tensor and the moments used.
    """
    if form == "fused" and pack == 1:
        return _fused_batch_norm(x, gamma, beta, epsilon)
    wide = ops.cast(x, "float32")
    moments = _batch_moments(wide, form, pack)
    scale = ops.rsqrt(moments.variance + epsilon) * gamma
    return ops.cast(wide * _each(scale, pack) + _each(beta - moments.mean * scale, pack), x.dtype), moments


def _each(vector: Tensor, pack: int) -> Tensor:
    """Repeat ``[channels]`` for each of the images that lie side by side."""
    return ops.tile(vector, pack) if pack > 1 else vector


def _batch_moments(x: Tensor, form: str, pack: int) -> Moments:
    """Take the moments of a batch over everything but the channels; `x` is float32."""

    def mean_of(values: Tensor) -> Tensor:
        means = ops.mean(values, axis=(0, 1, 2))
        return ops.mean(ops.reshape(means, (pack, -1)), axis=0) if pack > 1 else means

    if form == "two_pass":
        mean = mean_of(x)
        return Moments(mean, mean_of(ops.square(x - _each(mean, pack))))
    sums = ops.stack([mean_of(x), mean_of(ops.square(x))])
    if form == "synchronised":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        sums = context.all_reduce(tf.distribute.ReduceOp.MEAN, sums)
    return Moments(sums[0], ops.maximum(sums[1] - ops.square(sums[0]), 0.0))


def _fused_batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Moments]:
    import tensorflow as tf

    none = tf.zeros([0])
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=none, variance=none, epsilon=epsilon, is_training=True
    )
    # The kernel returns the sample variance (n - 1); a batch norm wants the population's.
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    return y, Moments(mean, variance * (count - 1) / count)
