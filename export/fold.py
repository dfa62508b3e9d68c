"""The same function in operations that a runtime is faster at.

Batch norms are folded into the convolutions before them: TFLite's converter does so by itself, ONNX's leaves those
after depthwise convolutions. The shortcut's average becomes a convolution for int8, see `pool_by_convolution`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bignas_zoo.models.backend import keras, layers
from bignas_zoo.models.folding import fold

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


def fold_batch_norms(child: keras.Model) -> keras.Model:
    """Return a copy of a child whose convolutions have biases in place of batch norms.

    Args:
        child: a functional model; each batch norm follows a convolution that nothing else reads.

    Returns:
        A model that computes the same up to float rounding, see `bignas_zoo.models.folding.fold`.
    """
    folded = keras.models.clone_model(child, clone_function=_clone, call_function=_call)
    for layer in child.layers:
        if isinstance(layer, CONVOLUTIONS):
            folded.get_layer(layer.name).set_weights(_with_norm(layer))
        elif layer.weights and not isinstance(layer, layers.BatchNormalization):
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def pool_by_convolution(child: keras.Model) -> keras.Model:
    """Return a copy of a child whose 2x2 averages over maps of even size are depthwise convolutions with weights 1/4.

    XNNPACK does not take TFLite's int8 average, so each one cuts the network in two and passes through memory: 5 to
    7 % of the time of BigNAS-S (benchmarks/export_latency.md). Over maps of odd size an average leaves the padding
    out, and stays.
    """

    def change(layer: Any) -> Any:
        halves = isinstance(layer, layers.AveragePooling2D) and (layer.pool_size, layer.strides) == ((2, 2), (2, 2))
        if not halves or any(size % 2 for size in layer.input.shape[1:3]):
            return type(layer).from_config(layer.get_config())
        quarter = keras.initializers.Constant(0.25)
        return layers.DepthwiseConv2D(2, 2, use_bias=False, depthwise_initializer=quarter, name=layer.name)

    copy = keras.models.clone_model(child, clone_function=change)
    for layer in child.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


class _DroppedNorm(layers.Layer):  # type: ignore[misc]
    """Stands for a batch norm while the model is rebuilt; it never becomes part of it."""


def _clone(layer: Any) -> Any:
    if isinstance(layer, layers.BatchNormalization):
        return _DroppedNorm(name=layer.name)
    config = layer.get_config()
    if isinstance(layer, CONVOLUTIONS):
        config["use_bias"] = True
    return type(layer).from_config(config)


def _call(layer: Any, *inputs: Any, **_: Any) -> Any:
    return inputs[0] if isinstance(layer, _DroppedNorm) else layer(*inputs)


def _with_norm(layer: Any) -> list[np.ndarray]:
    """Return kernel and bias of a convolution with the batch norm after it, if there is one."""
    kernel, *rest = layer.get_weights()
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    norm = next(
        (n.operation for n in layer._outbound_nodes if isinstance(n.operation, layers.BatchNormalization)), None
    )
    if norm is None:
        channels = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
        return [kernel, rest[0] if rest else np.zeros(channels, np.float32)]
    return list(fold(kernel, rest[0] if rest else None, norm.get_weights(), norm.epsilon, depthwise=depthwise))
