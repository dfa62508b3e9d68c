"""An int8 TFLite file as C++ source for tflite-micro: ``model.h`` and ``model.cc``.

Neither includes a header of tflite-micro: the file is an aligned array, and the operators it needs are a macro that a
program applies to its resolver (docs/MICRO.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from bignas_zoo.errors import IntegrityError, QualityError

HEADER, SOURCE = "model.h", "model.cc"
#: Added to the estimate of the arena, in parts of it: what tests have found missing on 64 bits is 1 %.
SPARE = 0.02
BYTES_A_LINE = 12
#: How tflite-micro's resolver calls operators: ``MicroMutableOpResolver::Add...``
RESOLVER = {
    "ADD": "Add", "AVERAGE_POOL_2D": "AveragePool2D", "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "FULLY_CONNECTED": "FullyConnected", "HARD_SWISH": "HardSwish", "LOGISTIC": "Logistic", "MEAN": "Mean",
    "MUL": "Mul", "PAD": "Pad", "QUANTIZE": "Quantize", "RELU": "Relu", "RELU6": "Relu6", "SOFTMAX": "Softmax",
    "STRIDED_SLICE": "StridedSlice", "SUB": "Sub",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What the source says beside the file itself.

    Attributes:
        name: of the slice.
        license: of its weights.
        arena_bytes: that its interpreter needs, estimated.
        side: of the input in pixels.
        labels: names of classes, in the order of the scores.
        mean, std: that pixels are normalised with, red, green, blue.
    """

    name: str
    license: str
    arena_bytes: int
    side: int
    labels: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]


def c_source(model: bytes, facts: Facts) -> dict[str, bytes]:
    """Return the two files, by name; the same arguments give the same bytes.

    Args:
        model: an int8 TFLite file whose ends are int8 or uint8.
        facts: what is said beside it.

    Raises:
        QualityError: tflite-micro has no such operator.
    """
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    (graph,) = parsed.subgraphs
    ends = [graph.tensors[int(index)] for index in (graph.inputs[0], graph.outputs[0])]
    kind = "std::uint8_t" if ends[0].type == schema.TensorType.UINT8 else "std::int8_t"
    header = _header(facts, _operators(parsed), kind, *(_scale(tensor) for tensor in ends))
    return {HEADER: header.encode(), SOURCE: _source(model, facts).encode()}


def array_of(source: bytes) -> bytes:
    """Read the TFLite file back out of ``model.cc``.

    Raises:
        IntegrityError: it holds none.
    """
    match = re.search(rb"kModel\[\] = \{([^}]*)\}", source)
    if not match:
        raise IntegrityError(f"{SOURCE}: holds no array kModel. Export it again.")
    return bytes(int(text, 16) for text in match[1].replace(b"\n", b"").split(b",") if text.strip())


def _operators(model: schema.ModelT) -> list[str]:
    """Return the operators that a file needs, as the resolver calls them."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    needed = sorted({names[int(code.builtinCode)] for code in model.operatorCodes})
    missing = [name for name in needed if name not in RESOLVER]
    if missing:
        raise QualityError(f"c: operators that are not known to be in tflite-micro: {', '.join(missing)}.")
    return [RESOLVER[name] for name in needed]


def _scale(tensor: schema.TensorT) -> tuple[float, int]:
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])


def _header(
    facts: Facts, operators: Sequence[str], kind: str, given: tuple[float, int], scores: tuple[float, int]
) -> str:
    arena = -(-int(facts.arena_bytes * (1 + SPARE)) // 16) * 16
    normalised = (
        "pixels 0 to 255, red, green, blue, as they are"
        if kind == "std::uint8_t"
        else "round((pixel - kMean[c]) / kStd[c] / kInputScale) + kInputZero, kept within -128 and 127"
    )
    vectors = (
        (name, ", ".join(_float(v) for v in values)) for name, values in (("Mean", facts.mean), ("Std", facts.std))
    )
    lines = [
        f"// {_comment(facts.name)}: an image classifier for tflite-micro, written by bignas-zoo.",
        f"// Licence of the weights: {_comment(facts.license)}.",
        "#ifndef BIGNAS_ZOO_MODEL_H_",
        "#define BIGNAS_ZOO_MODEL_H_",
        "",
        "#include <cstddef>",
        "#include <cstdint>",
        "",
        "// The TFLite file, aligned to 16 bytes.",
        "extern const unsigned char kModel[];",
        "extern const std::size_t kModelBytes;",
        "",
        "// Memory for the interpreter. Estimated for 64 bits with 2 % to spare; MicroInterpreter::arena_used_bytes()",
        "// tells what it came to on your board.",
        f"constexpr std::size_t kArenaBytes = {arena};",
        "",
        f"// Input [1, {facts.side}, {facts.side}, 3]: {normalised}.",
        f"using ModelValue = {kind};",
        f"constexpr int kInputSide = {facts.side};",
        f"constexpr float kInputScale = {_float(given[0])};",
        f"constexpr int kInputZero = {given[1]};",
        *(f"constexpr float k{name}[3] = {{{values}}};" for name, values in vectors),
        "",
        f"// Output [1, {len(facts.labels)}]: the probability of class i is (value - kScoreZero) * kScoreScale.",
        f"constexpr int kClasses = {len(facts.labels)};",
        f"constexpr float kScoreScale = {_float(scores[0])};",
        f"constexpr int kScoreZero = {scores[1]};",
        "extern const char* const kLabels[kClasses];",
        "",
        "// Every operator that the file needs, for a resolver: see docs/MICRO.md of bignas-zoo.",
        f"constexpr int kOperators = {len(operators)};",
        "#define MODEL_OPERATORS(ADD) \\",
        *(f"  ADD({name}) \\" for name in operators[:-1]),
        f"  ADD({operators[-1]})",
        "",
        "#endif  // BIGNAS_ZOO_MODEL_H_",
    ]
    return "\n".join(lines) + "\n"


def _source(model: bytes, facts: Facts) -> str:
    rows = (model[i : i + BYTES_A_LINE] for i in range(0, len(model), BYTES_A_LINE))
    array = ",\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    labels = ",\n".join(f"    {_text(label)}" for label in facts.labels)
    return (
        f'#include "{HEADER}"\n\n'
        f"alignas(16) const unsigned char kModel[] = {{\n{array}}};\n"
        f"const std::size_t kModelBytes = {len(model)};\n\n"
        f"const char* const kLabels[kClasses] = {{\n{labels}}};\n"
    )


def _float(value: float) -> str:
    """Return a literal that reads back as the same float32."""
    text = repr(float(value))
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.0f"


def _comment(text: str) -> str:
    """Return text that stays on its line of comment, whatever it holds."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text).rstrip("\\")


def _text(text: str) -> str:
    """Return a C string of UTF-8 text; bytes beyond ASCII, quotes and question marks (trigraphs) in octal."""
    plain = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{plain}"'
