"""Compile a function of arrays on whatever backend Keras runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from bignas_zoo.models.backend import keras


def compiled(function: Callable[..., Any], *, any_shape: bool = False) -> Callable[..., Any]:
    """Return a compiled form of a pure function of arrays.

    On TensorFlow this is a graph without XLA, which is several times slower than TensorFlow's own
    kernels on CPUs; on JAX it is `jax.jit`.

    Args:
        function: of arrays, and dicts of them.
        any_shape: one graph for all shapes of its arguments, where the backend can: on TensorFlow. Their numbers of
            axes, types and names are those of the first call.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    if any_shape:
        return _shapeless(function)
    graph: Callable[..., Any] = tf.function(function, jit_compile=False, autograph=False, reduce_retracing=True)
    return graph


def _shapeless(function: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    graphs: list[Callable[..., Any]] = []

    def call(*arguments: Any) -> Any:
        if not graphs:
            signature = tf.nest.map_structure(lambda a: tf.TensorSpec([None] * len(a.shape), a.dtype), arguments)
            # As a partial: TensorFlow counts traces by code object, and would take functions that share one for one
            # that is traced again and again.
            own = functools.partial(function)
            graphs.append(tf.function(own, signature, jit_compile=False, autograph=False))
        return graphs[0](*arguments)

    return call
