"""The ends of an int8 TFLite file: float32 as the quantiser leaves them, or int8 or uint8.

The quantiser puts a QUANTIZE behind the float input and a DEQUANTIZE before the float output. With int8 ends both go.
With uint8 ends the first turns uint8 into int8 and the last int8 back, by the same scale and a zero point 128 higher.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from bignas_zoo.errors import QualityError

OPERATORS, TYPES = schema.BuiltinOperator, schema.TensorType
#: How much higher zero is stored as uint8.
SHIFT = 128


def with_ends(model: bytes, io: str) -> bytes:
    """Put all buffers into the flatbuffer, where every runtime finds them, and give both ends a type.

    Args:
        model: an int8 file with one float32 input and one float32 output.
        io: "float32", "int8" or "uint8".

    Returns:
        The file.

    Raises:
        QualityError: the file does not begin and end as a quantised one does.
    """
    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    for buffer in parsed.buffers:
        if isinstance(buffer.data, bytearray):  # else they are written byte by byte, for seconds
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    if io == "int8":
        _cut_ends(parsed)
    elif io == "uint8":
        _shift_ends(parsed)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


def _ends(model: Any) -> tuple[Any, Any]:
    """Return the operator behind the input and the one before the output."""
    (graph,) = model.subgraphs
    first = [o for o in graph.operators if _code(model, o) == OPERATORS.QUANTIZE and o.inputs[0] == graph.inputs[0]]
    last = [o for o in graph.operators if _code(model, o) == OPERATORS.DEQUANTIZE and o.outputs[0] == graph.outputs[0]]
    if len(first) != 1 or len(last) != 1:
        raise QualityError("int8: the quantised file does not begin and end in float32. Take another version of it.")
    return first[0], last[0]


def _code(model: Any, operator: Any) -> int:
    return int(model.operatorCodes[operator.opcodeIndex].builtinCode)


def _cut_ends(model: Any) -> None:
    """Leave out both operators, and the two float tensors that nothing reads any more."""
    first, last = _ends(model)
    (graph,) = model.subgraphs
    gone = (int(first.inputs[0]), int(last.outputs[0]))
    graph.operators = [o for o in graph.operators if o is not first and o is not last]
    kept = [number for number in range(len(graph.tensors)) if number not in gone]
    place = {number: index for index, number in enumerate(kept)} | {-1: -1}
    place |= {gone[0]: place[int(first.outputs[0])], gone[1]: place[int(last.inputs[0])]}
    graph.tensors = [graph.tensors[number] for number in kept]
    for operator in graph.operators:
        operator.inputs = [place[int(number)] for number in operator.inputs]
        operator.outputs = [place[int(number)] for number in operator.outputs]
    graph.inputs, graph.outputs = [place[gone[0]]], [place[gone[1]]]
    for entry in (end for signature in model.signatureDefs for end in (*signature.inputs, *signature.outputs)):
        entry.tensorIndex = place[int(entry.tensorIndex)]
    _drop_unused_codes(model)


def _drop_unused_codes(model: Any) -> None:
    """Leave out the codes of operators that are gone: microcontrollers must be told of each that a file names."""
    (graph,) = model.subgraphs
    used = sorted({int(o.opcodeIndex) for o in graph.operators})
    model.operatorCodes = [model.operatorCodes[number] for number in used]
    for operator in graph.operators:
        operator.opcodeIndex = used.index(int(operator.opcodeIndex))


def _shift_ends(model: Any) -> None:
    """Make both float tensors uint8, and the last operator one that quantises."""
    first, last = _ends(model)
    (graph,) = model.subgraphs
    for outer, inner in ((first.inputs[0], first.outputs[0]), (last.outputs[0], last.inputs[0])):
        tensor, scale = graph.tensors[int(outer)], graph.tensors[int(inner)].quantization
        tensor.type = TYPES.UINT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = list(scale.scale)
        tensor.quantization.zeroPoint = [int(zero) + SHIFT for zero in scale.zeroPoint]
    last.opcodeIndex = first.opcodeIndex
    last.builtinOptionsType, last.builtinOptions = schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT()
    _drop_unused_codes(model)
