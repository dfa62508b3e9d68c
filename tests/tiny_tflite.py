"""Small image classifiers as TFLite files, of every kind that metadata can be written to."""

from __future__ import annotations

import warnings

import numpy as np

from bignas_zoo.export.metadata import FileInfo
from bignas_zoo.runtime.quiet import quiet_native

#: The names have what a text file could spoil: spaces, a comma, other scripts.
INFO = FileInfo(
    name="tiny",
    description="Four classes.\nTwo lines.",
    version="1.2",
    author="BigNAS Zoo",
    license="Apache-2.0",
    class_names=("great grey owl", "crane, bird", "猫", "Ähre"),
    mean=(125.3, 123.0, 113.9),
    std=(63.0, 62.1, 66.7),
)
KINDS = ("float32", "uint8", "int8", "batch of 2", "buffers outside")


def build(kind: str) -> bytes:
    """Convert a small image classifier of 4 classes for images of 8x8."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3), batch_size=2 if kind == "batch of 2" else 1)
    x = keras.layers.Conv2D(8, 3, activation="relu")(image)
    scores = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, scores))
    if kind in ("uint8", "int8"):
        pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8, 3)).astype("f4")
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([p] for p in pixels)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, kind)
    if kind == "buffers outside":
        converter._experimental_use_buffer_offset = True
    return bytes(converter.convert())


def build_all() -> dict[str, bytes]:
    """Return a file of each kind."""
    with quiet_native(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own: statistics "were expected", which it then measures
        return {kind: build(kind) for kind in KINDS}
