"""BigNAS Zoo: cut the best image classifier for a budget out of a supernet, and ship it.

Importing this package loads no numpy, Keras or TensorFlow; the names that need them load them on
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.cost import macs, parameters
from bignas_zoo.delivery import get
from bignas_zoo.errors import BigNASError
from bignas_zoo.exporting import export_slice
from bignas_zoo.finetuning import finetune
from bignas_zoo.formats import Export
from bignas_zoo.hub.pushing import push, push_family
from bignas_zoo.registry import Family, Slice, get_family, list_slices
from bignas_zoo.searching import search_family, search_for
from bignas_zoo.space import ChildSpec, SearchSpace
from bignas_zoo.spaces import get_space
from bignas_zoo.zoo import evaluate, load, slice_and_calibrate, train

if TYPE_CHECKING:
    from bignas_zoo.export.onnx import to_onnx
    from bignas_zoo.export.tflite import to_tflite
    from bignas_zoo.verifying import verify

__version__ = "0.1.0"

__all__ = [
    "BigNASError",
    "Budget",
    "ChildSpec",
    "Export",
    "Family",
    "SearchSpace",
    "Slice",
    "evaluate",
    "export_slice",
    "finetune",
    "get",
    "get_family",
    "get_space",
    "list_slices",
    "load",
    "macs",
    "parameters",
    "push",
    "push_family",
    "search_family",
    "search_for",
    "slice_and_calibrate",
    "to_onnx",
    "to_tflite",
    "train",
    "verify",
]


#: Names that are looked up when they are first used, as their modules load numpy or TensorFlow.
_LATER = {
    "to_onnx": "bignas_zoo.export.onnx",
    "to_tflite": "bignas_zoo.export.tflite",
    "verify": "bignas_zoo.verifying",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'bignas_zoo' has no attribute {name!r}")
