"""Batch-norm calibration without a framework: what `calibration` does to a Keras model, on arrays.

The same exact population moments, each batch norm after all before it; see there for why and for the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan
from bignas_zoo.errors import UsageError
from bignas_zoo.models.moments import MIN_IMAGES, Moments, too_few
from bignas_zoo.models.numpy_forward import numpy_operations


def calibrate_arrays(
    network: Network, weights: Mapping[str, np.ndarray], batches: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return a network's weights with the statistics of every batch norm from images.

    Args:
        network: a child, or a list of blocks.
        weights: by the names of its plan; statistics among them do not count.
        batches: network inputs ``[n, resolution, resolution, 3]`` float32, normalised; training images, never those an
            accuracy is reported on. At least 64 in all.

    Returns:
        The weights and the new statistics, float32.

    Raises:
        UsageError: too few images, or of a wrong shape.
    """
    side = network.resolution
    chunks = [np.asarray(batch, np.float32) for batch in batches if len(batch)]
    for chunk in chunks:
        if chunk.shape[1:] != (side, side, 3):
            raise UsageError(
                f"calibration: images of shape {chunk.shape[1:]}, but the network takes {(side, side, 3)}."
            )
    count = sum(map(len, chunks))
    if count < MIN_IMAGES:
        raise too_few(count)
    known = {name: array for name, array in weights.items() if not name.endswith((".bn.mean", ".bn.variance"))}
    for block in plan(network):
        chunks = _calibrate_block(known, network.bn_epsilon, block, chunks)
    return known


def _calibrate_block(
    known: dict[str, np.ndarray], epsilon: float, block: Block, chunks: list[np.ndarray]
) -> list[np.ndarray]:
    """Add the statistics of a block's batch norms, one after the other, and return what the block makes of images."""

    def stop_at_unknown(op: Op, x: np.ndarray) -> None:
        if f"{op.name}.bn.mean" not in known:
            raise _NoStatisticsError(op.name, x)

    run = numpy_operations(known, epsilon, stop_at_unknown)
    while True:
        moments, name, outputs = Moments(), "", []
        for chunk in chunks:
            try:
                outputs.append(run_block(run, chunk, block))
            except _NoStatisticsError as reached:
                name = reached.name
                moments.add(reached.values)
        if not name:
            return outputs
        known[f"{name}.bn.mean"], known[f"{name}.bn.variance"] = moments.result()


@dataclass
class _NoStatisticsError(Exception):
    """Raised at a batch norm that has no statistics yet, with what it is given."""

    name: str
    values: np.ndarray = field(repr=False)
