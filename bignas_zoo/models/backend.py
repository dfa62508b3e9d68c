"""Keras with its backend, loaded quietly: whatever computes with tensors takes them from here.

Slicing, weight files and the numpy forward do not, and so load neither Keras nor TensorFlow.
"""

from bignas_zoo.runtime.quiet import quiet_native, quiet_python

with quiet_native():
    import keras
    from keras import layers, ops

quiet_python()

__all__ = ["keras", "layers", "ops"]
