"""BigNAS Zoo: cut the best image classifier for a budget out of a supernet, and ship it.

Importing this package loads nothing else: each name loads its module when it is first used, and only few of those load
numpy, Keras or TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bignas_zoo.architecture.cost import macs, parameters
    from bignas_zoo.architecture.space import ChildSpec, SearchSpace
    from bignas_zoo.architecture.spaces import get_space
    from bignas_zoo.budget import Budget
    from bignas_zoo.errors import BigNASError
    from bignas_zoo.export.onnx import to_onnx
    from bignas_zoo.export.tflite import to_tflite
    from bignas_zoo.files.formats import Export
    from bignas_zoo.tasks.calibrate import cut_and_calibrate, slice_and_calibrate
    from bignas_zoo.tasks.evaluate import evaluate
    from bignas_zoo.tasks.export import export_slice
    from bignas_zoo.tasks.finetune import finetune
    from bignas_zoo.tasks.get import get
    from bignas_zoo.tasks.get_child import get_child
    from bignas_zoo.tasks.import_weights import import_weights
    from bignas_zoo.tasks.load import load
    from bignas_zoo.tasks.push import push, push_family
    from bignas_zoo.tasks.reproduce import reproduce
    from bignas_zoo.tasks.search import search_family, search_for
    from bignas_zoo.tasks.slices import Slice, get_family, list_slices
    from bignas_zoo.tasks.train import train
    from bignas_zoo.tasks.verify import verify
    from bignas_zoo.zoo.family import Family

__version__ = "0.1.0"

__all__ = [
    "BigNASError",
    "Budget",
    "ChildSpec",
    "Export",
    "Family",
    "SearchSpace",
    "Slice",
    "cut_and_calibrate",
    "evaluate",
    "export_slice",
    "finetune",
    "get",
    "get_child",
    "get_family",
    "get_space",
    "import_weights",
    "list_slices",
    "load",
    "macs",
    "parameters",
    "push",
    "push_family",
    "reproduce",
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
    "ChildSpec": "bignas_zoo.architecture.space",
    "Export": "bignas_zoo.files.formats",
    "Family": "bignas_zoo.zoo.family",
    "SearchSpace": "bignas_zoo.architecture.space",
    "Slice": "bignas_zoo.tasks.slices",
    "cut_and_calibrate": "bignas_zoo.tasks.calibrate",
    "evaluate": "bignas_zoo.tasks.evaluate",
    "export_slice": "bignas_zoo.tasks.export",
    "finetune": "bignas_zoo.tasks.finetune",
    "get": "bignas_zoo.tasks.get",
    "get_child": "bignas_zoo.tasks.get_child",
    "get_family": "bignas_zoo.tasks.slices",
    "get_space": "bignas_zoo.architecture.spaces",
    "import_weights": "bignas_zoo.tasks.import_weights",
    "list_slices": "bignas_zoo.tasks.slices",
    "load": "bignas_zoo.tasks.load",
    "macs": "bignas_zoo.architecture.cost",
    "parameters": "bignas_zoo.architecture.cost",
    "push": "bignas_zoo.tasks.push",
    "push_family": "bignas_zoo.tasks.push",
    "reproduce": "bignas_zoo.tasks.reproduce",
    "search_family": "bignas_zoo.tasks.search",
    "search_for": "bignas_zoo.tasks.search",
    "slice_and_calibrate": "bignas_zoo.tasks.calibrate",
    "to_onnx": "bignas_zoo.export.onnx",
    "to_tflite": "bignas_zoo.export.tflite",
    "train": "bignas_zoo.tasks.train",
    "verify": "bignas_zoo.tasks.verify",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bignas_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals().keys(), *__all__})
