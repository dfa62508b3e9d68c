"""TensorFlow, loaded quietly, for modules that work on it alone."""

from bignas_zoo.runtime.quiet import quiet_native, quiet_python

with quiet_native():
    import tensorflow as tf

quiet_python()

__all__ = ["tf"]
