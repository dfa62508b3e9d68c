"""Nodes of a network to the bytes of a TFLite file: float32, float16, or int8 weights.

The operators, their versions and options are those that TensorFlow's converter gives the same networks, operator by
operator (`tests/test_writers.py`); facts of the format are from its schema, github.com/tensorflow/tensorflow,
tensorflow/compiler/mlir/lite/schema/schema.fbs (Apache-2.0), version 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from bignas_zoo.architecture.lowering import IMAGE, SCORES, Node, Value, same_padding

SIGNATURE = "classify"
#: Values of a kernel from which on "dynamic" stores it in int8.
LEAST_DYNAMIC = 1024
#: The schema asks for buffers at multiples of this.
ALIGNMENT = 16
OPERATORS, TYPES = schema.BuiltinOperator, schema.TensorType
TYPE_OF = {"float32": TYPES.FLOAT32, "float16": TYPES.FLOAT16, "int32": TYPES.INT32, "int8": TYPES.INT8}
ACTIVATIONS = {"": 0, "relu": 1, "relu6": 3}
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
#: Versions of operators whose kernel is int8 and whose input is not.
HYBRID = {"conv": 5, "depthwise": 6, "dense": 12}

Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]


def write_tflite(
    nodes: Sequence[Node],
    weights: Weights,
    *,
    precision: str = "float32",
    batch: int = 1,
    normalisation: tuple[np.ndarray, np.ndarray] | None = None,
) -> bytes:
    """Write a file of one signature, from images to scores; the same arguments give the same bytes.

    Args:
        nodes: see `architecture.lowering.lower`.
        weights: folded kernel and bias of each operation, see `models.folding.folded`.
        precision: "float32"; "float16": weights and biases are stored so, widened as they are read; "dynamic": kernels
            of 1,024 values and more are int8, with a scale a channel.
        batch: images a call.
        normalisation: mean and standard deviation of pixels, ``[3]`` each, for a "normalise" node.
    """
    file = _File(precision, batch)
    file.image(nodes[0].inputs[0])
    for node in nodes:
        WRITERS[node.kind](file, node, weights, normalisation)
    return file.packed()


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """The generated class aligns to 4 bytes and writes byte by byte."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  the schema's name
        """Write the buffer and return where."""
        data = None
        if self.data is not None:
            builder.Prep(ALIGNMENT, len(self.data))
            data = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


class _File:
    """What is being written."""

    def __init__(self, precision: str, batch: int) -> None:
        self.precision, self.batch = precision, batch
        self.buffers: list[Any] = [_Buffer()]  # the first is empty: that of everything that is computed
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[tuple[int, int]] = []
        self.index: dict[str, int] = {}
        self.constants: dict[str, int] = {}

    def image(self, value: Value) -> None:
        """Add the input."""
        self.index[value.name] = self.tensor(value.name, (self.batch, *value.shape))

    def tensor(self, name: str, shape: Sequence[int], kind: int = TYPES.FLOAT32, buffer: int = 0) -> int:
        """Add a tensor and return its number."""
        self.tensors.append(
            _filled(schema.TensorT, name=name, shape=list(shape), type=kind, buffer=buffer, hasRank=True)
        )
        return len(self.tensors) - 1

    def constant(self, name: str, array: np.ndarray) -> int:
        """Add a constant, once a name, and return its number.

        Never shared by content: a quantiser gives equal biases different scales.
        """
        if name not in self.constants:
            self.buffers.append(_filled(_Buffer, data=np.ascontiguousarray(array).tobytes()))
            kind = TYPE_OF[array.dtype.name]
            self.constants[name] = self.tensor(name, array.shape, kind, len(self.buffers) - 1)
        return self.constants[name]

    def weight(self, name: str, array: np.ndarray, axis: int | None) -> int:
        """Add a kernel (or a bias, without an axis) in the file's precision and return the number of what reads it."""
        if self.precision == "float16":
            half = self.constant(name, array.astype(np.float16))
            wide = self.tensor(f"{name}.wide", array.shape)
            self.operator(OPERATORS.DEQUANTIZE, 3, [half], [wide], schema.DequantizeOptionsT())
            return wide
        if self.precision == "dynamic" and axis is not None and array.size >= LEAST_DYNAMIC:
            return self._int8(name, array, axis)
        return self.constant(name, array)

    def _int8(self, name: str, array: np.ndarray, axis: int) -> int:
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = (np.maximum(np.abs(array).max(others, keepdims=True), 1e-12) / 127).astype(np.float32)
        number = self.constant(name, np.rint(array / scale).clip(-127, 127).astype(np.int8))
        self.tensors[number].quantization = _filled(
            schema.QuantizationParametersT,
            scale=scale.ravel().tolist(),
            zeroPoint=[0] * scale.size,
            quantizedDimension=axis,
        )
        return number

    def operator(self, code: int, version: int, inputs: list[int], outputs: list[int], options: Any = None) -> None:
        """Add an operator."""
        if (code, version) not in self.codes:
            self.codes.append((code, version))
        kind = type(options).__name__.removesuffix("T") if options is not None else "NONE"
        self.operators.append(
            _filled(
                schema.OperatorT,
                opcodeIndex=self.codes.index((code, version)),
                inputs=inputs,
                outputs=outputs,
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )

    def give(self, node: Node, code: int, more: Sequence[int] = (), options: Any = None, version: int = 1) -> None:
        """Add the operator of a node: its inputs, then constants."""
        inputs = [*(self.index[value.name] for value in node.inputs), *more]
        self.index[node.name] = self.tensor(node.name, (self.batch, *node.output.shape))
        self.operator(code, version, inputs, [self.index[node.name]], options)

    def packed(self) -> bytes:
        """Return the file."""
        ends = {
            side: [_filled(schema.TensorMapT, name=name, tensorIndex=self.index[name])]
            for side, name in (("inputs", IMAGE), ("outputs", SCORES))
        }
        graph = _filled(
            schema.SubGraphT,
            name="main",
            tensors=self.tensors,
            operators=self.operators,
            inputs=[self.index[IMAGE]],
            outputs=[self.index[SCORES]],
        )
        codes = [
            _filled(schema.OperatorCodeT, builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)
            for code, version in self.codes
        ]
        model = _filled(
            schema.ModelT,
            version=3,
            description="bignas-zoo",
            buffers=self.buffers,
            operatorCodes=codes,
            subgraphs=[graph],
            signatureDefs=[_filled(schema.SignatureDefT, signatureKey=SIGNATURE, subgraphIndex=0, **ends)],
        )
        builder = flatbuffers.Builder(sum(len(buffer.data or b"") for buffer in self.buffers) + (1 << 16))
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _filled(cls: Callable[[], Any], **fields: Any) -> Any:
    """Return an object of the schema with fields set."""
    value = cls()
    for name, field in fields.items():
        setattr(value, name, field)
    return value


Ends = tuple[np.ndarray, np.ndarray] | None


def _conv(file: _File, node: Node, weights: Weights, _: Ends) -> None:
    """Write a convolution, depthwise or not; kernels OHWI, those of depthwise ones 1HWC."""
    assert node.op
    depthwise = node.kind == "depthwise"
    kernel, bias = _kernel_and_bias(node, weights)
    side = kernel.shape[0] if kernel.ndim == 4 else 1
    kernel = kernel if kernel.ndim == 4 else kernel[None, None]  # a dense layer over one pixel
    options = _filled(
        schema.DepthwiseConv2DOptionsT if depthwise else schema.Conv2DOptionsT,
        padding=SAME if node.pads == same_padding(node.inputs[0].shape[0], side, node.op.stride) else VALID,
        strideW=node.op.stride,
        strideH=node.op.stride,
        fusedActivationFunction=ACTIVATIONS[node.activation],
    )
    if depthwise:
        options.depthMultiplier = 1
    _weighted(file, node, kernel.transpose(3, 0, 1, 2), bias, 3 if depthwise else 0, options)


def _dense(file: _File, node: Node, weights: Weights, _: Ends) -> None:
    kernel, bias = _kernel_and_bias(node, weights)
    options = _filled(schema.FullyConnectedOptionsT, fusedActivationFunction=ACTIVATIONS[node.activation])
    _weighted(file, node, kernel.T, bias, 0, options)


def _kernel_and_bias(node: Node, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    assert node.op
    kernel, bias = weights[node.op.name]
    return kernel, bias + np.float32(node.bias_shift) if node.bias_shift else bias


def _weighted(file: _File, node: Node, kernel: np.ndarray, bias: np.ndarray, axis: int, options: Any) -> None:
    numbers = [file.weight(f"{node.name}.kernel", kernel, axis), file.weight(f"{node.name}.bias", bias, None)]
    codes = {"conv": OPERATORS.CONV_2D, "depthwise": OPERATORS.DEPTHWISE_CONV_2D, "dense": OPERATORS.FULLY_CONNECTED}
    hybrid = file.tensors[numbers[0]].type == TYPES.INT8
    file.give(node, codes[node.kind], numbers, options, HYBRID[node.kind] if hybrid else 1)


def _quarter(file: _File, node: Node, *_: Any) -> None:
    channels = node.output.shape[-1]
    kernel = file.constant(f"{node.name}.kernel", np.full((1, 2, 2, channels), 0.25, np.float32))
    bias = file.constant(f"{node.name}.bias", np.zeros(channels, np.float32))
    options = _filled(schema.DepthwiseConv2DOptionsT, padding=SAME, strideW=2, strideH=2, depthMultiplier=1)
    file.give(node, OPERATORS.DEPTHWISE_CONV_2D, [kernel, bias], options)


def _average(file: _File, node: Node, *_: Any) -> None:
    options = _filled(schema.Pool2DOptionsT, padding=SAME, strideW=2, strideH=2, filterWidth=2, filterHeight=2)
    file.give(node, OPERATORS.AVERAGE_POOL_2D, (), options)


def _mean(file: _File, node: Node, *_: Any) -> None:
    options = _filled(schema.ReducerOptionsT, keepDims=len(node.output.shape) == 3)
    file.give(node, OPERATORS.MEAN, [file.constant("axes", np.array([1, 2], np.int32))], options)


def _add(file: _File, node: Node, *_: Any) -> None:
    options = _filled(schema.AddOptionsT, potScaleInt16=True, fusedActivationFunction=ACTIVATIONS[node.activation])
    file.give(node, OPERATORS.ADD, (), options)


def _multiply(file: _File, node: Node, *_: Any) -> None:
    file.give(node, OPERATORS.MUL, (), schema.MulOptionsT())


def _sixth(file: _File, node: Node, *_: Any) -> None:
    file.give(node, OPERATORS.MUL, [file.constant("sixth", np.array([1 / 6], np.float32))], schema.MulOptionsT())


def _plain(code: int) -> Callable[..., None]:
    return lambda file, node, *_: file.give(node, code)


def _pad_map(file: _File, node: Node, *_: Any) -> None:
    by = np.array([[0, 0], node.pads, node.pads, [0, 0]], np.int32)
    file.give(node, OPERATORS.PAD, [file.constant(f"{node.name}.by", by)], schema.PadOptionsT())


def _pad_channels(file: _File, node: Node, *_: Any) -> None:
    more = node.output.shape[-1] - node.inputs[0].shape[-1]
    by = np.array([[0, 0], [0, 0], [0, 0], [0, more]], np.int32)
    file.give(node, OPERATORS.PAD, [file.constant(f"{node.name}.by", by)], schema.PadOptionsT())


def _cut_channels(file: _File, node: Node, *_: Any) -> None:
    _strided(file, node, end=[0, 0, 0, node.output.shape[-1]], step=[1, 1, 1, 1], whole=7)


def _subsample(file: _File, node: Node, *_: Any) -> None:
    _strided(file, node, end=[0, 0, 0, 0], step=[1, 2, 2, 1], whole=15)


def _strided(file: _File, node: Node, *, end: list[int], step: list[int], whole: int) -> None:
    """Write a slice from the first entry of each axis; `whole` has a bit for each axis that goes to its end."""
    numbers = [
        file.constant("zeros", np.zeros(4, np.int32)),
        file.constant(f"{node.name}.end", np.array(end, np.int32)),
        file.constant(f"{node.name}.step", np.array(step, np.int32)),
    ]
    options = _filled(schema.StridedSliceOptionsT, beginMask=whole, endMask=whole)
    file.give(node, OPERATORS.STRIDED_SLICE, numbers, options)


def _normalise(file: _File, node: Node, _: Weights, normalisation: Ends) -> None:
    """Write (pixel - mean) / std; never folded into the stem, whose zeros lie around normalised images."""
    assert normalisation
    mean, std = (np.asarray(values, np.float32) for values in normalisation)
    centred = file.tensor(f"{node.name}.centred", (file.batch, *node.output.shape))
    image = file.index[node.inputs[0].name]
    file.operator(OPERATORS.SUB, 1, [image, file.constant("mean", mean)], [centred], schema.SubOptionsT())
    file.index[node.name] = file.tensor(node.name, (file.batch, *node.output.shape))
    scale = file.constant("scale", (1 / std).astype(np.float32))
    file.operator(OPERATORS.MUL, 1, [centred, scale], [file.index[node.name]], schema.MulOptionsT())


def _softmax(file: _File, node: Node, *_: Any) -> None:
    file.give(node, OPERATORS.SOFTMAX, (), _filled(schema.SoftmaxOptionsT, beta=1.0))


WRITERS: Mapping[str, Callable[..., None]] = {
    "conv": _conv,
    "depthwise": _conv,
    "dense": _dense,
    "quarter": _quarter,
    "average": _average,
    "mean": _mean,
    "add": _add,
    "multiply": _multiply,
    "sixth": _sixth,
    "sigmoid": _plain(OPERATORS.LOGISTIC),
    "hard_swish": _plain(OPERATORS.HARD_SWISH),
    "relu": _plain(OPERATORS.RELU),
    "relu6": _plain(OPERATORS.RELU6),
    "pad_map": _pad_map,
    "pad_channels": _pad_channels,
    "cut_channels": _cut_channels,
    "subsample": _subsample,
    "normalise": _normalise,
    "softmax": _softmax,
}
