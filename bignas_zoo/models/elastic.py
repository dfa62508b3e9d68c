"""Elastic operations: each takes the full shared weights and one choice.

A choice that is a Python int *slices* the weights (a real, smaller network). A choice that is a
traced int32 scalar *masks* them (the full-size computation whose unused channels are exactly zero),
so that one compiled step serves every child. Masks are laid on weights, never on activations:

* batch norm: on gamma and beta, since a mask before the batch norm would let beta leak through;
* the bias-free shortcut and the squeeze-excite's hidden layer: on the kernel's output columns.

* only the identity shortcut between layers of different width is masked itself (`identity`): it has
  no weights, and no batch norm follows it.

A masked channel is therefore exactly zero after each operation and gets a zero gradient.

Reference: BigNAS (arXiv 2003.11142) section 3; slimmable networks' channel slicing.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bignas_zoo.errors import UsageError
from bignas_zoo.models.backend import keras, ops
from bignas_zoo.models.batch_norm import BATCH_NORMS, default_batch_norm

Tensor = Any
Choice = Any  # int or traced int32 scalar

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "swish": ops.silu,
    "hard_swish": ops.hard_silu,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "sigmoid": ops.sigmoid,
    "hard_sigmoid": ops.hard_sigmoid,
}

DEPTHWISE = ("native", "shifted")
BRANCHES = ("cond", "where")


@dataclass(frozen=True)
class Execution:
    """How the supernet is computed. Every value gives the same numbers; speed and memory differ.

    Attributes:
        batch_norm: how batch moments are taken. "fused" is TensorFlow's kernel (half the time on a
            CPU); "two_pass" subtracts the mean before squaring; "one_pass" takes both moments in one
            reading (float32 sums), and under sharding in one all-reduce; "lean" is JAX's: as "one_pass",
            in one operation with activation and gate, whose gradient reads maps less often (see
            `bignas_zoo.models.lean`); "synchronised" is "one_pass" over all replicas of a
            `tf.distribute` strategy.
        depthwise: "native" convolution, or "shifted" sums of shifted images, for compilers without a
            usable gradient of the native one.
        branch: how a traced depth or kernel size is resolved. "cond" executes only what is in use;
            "where" computes everything, and is the one form that `tf.distribute` accepts.
        pack: up to how many images of a batch lie side by side in the channels of narrow maps (a power
            of two; 1: none), see `packed`. Wide vector units, 128 lanes on a TPU, stay filled so.
    """

    batch_norm: str = field(default_factory=default_batch_norm)
    depthwise: str = "native"
    branch: str = "where"
    pack: int = 1

    def __post_init__(self) -> None:
        if self.pack < 1 or self.pack & (self.pack - 1):
            raise UsageError(f"pack: must be a power of two; got {self.pack!r}.")
        for key, allowed in (("batch_norm", BATCH_NORMS), ("depthwise", DEPTHWISE), ("branch", BRANCHES)):
            if getattr(self, key) not in allowed:
                raise UsageError(f"{key}: must be one of {', '.join(allowed)}; got {getattr(self, key)!r}.")


def is_static(choice: Choice) -> bool:
    """Return whether a choice is a Python (or numpy) int, which slices instead of masking."""
    return isinstance(choice, int | np.integer)


def channels(tensor: Tensor, choice: Choice, axis: int = -1) -> Tensor:
    """Keep the first `choice` entries of one axis: sliced if static, zeros beyond if traced.

    Args:
        tensor: any weight.
        choice: how many entries stay.
        axis: which axis, counted from the end (-1 or -2).

    Returns:
        The sliced tensor, or one of the same shape with zeros.
    """
    size = tensor.shape[axis]
    if is_static(choice):
        if choice == size:
            return tensor
        return tensor[..., :choice] if axis == -1 else tensor[..., :choice, :]
    mask = ops.cast(ops.arange(size) < choice, tensor.dtype)
    return tensor * (mask if axis == -1 else mask[:, None])


def identity(x: Tensor, size: int, cout: Choice) -> Tensor:
    """Give an identity shortcut the width of the branch it is added to: cut channels off or append zeros.

    Args:
        x: ``[batch, height, width, channels]``, zero beyond its width in use.
        size: channels of the branch's tensor.
        cout: its width in use; equals `size` if static.

    Returns:
        ``[batch, height, width, size]``, zero beyond `cout`.
    """
    missing = size - x.shape[-1]
    if missing > 0:
        x = ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, missing]])
    elif missing < 0:
        x = x[..., :size]
    return channels(x, cout)


def halve(x: Tensor, pooling: str, *, odd: bool) -> Tensor:
    """Bring a shortcut to half the size.

    Args:
        x: ``[batch, height, width, channels]``.
        pooling: see `bignas_zoo.architecture.forms.Shortcut`.
        odd: whether the sides are odd.

    Returns:
        ``[batch, ceil(height / 2), ceil(width / 2), channels]``.
    """
    if pooling == "subsample":
        return x[:, ::2, ::2]
    if pooling == "average_padded" and odd:
        return ops.average_pool(with_rim(x, 1), 2, 2, padding="valid")
    return ops.average_pool(x, 2, 2, padding="same")


def latest(active: Tensor, new: Choice, old: Choice) -> Choice:
    """Return the width in use after an optional layer; it stays static where both are the same int."""
    same = new is old or (is_static(new) and is_static(old) and new == old)
    return new if same else ops.where(active, new, old)


def rows(kernel: Tensor, choice: Choice) -> Tensor:
    """Keep a kernel's first `choice` input channels; traced inputs are zero already, so all stay."""
    return channels(kernel, choice, axis=-2) if is_static(choice) else kernel


def packed(x: Tensor, old: int, new: int) -> Tensor:
    """Lay `new` neighbouring images of a batch side by side in the channels, where `old` did lie.

    Args:
        x: ``[batch / old, height, width, old * channels]``.
        old, new: powers of two; `new` divides the batch.

    Returns:
        ``[batch / new, height, width, new * channels]``.
    """
    if new == old:
        return x
    n, height, width, wide = x.shape
    if new > old:
        k = new // old
        x = ops.transpose(ops.reshape(x, (n // k, k, height, width, wide)), (0, 2, 3, 1, 4))
        return ops.reshape(x, (n // k, height, width, k * wide))
    k = old // new
    x = ops.transpose(ops.reshape(x, (n, height, width, k, wide // k)), (0, 3, 1, 2, 4))
    return ops.reshape(x, (n * k, height, width, wide // k))


def _diagonal(kernel: Tensor, pack: int) -> Tensor:
    """Repeat a kernel ``[k, k, cin, cout]`` for each of `pack` images: a block-diagonal one."""
    if pack == 1:
        return kernel
    *size, cin, cout = kernel.shape
    each = ops.cast(ops.eye(pack), kernel.dtype)[:, None, :, None]
    return ops.reshape(kernel[:, :, None, :, None, :] * each, (*size, pack * cin, pack * cout))


def conv(
    x: Tensor, kernel: Tensor, cin: Choice, cout: Choice, stride: int = 1, pack: int = 1, padding: str = "same"
) -> Tensor:
    """Convolve with the leading channels of `kernel`, no bias.

    Output channels beyond a traced `cout` are *not* masked here: the batch norm that follows does.

    Args:
        x: ``[batch, height, width, cin]``.
        kernel: ``[k, k, max cin, max cout]``.
        cin, cout: the choices.
        stride: 1 or 2.
        pack: how many images lie side by side in `x`, see `packed`.
        padding: "same" or "symmetric".

    Returns:
        ``[batch, ceil(height / stride), ceil(width / stride), cout]``.
    """
    return plain_conv(x, conv_kernel(kernel, cin, cout), stride, pack, rim(kernel.shape[0], stride, padding))


def conv_kernel(kernel: Tensor, cin: Choice, cout: Choice) -> Tensor:
    """Return the part of a kernel that static choices leave; traced ones leave all of it."""
    kernel = rows(kernel, cin)
    return channels(kernel, cout) if is_static(cout) else kernel


def rim(kernel: int, stride: int, padding: str) -> int:
    """Return how many zeros are put around a map before a convolution; 0 where "same" padding does the same by itself.

    Args:
        kernel: its size.
        stride: 1 or 2.
        padding: "same" or "symmetric": half a kernel on each side (another thing where the stride is 2, the map even).
    """
    return kernel // 2 if padding == "symmetric" and stride == 2 else 0


def with_rim(x: Tensor, zeros: int) -> Tensor:
    """Put zeros around each map."""
    return ops.pad(x, [[0, 0], [zeros, zeros], [zeros, zeros], [0, 0]])


def plain_conv(x: Tensor, kernel: Tensor, stride: int = 1, pack: int = 1, zeros: int = 0) -> Tensor:
    """Convolve with a whole kernel; see `conv`, and `rim` for `zeros`."""
    kernel = _diagonal(ops.cast(kernel, x.dtype), pack)
    if zeros:
        return ops.conv(with_rim(x, zeros), kernel, strides=stride, padding="valid")
    return ops.conv(x, kernel, strides=stride, padding="same")


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Add ``[channels]`` to each pixel of a convolution's output, as the operation that TensorFlow fuses with it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias


def transformed(kernel: Tensor, matrices: Mapping[int, Tensor], size: Choice) -> Tensor:
    """Return a shared depthwise kernel as its child's size has it, where sizes are transformed into each other.

    Args:
        kernel: ``[k, k, channels, 1]``, k the largest size.
        matrices: each smaller size, descending, to the matrix ``[size^2, size^2]`` that makes it of the centre of the
            next larger one.
        size: kernel size of the child.

    Returns:
        ``[size, size, channels, 1]``; if `size` is traced ``[k, k, channels, 1]``, zero around the child's.

    Reference: Once-for-All (arXiv 1908.09791), section 3.3.
    """
    full, count = kernel.shape[0], kernel.shape[2]
    sizes = {full: kernel}
    for k, matrix in matrices.items():
        if is_static(size) and k < size:
            break
        centre = ops.reshape(kernel[1:-1, 1:-1], (k * k, count))
        kernel = ops.reshape(ops.matmul(ops.cast(matrix, kernel.dtype), centre), (k, k, count, 1))
        sizes[k] = kernel
    if is_static(size):
        return sizes[int(size)]
    result = sizes.pop(full)
    for k, smaller in sizes.items():
        rim = (full - k) // 2
        result = ops.where(ops.equal(size, k), ops.pad(smaller, [[rim, rim], [rim, rim], [0, 0], [0, 0]]), result)
    return result


def depthwise(
    x: Tensor,
    kernel: Tensor,
    cin: Choice,
    size: Choice,
    stride: int,
    how: Execution,
    pack: int = 1,
    padding: str = "same",
) -> Tensor:
    """Depthwise convolution with the centre of a shared kernel.

    Args:
        x: ``[batch, height, width, channels]``.
        kernel: ``[k, k, max channels, 1]``, k the largest size.
        cin: channels in use.
        size: kernel size of the child.
        stride: 1 or 2.
        how: its `branch` resolves a traced size: "cond" runs one of two convolutions, "where" zeroes
            the kernel's rim.
        pack: how many images lie side by side in `x`.
        padding: "same" or "symmetric".

    Returns:
        ``[batch, ceil(height / stride), ceil(width / stride), channels]``.
    """
    kernel = ops.cast(rows(kernel, cin), x.dtype)
    if pack > 1:
        kernel = ops.tile(kernel, (1, 1, pack, 1))
    full = kernel.shape[0]

    def run(k: int) -> Tensor:
        cut = (full - k) // 2
        centre = kernel[cut : full - cut, cut : full - cut] if cut else kernel
        return plain_depthwise(x, centre, stride, how.depthwise, rim(k, stride, padding))

    if is_static(size):
        return run(int(size))
    if how.branch == "cond":
        return _branches(size, list(range(3, full + 1, 2)), run)
    # Zeroing the rim equals the smaller convolution at either stride: "same" pads (k - 1) / 2 around
    # an odd map and drops one at the front of an even one, for every k alike, so the centres agree;
    # "symmetric" pads (k - 1) / 2 around either.
    reach = np.abs(np.arange(full, dtype=np.int32) - full // 2)
    ring = np.maximum(reach[:, None], reach[None, :])[:, :, None, None]
    keep = ops.cast(ops.convert_to_tensor(ring) * 2 < size, x.dtype)
    return plain_depthwise(x, kernel * keep, stride, how.depthwise, rim(full, stride, padding))


def plain_depthwise(x: Tensor, kernel: Tensor, stride: int, form: str = "native", zeros: int = 0) -> Tensor:
    """Convolve each channel by itself; `kernel` is ``[k, k, channels, 1]``, see `rim` for `zeros`."""
    if form == "native" and zeros:
        return ops.depthwise_conv(with_rim(x, zeros), kernel, strides=stride, padding="valid")
    if form == "native":
        return ops.depthwise_conv(x, kernel, strides=stride, padding="same")
    k = kernel.shape[0]
    pads, reach = [], []
    for size in x.shape[1:3]:
        out = -(-size // stride)
        total = max((out - 1) * stride + k - size, 0)
        pads.append((zeros, zeros) if zeros else (total // 2, total - total // 2))
        reach.append((out - 1) * stride + 1)
    x = ops.pad(x, ((0, 0), *pads, (0, 0)))
    taps = (
        x[:, i : i + reach[0] : stride, j : j + reach[1] : stride] * kernel[i, j, :, 0]
        for i in range(k)
        for j in range(k)
    )
    return functools.reduce(operator.add, taps)


def _branches(choice: Tensor, options: list[int], run: Callable[[int], Tensor]) -> Tensor:
    """Run the option that a traced choice equals; nested conditions, the last option needs none."""
    first, *rest = options
    if not rest:
        return run(first)
    return ops.cond(ops.equal(choice, first), lambda: run(first), lambda: _branches(choice, rest, run))


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None, cin: Choice, cout: Choice) -> Tensor:
    """Multiply by the leading part of `kernel` and add the bias; masked outputs are exactly zero.

    Args:
        x: ``[batch, cin]``.
        kernel: ``[max cin, max cout]``.
        bias: ``[max cout]``, or None.
        cin, cout: the choices.

    Returns:
        ``[batch, cout]``.
    """
    kernel = channels(rows(kernel, cin), cout)
    y = ops.matmul(x, ops.cast(kernel, x.dtype))
    return y if bias is None else y + ops.cast(channels(bias, cout), x.dtype)
