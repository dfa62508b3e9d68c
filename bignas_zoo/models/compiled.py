"""Compile a function of arrays on whatever backend Keras runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiled form of a pure function of arrays.

    On TensorFlow this is a graph without XLA, which is several times slower than TensorFlow's own
    kernels on CPUs; on JAX it is `jax.jit`.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    graph: Callable[..., Any] = tf.function(function, jit_compile=False, autograph=False, reduce_retracing=True)
    return graph
