"""The child as an ordinary functional Keras model: what ships.

Nothing here masks or knows of the supernet, so every exporter, quantiser and Keras tool
understands it. Layers carry the names of `bignas_zoo.architecture.plan`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.operations import Gate, Operations
from bignas_zoo.architecture.plan import plan
from bignas_zoo.models.backend import keras, layers, ops
from bignas_zoo.models.elastic import rim
from bignas_zoo.models.slicing import shapes_of
from bignas_zoo.models.weights import check_shapes

KERAS_ACTIVATIONS = {"swish": "silu", "hard_swish": "hard_silu"}


def build_child(network: Network) -> keras.Model:
    """Build a child, or any other network, with fresh weights.

    Args:
        network: what to build.

    Returns:
        A model from ``[batch, resolution, resolution, 3]`` float32 (normalised, see
        `bignas_zoo.models.preprocess`) to logits ``[batch, classes]`` float32.
    """
    x = images = keras.Input((network.resolution, network.resolution, 3), name="image", dtype="float32")
    run = _Layers(network.bn_epsilon)
    for block in plan(network):
        x = run_block(run, x, block)
    child = keras.Model(images, x, name=re.sub(r"\W", "_", network.model_name))
    object.__setattr__(child, _BUILT_FROM, (network, _structure(child)))  # past Keras, which would track it
    return child


def network_of(child: keras.Model) -> Network | None:
    """Return what a model was built from by `build_child`; None if it was not, or has other layers since then."""
    network, structure = getattr(child, _BUILT_FROM, (None, None))
    return network if network is not None and structure == _structure(child) else None


_BUILT_FROM = "_bignas_built_from"


def _structure(child: keras.Model) -> str:
    """Return its layers and how they are connected, as text."""
    return json.dumps(child.get_config(), sort_keys=True, default=str)


def build_block(block: Block, bn_epsilon: float) -> keras.Model:
    """Build one block alone with fresh weights, to be measured.

    Args:
        block: of a plan.
        bn_epsilon: of its network.

    Returns:
        A model from ``[batch, size_in, size_in, cin]`` float32 to the block's output. The average over the last map
        belongs to the head, whose size it depends on; the classifier takes what it gives as a map of one pixel.
    """
    x = features = keras.Input((block.size_in, block.size_in, block.cin), name="image", dtype="float32")
    run = _Layers(bn_epsilon)
    if block.kind == "classifier":
        x = layers.Flatten(name="flat")(x)
    y = run_block(run, x, block)
    return keras.Model(features, run.mean(y) if block.kind == "head" else y, name="block")


@dataclass(frozen=True)
class _Layers(Operations):
    """The operations as Keras layers, named as the plan names its operations."""

    bn_epsilon: float

    def conv(self, x: Any, op: Op, activation: str | None = None, gate: Gate | None = None) -> Any:
        padding = "same"
        if zeros := rim(op.kernel, op.stride, op.padding):
            x, padding = layers.ZeroPadding2D(zeros, name=f"{op.name}.pad")(x), "valid"
        if op.kind == "depthwise":
            x = layers.DepthwiseConv2D(op.kernel, op.stride, padding, use_bias=False, name=op.name)(x)
        else:
            x = layers.Conv2D(op.cout, op.kernel, op.stride, padding, use_bias=False, name=op.name)(x)
        if op.batch_norm:
            x = layers.BatchNormalization(epsilon=self.bn_epsilon, name=f"{op.name}.bn")(x)
        x = _activation(x, activation, op.name) if activation else x
        return self._scale(x, gate) if gate else x

    def _scale(self, x: Any, gate: Gate) -> Any:
        squeeze, excite = gate.squeeze, gate.excite
        g = layers.GlobalAveragePooling2D(keepdims=True, name=f"{squeeze.name}.pool")(x)
        g = layers.Conv2D(squeeze.cout, 1, name=squeeze.name)(g)
        g = layers.Conv2D(excite.cout, 1, name=excite.name)(_activation(g, gate.form.activation, squeeze.name))
        return layers.Multiply(name=f"{excite.name}.scale")([x, _activation(g, gate.form.gate, excite.name)])

    def dense(self, x: Any, op: Op, activation: str | None = None) -> Any:
        x = layers.Dense(op.cout, use_bias=op.bias, name=op.name)(x)
        return _activation(x, activation, op.name) if activation else x

    def mean(self, x: Any) -> Any:
        return layers.GlobalAveragePooling2D(name="pool")(x) if len(x.shape) == 4 else x

    def activate(self, x: Any, activation: str, block: Block) -> Any:
        return _activation(x, activation, block.name)

    def add(self, shortcut: Any, branch: Any, block: Block) -> Any:
        return layers.Add(name=f"{block.name}.add")([shortcut, branch])

    def halve(self, x: Any, block: Block) -> Any:
        name = f"{block.name}.shortcut.pool"
        if block.pooling == "subsample":
            return layers.MaxPooling2D(1, 2, name=name)(x)
        if block.pooling == "average_padded" and block.size_in % 2:
            return layers.AveragePooling2D(2, 2, name=name)(layers.ZeroPadding2D(1, name=f"{name}.pad")(x))
        return layers.AveragePooling2D(2, 2, "same", name=name)(x)

    def resize(self, x: Any, block: Block) -> Any:
        if block.cin == block.cout:
            return x
        # "channels_first" makes the two spatial layers act on the last two axes: [batch, height, WIDTH, CHANNELS].
        change = ((0, 0), (0, abs(block.cout - block.cin)))
        name, form = f"{block.name}.shortcut", "channels_first"
        if block.cout < block.cin:
            return layers.Cropping2D(change, form, name=f"{name}.crop")(x)
        return layers.ZeroPadding2D(change, form, name=f"{name}.pad")(x)


def _activation(x: Any, name: str, prefix: str) -> Any:
    return layers.Activation(KERAS_ACTIVATIONS.get(name, name), name=f"{prefix}.{name}")(x)


def set_weights(
    child: keras.Model, network: Network, weights: Mapping[str, np.ndarray], *, calibrated: bool = True
) -> None:
    """Put weights into a child.

    Args:
        child: made by `build_child(network)`.
        network: what it was made from.
        weights: names as `slice_weights` gives them.
        calibrated: whether batch-norm statistics (``….bn.mean``, ``….bn.variance``) are among them. If
            not, the child is of no use before `calibrate`.

    Raises:
        IntegrityError: a weight is missing, unknown, of another shape, or not finite.
    """
    operations = cost.ops(network)
    check_shapes(weights, shapes_of(operations, statistics=calibrated), "child weights")
    for op in operations:
        layer = child.get_layer(op.name)
        arrays = [weights[f"{op.name}.kernel"].reshape(layer.kernel.shape)]
        if op.bias:
            arrays.append(weights[f"{op.name}.bias"])
        layer.set_weights(arrays)
        if op.batch_norm:
            _set_norm(child.get_layer(f"{op.name}.bn"), weights, calibrated)


def _set_norm(norm: Any, weights: Mapping[str, np.ndarray], calibrated: bool) -> None:
    norm.gamma.assign(weights[f"{norm.name}.gamma"])
    norm.beta.assign(weights[f"{norm.name}.beta"])
    if calibrated:
        norm.moving_mean.assign(weights[f"{norm.name}.mean"])
        norm.moving_variance.assign(weights[f"{norm.name}.variance"])


def get_weights(child: keras.Model, network: Network) -> dict[str, np.ndarray]:
    """Return a child's weights, statistics included, by the names of `set_weights`."""
    weights: dict[str, np.ndarray] = {}
    for op in cost.ops(network):
        layer = child.get_layer(op.name)
        weights[f"{op.name}.kernel"] = ops.convert_to_numpy(layer.kernel).reshape(op.kernel_shape)
        if op.bias:
            weights[f"{op.name}.bias"] = ops.convert_to_numpy(layer.bias)
        if op.batch_norm:
            weights |= batch_norm_weights(child.get_layer(f"{op.name}.bn"))
    return weights


def batch_norm_weights(norm: Any) -> dict[str, np.ndarray]:
    """Return the four vectors of a batch norm by name."""
    return {
        f"{norm.name}.gamma": ops.convert_to_numpy(norm.gamma),
        f"{norm.name}.beta": ops.convert_to_numpy(norm.beta),
        f"{norm.name}.mean": ops.convert_to_numpy(norm.moving_mean),
        f"{norm.name}.variance": ops.convert_to_numpy(norm.moving_variance),
    }
