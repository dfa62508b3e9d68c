"""TensorFlow, loaded quietly, for modules that work on it alone."""

from bignas_zoo.errors import UsageError
from bignas_zoo.models.backend import keras
from bignas_zoo.runtime.extras import without_keras
from bignas_zoo.runtime.quiet import quiet_native, quiet_python

try:
    with quiet_native():
        import tensorflow as tf
except ModuleNotFoundError as error:
    raise without_keras("this", f"{error.name}") from error

quiet_python()

__all__ = ["check_backend", "tf"]


def check_backend() -> None:
    """Refuse to convert a Keras model that runs on another backend; raises UsageError."""
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before the first import."
        )
