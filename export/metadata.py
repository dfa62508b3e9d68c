"""Metadata inside a TFLite file: what it is, how pixels become its input, what its scores are called.

Apps, the TensorFlow Lite Task Library and MediaPipe Tasks read them from the file itself. They are a second
FlatBuffers file (schema "TFLite Metadata", identifier ``M001``) in a buffer of the model, named
``TFLITE_METADATA`` in the model's list of metadata; the labels are a text file in a zip archive after the
model. Written without tflite-support, which does not exist for Python 3.12 and later.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bignas_zoo.errors import IntegrityError, QualityError, UsageError
from bignas_zoo.export.flatbuffer import MAX_TEXT, Flat, Ref, Scalar, Table, Writer
from bignas_zoo.export.packed_labels import MAX_LABELS, append_labels, has_archive, read_labels
from bignas_zoo.files import names

ENTRY = "TFLITE_METADATA"
MODEL_IDENTIFIER, METADATA_IDENTIFIER = b"TFL3", b"M001"
#: Bytes of metadata that are read, and of the name of an entry.
MAX_METADATA, MAX_ENTRY = 1 << 24, 1 << 10
#: The new part goes before the old one and is a multiple of this, so every buffer keeps its alignment.
ALIGNMENT, BUFFER_ALIGNMENT = 64, 16
#: Tensor types by number.
TYPES = {0: "float32", 3: "uint8", 9: "int8"}
#: The values of whole-number tensors.
RANGES = {3: (0.0, 255.0), 9: (-128.0, 127.0)}
#: Slots of the TFLite schema's table Model, all but the first of which are offsets.
VERSION, SUBGRAPHS, BUFFERS, METADATA, MODEL_SLOTS = 0, 2, 4, 6, 10
#: Slots of the offsets from the file's begin, in Buffer and in Operator; the next slot has the size.
BUFFER_OFFSET, OPERATOR_OFFSET = 1, 9
#: Values of the metadata schema's enumerations and unions.
RGB, IMAGE_PROPERTIES, FEATURE_PROPERTIES, NORMALISATION, AXIS_LABELS = 1, 2, 1, 1, 2
#: The greatest mean or std; one over it is the least std.
MAX_PIXEL = 1e6
#: Fields of `FileInfo` that are text.
TEXTS = ("name", "description", "version", "author", "license", "input_name", "output_name", "min_parser_version")

Three = tuple[float, float, float]


@dataclass(frozen=True)
class FileInfo:
    """What a TFLite image classifier says about itself.

    Attributes:
        name, description, version, author, license: free text.
        class_names: one line of text for each score, in order.
        mean, std: what an app must do to pixel values 0 to 255 before they are a float input, per channel (red,
            green, blue): ``(pixel - mean) / std``; (0, 0, 0) and (1, 1, 1) where the file takes pixels as they
            are. Kept as float32. MediaPipe refuses a float input whose channels differ in mean or std.
        input_name, output_name: what the two tensors are called.
        min_parser_version: of the metadata schema; all that is written here has been in its first version.

    Raises:
        UsageError: a value that the file cannot hold.
    """

    name: str
    description: str
    version: str
    author: str
    license: str
    class_names: tuple[str, ...]
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)
    input_name: str = "image"
    output_name: str = "scores"
    min_parser_version: str = "1.0.0"

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise UsageError(f"TFLite metadata: {problem}.")


def with_metadata(model: bytes, info: FileInfo) -> bytes:
    """Return a TFLite image classifier with metadata and labels added; the same input gives the same bytes.

    Nothing of the model is changed or moved against the rest of it: the new root, lists and metadata are put
    before it, as offsets of FlatBuffers point forward only, and ``labels.txt`` after it.

    Args:
        model: a file with one image ``[batch, height, width, 3]`` as input and scores ``[batch, classes]`` as
            output, each float32, int8 or uint8, without such metadata. Its other metadata stay.
        info: what to write.

    Returns:
        The new file. The Task Library and MediaPipe also ask for a batch of one, and for float32 or uint8.

    Raises:
        IntegrityError: the bytes are no TFLite file, or damaged.
        UsageError: it is not such a classifier, has metadata already, or `info` has another number of classes.
        QualityError: the result does not read back as `info`.
    """
    root = Flat(model, "TFLite file").root(MODEL_IDENTIFIER)
    if any(root.field(slot) is not None for slot in range(MODEL_SLOTS, root.slots)):
        raise UsageError("TFLite file: in a later version of the format than this one knows. Update bignas-zoo.")
    if has_archive(model) or any(_is_ours(entry) for entry in root.tables(METADATA)):
        raise UsageError("TFLite file: has metadata already. Add them to the file as the converter wrote it.")
    given, returned = _tensor_types(root)
    if (classes := _classes(root)) != len(info.class_names):
        raise UsageError(
            f"TFLite metadata: {len(info.class_names)} class names for {classes} scores. Give one a score."
        )
    before = _new_part(root, _describe(info, given, returned))
    body = bytearray(model)
    for at, value in _file_offsets(root).items():
        struct.pack_into("<Q", body, at, value + len(before))
    result = append_labels(before + body, info.class_names)
    if read_metadata(result) != replace(info, mean=_float32(info.mean), std=_float32(info.std)):
        raise QualityError("TFLite metadata: they do not read back as they were written; the file was not kept.")
    return result


def read_metadata(model: bytes) -> FileInfo:
    """Read the metadata of a TFLite image classifier, whoever wrote them.

    Args:
        model: any bytes; nothing in them is trusted.

    Returns:
        What the file says; text that it lacks is empty, normalisation that it lacks is (0, 0, 0) and (1, 1, 1).

    Raises:
        IntegrityError: the bytes are no TFLite file, are damaged, or hold no metadata of an image classifier.
    """
    root = Flat(model, "TFLite file").root(MODEL_IDENTIFIER)
    top = _stored(root)
    main = top.item(3, 0)
    given, returned = (main.item(2, 0), main.item(3, 0)) if main else (None, None)
    if given is None or returned is None:
        top.flat.damaged("they describe no input or no output")
    files = [file for file in returned.tables(6) if file.number(2, "b") == AXIS_LABELS]
    if not files:
        top.flat.damaged("the output has no labels, so this is not an image classifier")
    names = read_labels(model, files[0].text(0))
    if len(names) != _classes(root):
        top.flat.damaged(f"{len(names)} labels for {_classes(root)} scores")
    mean, std = _normalisation(given)
    name, description, version, author, terms = (top.text(slot) for slot in (0, 1, 2, 4, 5))
    tensors = given.text(0), returned.text(0)
    try:
        return FileInfo(name, description, version, author, terms, names, mean, std, *tensors, top.text(7))
    except UsageError as error:
        raise IntegrityError(f"TFLite file: {error} Make the file again.") from error


def _problem(info: FileInfo) -> str | None:
    """Return why metadata cannot be written, None if they can."""
    for field in TEXTS:
        text = getattr(info, field)
        if not isinstance(text, str) or not _plain(re.sub("[\t\r\n]", "", text)) or len(text.encode()) > MAX_TEXT:
            return f"{field} is {text!r:.60}; it must be text without control characters, of at most {MAX_TEXT:,} bytes"
    if not isinstance(info.class_names, tuple) or not info.class_names:
        return f"class_names is {info.class_names!r:.60}; it must be a tuple of at least one name"
    for number, name in enumerate(info.class_names):
        if not isinstance(name, str) or not name.strip() or not _plain(name):
            return f"class {number} is named {name!r:.60}; a name is one line of text that is not empty"
    if sum(len(name.encode()) + 1 for name in info.class_names) > MAX_LABELS:
        return f"the class names need more than {MAX_LABELS:,} bytes"
    for field in ("mean", "std"):
        values = getattr(info, field)
        if not isinstance(values, tuple) or len(values) != 3 or not all(_fits(v, field == "std") for v in values):
            least = f", of at least {1 / MAX_PIXEL:g}" if field == "std" else ""
            return f"{field} is {values!r:.60}; it must be three numbers{least} and at most {MAX_PIXEL:g}"
    return None


def _plain(text: str) -> bool:
    """Tell whether a text can be a line of a text file in UTF-8."""
    return not any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 or c in "\u2028\u2029" for c in text
    )


def _fits(value: Any, positive: bool) -> bool:
    """Tell whether a value is a number for pixels: so that float32 holds what is computed with it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_PIXEL:
        return False
    return value >= 1 / MAX_PIXEL if positive else True


def _tensors(root: Table, slot: int) -> tuple[Table, ...]:
    """Return the inputs (slot 1) or the outputs (slot 2) of the main graph."""
    graph = root.item(SUBGRAPHS, 0)
    tensors = [graph.item(0, index) for index in graph.numbers(slot, "i")] if graph else []
    if graph is None or None in tensors:
        root.flat.damaged("its graph lists a tensor that it does not have")
    return tuple(tensor for tensor in tensors if tensor)


def _tensor_types(root: Table) -> tuple[int, int]:
    """Return the types of the one input and the one output, once both are an image classifier's."""
    inputs, outputs = _tensors(root, 1), _tensors(root, 2)
    if len(inputs) != 1 or len(outputs) != 1:
        raise UsageError(
            f"TFLite file: {len(inputs)} inputs and {len(outputs)} outputs. Metadata can be written for an image "
            "classifier of one input and one output."
        )
    (given,), (returned,) = inputs, outputs
    shapes = given.numbers(0, "i"), returned.numbers(0, "i")
    if len(shapes[0]) != 4 or shapes[0][3] != 3 or len(shapes[1]) != 2:
        raise UsageError(
            f"TFLite file: input {shapes[0]} and output {shapes[1]}. An image classifier takes [batch, height, "
            "width, 3] and returns [batch, classes]."
        )
    kinds = given.number(1, "b"), returned.number(1, "b")
    for what, kind in zip(("input", "output"), kinds, strict=True):
        if kind not in TYPES:
            allowed = ", ".join(TYPES.values())
            raise UsageError(f"TFLite file: its {what} is of tensor type {kind}. Allowed: {allowed}.")
    return kinds


def _classes(root: Table) -> int:
    """Return how many scores the output has."""
    outputs = _tensors(root, 2)
    shape = outputs[0].numbers(0, "i") if outputs else []
    return shape[-1] if shape else 0


def _is_ours(entry: Table) -> bool:
    """Tell whether an entry of the model's metadata is the one that is read and written here."""
    return entry.blob(0, MAX_ENTRY) == ENTRY.encode()


def _stored(root: Table) -> Table:
    """Return the root of the metadata inside a model."""
    for entry in root.tables(METADATA):
        if _is_ours(entry):
            buffer = root.item(BUFFERS, entry.number(1, "I"))
            data = buffer.blob(0, MAX_METADATA) if buffer else b""
            return Flat(data, "TFLite metadata").root(METADATA_IDENTIFIER)
    raise IntegrityError(f"TFLite file: it holds no metadata (no entry {ENTRY}). Make the file again with them.")


def _normalisation(given: Table) -> tuple[Three, Three]:
    """Return mean and std of the input; one value stands for all channels."""
    for unit in given.tables(4):
        options = unit.table(1) if unit.number(0, "B") == NORMALISATION else None
        if options:
            mean, std = (options.floats(slot) for slot in (0, 1))
            if len(mean) in (1, 3) and len(std) in (1, 3):
                return _float32(mean), _float32(std)
            given.flat.damaged(f"normalisation of {len(mean)} means and {len(std)} stds")
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _float32(values: Sequence[float]) -> Three:
    """Return the shortest numbers with the same float32, one for each channel."""
    shortest = [float(str(np.float32(value))) for value in values]
    red, green, blue = shortest * 3 if len(shortest) == 1 else shortest
    return red, green, blue


def _file_offsets(root: Table) -> dict[int, int]:
    """Return positions and values of all offsets from the file's begin: data outside of the flatbuffer."""
    tables = [(buffer, BUFFER_OFFSET) for buffer in root.tables(BUFFERS)]
    tables += [(operator, OPERATOR_OFFSET) for graph in root.tables(SUBGRAPHS) for operator in graph.tables(3)]
    offsets = {}
    for table, slot in tables:
        at, value = table.field(slot), table.number(slot, "Q")
        if at is None or value <= 1:  # not in use
            continue
        if value + table.number(slot + 1, "Q") > len(root.flat.data):
            root.flat.damaged(f"data at byte {value:,} are past its end")
        offsets[at] = value
    return offsets


def _describe(info: FileInfo, given: int, returned: int) -> bytes:
    """Return the metadata as a FlatBuffers file.

    Args:
        info: what to write.
        given, returned: types of input and output.
    """
    writer = Writer()
    image = _image(writer, info, RANGES.get(given))
    scores = _scores(writer, info, RANGES.get(returned, (0.0, 1.0)))
    graph = writer.table({2: writer.refs(image), 3: writer.refs(scores)})
    texts = {0: info.name, 1: info.description, 2: info.version, 4: info.author, 5: info.license}
    fields: dict[int, Ref | Scalar | None] = {slot: writer.text(text) for slot, text in texts.items()}
    fields |= {3: writer.refs(graph), 7: writer.text(info.min_parser_version)}
    return writer.finish(writer.table(fields), METADATA_IDENTIFIER)


def _image(writer: Writer, info: FileInfo, values: tuple[float, float] | None) -> Ref:
    """Write the description of the input; `values` are its least and greatest, None for normalised pixels."""
    ends = [[(pixel - mean) / std for mean, std in zip(info.mean, info.std, strict=True)] for pixel in (0, 255)]
    least, greatest = ([value] for value in values) if values else ends
    properties = writer.table({0: Scalar("B", RGB)})
    options = writer.table({0: writer.floats(info.mean), 1: writer.floats(info.std)})
    unit = writer.table({0: Scalar("B", NORMALISATION), 1: options})
    return writer.table(
        {
            0: writer.text(info.input_name),
            1: writer.text("Image, RGB, to be resized to the size of this tensor."),
            3: writer.table({0: Scalar("B", IMAGE_PROPERTIES), 1: properties}),
            4: writer.refs(unit),
            5: writer.table({0: writer.floats(greatest), 1: writer.floats(least)}),
        }
    )


def _scores(writer: Writer, info: FileInfo, values: tuple[float, float]) -> Ref:
    """Write the description of the output; `values` are its least and greatest."""
    least, greatest = values
    labels = writer.table(
        {0: writer.text(names.LABELS), 1: writer.text("Class names, one a line."), 2: Scalar("B", AXIS_LABELS)}
    )
    return writer.table(
        {
            0: writer.text(info.output_name),
            1: writer.text("Score of each class, from 0 to 1."),
            3: writer.table({0: Scalar("B", FEATURE_PROPERTIES), 1: writer.table({})}),
            5: writer.table({0: writer.floats([greatest]), 1: writer.floats([least])}),
            6: writer.refs(labels),
        }
    )


def _new_part(root: Table, metadata: bytes) -> bytes:
    """Return the begin of the new file: root, lists and metadata, referring to the old file that follows it."""
    writer = Writer(ALIGNMENT)
    buffers, entries = root.tables(BUFFERS), root.tables(METADATA)
    new_buffer = writer.table({0: writer.blob(metadata, BUFFER_ALIGNMENT)})
    new_entry = writer.table({0: writer.text(ENTRY), 1: Scalar("I", len(buffers))})
    fields: dict[int, Ref | Scalar | None] = {VERSION: Scalar("I", root.number(VERSION, "I"))}
    for slot in range(VERSION + 1, MODEL_SLOTS):
        target = root.target(slot)
        fields[slot] = None if target is None else Ref(-target)
    fields[BUFFERS] = writer.refs(*(Ref(-buffer.at) for buffer in buffers), new_buffer)
    fields[METADATA] = writer.refs(*(Ref(-entry.at) for entry in entries), new_entry)
    return writer.finish(writer.table(fields), MODEL_IDENTIFIER)
