"""What TensorFlow's converter makes of Keras models: those that are no child (any more), and blocks to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_zoo.architecture.lowering import IMAGE, SCORES
from bignas_zoo.errors import QualityError, UsageError
from bignas_zoo.export.fold import pool_by_convolution
from bignas_zoo.export.quantise import quantise
from bignas_zoo.export.ranges import COVER
from bignas_zoo.export.tflite_writer import SIGNATURE
from bignas_zoo.files.formats import Export
from bignas_zoo.files.store import scratch_folder
from bignas_zoo.models.backend import keras
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.tensorflow import check_backend, tf
from bignas_zoo.runtime.quiet import quiet_native


def converted(child: keras.Model, options: Export, preprocess: Preprocess | None) -> bytes:
    """Return a Keras model's file, softmax included; of int8 the float32 file that is quantised.

    Raises:
        UsageError: Keras runs on another backend than TensorFlow.
        QualityError: the converter fails.
    """
    check_backend()
    model = pool_by_convolution(child) if options.precision == "int8" else child

    def classify(image: Any) -> Any:
        x = preprocess.normalise(image) if preprocess else image
        return {SCORES: tf.nn.softmax(model(x, training=False), name=SCORES)}

    return _convert(classify, model, options)


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
    model = _convert(lambda image: {SCORES: part(image, training=False)}, part, options)
    if not int8:
        return model
    if inputs is None:
        raise UsageError("export: int8 needs inputs, to find the ranges of the activations.")
    return quantise(model, inputs, SIGNATURE, io="int8", cover=cover)


def _convert(classify: Callable[[Any], Any], child: keras.Model, options: Export) -> bytes:
    # The variables alone: Keras' ExportArchive traces every layer once more, for the same bytes in twice the time.
    holder = tf.Module()
    holder.variables_ = [variable.value for variable in child.variables]
    image = tf.TensorSpec((options.batch, *child.input_shape[1:]), tf.float32, name=IMAGE)
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
