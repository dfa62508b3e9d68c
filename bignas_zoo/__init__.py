"""BigNAS Zoo: cut the best image classifier for a budget out of a supernet, and ship it.

Importing this package loads no numpy, Keras or TensorFlow; the names that need them load them on
first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.cost import macs, parameters
from bignas_zoo.delivery import get
from bignas_zoo.errors import BigNASError
from bignas_zoo.finetuning import finetune
from bignas_zoo.registry import Family, Slice, get_family, list_slices
from bignas_zoo.space import ChildSpec, SearchSpace
from bignas_zoo.spaces import get_space
from bignas_zoo.zoo import evaluate, load, slice_and_calibrate, train

if TYPE_CHECKING:
    from bignas_zoo.export.onnx import to_onnx
    from bignas_zoo.export.tflite import to_tflite

__version__ = "0.1.0"

__all__ = [
    "BigNASError",
    "Budget",
    "ChildSpec",
    "Family",
    "SearchSpace",
    "Slice",
    "evaluate",
    "finetune",
    "get",
    "get_family",
    "get_space",
    "list_slices",
    "load",
    "macs",
    "parameters",
    "slice_and_calibrate",
    "to_onnx",
    "to_tflite",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "to_tflite":
        from bignas_zoo.export.tflite import to_tflite

        return to_tflite
    if name == "to_onnx":
        from bignas_zoo.export.onnx import to_onnx

        return to_onnx
    raise AttributeError(f"module 'bignas_zoo' has no attribute {name!r}")
