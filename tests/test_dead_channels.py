"""Channels of almost no weight: their bias survives int8."""

from __future__ import annotations

import numpy as np
import pytest

from bignas_zoo.export.quantise import quantise


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("tiny", [0.0, 1e-20, 1e-9])
def test_a_channel_without_weights_still_says_its_bias(depthwise: bool, tiny: float) -> None:
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    given = keras.Input((8, 8, 3), batch_size=1)
    layer = keras.layers.DepthwiseConv2D(3) if depthwise else keras.layers.Conv2D(3, 3)
    model = keras.Model(given, layer(given))
    kernel, bias = layer.get_weights()
    index = (..., 1, 0) if depthwise else (..., 1)
    kernel[index] = tiny
    bias[:] = (0.1, 4.0, -0.2)
    layer.set_weights([kernel, bias])
    float32 = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    (signature,) = Interpreter(model_content=float32).get_signature_list()
    interpreter = Interpreter(model_content=quantise(float32, images, signature))
    interpreter.allocate_tensors()
    for image in images[:4]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        expected = np.asarray(model(image[None]))
        np.testing.assert_allclose(scores[..., 1], 4.0, atol=0.05)  # one step of the output's scale is about 0.03
        np.testing.assert_allclose(scores, expected, atol=0.1)
