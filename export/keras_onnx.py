"""What tf2onnx makes of Keras models that are no child (any more)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxslim
import tf2onnx

from bignas_zoo.architecture.lowering import IMAGE, SCORES
from bignas_zoo.errors import QualityError
from bignas_zoo.export.fold import fold_batch_norms
from bignas_zoo.export.onnx_graph import canonical, finish
from bignas_zoo.export.onnx_writer import OPSET
from bignas_zoo.models.backend import keras
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.tensorflow import check_backend, tf
from bignas_zoo.runtime.quiet import quiet_native


def converted(child: keras.Model, layout: str, preprocess: Preprocess | None, properties: Mapping[str, str]) -> bytes:
    """Convert a Keras model, softmax included, to the bytes of a float32 file.

    Raises:
        UsageError: Keras runs on another backend than TensorFlow.
        QualityError: the conversion fails.
    """
    check_backend()
    plain = fold_batch_norms(child)
    signature = [tf.TensorSpec((None, *child.input_shape[1:]), tf.float32, name=IMAGE)]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def classify(image: Any) -> Any:
        x = preprocess.normalise(image) if preprocess else image
        return {SCORES: tf.nn.softmax(plain(x, training=False), name=SCORES)}

    with quiet_native():
        try:
            model, _ = tf2onnx.convert.from_function(
                classify, signature, opset=OPSET, inputs_as_nchw=[IMAGE] if layout == "nchw" else None
            )
            model = onnxslim.slim(model)
        except Exception as error:
            raise QualityError(f"ONNX conversion failed: {type(error).__name__}: {str(error)[:300]}") from error
    return finish(canonical(model), properties, child.name, f"tf2onnx {tf2onnx.__version__}")
