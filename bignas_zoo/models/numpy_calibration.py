"""Batch-norm calibration without a framework: what `calibration` does to a Keras model, on arrays.

The same exact population moments, each batch norm after all before it; see there for why and for the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan
from bignas_zoo.errors import UsageError
from bignas_zoo.models.moments import MIN_IMAGES, Moments, too_few
from bignas_zoo.models.numpy_forward import numpy_operations

#: Images are computed so many pixels at once, which stay in a processor's cache for the most part.
PIXELS_AT_ONCE = 2 * 224**2
#: What a block's convolutions give is kept for its next batch norm if all of it takes no more bytes than this.
MOST_KEPT, FLOAT32_BYTES = 1 << 30, 4


def calibrate_arrays(
    network: Network, weights: Mapping[str, np.ndarray], batches: Iterable[np.ndarray], *, least: int = MIN_IMAGES
) -> dict[str, np.ndarray]:
    """Return a network's weights with the statistics of every batch norm from images.

    Args:
        network: a child, or a list of blocks.
        weights: by the names of its plan; statistics among them do not count.
        batches: network inputs ``[n, resolution, resolution, 3]`` float32, normalised; training images, never those an
            accuracy is reported on. At least 64 in all.
        least: how many there must be.

    Returns:
        The weights and the new statistics, float32.

    Raises:
        UsageError: too few images, or of a wrong shape.
    """
    side = network.resolution
    whole = [np.asarray(batch, np.float32) for batch in batches if len(batch)]
    for chunk in whole:
        if chunk.shape[1:] != (side, side, 3):
            raise UsageError(
                f"calibration: images of shape {chunk.shape[1:]}, but the network takes {(side, side, 3)}."
            )
    count = sum(map(len, whole))
    if count < max(1, least):
        raise too_few(count)
    step = max(1, PIXELS_AT_ONCE // side**2)
    chunks = [part[i : i + step] for part in whole for i in range(0, len(part), step)]
    known = {name: array for name, array in weights.items() if not name.endswith((".bn.mean", ".bn.variance"))}
    counts: dict[str, int] = {}
    for block in plan(network):
        chunks = _calibrate_block(known, counts, network.bn_epsilon, block, chunks)
    if network.bn_variance == "sample":
        for name, pixels in counts.items():
            known[f"{name}.bn.variance"] = known[f"{name}.bn.variance"] * np.float32(pixels / (pixels - 1))
    return known


def calibrate_by_batch(
    network: Network, weights: Mapping[str, np.ndarray], batches: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Do the same as Once-for-all and AlphaNet do: average the statistics of batches that are each by themselves.

    Each batch is normalised by its own moments, and their moments are averaged, weighted by the number of images. What
    this gives depends on the split into batches; it is here to reproduce what those projects publish.

    Args:
        network, weights, batches: see `calibrate_arrays`; of any number of images.

    Returns:
        The weights and the new statistics, float32.

    Raises:
        UsageError: no images, or of a wrong shape.
    """
    total, sums = 0, dict[str, Any]()
    for batch in batches:
        own = calibrate_arrays(network, weights, [batch], least=1)
        statistics = {name: value for name, value in own.items() if name.endswith((".bn.mean", ".bn.variance"))}
        for name, value in statistics.items():
            sums[name] = sums.get(name, 0.0) + value.astype(np.float64) * len(batch)
        total += len(batch)
    if not total:
        raise too_few(0)
    return {**weights, **{name: (value / total).astype(np.float32) for name, value in sums.items()}}


def _calibrate_block(
    known: dict[str, np.ndarray], counts: dict[str, int], epsilon: float, block: Block, chunks: list[np.ndarray]
) -> list[np.ndarray]:
    """Add the statistics of a block's batch norms, one after the other, and return what the block makes of images."""

    def stop_at_unknown(op: Op, x: np.ndarray) -> None:
        if f"{op.name}.bn.mean" not in known:
            raise _NoStatisticsError(op.name, x)

    pixels = sum(op.cout * op.size**2 for op in block.ops)
    keeps = FLOAT32_BYTES * pixels * sum(map(len, chunks)) <= MOST_KEPT
    runs = [numpy_operations(known, epsilon, stop_at_unknown, {} if keeps else None) for _ in chunks]
    while True:
        moments, name, outputs = Moments(), "", []
        for run, chunk in zip(runs, chunks, strict=True):
            try:
                outputs.append(run_block(run, chunk, block))
            except _NoStatisticsError as reached:
                name = reached.name
                moments.add(reached.values)
        if not name:
            return outputs
        known[f"{name}.bn.mean"], known[f"{name}.bn.variance"] = moments.result()
        counts[name] = moments.total


@dataclass
class _NoStatisticsError(Exception):
    """Raised at a batch norm that has no statistics yet, with what it is given."""

    name: str
    values: np.ndarray = field(repr=False)
