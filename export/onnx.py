"""Plain Keras child to an ONNX file, float32 or int8: opset 17, batch norms folded, the same bytes every time.

The module's name is the format's; within it the library is ``import onnx`` as everywhere (imports are absolute).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture.lowering import lower
from bignas_zoo.errors import QualityError, UsageError
from bignas_zoo.export.fold import fold_batch_norms
from bignas_zoo.export.onnx_graph import canonical, finish
from bignas_zoo.export.tflite import INPUT, OUTPUT
from bignas_zoo.files.formats import Export
from bignas_zoo.files.store import atomic_write
from bignas_zoo.models.backend import keras
from bignas_zoo.models.child import get_weights, network_of
from bignas_zoo.models.folding import folded
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.runtime.quiet import quiet_native

#: 18 and later make ReduceMean take its axes as an input, for which tf2onnx leaves transposes behind.
OPSET = 17


def to_onnx(
    child: keras.Model,
    path: Path | str,
    *,
    layout: str = "nhwc",
    precision: str = "float32",
    preprocess: Preprocess | None = None,
    properties: Mapping[str, str] | None = None,
    images: np.ndarray | None = None,
) -> int:
    """Convert a calibrated child and write the file atomically.

    Args:
        child, layout, precision, preprocess, properties, images: see `convert`.
        path: the file to write.

    Returns:
        Its size in bytes.

    Raises:
        LocalIOError: the file cannot be written.
        UsageError, QualityError: see `convert`.
    """
    data = convert(
        child, layout=layout, precision=precision, preprocess=preprocess, properties=properties, images=images
    )
    atomic_write(Path(path), data)
    return len(data)


def convert(
    child: keras.Model,
    *,
    layout: str = "nhwc",
    precision: str = "float32",
    preprocess: Preprocess | None = None,
    properties: Mapping[str, str] | None = None,
    images: np.ndarray | None = None,
) -> bytes:
    """Convert a calibrated child to the bytes of an ONNX file.

    Args:
        child: from ``[batch, size, size, 3]`` to logits.
        layout: of the input ``image``: "nhwc" or "nchw".
        precision: "float32", or "int8" (weights and activations, see `bignas_zoo.export.onnx_int8`).
        preprocess: if given, the file takes pixel values 0 to 255 and normalises them itself.
        properties: what the file says of itself (``metadata_props``, see `bignas_zoo.export.properties`).
        images: ``[n, size, size, 3]`` float32, as the file takes them (nhwc for either layout): for int8 at least
            64 training images.

    Returns:
        The file: ``image`` float32 to ``scores`` float32 ``[batch, classes]`` (softmax).

    Raises:
        QualityError: the result is no valid ONNX model, or holds operations that should be gone.
        UsageError: no such layout or precision, images missing or too few, or Keras runs on another backend than
            TensorFlow.
    """
    Export("onnx", precision, layout=layout)  # refuses what there is not
    if precision == "int8" and images is None:
        raise UsageError("export: int8 needs images, to find the ranges of the activations; give training images.")
    model = _converted(child, layout, preprocess, properties or {})
    if precision != "int8":
        return model
    from bignas_zoo.export.onnx_int8 import quantise  # loads a second library, onnxruntime

    assert images is not None
    return quantise(model, images, pixels=preprocess is not None)


def _converted(child: keras.Model, layout: str, preprocess: Preprocess | None, properties: Mapping[str, str]) -> bytes:
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before the first import."
        )
    network = network_of(child)
    if network is not None:
        from bignas_zoo.export.onnx_writer import write_onnx

        nodes = lower(network, normalise=preprocess is not None)
        weights = folded(network, get_weights(child, network))
        model = write_onnx(nodes, weights, layout=layout, normalisation=preprocess.vectors if preprocess else None)
        return finish(canonical(model), properties, child.name)
    return _by_tf2onnx(child, layout, preprocess, properties)


def _by_tf2onnx(child: keras.Model, layout: str, preprocess: Preprocess | None, properties: Mapping[str, str]) -> bytes:
    """Convert a Keras model that is no child (any more)."""
    import onnxslim
    import tf2onnx

    from bignas_zoo.models.tensorflow import tf

    plain = fold_batch_norms(child)
    signature = [tf.TensorSpec((None, *child.input_shape[1:]), tf.float32, name=INPUT)]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def classify(image: Any) -> Any:
        x = preprocess.normalise(image) if preprocess else image
        return {OUTPUT: tf.nn.softmax(plain(x, training=False), name=OUTPUT)}

    with quiet_native():
        try:
            model, _ = tf2onnx.convert.from_function(
                classify, signature, opset=OPSET, inputs_as_nchw=[INPUT] if layout == "nchw" else None
            )
            model = onnxslim.slim(model)
        except Exception as error:
            raise QualityError(f"ONNX conversion failed: {type(error).__name__}: {str(error)[:300]}") from error
    return finish(canonical(model), properties, child.name)
