"""Batch-norm calibration: exact population moments, whatever the batch split.

A child cut from a supernet has no batch-norm statistics of its own. The usual remedy averages the
moments of a few batches, each layer seeing inputs normalised by its *batch*, so the result depends
on batch size and order. Here each batch norm is calibrated on all images together, in the order of
the network, with everything before it already calibrated: the result is the fixed point, and only
float rounding is left of the split.

Images flow block by block; only block outputs (the narrow tensors) are kept for all images.

Reference: BigNAS (arXiv 2003.11142) section 3.2, "batch norm calibration".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from bignas_zoo.errors import UsageError
from bignas_zoo.models.backend import keras, ops
from bignas_zoo.models.moments import MIN_IMAGES, Moments, too_few

Tensor = Any


def calibrate(child: keras.Model, batches: Iterable[np.ndarray], *, variance: str = "population") -> None:
    """Set the statistics of every batch norm of a child from images.

    Args:
        child: made by `build_child`, with its trained weights; changed in place.
        batches: network inputs ``[n, resolution, resolution, 3]`` float32, normalised; training
            images, never those an accuracy is reported on. At least 64 images in all.
        variance: which one batch norms keep, "population" or "sample", see `SearchSpace.bn_variance`.

    Raises:
        UsageError: too few images, or of a wrong shape; or a layer takes what lies before its block.
    """
    chunks: list[Tensor] = []
    count = 0
    for batch in batches:
        if tuple(batch.shape[1:]) != tuple(child.input_shape[1:]):
            raise UsageError(
                f"calibration: images of shape {tuple(batch.shape[1:])}, "
                f"but the child takes {tuple(child.input_shape[1:])}."
            )
        if len(batch):
            chunks.append(ops.convert_to_tensor(batch, "float32"))
            count += len(batch)
    if count < MIN_IMAGES:
        raise too_few(count)
    pixels: dict[Any, int] = {}
    for block in _blocks(child):
        for layer in block:
            if isinstance(layer, keras.layers.BatchNormalization):
                mean, spread = population_moments(_run(block, c, layer.input) for c in chunks)
                layer.moving_mean.assign(mean)
                layer.moving_variance.assign(spread)
                pixels[layer.name] = count * int(np.prod(layer.input.shape[1:-1]))
        chunks = [_run(block, c, block[-1].output) for c in chunks]
    if variance == "sample":
        for name, n in pixels.items():
            layer = child.get_layer(name)
            layer.moving_variance.assign(layer.moving_variance * (n / (n - 1)))


def population_moments(chunks: Iterable[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population variance over all but the last axis of all chunks together, see `Moments`.

    Args:
        chunks: ``[n, height, width, channels]`` each, channels alike.

    Returns:
        Mean and variance, ``[channels]`` float32.
    """
    moments = Moments()
    for x in chunks:
        moments.add_part(int(np.prod(x.shape[:-1])), *ops.moments(x, axes=list(range(len(x.shape) - 1))))
    return moments.result()


def _blocks(child: keras.Model) -> Iterator[list[Any]]:
    """Split the layers into blocks: each reads only the output of the one before."""
    hidden = [layer for layer in child.layers if not isinstance(layer, keras.layers.InputLayer)]
    for _, block in groupby(hidden, key=lambda layer: _block_name(layer.name)):
        yield list(block)


def _block_name(layer: str) -> str:
    parts = layer.split(".")
    return ".".join(parts[:2]) if parts[0].startswith("stage") else parts[0]


def _run(block: list[Any], x: Tensor, wanted: Any) -> Tensor:
    """Run a block's layers on its input, in inference mode, until `wanted` (a symbolic tensor) is there."""
    first = block[0].input
    values = {id(first): x}
    if id(wanted) in values:
        return x
    for layer in block:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        if any(id(t) not in values for t in inputs):
            raise UsageError(f"calibration: layer '{layer.name}' takes more than what the block before it gives.")
        arguments: Any = [values[id(t)] for t in inputs]
        if not isinstance(layer.input, list):
            (arguments,) = arguments
        # Only batch norm and dropout know `training`; a child has no dropout.
        inference = {"training": False} if isinstance(layer, keras.layers.BatchNormalization) else {}
        y = layer(arguments, **inference)
        values[id(layer.output)] = y
        if layer.output is wanted:
            return y
    raise AssertionError("the wanted tensor is not in this block")
