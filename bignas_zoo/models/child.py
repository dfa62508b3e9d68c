"""The child as an ordinary functional Keras model: what ships.

Nothing here masks or knows of the supernet, so every exporter, quantiser and Keras tool
understands it. Layers carry the names of `bignas_zoo.architecture.plan`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.models.elastic import ACTIVATIONS
from bignas_zoo.models.slicing import child_shapes
from bignas_zoo.models.weights import check_shapes

KERAS_ACTIVATIONS = {"swish": "silu", "hard_swish": "hard_silu"}


def build_child(spec: ChildSpec) -> keras.Model:
    """Build a child with fresh weights.

    Args:
        spec: the child.

    Returns:
        A model from ``[batch, resolution, resolution, 3]`` float32 (normalised, see
        `bignas_zoo.models.preprocess`) to logits ``[batch, classes]`` float32.
    """
    x = images = keras.Input((spec.resolution, spec.resolution, 3), name="image", dtype="float32")
    for block in plan(spec):
        if block.kind == "classifier":
            x = layers.GlobalAveragePooling2D(name="pool")(x)
            x = layers.Dense(block.cout, name=block.name)(x)
        else:
            x = _block(x, block, spec.space)
    return keras.Model(images, x, name=re.sub(r"\W", "_", f"{spec.space.name}_child"))


def build_block(block: Block, space: SearchSpace) -> keras.Model:
    """Build one block alone with fresh weights, to be measured.

    Args:
        block: of a plan.
        space: that it is from.

    Returns:
        A model from ``[batch, size_in, size_in, cin]`` float32 to the block's output. The average over the last map
        belongs to the head, whose size it depends on; the classifier takes what it gives as a map of one pixel.
    """
    x = features = keras.Input((block.size_in, block.size_in, block.cin), name="image", dtype="float32")
    if block.kind == "classifier":
        y = layers.Dense(block.cout, name=block.name)(layers.Flatten(name="flat")(x))
    else:
        y = _block(x, block, space)
    if block.kind == "head":
        y = layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(features, y, name="block")


def _block(x: Any, block: Block, space: SearchSpace) -> Any:
    if block.kind == "mbconv":
        return _mbconv(x, block, space)
    (op,) = block.ops
    return _activation(_conv(x, op, space, block.stride), block.activation, op.name)


def _mbconv(x: Any, block: Block, space: SearchSpace) -> Any:
    named = {op.role: op for op in block.ops}
    y = x
    if block.expands:
        op = named["expand"]
        y = _activation(_conv(y, op, space), block.activation, op.name)
    op = named["depthwise"]
    y = _activation(_conv(y, op, space, block.stride), block.activation, op.name)
    if block.squeeze_excite:
        se, squeeze, excite = block.squeeze_excite, named["squeeze"], named["excite"]
        g = layers.GlobalAveragePooling2D(keepdims=True, name=f"{squeeze.name}.pool")(y)
        g = layers.Conv2D(squeeze.cout, 1, name=squeeze.name)(g)
        g = layers.Conv2D(excite.cout, 1, name=excite.name)(_activation(g, se.activation, squeeze.name))
        y = layers.Multiply(name=f"{excite.name}.scale")([y, _activation(g, se.gate, excite.name)])
    y = _conv(y, named["project"], space)
    if block.shortcut == "project":
        if block.stride == 2:
            x = layers.AveragePooling2D(2, 2, "same", name=f"{block.name}.shortcut.pool")(x)
        x = _conv(x, named["shortcut"], space)
    elif block.cin != block.cout:
        x = _resize_channels(x, block)
    return layers.Add(name=f"{block.name}.add")([x, y])


def _resize_channels(x: Any, block: Block) -> Any:
    """Cut channels off an identity shortcut, or append zeros, with layers that every exporter knows."""
    # "channels_first" makes the two spatial layers act on the last two axes: [batch, height, WIDTH, CHANNELS].
    change = ((0, 0), (0, abs(block.cout - block.cin)))
    name, form = f"{block.name}.shortcut", "channels_first"
    if block.cout < block.cin:
        return layers.Cropping2D(change, form, name=f"{name}.crop")(x)
    return layers.ZeroPadding2D(change, form, name=f"{name}.pad")(x)


def _conv(x: Any, op: Op, space: SearchSpace, stride: int = 1) -> Any:
    if op.kind == "depthwise":
        x = layers.DepthwiseConv2D(op.kernel, stride, "same", use_bias=False, name=op.name)(x)
    else:
        x = layers.Conv2D(op.cout, op.kernel, stride, "same", use_bias=False, name=op.name)(x)
    if op.batch_norm:
        x = layers.BatchNormalization(epsilon=space.bn_epsilon, name=f"{op.name}.bn")(x)
    return x


def _activation(x: Any, name: str, prefix: str) -> Any:
    if name not in ACTIVATIONS:
        raise KeyError(name)
    return layers.Activation(KERAS_ACTIVATIONS.get(name, name), name=f"{prefix}.{name}")(x)


def set_weights(
    child: keras.Model, spec: ChildSpec, weights: Mapping[str, np.ndarray], *, calibrated: bool = True
) -> None:
    """Put weights into a child.

    Args:
        child: made by `build_child(spec)`.
        spec: the child's spec.
        weights: names as `slice_weights` gives them.
        calibrated: whether batch-norm statistics (``….bn.mean``, ``….bn.variance``) are among them. If
            not, the child is of no use before `calibrate`.

    Raises:
        IntegrityError: a weight is missing, unknown, of another shape, or not finite.
    """
    check_shapes(weights, child_shapes(spec, statistics=calibrated), "child weights")
    for op in cost.ops(spec):
        kernel = weights[f"{op.name}.kernel"]
        layer = child.get_layer(op.name)
        arrays = [kernel.reshape(layer.kernel.shape)]
        if op.bias:
            arrays.append(weights[f"{op.name}.bias"])
        layer.set_weights(arrays)
        if op.batch_norm:
            norm = child.get_layer(f"{op.name}.bn")
            norm.gamma.assign(weights[f"{norm.name}.gamma"])
            norm.beta.assign(weights[f"{norm.name}.beta"])
            if calibrated:
                norm.moving_mean.assign(weights[f"{norm.name}.mean"])
                norm.moving_variance.assign(weights[f"{norm.name}.variance"])


def get_weights(child: keras.Model, spec: ChildSpec) -> dict[str, np.ndarray]:
    """Return a child's weights, statistics included, by the names of `set_weights`."""
    weights: dict[str, np.ndarray] = {}
    for op in cost.ops(spec):
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
