"""Nodes of a network to an ONNX graph, opset 17: channels first inside, the input's layout as asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bignas_zoo.architecture.lowering import IMAGE, SCORES, Node

#: 18 and later make ReduceMean take its axes as an input, for which tf2onnx leaves transposes behind.
OPSET = 17
#: The first version of the format's container that has all of opset 17; older runtimes read no newer one.
IR = 8
BATCH = "batch"

Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]
Ends = tuple[np.ndarray, np.ndarray] | None


def write_onnx(
    nodes: Sequence[Node], weights: Weights, *, layout: str = "nhwc", normalisation: Ends = None
) -> onnx.ModelProto:
    """Write a graph from images to scores, with a free batch.

    Args:
        nodes: see `architecture.lowering.lower`.
        weights: folded kernel and bias of each operation, see `models.folding.folded`.
        layout: of the input, "nhwc" or "nchw".
        normalisation: mean and standard deviation of pixels, ``[3]`` each, for a "normalise" node.
    """
    graph = _Graph(weights, normalisation)
    image = nodes[0].inputs[0]
    graph.names[image.name] = image.name
    if layout == "nhwc":
        graph.names[image.name] = graph.add("Transpose", [image.name], f"{image.name}.nchw", perm=[0, 3, 1, 2])
    for node in nodes:
        WRITERS[node.kind](graph, node)
    height, width, channels = image.shape
    sides: tuple[int, ...] = (height, width, channels) if layout == "nhwc" else (channels, height, width)
    shape: list[str | int | None] = [BATCH, *sides]
    written = helper.make_graph(
        graph.nodes,
        "network",
        [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [BATCH, *nodes[-1].output.shape])],
        list(graph.constants.values()),
    )
    return helper.make_model(written, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


class _Graph:
    """What is being written."""

    def __init__(self, weights: Weights, normalisation: Ends) -> None:
        self.weights, self.normalisation = weights, normalisation
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.names: dict[str, str] = {}

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add a constant, once a name, and return it."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def inputs(self, node: Node) -> list[str]:
        """Return what a node reads."""
        return [self.names[value.name] for value in node.inputs]

    def give(self, node: Node, kind: str, more: Sequence[str] = (), **attributes: Any) -> None:
        """Add a node with its fused activation after it."""
        raw = f"{node.name}.linear" if node.activation else node.name
        self.names[node.name] = self.add(kind, [*self.inputs(node), *more], raw, **attributes)
        if node.activation:
            self.activate(node, node.activation, [raw])

    def activate(self, node: Node, activation: str, inputs: Sequence[str]) -> None:
        """Add ReLU or ReLU6."""
        if activation == "relu":
            self.names[node.name] = self.add("Relu", inputs, node.name)
            return
        ends = [self.constant("zero", np.array(0, np.float32)), self.constant("six", np.array(6, np.float32))]
        self.names[node.name] = self.add("Clip", [*inputs, *ends], node.name)

    def kernel_and_bias(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights of a node."""
        assert node.op
        kernel, bias = self.weights[node.op.name]
        return kernel, bias + np.float32(node.bias_shift)


def _conv(graph: _Graph, node: Node) -> None:
    """Write a convolution: kernels OIHW, those of depthwise ones C1HW; a bias of zeros is left out."""
    assert node.op
    kernel, bias = graph.kernel_and_bias(node)
    kernel = kernel if kernel.ndim == 4 else kernel[None, None]  # a dense layer over one pixel
    depthwise = node.kind == "depthwise"
    weights = [
        graph.constant(
            f"{node.name}.kernel", kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        )
    ]
    if bias.any():
        weights.append(graph.constant(f"{node.name}.bias", bias))
    group = kernel.shape[2] if depthwise else 1
    _convolve(graph, node, weights, kernel.shape[0], node.op.stride, group)


def _convolve(graph: _Graph, node: Node, weights: Sequence[str], side: int, stride: int, group: int) -> None:
    before, after = node.pads
    pads = [before, before, after, after]
    graph.give(node, "Conv", weights, kernel_shape=[side, side], strides=[stride, stride], pads=pads, group=group)


def _quarter(graph: _Graph, node: Node) -> None:
    channels = node.output.shape[-1]
    kernel = graph.constant(f"{node.name}.kernel", np.full((channels, 1, 2, 2), 0.25, np.float32))
    _convolve(graph, node, [kernel], 2, 2, channels)


def _dense(graph: _Graph, node: Node) -> None:
    kernel, bias = graph.kernel_and_bias(node)
    weights = [graph.constant(f"{node.name}.kernel", kernel), graph.constant(f"{node.name}.bias", bias)]
    graph.give(node, "Gemm", weights)


def _average(graph: _Graph, node: Node) -> None:
    odd = node.inputs[0].shape[0] % 2  # what is padded does not count
    graph.give(node, "AveragePool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, odd, odd])


def _mean(graph: _Graph, node: Node) -> None:
    if len(node.output.shape) == 3:
        graph.give(node, "GlobalAveragePool")
        return
    pooled = graph.add("GlobalAveragePool", graph.inputs(node), f"{node.name}.map")
    graph.names[node.name] = graph.add("Flatten", [pooled], node.name, axis=1)


def _sixth(graph: _Graph, node: Node) -> None:
    graph.give(node, "Mul", [graph.constant("sixth", np.array(1 / 6, np.float32))])


def _pad_map(graph: _Graph, node: Node) -> None:
    before, after = node.pads
    by = graph.constant(f"{node.name}.by", np.array([0, 0, before, before, 0, 0, after, after], np.int64))
    graph.give(node, "Pad", [by])


def _pad_channels(graph: _Graph, node: Node) -> None:
    more = node.output.shape[-1] - node.inputs[0].shape[-1]
    graph.give(node, "Pad", [graph.constant(f"{node.name}.by", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))])


def _cut_channels(graph: _Graph, node: Node) -> None:
    end = graph.constant(f"{node.name}.end", np.array([node.output.shape[-1]], np.int64))
    one = graph.constant("one", np.array([1], np.int64))
    graph.give(node, "Slice", [graph.constant("start", np.array([0], np.int64)), end, one])


def _subsample(graph: _Graph, node: Node) -> None:
    numbers = {
        "begins": [0, 0],
        "ends": list(node.inputs[0].shape[:2]),
        "height_and_width": [2, 3],
        "steps": [2, 2],
    }
    more = [graph.constant(f"{node.name}.{name}", np.array(values, np.int64)) for name, values in numbers.items()]
    graph.give(node, "Slice", more)


def _normalise(graph: _Graph, node: Node) -> None:
    """Write (pixel - mean) / std; never folded into the stem, whose zeros lie around normalised images."""
    assert graph.normalisation
    mean, std = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in graph.normalisation)
    centred = graph.add("Sub", [*graph.inputs(node), graph.constant("mean", mean)], f"{node.name}.centred")
    scale = graph.constant("scale", (1 / std).astype(np.float32))
    graph.names[node.name] = graph.add("Mul", [centred, scale], node.name)


def _plain(kind: str, **attributes: Any) -> Callable[[_Graph, Node], None]:
    return lambda graph, node: graph.give(node, kind, **attributes)


def _activation(graph: _Graph, node: Node) -> None:
    graph.activate(node, node.kind, graph.inputs(node))


WRITERS: Mapping[str, Callable[[_Graph, Node], None]] = {
    "conv": _conv,
    "depthwise": _conv,
    "dense": _dense,
    "quarter": _quarter,
    "average": _average,
    "mean": _mean,
    "add": _plain("Add"),
    "multiply": _plain("Mul"),
    "sixth": _sixth,
    "sigmoid": _plain("Sigmoid"),
    "hard_swish": _plain("HardSwish"),
    "relu": _activation,
    "relu6": _activation,
    "pad_map": _pad_map,
    "pad_channels": _pad_channels,
    "cut_channels": _cut_channels,
    "subsample": _subsample,
    "normalise": _normalise,
    "softmax": _plain("Softmax", axis=-1),
}
