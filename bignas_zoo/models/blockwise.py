"""A child as a loop over its blocks, each a function of images and of weights that are cut already.

A graph of its own for each child would be traced anew each time, and one graph for all of them would compute at the
size of the biggest. The graphs here belong to a *form* of block (stride, shortcut, squeeze-excite and so on; a space
has a dozen), and know no shapes: traced once, whatever child and resolution, they compute no more than it needs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.cost import FLOAT32_BYTES
from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.models import elastic, squeeze_excite
from bignas_zoo.models.compiled import compiled
from bignas_zoo.models.prefixes import Prefixes
from bignas_zoo.models.slicing import slice_weights

Tensor = Any
#: A batch, or what makes it.
Images = Tensor | Callable[[], Tensor]
#: Batch norm to the mean and the population variance of its input, each ``[channels]`` float32.
Statistics = dict[str, tuple[Tensor, Tensor]]
#: A block's weights, by their names less the block's own: ``.expand.kernel``, and ``.kernel`` of stem and head.
Weights = dict[str, np.ndarray]
Run = Callable[..., tuple[Tensor, Statistics]]


@dataclass(frozen=True)
class Form:
    """What the computation of a block depends on besides its weights.

    Attributes:
        kind, stride, expands, shortcut, activation: as in `plan.Block`.
        squeeze_excite: its form, or None.
        widths: input and output channels of an identity shortcut whose width changes; else None.
        epsilon: of batch norms.
    """

    kind: str
    stride: int
    expands: bool
    shortcut: str
    activation: str
    squeeze_excite: SqueezeExcite | None
    widths: tuple[int, int] | None
    epsilon: float

    @staticmethod
    def of(block: Block, epsilon: float) -> Form:
        """Return the form of a block."""
        changes = block.shortcut == "identity" and block.cin != block.cout
        widths = (block.cin, block.cout) if changes else None
        return Form(
            block.kind, block.stride, block.expands, block.shortcut, block.activation, block.squeeze_excite, widths,
            epsilon,
        )  # fmt: skip


class CutChild:
    """A child with its weights, ready to run.

    Args:
        spec: the child.
        weights: the supernet's, name to array.
        prefixes: outputs of blocks, of earlier children with the same weights and calibration images; None keeps none.
    """

    def __init__(self, spec: ChildSpec, weights: Mapping[str, np.ndarray], prefixes: Prefixes | None = None) -> None:
        self._blocks = plan(spec)
        self._prefixes = prefixes or Prefixes(0)
        self._names = [block.name for block in self._blocks]
        self._forms = tuple(Form.of(block, spec.space.bn_epsilon) for block in self._blocks)
        own: dict[str, Weights] = {name: {} for name in self._names}
        for name, value in slice_weights(weights, spec).items():
            block = max((b for b in self._names if name.startswith(f"{b}.")), key=len)
            own[block][name.removeprefix(block)] = value
        self._weights = list(own.values())
        self._last: tuple[Statistics, list[Weights]] | None = None

    def moments(self, images: Images, name: Hashable = None) -> Statistics:
        """Return the moments that each batch norm sees when all normalise with this batch's own.

        Args:
            images: ``[batch, resolution, resolution, 3]`` float32, normalised; or what makes them, if they are needed.
            name: of the images among those of `prefixes`; None keeps nothing of them.
        """
        _, found = self._through(_batch_block, self._weights[:-1], images, name)
        return {
            name + part: pair for name, own in zip(self._names[:-1], found, strict=True) for part, pair in own.items()
        }

    def logits(self, images: Images, statistics: Statistics, name: Hashable = None) -> Tensor:
        """Return logits ``[batch, classes]``, with given statistics of the batch norms.

        Args:
            images: ``[batch, resolution, resolution, 3]`` float32, normalised; or what makes them, if they are needed.
            statistics: as `moments` returns them; with `prefixes`, those of the same calibration images for all.
            name: of the images among those of `prefixes`; None keeps nothing of them.
        """
        if self._last is None or self._last[0] is not statistics:
            blocks = zip(self._names, self._forms, self._weights, strict=True)
            self._last = statistics, [_fold(form, own, name, statistics) for name, form, own in blocks]
        return self._through(_folded_block, self._last[1], images, name)[0]

    def _through(
        self, run: Run, weights: Sequence[Weights], images: Images, name: Hashable
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Run the first blocks, as many as there are weights; return the last output and what each leaves behind."""
        count = len(weights)
        if keras.backend.backend() == "jax":  # whose graphs have shapes: one a child, then, not one a block
            x = images() if callable(images) else images
            whole: tuple[Tensor, list[Statistics]] = _whole(run, self._forms[:count])(x, list(weights))
            return whole
        key = None if name is None else (run, name)
        done, left = self._prefixes.longest(key, self._blocks[:count]) if key else (0, None)
        x, found = left or (images() if callable(images) else images, ())
        for i in range(done, count):
            x, new = _graph(run, self._forms[i])(x, weights[i])
            found = (*found, new)
            if key and i + 1 < count:
                self._prefixes.keep(key, self._blocks[: i + 1], (x, found), FLOAT32_BYTES * math.prod(x.shape))
        return x, found


def _fold(form: Form, weights: Weights, name: str, statistics: Statistics) -> Weights:
    """Return a block's weights with batch norms folded into the convolutions before them, as in an exported file.

    ``PART.bias`` takes the place of ``PART.bn.gamma`` and ``PART.bn.beta``.
    """
    folded = {key: value for key, value in weights.items() if ".bn." not in key}
    for part in [key.removesuffix(".bn.gamma") for key in weights if key.endswith(".bn.gamma")]:
        mean, variance = (np.asarray(ops.convert_to_numpy(value), np.float64) for value in statistics[name + part])
        scale = weights[f"{part}.bn.gamma"] / np.sqrt(variance + form.epsilon)
        by_channel = scale[:, None] if part == ".depthwise" else scale
        folded[f"{part}.kernel"] = (weights[f"{part}.kernel"] * by_channel).astype(np.float32)
        folded[f"{part}.bias"] = (weights[f"{part}.bn.beta"] - mean * scale).astype(np.float32)
    return folded


@functools.lru_cache(maxsize=512)
def _graph(run: Run, form: Form) -> Callable[..., Any]:
    return compiled(functools.partial(run, form), any_shape=True)


@functools.lru_cache(maxsize=64)
def _whole(run: Run, forms: tuple[Form, ...]) -> Callable[..., Any]:
    def walk(x: Tensor, weights: list[Mapping[str, Tensor]]) -> tuple[Tensor, list[Statistics]]:
        found = []
        for form, own in zip(forms, weights, strict=True):
            x, left = run(form, x, own)
            found.append(left)
        return x, found

    return compiled(walk)


def _batch_block(form: Form, x: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
    """Run a block that normalises with the batch's own moments; return them as well, by part."""
    moments: Statistics = {}
    norm = elastic.default_batch_norm()

    def normalise(x: Tensor, part: str) -> Tensor:
        gamma, beta = (weights[f"{part}.bn.{name}"] for name in ("gamma", "beta"))
        y, used = elastic.batch_norm(x, gamma, beta, elastic.ALL, form.epsilon, norm)
        moments[part] = (used.mean, used.variance)
        return y

    return _run(form, weights, x, normalise), moments


def _folded_block(form: Form, x: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
    """Run a block, or the classifier, with the weights of `_fold`."""
    if form.kind == "classifier":
        return ops.matmul(ops.mean(x, axis=(1, 2)), weights[".kernel"]) + weights[".bias"], {}
    return _run(form, weights, x, lambda x, part: elastic.add_bias(x, weights[f"{part}.bias"])), {}


def _run(form: Form, weights: Mapping[str, Tensor], x: Tensor, normalise: Callable[[Tensor, str], Tensor]) -> Tensor:
    """Run a block; `normalise` is what follows the convolution of a part of it."""
    act = elastic.ACTIVATIONS[form.activation]
    if form.kind != "mbconv":
        return act(normalise(elastic.plain_conv(x, weights[".kernel"], form.stride), ""))
    y = x
    if form.expands:
        y = act(normalise(elastic.plain_conv(y, weights[".expand.kernel"]), ".expand"))
    y = elastic.plain_depthwise(y, weights[".depthwise.kernel"], form.stride)
    y = act(normalise(y, ".depthwise"))
    if se := form.squeeze_excite:
        vectors = [weights[f".{op}.{part}"] for op in ("squeeze", "excite") for part in ("kernel", "bias")]
        gate = functools.partial(squeeze_excite.gate, activation=se.activation, last=se.gate)
        y = squeeze_excite.scale_by(y, lambda pooled: gate(pooled, *vectors))
    y = normalise(elastic.plain_conv(y, weights[".project.kernel"]), ".project")
    return y + _shortcut(form, weights, x)


def _shortcut(form: Form, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    if form.shortcut == "project":
        if form.stride == 2:
            x = ops.average_pool(x, 2, 2, padding="same")
        return elastic.plain_conv(x, weights[".shortcut.kernel"])
    if form.widths is None:
        return x
    cin, cout = form.widths
    return x[..., :cout] if cout < cin else ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, cout - cin]])
