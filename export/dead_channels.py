"""Channels that say nothing but their bias: kept within what int8 can hold.

A channel's scale is that of its largest weight. Where all weights are almost zero (batch norms whose variance is zero
leave such channels; EfficientNet-Lite has hundreds), the bias in units of input scale times weight scale exceeds 32
bits and comes out as anything. One weight of such a channel is raised until the bias fits in 30 bits, which adds at
most three parts in 100,000 of the bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bignas_zoo.export.ranges import Ranges

#: Bits of a bias, one less than fit, and of the weights' and activations' whole numbers.
BIAS, WEIGHT, ACTIVATION = 2**30, 127, 255


def keep_biases_in_range(model: bytes, ranges: Ranges) -> bytes:
    """Return a float32 TFLite file whose biases fit into 32 bits once it is quantised; the same bytes if all do.

    Args:
        model: the file.
        ranges: of its activations, by tensor name.
    """
    from ai_edge_litert import schema_py_generated as schema

    parsed = schema.ModelT.InitFromPackedBuf(bytearray(model), 0)
    operators = schema.BuiltinOperator
    axes = {operators.CONV_2D: 0, operators.DEPTHWISE_CONV_2D: 3, operators.FULLY_CONNECTED: 0}
    changed = False
    for graph in parsed.subgraphs:
        for op in graph.operators:
            axis = axes.get(_kind(parsed, op))
            if axis is not None and len(op.inputs) > 2 and op.inputs[2] >= 0:
                changed |= _raise(parsed, [graph.tensors[i] for i in op.inputs[:3]], axis, ranges)
    return _packed(parsed) if changed else model


def _kind(model: Any, op: Any) -> int:
    code = model.operatorCodes[op.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _raise(model: Any, tensors: list[Any], axis: int, ranges: Ranges) -> bool:
    """Raise one weight of each channel whose bias would not fit; return whether there was one."""
    given, kernel, bias = tensors
    limits = ranges.get(given.name.decode())
    weights, biases = (_values(model, tensor) for tensor in (kernel, bias))
    if limits is None or weights is None or biases is None:
        return False
    scale = max(limits[1], 0.0) - min(limits[0], 0.0)
    least = np.abs(biases) * WEIGHT * ACTIVATION / (BIAS * max(scale, 1e-9))
    channels = np.moveaxis(weights.reshape(kernel.shape), axis, 0)  # a view
    low = np.flatnonzero(np.abs(channels).reshape(len(channels), -1).max(1) < least)
    for channel in low:
        channels[int(channel)].flat[0] = least[channel]
    if len(low):
        model.buffers[kernel.buffer].data = np.frombuffer(weights.tobytes(), np.uint8)
    return len(low) > 0


def _values(model: Any, tensor: Any) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    return None if data is None else np.frombuffer(bytes(data), "<f4").copy()


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
