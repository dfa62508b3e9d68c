"""TensorFlow, loaded quietly, for modules that work on it alone."""

from bignas_zoo.runtime.quiet import quiet_native

with quiet_native():
    import tensorflow as tf

__all__ = ["tf"]
