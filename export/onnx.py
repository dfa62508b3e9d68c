"""A network to an ONNX file, float32 or int8: opset 17, batch norms folded, the same bytes every time.

It is written from the plan; a Keras model that is no child (any more) goes through tf2onnx.

The module's name is the format's; within it the library is ``import onnx`` as everywhere (imports are absolute).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bignas_zoo.architecture.lowering import lower
from bignas_zoo.errors import UsageError
from bignas_zoo.export.onnx_graph import canonical, finish
from bignas_zoo.export.onnx_writer import write_onnx
from bignas_zoo.export.tflite import weighted
from bignas_zoo.files.formats import Export
from bignas_zoo.files.store import atomic_write
from bignas_zoo.models.folding import folded
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.weighted import WeightedNetwork

if TYPE_CHECKING:
    import keras


def to_onnx(
    child: keras.Model | WeightedNetwork,
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
    child: keras.Model | WeightedNetwork,
    *,
    layout: str = "nhwc",
    precision: str = "float32",
    preprocess: Preprocess | None = None,
    properties: Mapping[str, str] | None = None,
    images: np.ndarray | None = None,
) -> bytes:
    """Convert a calibrated child to the bytes of an ONNX file.

    Args:
        child: from ``[batch, size, size, 3]`` to logits; or a network with its weights.
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
    model = _float_file(child, layout, preprocess, properties or {})
    if precision != "int8":
        return model
    from bignas_zoo.export.onnx_int8 import quantise  # loads a second library, onnxruntime

    assert images is not None
    return quantise(model, images, pixels=preprocess is not None)


def _float_file(
    child: keras.Model | WeightedNetwork, layout: str, preprocess: Preprocess | None, properties: Mapping[str, str]
) -> bytes:
    """Write a file from the plan that a child was built from; of another Keras model let tf2onnx convert one."""
    plain = weighted(child)
    if plain is None:
        from bignas_zoo.export.keras_onnx import converted

        return converted(child, layout, preprocess, properties)
    nodes = lower(plain.network, normalise=preprocess is not None)
    normalisation = preprocess.vectors if preprocess else None
    model = write_onnx(nodes, folded(plain.network, plain.weights), layout=layout, normalisation=normalisation)
    return finish(canonical(model), properties, re.sub(r"\W", "_", plain.network.model_name))
