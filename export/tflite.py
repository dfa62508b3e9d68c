"""Plain Keras child to a TFLite file, float32.

The file takes one normalised image and returns softmax scores, under the signature "classify";
batch norms are folded by the converter and no Flex operation is needed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from bignas_zoo.errors import QualityError, UsageError
from bignas_zoo.quiet import quiet_native
from bignas_zoo.store import atomic_write

SIGNATURE, INPUT, OUTPUT = "classify", "image", "scores"


def to_tflite(child: keras.Model, path: Path | str) -> int:
    """Convert a calibrated child and write the file atomically.

    Run `bignas_zoo.export.parity.check_tflite` on the result: a conversion can go wrong silently.

    Args:
        child: from ``[batch, size, size, 3]`` to logits.
        path: the file to write.

    Returns:
        Its size in bytes.

    Raises:
        LocalIOError: the file cannot be written.
        QualityError: the converter left operations that plain TFLite lacks.
    """
    data = convert(child)
    atomic_write(Path(path), data)
    return len(data)


def convert(child: keras.Model) -> bytes:
    """Convert a child to the bytes of a TFLite file; see `to_tflite`."""
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before the first import."
        )
    shape = (1, *child.input_shape[1:])
    archive = keras.export.ExportArchive()
    archive.track(child)
    archive.add_endpoint(
        name=SIGNATURE,
        fn=lambda image: {OUTPUT: tf.nn.softmax(child(image, training=False), name=OUTPUT)},
        input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUT)],
    )
    with tempfile.TemporaryDirectory() as folder, quiet_native():
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        try:
            data = converter.convert()
        except Exception as error:
            raise QualityError(f"TFLite conversion failed: {str(error)[:300]}") from error
    return bytes(data)
