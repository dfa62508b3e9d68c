"""Plain Keras child to a TFLite file in float32, float16, with int8 weights, or in int8 throughout.

The file takes one image (or a fixed number) and returns softmax scores, under the signature "classify"; batch
norms are folded by the converter and no Flex operation is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture.lowering import lower
from bignas_zoo.errors import QualityError, UsageError
from bignas_zoo.export.fold import pool_by_convolution
from bignas_zoo.export.metadata import FileInfo, with_metadata
from bignas_zoo.export.quantise import quantise
from bignas_zoo.export.ranges import COVER
from bignas_zoo.files.formats import Export
from bignas_zoo.files.store import atomic_write, scratch_folder
from bignas_zoo.models.backend import keras
from bignas_zoo.models.child import get_weights, network_of
from bignas_zoo.models.folding import folded
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.tensorflow import tf
from bignas_zoo.runtime.quiet import quiet_native

SIGNATURE, INPUT, OUTPUT = "classify", "image", "scores"


def to_tflite(
    child: keras.Model,
    path: Path | str,
    *,
    precision: str = "float32",
    batch: int = 1,
    io: str = "float32",
    preprocess: Preprocess | None = None,
    images: np.ndarray | None = None,
    info: FileInfo | None = None,
) -> int:
    """Convert a calibrated child and write the file atomically.

    Run `bignas_zoo.export.gates.check_tflite` on the result: a conversion can go wrong silently.

    Args:
        child: from ``[batch, size, size, 3]`` to logits.
        path: the file to write.
        precision: "float32", "float16" (weights in half precision), "dynamic" (weights in int8) or "int8" (weights
            and activations).
        batch: images a call.
        io: type of an int8 file's input and scores: "float32", "int8", or "uint8", which takes raw pixels.
        preprocess: the family's input contract; if given, the file takes pixel values 0 to 255 and normalises
            them itself.
        images: ``[n, size, size, 3]`` float32, as the file takes them: for int8 at least 64 training images.
        info: metadata to put into the file, see `bignas_zoo.export.describe.file_info`.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: options that do not go together, or too few images.
        LocalIOError: the file cannot be written.
        QualityError: the converter left operations that plain TFLite lacks.
    """
    options = Export("tflite", precision, batch, io, normalize_in_graph=preprocess is not None)
    data = convert(child, options, preprocess=preprocess, images=images, info=info)
    atomic_write(Path(path), data)
    return len(data)


def convert(
    child: keras.Model,
    options: Export | None = None,
    *,
    preprocess: Preprocess | None = None,
    images: np.ndarray | None = None,
    info: FileInfo | None = None,
    cover: float = COVER,
) -> bytes:
    """Convert a child to the bytes of a TFLite file; see `to_tflite`, and `covered_ranges` for `cover`."""
    options = options or Export()
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before the first import."
        )
    if options.takes_pixels and preprocess is None:
        raise UsageError("export: a file that takes pixels needs the family's preprocess, to normalise them.")
    if options.precision == "int8" and images is None:
        raise UsageError("export: int8 needs images, to find the ranges of the activations; give training images.")
    model = _float_file(child, options, preprocess if options.takes_pixels else None)
    if options.precision == "int8":
        assert images is not None
        ends = (0.0, 255.0) if options.takes_pixels else None
        model = quantise(model, images, SIGNATURE, io=options.io, cover=cover, input_range=ends)
    return with_metadata(model, info) if info else model


def _float_file(child: keras.Model, options: Export, preprocess: Preprocess | None) -> bytes:
    """Write a file from the plan that a child was built from; of another Keras model let TensorFlow convert one."""
    int8 = options.precision == "int8"
    network = network_of(child)
    if network is None:
        return _converted(pool_by_convolution(child) if int8 else child, options, preprocess)
    from bignas_zoo.export.tflite_writer import write_tflite

    return write_tflite(
        lower(network, quarters=int8, normalise=preprocess is not None),
        folded(network, get_weights(child, network)),
        precision="float32" if int8 else options.precision,
        batch=options.batch,
        normalisation=preprocess.vectors if preprocess else None,
    )


def convert_part(
    part: keras.Model, options: Export, *, inputs: np.ndarray | None = None, cover: float = COVER
) -> bytes:
    """Convert part of a network as it is, without the softmax that a child gets: to measure how long it takes.

    Args:
        part: from one map to one map or vector.
        options: precision and batch; int8 takes and gives int8.
        inputs: for int8 at least 64 maps, for the ranges of the activations.
        cover: see `covered_ranges`.
    """
    int8 = options.precision == "int8"
    part = pool_by_convolution(part) if int8 else part
    model = _convert(lambda image: {OUTPUT: part(image, training=False)}, part, options)
    if not int8:
        return model
    if inputs is None:
        raise UsageError("export: int8 needs inputs, to find the ranges of the activations.")
    return quantise(model, inputs, SIGNATURE, io="int8", cover=cover)


def _converted(child: keras.Model, options: Export, preprocess: Preprocess | None) -> bytes:
    def classify(image: Any) -> Any:
        x = preprocess.normalise(image) if preprocess else image
        return {OUTPUT: tf.nn.softmax(child(x, training=False), name=OUTPUT)}

    return _convert(classify, child, options)


def _convert(classify: Callable[[Any], Any], child: keras.Model, options: Export) -> bytes:
    # The variables alone: Keras' ExportArchive traces every layer once more, for the same bytes in twice the time.
    holder = tf.Module()
    holder.variables_ = [variable.value for variable in child.variables]
    image = tf.TensorSpec((options.batch, *child.input_shape[1:]), tf.float32, name=INPUT)
    with scratch_folder() as folder, quiet_native():
        function = tf.function(classify, autograph=False).get_concrete_function(image)
        tf.saved_model.save(holder, str(folder), signatures={SIGNATURE: function})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[SIGNATURE])
        if options.precision in ("float16", "dynamic"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if options.precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            data = converter.convert()
        except Exception as error:
            raise QualityError(f"TFLite conversion failed: {str(error)[:300]}") from error
    return bytes(data)
