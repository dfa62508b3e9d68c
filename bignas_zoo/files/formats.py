"""What to export: formats, precisions, the form of inputs and outputs, and which of them go together."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from bignas_zoo.errors import UsageError

#: Precisions that each format has.
FORMATS: dict[str, tuple[str, ...]] = {
    "tflite": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32", "int8"),
    "keras": ("float32",),
    "saved_model": ("float32",),
    "c": ("int8",),
}
#: Formats that Keras writes.
OF_KERAS = ("keras", "saved_model")
PRECISIONS = ("float32", "float16", "dynamic", "int8")
TYPES = ("float32", "int8", "uint8")
LAYOUTS = ("nhwc", "nchw")
#: Names of exported files, and of those that missed their gate (see `Export.file`).
EXPORT_NAME = re.compile(
    r"(model(-(float16|dynamic|int8))?(-u?int8)?(-nchw)?(-pixels)?(-batch[0-9]+)?\.(tflite|onnx|keras)"
    r"|saved_model(-pixels)?|micro(-uint8)?)(\.rejected)?"
)
#: Part of the first classes of a file with int8 weights that must be the Keras model's, where no labels are known.
AGREEMENT_WITHOUT_LABELS = 0.9
#: Of the data of a report on photographs; and how a picture in them begins: any other address would be fetched.
REPORT_SCHEMA, THUMBNAIL = "bignas-zoo/report/1", "data:image/jpeg;base64,"
SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx", "keras": ".keras"}
#: Formats that are folders.
FOLDERS = {"saved_model": "saved_model", "c": "micro"}


@dataclass(frozen=True)
class Export:
    """One file to export.

    Attributes:
        format: "tflite", "onnx", "keras", "saved_model" (a folder), or "c" (a folder with an int8 TFLite file as C++
            source, for microcontrollers).
        precision: "float32"; "float16" (weights stored in half precision), "dynamic" (weights in int8, activations
            quantised as they come) or "int8" (weights and activations). TFLite has all, ONNX float32 and int8.
        batch: images a call of a TFLite file; the other formats take any number.
        io: type of an int8 TFLite file's input and scores: "float32", "int8", or "uint8", which takes raw pixels; of
            "c" one of the last two.
        layout: of an ONNX file's input, "nhwc" or "nchw".
        normalize_in_graph: the file takes pixel values 0 to 255 and normalises them itself.
    """

    format: str = "tflite"
    precision: str = "float32"
    batch: int = 1
    io: str = "float32"
    layout: str = "nhwc"
    normalize_in_graph: bool = False

    def __post_init__(self) -> None:
        _among("format", self.format, tuple(FORMATS))
        _among("precision", self.precision, PRECISIONS)
        _among("io", self.io, TYPES)
        _among("layout", self.layout, LAYOUTS)
        if self.precision not in FORMATS[self.format]:
            raise UsageError(
                f"export: {self.format} has no precision '{self.precision}'; "
                f"allowed: {', '.join(FORMATS[self.format])}."
            )
        if type(self.batch) is not int or not 1 <= self.batch <= 1024:
            raise UsageError(f"export: batch must be a whole number from 1 to 1024, got {self.batch!r}.")
        if self.io != "float32" and (self.format, self.precision) not in (("tflite", "int8"), ("c", "int8")):
            raise UsageError(f"export: io '{self.io}' is for --format tflite --precision int8 and --format c only.")
        if self.format == "c" and (self.io == "float32" or self.normalize_in_graph):
            raise UsageError("export: c has io int8 (normalised values) or uint8 (pixels), and no normalize_in_graph.")
        if self.layout != "nhwc" and self.format != "onnx":
            raise UsageError(f"export: layout '{self.layout}' is for --format onnx only; {self.format} takes nhwc.")
        if self.batch != 1 and self.format != "tflite":
            raise UsageError(f"export: batch is for --format tflite only; {self.format} takes any number of images.")
        if self.format == "keras" and self.normalize_in_graph:
            raise UsageError("export: the keras format is the plain child; normalize_in_graph is for the others.")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON data."""
        return asdict(self)

    @property
    def takes_pixels(self) -> bool:
        """Whether the input is pixel values 0 to 255: normalised in the graph, or uint8."""
        return self.normalize_in_graph or self.io == "uint8"

    @property
    def file(self) -> str:
        """The file's usual name: ``model.tflite``, ``model-int8.tflite``, ``saved_model``."""
        if self.format == "c":
            return FOLDERS["c"] + ("-uint8" if self.io == "uint8" else "")
        stem = "model" if self.precision == "float32" else f"model-{self.precision}"
        if self.io != "float32":
            stem += f"-{self.io}"
        if self.layout != "nhwc":
            stem += f"-{self.layout}"
        if self.normalize_in_graph:
            stem += "-pixels"
        if self.batch != 1:
            stem += f"-batch{self.batch}"
        if self.format in FOLDERS:
            return FOLDERS[self.format] + stem.removeprefix("model")
        return stem + SUFFIXES[self.format]


def _among(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"export: {what} is '{value}'; allowed: {', '.join(allowed)}.")
