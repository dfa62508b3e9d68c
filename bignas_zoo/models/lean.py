"""Batch norm, activation and squeeze-excite as one operation whose gradient is written by hand (JAX).

What limits training on an accelerator is how often each map is read and written. Differentiated step
by step, a gated map is read twice more: once for the gate's gradient, then, when that is known, for the
batch norm's sums. Here both come from five sums over each image's pixels that need one reading, and
only the convolution's output is kept for the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Array = Any


@dataclass(frozen=True)
class Fixed:
    """What is fixed when a step is compiled.

    Attributes:
        epsilon: added to the variance.
        act: the activation, or None.
        gate: squeeze-excite: pooled ``[images, channels]`` and its weights to the gate, or None.
        pack: how many images lie side by side in the channels.
    """

    epsilon: float
    act: Callable[[Array], Array] | None
    gate: Callable[..., Array] | None
    pack: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def norm_act_gate(
    fixed: Fixed, x: Array, gamma: Array, beta: Array, weights: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    """Normalise with the batch's moments, activate, and scale by the gate.

    Args:
        fixed: see `Fixed`.
        x: ``[batch / pack, height, width, pack * channels]``.
        gamma, beta: ``[channels]``.
        weights: of the gate.

    Returns:
        A map like `x`; mean and population variance, ``[channels]`` float32, without gradients.
    """
    outputs: tuple[Array, Array, Array] = _forward(fixed, x, gamma, beta, weights)[0]
    return outputs


def _forward(
    fixed: Fixed, x: Array, gamma: Array, beta: Array, weights: tuple[Array, ...]
) -> tuple[tuple[Array, Array, Array], Any]:
    wide = x.astype(jnp.float32)
    mean = _over_images(fixed, wide.mean((0, 1, 2)))
    variance = jnp.maximum(_over_images(fixed, jnp.square(wide).mean((0, 1, 2))) - jnp.square(mean), 0.0)
    a = _activated(fixed, wide, gamma, beta, mean, variance)
    pooled = None
    if fixed.gate is not None:
        pooled = _by_image(fixed, a.mean((1, 2))).astype(x.dtype)
        a = a.astype(x.dtype) * _by_map(fixed, fixed.gate(pooled, *weights), x)
    return (a.astype(x.dtype), mean, variance), (x, gamma, beta, mean, variance, pooled, weights)


def _backward(fixed: Fixed, kept: Any, slopes: tuple[Array, Array, Array]) -> Any:
    x, gamma, beta, mean, variance, pooled, weights = kept
    wide, dz = x.astype(jnp.float32), slopes[0].astype(jnp.float32)
    a, slope = _activation_and_slope(fixed, _affine(fixed, wide, gamma, beta, mean, variance))
    pixels = (1, 2)
    dweights: Any = ()
    if fixed.gate is None:
        du = _rounded(dz * slope, x)
        first, second = du.sum((0, 1, 2)), (du * wide).sum((0, 1, 2))
    else:
        dgate = _by_image(fixed, (dz * a).sum(pixels))
        gate, pull_gate = jax.vjp(fixed.gate, pooled, *weights)
        dpooled, *dweights = pull_gate(dgate.astype(gate.dtype))
        g, dp = (_by_map(fixed, v.astype(jnp.float32), x) for v in (gate, dpooled / (x.shape[1] * x.shape[2])))
        du = (dz * g + dp) * slope
        g, dp = g[:, 0, 0], dp[:, 0, 0]
        first = (g * (dz * slope).sum(pixels) + dp * slope.sum(pixels)).sum(0)
        second = (g * (dz * slope * wide).sum(pixels) + dp * (slope * wide).sum(pixels)).sum(0)
    by_du, by_x, constant, dgamma, dbeta = _slopes(fixed, first, second, x.size, gamma, mean, variance)
    dx = _each(fixed, by_du) * du + _each(fixed, by_x) * wide + _each(fixed, constant)
    return dx.astype(x.dtype), dgamma, dbeta, tuple(dweights)


def _slopes(
    fixed: Fixed, first: Array, second: Array, size: int, gamma: Array, mean: Array, variance: Array
) -> tuple[Array, ...]:
    """Return a batch norm's gradient from the sums of ``du`` and of ``du * x``, u the normalised x.

    Returns:
        ``p``, ``q``, ``r`` with ``dx = p * du + q * x + r``; the gradients of gamma and beta.
    """
    first, second = (_over_images(fixed, v) * fixed.pack for v in (first, second))
    count = size // gamma.size
    inverse = jax.lax.rsqrt(variance + fixed.epsilon)
    dgamma = inverse * (second - mean * first)
    # dx = scale * (du - mean(du) - normalised x * mean(du * normalised x))
    scale = inverse * gamma
    by_x = -scale * inverse * dgamma / count
    return scale, by_x, -scale * first / count - by_x * mean, dgamma, first


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def expand(
    fixed: Fixed, conv: Callable[[Array, Array], Array], x: Array, kernel: Array, gamma: Array, beta: Array
) -> tuple[Array, Array, Array]:
    """Widen a map with a 1x1 convolution, normalise with the batch's moments, and activate.

    The batch norm's gradient is ``p * du + q * y + r`` with one p, q, r a channel, and y is linear in
    x. So the part in y goes through matrices of the narrow side: ``x (W q W^T)`` for the input, ``(x^T x)
    W q`` for the kernel. The wide y is not read for it again.

    Args:
        fixed: see `Fixed`; no gate.
        conv: input and float32 kernel to output, without bias.
        x: ``[batch / pack, height, width, pack * cin]``.
        kernel: ``[1, 1, cin, cout]``.
        gamma, beta: ``[cout]``.

    Returns:
        As `norm_act_gate`.
    """
    outputs: tuple[Array, Array, Array] = _expand_forward(fixed, conv, x, kernel, gamma, beta)[0]
    return outputs


def _expand_forward(
    fixed: Fixed, conv: Callable[[Array, Array], Array], x: Array, kernel: Array, gamma: Array, beta: Array
) -> tuple[tuple[Array, Array, Array], Any]:
    y = conv(x, kernel)
    outputs, (_, _, _, mean, variance, _, _) = _forward(fixed, y, gamma, beta, ())
    return outputs, (x, kernel, y, gamma, beta, mean, variance)


def _expand_backward(
    fixed: Fixed, conv: Callable[[Array, Array], Array], kept: Any, slopes: tuple[Array, Array, Array]
) -> Any:
    x, kernel, y, gamma, beta, mean, variance = kept
    wide = y.astype(jnp.float32)
    _, slope = _activation_and_slope(fixed, _affine(fixed, wide, gamma, beta, mean, variance))
    du = slopes[0].astype(jnp.float32) * slope
    first, second = du.sum((0, 1, 2)), (du * wide).sum((0, 1, 2))
    by_du, by_y, constant, dgamma, dbeta = _slopes(fixed, first, second, y.size, gamma, mean, variance)
    _, pull = jax.vjp(conv, x, kernel * by_du)
    dx, dkernel = pull(du.astype(y.dtype))
    w = kernel[0, 0].astype(x.dtype).astype(jnp.float32)
    exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    dx = dx + conv(x, exact(w * by_y, w.T)[None, None]) + _each(fixed, exact(w, constant)).astype(x.dtype)
    cin = w.shape[0]
    squares = jnp.einsum("bhwi,bhwj->ij", x, x, preferred_element_type=jnp.float32).reshape(
        fixed.pack, cin, fixed.pack, cin
    )
    squares = jnp.einsum("kikj->ij", squares)
    total = _over_images(fixed, x.astype(jnp.float32).sum((0, 1, 2))) * fixed.pack
    dkernel = dkernel * by_du + exact(squares, w) * by_y + total[:, None] * constant
    return dx, dkernel, dgamma, dbeta


def _activation_and_slope(fixed: Fixed, u: Array) -> tuple[Array, Array]:
    if fixed.act is None:
        return u, jnp.ones_like(u)
    a, pull = jax.vjp(fixed.act, u)
    return a, pull(jnp.ones_like(a))[0]


def _rounded(values: Array, like: Array) -> Array:
    """Round to another array's type: what must be stored between two sums is stored so."""
    return values.astype(like.dtype).astype(jnp.float32)


def _affine(fixed: Fixed, wide: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> Array:
    scale = jax.lax.rsqrt(variance + fixed.epsilon) * gamma
    return wide * _each(fixed, scale) + _each(fixed, beta - mean * scale)


def _activated(fixed: Fixed, *values: Array) -> Array:
    u = _affine(fixed, *values)
    return u if fixed.act is None else fixed.act(u)


def _each(fixed: Fixed, vector: Array) -> Array:
    """Repeat ``[channels]`` for each of the images that lie side by side."""
    return jnp.tile(vector, fixed.pack) if fixed.pack > 1 else vector


def _over_images(fixed: Fixed, vector: Array) -> Array:
    """Average ``[pack * channels]`` over the images that lie side by side."""
    return vector.reshape(fixed.pack, -1).mean(0) if fixed.pack > 1 else vector


def _by_image(fixed: Fixed, values: Array) -> Array:
    """Bring ``[batch / pack, pack * channels]`` to one row an image."""
    return values.reshape(values.shape[0] * fixed.pack, -1)


def _by_map(fixed: Fixed, values: Array, x: Array) -> Array:
    """Bring one row an image to the shape that multiplies a map like `x`."""
    return values.reshape(x.shape[0], 1, 1, x.shape[-1])


norm_act_gate.defvjp(_forward, _backward)
expand.defvjp(_expand_forward, _expand_backward)
