"""Elastic squeeze-excite: each channel of each image scaled by a gate computed from its global mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bignas_zoo.models import elastic
from bignas_zoo.models.backend import ops

Tensor = Any


def gate_weights(
    squeeze: tuple[Tensor, Tensor], excite: tuple[Tensor, Tensor], mid: elastic.Choice, hidden: elastic.Choice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return those parts of a squeeze-excite's weights that a child uses.

    Args:
        squeeze: kernel ``[max mid, max hidden]`` and bias.
        excite: kernel ``[max hidden, max mid]`` and bias.
        mid, hidden: the choices.

    Returns:
        Kernel and bias of the first layer, masked or sliced; of the second, sliced: a traced `hidden`
        leaves zeros to multiply with.
    """
    kernel, bias = excite
    if elastic.is_static(mid):
        kernel, bias = elastic.channels(kernel, mid), elastic.channels(bias, mid)
    return (
        elastic.channels(elastic.rows(squeeze[0], mid), hidden),
        elastic.channels(squeeze[1], hidden),
        elastic.rows(kernel, hidden),
        bias,
    )


def gate(
    pooled: Tensor,
    squeeze: Tensor,
    squeeze_bias: Tensor,
    excite: Tensor,
    excite_bias: Tensor,
    activation: str,
    last: str,
) -> Tensor:
    """Compute each channel's gate from its global mean.

    Args:
        pooled: ``[images, mid]``.
        squeeze, squeeze_bias, excite, excite_bias: see `gate_weights`.
        activation, last: names in `elastic.ACTIVATIONS`; the activation must map 0 to 0.

    Returns:
        ``[images, mid]``.
    """
    squeeze, squeeze_bias, excite, excite_bias = (
        ops.cast(w, pooled.dtype) for w in (squeeze, squeeze_bias, excite, excite_bias)
    )
    h = elastic.ACTIVATIONS[activation](ops.matmul(pooled, squeeze) + squeeze_bias)
    return elastic.ACTIVATIONS[last](ops.matmul(h, excite) + excite_bias)


def scale_by(x: Tensor, gate_of: Callable[[Tensor], Tensor], pack: int = 1) -> Tensor:
    """Scale each channel of each image by a gate computed from its global mean.

    Args:
        x: ``[batch, height, width, mid]``.
        gate_of: ``[images, mid]`` to the same shape.
        pack: how many images lie side by side in `x`.
    """
    pooled = ops.cast(ops.mean(ops.cast(x, "float32"), axis=(1, 2)), x.dtype)
    if pack > 1:
        pooled = ops.reshape(pooled, (x.shape[0] * pack, -1))
    gates = gate_of(pooled)
    if pack > 1:
        gates = ops.reshape(gates, (-1, x.shape[-1]))
    return x * gates[:, None, None, :]
