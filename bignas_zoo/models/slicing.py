"""Cut a child's weights out of the supernet's: pure numpy, no framework.

Lower channels, lower layers, and the centre of each depthwise kernel, transformed where the space says so.

Reference: BigNAS (arXiv 2003.11142) section 3: children share the leading part of every weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bignas_zoo.architecture.blocks import Op
from bignas_zoo.architecture.cost import ops
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan_supernet
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import IntegrityError


def slice_weights(weights: Mapping[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    """Return the weights of one child.

    Args:
        weights: the supernet's, weight name to array, at the biggest child's size.
        network: the child; or another network, whose weights these are.

    Returns:
        Weight name to float32 array of the child's own shape; no batch-norm statistics.

    Raises:
        IntegrityError: a weight is missing or too small for the child.
    """
    return slice_operations(weights, ops(network))


def slice_operations(weights: Mapping[str, np.ndarray], operations: Iterable[Op]) -> dict[str, np.ndarray]:
    """Return the weights of some operations, cut as `slice_weights` does."""
    child: dict[str, np.ndarray] = {}
    for op in operations:
        for name, shape in trainable_shapes(op).items():
            if name not in weights:
                raise IntegrityError(f"supernet weights: '{name}' is missing.")
            if op.kind == "depthwise" and name.endswith(".kernel"):
                kernel = _leading(weights[name], (*weights[name].shape[:2], *shape[2:]), name=name)
                child[name] = _smaller(weights, op.name, kernel, op.kernel)
            else:
                child[name] = _leading(weights[name], shape, name=name)
    return child


def _smaller(weights: Mapping[str, np.ndarray], name: str, kernel: np.ndarray, size: int) -> np.ndarray:
    """Make a depthwise kernel ``[k, k, channels, 1]`` smaller: its centre, times the matrices that there are.

    Reference: Once-for-All (arXiv 1908.09791), section 3.3: each matrix makes of the centre of a kernel the next size.
    """
    full, channels = kernel.shape[0], kernel.shape[2]
    if kernel.shape != (full, full, channels, 1) or full < size:
        raise IntegrityError(f"supernet weights: '{name}.kernel' is {kernel.shape}, too small for {size} px.")
    for k in range(full - 2, size - 2, -2):
        kernel = np.ascontiguousarray(kernel[1:-1, 1:-1])
        if (matrix := weights.get(f"{name}.to{k}")) is not None:
            if matrix.shape != (k * k, k * k):
                raise IntegrityError(f"supernet weights: '{name}.to{k}' is {matrix.shape}, not {(k * k, k * k)}.")
            kernel = (matrix.astype(np.float32) @ kernel.reshape(k * k, channels)).reshape(k, k, channels, 1)
    return kernel


def trainable_shapes(op: Op) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an operation's trainable weights, in order."""
    shapes: dict[str, tuple[int, ...]] = {f"{op.name}.kernel": op.kernel_shape}
    if op.batch_norm:
        shapes[f"{op.name}.bn.gamma"] = (op.cout,)
        shapes[f"{op.name}.bn.beta"] = (op.cout,)
    if op.bias:
        shapes[f"{op.name}.bias"] = (op.cout,)
    for size in op.transforms:
        shapes[f"{op.name}.to{size}"] = (size**2, size**2)
    return shapes


def statistics_shapes(op: Op) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an operation's batch-norm statistics, if it has any."""
    if not op.batch_norm:
        return {}
    return {f"{op.name}.bn.mean": (op.cout,), f"{op.name}.bn.variance": (op.cout,)}


def child_shapes(network: Network, *, statistics: bool) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a whole network's weights, with or without its statistics."""
    return shapes_of(ops(network), statistics=statistics)


def supernet_shapes(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a supernet's weights, which any child's are cut from."""
    return shapes_of([op for block in plan_supernet(space) for op in block.ops], statistics=False)


def shapes_of(operations: Iterable[Op], *, statistics: bool) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the weights of some operations, with or without their statistics."""
    shapes: dict[str, tuple[int, ...]] = {}
    for op in operations:
        shapes |= trainable_shapes(op)
        if statistics:
            shapes |= statistics_shapes(op)
    return shapes


def _leading(array: np.ndarray, shape: tuple[int, ...], *, name: str) -> np.ndarray:
    """Cut `shape` out of `array`: the front of each axis."""
    if array.ndim != len(shape) or any(have < need for have, need in zip(array.shape, shape, strict=True)):
        raise IntegrityError(f"supernet weights: '{name}' is {array.shape}, too small for {shape}.")
    return np.array(array[tuple(slice(0, need) for need in shape)], np.float32)
