"""A network to a TFLite file in float32, float16, with int8 weights, or in int8 throughout.

The file takes one image (or a fixed number) and returns softmax scores, under the signature "classify". It is written
from the plan; a Keras model that is no child (any more) goes through TensorFlow's converter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bignas_zoo.architecture.lowering import lower
from bignas_zoo.errors import UsageError
from bignas_zoo.export.metadata import FileInfo, with_metadata
from bignas_zoo.export.quantise import quantise
from bignas_zoo.export.ranges import COVER
from bignas_zoo.export.tflite_writer import SIGNATURE, write_tflite
from bignas_zoo.files.formats import Export
from bignas_zoo.files.store import atomic_write
from bignas_zoo.models.folding import folded
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.weighted import WeightedNetwork

if TYPE_CHECKING:
    import keras

__all__ = ["SIGNATURE", "convert", "to_tflite", "weighted"]


def to_tflite(
    child: keras.Model | WeightedNetwork,
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
        child: from ``[batch, size, size, 3]`` to logits; or a network with its weights.
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
    child: keras.Model | WeightedNetwork,
    options: Export | None = None,
    *,
    preprocess: Preprocess | None = None,
    images: np.ndarray | None = None,
    info: FileInfo | None = None,
    cover: float = COVER,
) -> bytes:
    """Convert a child to the bytes of a TFLite file; see `to_tflite`, and `covered_ranges` for `cover`."""
    options = options or Export()
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


def _float_file(child: keras.Model | WeightedNetwork, options: Export, preprocess: Preprocess | None) -> bytes:
    """Write a file from the plan that a child was built from; of another Keras model let TensorFlow convert one."""
    plain = weighted(child)
    if plain is None:
        from bignas_zoo.export.keras_tflite import converted

        return converted(child, options, preprocess)
    int8 = options.precision == "int8"
    return write_tflite(
        lower(plain.network, quarters=int8, normalise=preprocess is not None),
        folded(plain.network, plain.weights),
        precision="float32" if int8 else options.precision,
        batch=options.batch,
        normalisation=preprocess.vectors if preprocess else None,
    )


def weighted(child: keras.Model | WeightedNetwork) -> WeightedNetwork | None:
    """Return the network and weights of a child; None of a Keras model that is none (any more)."""
    if isinstance(child, WeightedNetwork):
        return child
    from bignas_zoo.models.child import get_weights, network_of

    network = network_of(child)
    return None if network is None else WeightedNetwork(network, get_weights(child, network))
