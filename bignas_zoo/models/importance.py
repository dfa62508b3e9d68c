"""The most important channels first: a network's channels in another order, with the same output.

Narrow children take the first channels of every weight. A trained network has its important ones anywhere, so before it
becomes a supernet its channels are sorted: those inside an MBConv by what the projection makes of them, those between
the layers of a stage by what all that read them do. Importance is the L1 norm of the weights that read a channel
(Once-for-all, arXiv 1908.09791, section 3.3) times the deviation of the channel's values: without the second, children
of EfficientNet-Lite0 begin 30 points lower (docs/photos.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import SpaceError
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.backend import ops
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.slicing import shapes_of
from bignas_zoo.models.supernet import forward

Tensor = Any
Weights = Mapping[str, np.ndarray]


def sorted_channels(network: Network, weights: Weights, deviations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a network's weights with channels in the order of their importance.

    Args:
        network: of MBConv stages whose shortcuts are identities between equal widths, without squeeze-excite. Channels
            of stem and head stay where they are, and so do those of a stage whose first layer has a shortcut.
        weights: by the names of its plan, statistics included.
        deviations: of what each operation reads, by its name: ``[channels in]``.

    Returns:
        The weights; the network computes the same, but for rounding.

    Raises:
        SpaceError: a network of another form.
    """
    done = {name: np.array(array) for name, array in weights.items()}
    blocks = plan(network)
    for block in blocks:
        if block.of_stage and (block.kind != "mbconv" or block.shortcut == "project" or block.squeeze_excite):
            raise SpaceError(f"{block.name}: channels can be sorted in MBConvs with identity shortcuts only.")
        if block.expands:
            _sort_inside(done, block, deviations)
    for stage in sorted({block.stage for block in blocks if block.of_stage}):
        _sort_stage(done, blocks, stage, deviations)
    return done


def input_deviations(network: ChildSpec, weights: Weights, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the deviation of each channel that each convolution reads, with the network's own statistics.

    Args:
        network: the biggest child of its space.
        weights: by the names of its plan, statistics included.
        images: ``[n, resolution, resolution, 3]`` normalised float32; some 200.
    """
    deviations: dict[str, np.ndarray] = {}

    def look(op: Op, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
        deviations[op.name] = np.sqrt(np.asarray(ops.moments(x, axes=[0, 1, 2])[1]))
        return weights[f"{op.name}.bn.mean"], weights[f"{op.name}.bn.variance"]

    forward(network.space, weights, images, ActiveChild.of(network), how=Execution(branch="cond"), statistics=look)
    return deviations


def _sort_inside(weights: dict[str, np.ndarray], block: Block, deviations: Mapping[str, np.ndarray]) -> None:
    expand, depthwise, project = block.ops
    order = np.argsort(-_importance(weights, [project], deviations), kind="stable")
    _reorder_outputs(weights, expand, order)
    _reorder_outputs(weights, depthwise, order)
    _reorder_inputs(weights, project, order)


def _sort_stage(
    weights: dict[str, np.ndarray], blocks: tuple[Block, ...], stage: int, deviations: Mapping[str, np.ndarray]
) -> None:
    layers = [block for block in blocks if block.stage == stage]
    if layers[0].shortcut != "none":  # its channels are those of the stage before
        return
    after = blocks[blocks.index(layers[-1]) + 1]
    readers = [block.ops[0] for block in (*layers[1:], after)]
    order = np.argsort(-_importance(weights, readers, deviations), kind="stable")
    for layer in layers:
        _reorder_outputs(weights, layer.ops[-1], order)
    for reader in readers:
        if reader.kind == "depthwise":  # without an expansion it also gives what it reads
            raise SpaceError(f"{reader.name}: a layer that reads a sorted stage needs an expansion.")
        _reorder_inputs(weights, reader, order)


def _importance(weights: Weights, readers: list[Op], deviations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each channel the L1 norm of all that reads it, times its deviation."""
    norms = sum(np.abs(weights[f"{op.name}.kernel"]).sum((0, 1, 3)) * deviations[op.name] for op in readers)
    return np.asarray(norms)


def _reorder_outputs(weights: dict[str, np.ndarray], op: Op, order: np.ndarray) -> None:
    for name in shapes_of([op], statistics=True):
        axis = 2 if op.kind == "depthwise" and name.endswith("kernel") else -1
        weights[name] = np.take(weights[name], order, axis=axis)


def _reorder_inputs(weights: dict[str, np.ndarray], op: Op, order: np.ndarray) -> None:
    name = f"{op.name}.kernel"
    weights[name] = np.take(weights[name], order, axis=2)
