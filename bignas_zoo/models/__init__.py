"""Everything that holds tensors. The first import loads Keras and its backend, quietly."""

from bignas_zoo.runtime.quiet import quiet_native

with quiet_native():
    import keras  # noqa: F401
