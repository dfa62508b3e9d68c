"""A child as a loop over its blocks, each a function of images and of weights that are cut already.

A graph of its own for each child would be traced anew each time, and one graph for all of them would compute at the
size of the biggest. The graphs here belong to a *pattern* of block (stride, shortcut, squeeze-excite and so on; a space
has a dozen), and know no shapes: traced once, whatever child and resolution, they compute no more than it needs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.cost import FLOAT32_BYTES
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.operations import Gate, Operations
from bignas_zoo.architecture.plan import plan
from bignas_zoo.models import elastic, squeeze_excite
from bignas_zoo.models.backend import keras, ops
from bignas_zoo.models.batch_norm import batch_norm, default_batch_norm
from bignas_zoo.models.compiled import compiled
from bignas_zoo.models.folding import fold
from bignas_zoo.models.prefixes import Prefixes
from bignas_zoo.models.slicing import slice_operations

Tensor = Any
#: A batch, or what makes it.
Images = Tensor | Callable[[], Tensor]
#: Batch norm to the mean and the population variance of its input, each ``[channels]`` float32.
Statistics = dict[str, tuple[Tensor, Tensor]]
#: A block's weights, by their names less the block's own: ``.expand.kernel``, and ``.kernel`` of stem and head.
Weights = dict[str, np.ndarray]
Run = Callable[..., tuple[Tensor, Statistics]]


def pattern(block: Block) -> Block:
    """Return a block without its name and shapes: what its computation depends on besides weights and input."""
    halves = block.shortcut != "none" and block.stride == 2
    resized = block.shortcut == "identity" and block.cin != block.cout
    return replace(
        block,
        name="",
        size_in=block.size_in % 2 if halves and block.pooling == "average_padded" else 0,
        size_out=0,
        cin=block.cin if resized else 0,
        mid=0,
        cout=block.cout if resized else 0,
        kernel=block.kernel if block.padding == "symmetric" and block.stride == 2 else 1,
        stage=-1,
        layer=-1,
    )


class CutChild:
    """A child with its weights, ready to run.

    Args:
        network: the child.
        weights: the supernet's, name to array.
        prefixes: outputs of blocks, of earlier children with the same weights and calibration images; None keeps none.
    """

    def __init__(self, network: Network, weights: Mapping[str, np.ndarray], prefixes: Prefixes | None = None) -> None:
        self._blocks = plan(network)
        self._prefixes = prefixes or Prefixes(0)
        self._patterns = tuple(pattern(block) for block in self._blocks)
        self._epsilon = network.bn_epsilon
        self._weights = [_own(weights, block) for block in self._blocks]
        self._last: tuple[Statistics, list[Weights]] | None = None

    def moments(self, images: Images, name: Hashable = None) -> Statistics:
        """Return the moments that each batch norm sees when all normalise with this batch's own.

        Args:
            images: ``[batch, resolution, resolution, 3]`` float32, normalised; or what makes them, if they are needed.
            name: of the images among those of `prefixes`; None keeps nothing of them.
        """
        _, moments = self._through(_batch_block, self._weights[:-1], images, name)
        return {
            block.name + part: pair
            for block, own in zip(self._blocks[:-1], moments, strict=True)
            for part, pair in own.items()
        }

    def logits(self, images: Images, statistics: Statistics, name: Hashable = None) -> Tensor:
        """Return logits ``[batch, classes]``, with given statistics of the batch norms.

        Args:
            images: ``[batch, resolution, resolution, 3]`` float32, normalised; or what makes them, if they are needed.
            statistics: as `moments` returns them; with `prefixes`, those of the same calibration images for all.
            name: of the images among those of `prefixes`; None keeps nothing of them.
        """
        if self._last is None or self._last[0] is not statistics:
            blocks = zip(self._blocks, self._weights, strict=True)
            self._last = statistics, [_folded(block, own, statistics, self._epsilon) for block, own in blocks]
        return self._through(_folded_block, self._last[1], images, name)[0]

    def _through(
        self, run: Run, weights: Sequence[Weights], images: Images, name: Hashable
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Run the first blocks, as many as there are weights; return the last output and what each leaves behind."""
        count = len(weights)
        if keras.backend.backend() == "jax":  # whose graphs have shapes: one a child, then, not one a block
            x = images() if callable(images) else images
            whole: tuple[Tensor, list[Statistics]] = _whole(run, self._patterns[:count], self._epsilon)(
                x, list(weights)
            )
            return whole
        key = None if name is None else (run, name)
        done, left = self._prefixes.longest(key, self._blocks[:count]) if key else (0, None)
        x, statistics = left or (images() if callable(images) else images, ())
        for i in range(done, count):
            x, new = _graph(run, self._patterns[i], self._epsilon, len(x.shape))(x, weights[i])
            statistics = (*statistics, new)
            if key and i + 1 < count:
                self._prefixes.keep(key, self._blocks[: i + 1], (x, statistics), FLOAT32_BYTES * math.prod(x.shape))
        return x, statistics


def _own(weights: Mapping[str, np.ndarray], block: Block) -> Weights:
    """Cut a block's weights out of the supernet's; name them without the block's own name."""
    return {key.removeprefix(block.name): value for key, value in slice_operations(weights, block.ops).items()}


def _folded(block: Block, weights: Weights, statistics: Statistics, epsilon: float) -> Weights:
    """Return a block's weights with batch norms folded into the convolutions before them, as in an exported file.

    ``PART.bias`` takes the place of ``PART.bn.gamma`` and ``PART.bn.beta``.
    """
    folded = {key: value for key, value in weights.items() if ".bn." not in key}
    for op in block.ops:
        if op.batch_norm:
            part = op.name.removeprefix(block.name)
            moments = (np.asarray(ops.convert_to_numpy(value)) for value in statistics[op.name])
            norm = (weights[f"{part}.bn.gamma"], weights[f"{part}.bn.beta"], *moments)
            kernel, bias = fold(weights[f"{part}.kernel"], None, norm, epsilon, depthwise=op.kind == "depthwise")
            folded |= {f"{part}.kernel": kernel, f"{part}.bias": bias}
    return folded


@functools.lru_cache(maxsize=512)
def _graph(run: Run, block: Block, epsilon: float, axes: int) -> Callable[..., Any]:
    """Return the graph of a block for inputs of so many axes: the classifier takes maps or vectors."""
    return compiled(functools.partial(run, block, epsilon), any_shape=True)


@functools.lru_cache(maxsize=64)
def _whole(run: Run, blocks: tuple[Block, ...], epsilon: float) -> Callable[..., Any]:
    def walk(x: Tensor, weights: list[Mapping[str, Tensor]]) -> tuple[Tensor, list[Statistics]]:
        statistics = []
        for block, own in zip(blocks, weights, strict=True):
            x, left = run(block, epsilon, x, own)
            statistics.append(left)
        return x, statistics

    return compiled(walk)


def _batch_block(block: Block, epsilon: float, x: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
    """Run a block that normalises with the batch's own moments; return them as well, by part."""
    moments: Statistics = {}
    form = default_batch_norm()

    def normalise(x: Tensor, part: str) -> Tensor:
        gamma, beta = (weights[f"{part}.bn.{name}"] for name in ("gamma", "beta"))
        y, used = batch_norm(x, gamma, beta, epsilon, form)
        moments[part] = (used.mean, used.variance)
        return y

    return run_block(_Cut(weights, normalise), x, block), moments


def _folded_block(block: Block, epsilon: float, x: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
    """Run a block with the weights of `_folded`."""

    def normalise(x: Tensor, part: str) -> Tensor:
        return elastic.add_bias(x, weights[f"{part}.bias"])

    return run_block(_Cut(weights, normalise), x, block), {}


@dataclass(frozen=True)
class _Cut(Operations):
    """The operations on weights that are cut already, for a block without shapes.

    Attributes:
        weights: the block's own, by their names less its.
        normalise: what follows a convolution, of its output and the name of its part.
    """

    weights: Mapping[str, Tensor]
    normalise: Callable[[Tensor, str], Tensor]

    def conv(self, x: Tensor, op: Op, activation: str | None = None, gate: Gate | None = None) -> Tensor:
        kernel, zeros = self.weights[f"{op.name}.kernel"], elastic.rim(op.kernel, op.stride, op.padding)
        if op.kind == "depthwise":
            x = elastic.plain_depthwise(x, kernel, op.stride, zeros=zeros)
        else:
            x = elastic.plain_conv(x, kernel, op.stride, zeros=zeros)
        x = self.normalise(x, op.name) if op.batch_norm else x
        x = elastic.ACTIVATIONS[activation](x) if activation else x
        return self._scale(x, gate) if gate else x

    def _scale(self, x: Tensor, gate: Gate) -> Tensor:
        form, parts = gate.form, (gate.squeeze, gate.excite)
        vectors = [self.weights[f"{op.name}.{key}"] for op in parts for key in ("kernel", "bias")]
        scales = functools.partial(squeeze_excite.gate, activation=form.activation, last=form.gate)
        return squeeze_excite.scale_by(x, lambda pooled: scales(pooled, *vectors))

    def dense(self, x: Tensor, op: Op, activation: str | None = None) -> Tensor:
        y = ops.matmul(x, self.weights[f"{op.name}.kernel"])
        y = y + self.weights[f"{op.name}.bias"] if op.bias else y
        return elastic.ACTIVATIONS[activation](y) if activation else y

    def mean(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=(1, 2)) if len(x.shape) == 4 else x

    def activate(self, x: Tensor, activation: str, block: Block) -> Tensor:
        return elastic.ACTIVATIONS[activation](x)

    def add(self, shortcut: Tensor, branch: Tensor, block: Block) -> Tensor:
        return branch + shortcut

    def halve(self, x: Tensor, block: Block) -> Tensor:
        return elastic.halve(x, block.pooling, odd=block.size_in % 2 == 1)

    def resize(self, x: Tensor, block: Block) -> Tensor:
        if block.cout <= block.cin:
            return x[..., : block.cout] if block.cout < block.cin else x
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, block.cout - block.cin]])
