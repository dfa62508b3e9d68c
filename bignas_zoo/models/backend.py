"""Keras with its backend, loaded quietly: whatever computes with tensors takes them from here.

Slicing, calibration of arrays, weight files and the numpy forward do not, and so load neither Keras nor TensorFlow.
"""

from bignas_zoo.runtime.extras import without_keras
from bignas_zoo.runtime.quiet import quiet_native, quiet_python

try:
    with quiet_native():
        import keras
        from keras import layers, ops
except ModuleNotFoundError as error:
    raise without_keras("this", f"{error.name}") from error

quiet_python()

__all__ = ["keras", "layers", "ops"]
