"""Int8 ONNX files in QDQ form: int8 weights, uint8 activations, ranges from real images by percentiles.

QDQ is a plain ONNX graph in which QuantizeLinear and DequantizeLinear stand around each operation; a runtime with
integer kernels fuses them. Unsigned activations, because onnxruntime's x86 kernels are four to five times slower
with signed ones. The graph is rewritten by onnxruntime.quantization; its own percentile calibrator keeps every
activation of every image in memory, so the ranges are found here.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import onnxruntime

from bignas_zoo.errors import QualityError
from bignas_zoo.export.onnx_graph import canonical, finish
from bignas_zoo.export.ranges import COVER, Ranges, Tell, check_images, covered_ranges
from bignas_zoo.runtime.quiet import quiet_native

#: Operations with integer kernels, and those that only move values. Others, softmax among them, stay float.
QUANTISED = (
    "Add", "AveragePool", "Clip", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "Mul", "Pad", "Relu", "Reshape",
    "Sigmoid", "Slice", "Squeeze", "Transpose",
)  # fmt: skip
CLASSIFIER = ("MatMul", "Gemm")
#: Images a call while ranges are found.
CHUNK = 32


def quantise(
    model: bytes,
    images: np.ndarray,
    *,
    per_channel: bool = True,
    cover: float = COVER,
    reduce_range: bool = True,
    pixels: bool = False,
) -> bytes:
    """Turn a float32 ONNX file of `bignas_zoo.export.onnx.convert` into one of int8.

    Convolutions and what is between them become integer; normalisation in the graph, the logits and the softmax
    stay float. Names, the free batch dimension and ``metadata_props`` are kept; the same arguments give the same
    bytes.

    Args:
        model: the float32 file, nhwc or nchw.
        images: ``[n, size, size, 3]`` float32 with the values the file takes (nhwc for an nchw file as well); at
            least 64, from training.
        per_channel: a scale for each channel of a weight, not one for all.
        cover: percent of a tensor's values within its range at either end; 100 takes them all.
        reduce_range: weights of 7 bits: the kernels of x86 processors without VNNI add two products in 16 bits,
            which 8 bits overflow.
        pixels: whether the file takes pixel values, 0 to 255.

    Returns:
        The int8 file.

    Raises:
        UsageError: the images are too few or of another shape.
        QualityError: the file cannot be quantised, or the result is not valid.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    graph = onnx.load_from_string(model)
    outside = _left_float(graph)
    check_images(images, _image_shape(graph), pixels=pixels)
    ranges = activation_ranges(model, images, cover)
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    try:
        with quiet_native():
            work = QDQQuantizer(
                onnx.shape_inference.infer_shapes(graph),
                per_channel,
                reduce_range,
                onnx.TensorProto.INT8,
                onnx.TensorProto.UINT8,
                TensorsData(CalibrationMethod.MinMax, data),
                [],
                outside,
                list(QUANTISED),
                {"OpTypesToExcludeOutputQuantization": list(CLASSIFIER)},
            )
            work.quantize_model()
            work.model.topological_sort()
    except Exception as error:  # the library raises any kind
        raise QualityError(
            f"int8: the file cannot be quantised ({type(error).__name__}: {str(error)[:200]})."
        ) from error
    return finish(canonical(work.model.model), properties, graph.graph.name, graph.producer_name)


def activation_ranges(model: bytes, images: np.ndarray, cover: float) -> Ranges:
    """Run a float32 ONNX file on images and return the range of its input and of each tensor it computes.

    Args:
        model: with one float32 input.
        images: ``[n, size, size, 3]`` with the values the file takes.
        cover: see `covered_ranges`.

    Returns:
        The lower and upper end by tensor name.
    """
    return covered_ranges(partial(_each_tensor, _showing_all(model), images), cover)


def _each_tensor(session: onnxruntime.InferenceSession, images: np.ndarray, tell: Tell) -> None:
    (entry,) = session.get_inputs()
    first = entry.shape[1] == 3
    names = [value.name for value in session.get_outputs() if value.type == "tensor(float)"]
    for start in range(0, len(images), CHUNK):
        x = images[start : start + CHUNK].astype(np.float32)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x
        tell(entry.name, x)
        for name, values in zip(names, session.run(names, {entry.name: x}), strict=True):
            tell(name, values)


def _showing_all(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session whose outputs are all tensors, none of them fused away."""
    shown = onnx.load_from_string(model)
    known = {value.name for value in shown.graph.output}
    for node in shown.graph.node:
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1  # so that sums, and with them the bytes of the result, are always the same
    with quiet_native():
        return onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _left_float(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes before the first convolution and after the classifier's product."""
    nodes = list(model.graph.node)
    kinds = [node.op_type for node in nodes]
    if "Conv" not in kinds or not {*CLASSIFIER} & {*kinds}:
        raise QualityError(
            "int8: the file cannot be quantised: it has no convolution or no classifier. Give one that `to_onnx` made."
        )
    begin, end = kinds.index("Conv"), max(i for i, kind in enumerate(kinds) if kind in CLASSIFIER)
    return [node.name for i, node in enumerate(nodes) if i < begin or i > end]


def _image_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    sides = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return (*sides[1:], sides[0]) if sides[0] == 3 else tuple(sides)
