"""BigNAS Zoo: cut the best image classifier for a budget out of a supernet, and ship it.

Importing this package loads nothing else: each name loads its module when it is first used, and only few of those load
numpy, Keras or TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bignas_zoo.budget import Budget
    from bignas_zoo.cost import macs, parameters
    from bignas_zoo.delivery import get
    from bignas_zoo.errors import BigNASError
    from bignas_zoo.export.onnx import to_onnx
    from bignas_zoo.export.tflite import to_tflite
    from bignas_zoo.exporting import export_slice
    from bignas_zoo.finetuning import finetune
    from bignas_zoo.formats import Export
    from bignas_zoo.hub.pushing import push, push_family
    from bignas_zoo.registry import Family, Slice, get_family, list_slices
    from bignas_zoo.searching import search_family, search_for
    from bignas_zoo.space import ChildSpec, SearchSpace
    from bignas_zoo.spaces import get_space
    from bignas_zoo.verifying import verify
    from bignas_zoo.zoo import evaluate, load, slice_and_calibrate, train

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

#: Where each name is.
_HOMES = {
    "BigNASError": "bignas_zoo.errors",
    "Budget": "bignas_zoo.budget",
    "ChildSpec": "bignas_zoo.space",
    "Export": "bignas_zoo.formats",
    "Family": "bignas_zoo.registry",
    "SearchSpace": "bignas_zoo.space",
    "Slice": "bignas_zoo.registry",
    "evaluate": "bignas_zoo.zoo",
    "export_slice": "bignas_zoo.exporting",
    "finetune": "bignas_zoo.finetuning",
    "get": "bignas_zoo.delivery",
    "get_family": "bignas_zoo.registry",
    "get_space": "bignas_zoo.spaces",
    "list_slices": "bignas_zoo.registry",
    "load": "bignas_zoo.zoo",
    "macs": "bignas_zoo.cost",
    "parameters": "bignas_zoo.cost",
    "push": "bignas_zoo.hub.pushing",
    "push_family": "bignas_zoo.hub.pushing",
    "search_family": "bignas_zoo.searching",
    "search_for": "bignas_zoo.searching",
    "slice_and_calibrate": "bignas_zoo.zoo",
    "to_onnx": "bignas_zoo.export.onnx",
    "to_tflite": "bignas_zoo.export.tflite",
    "train": "bignas_zoo.zoo",
    "verify": "bignas_zoo.verifying",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bignas_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals().keys(), *__all__})
