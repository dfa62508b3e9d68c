"""Which engine trains a recipe, and making it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING

from bignas_zoo.errors import UsageError
from bignas_zoo.runtime.quiet import quiet_native

if TYPE_CHECKING:
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.engines.engine import Engine
    from bignas_zoo.recipes.recipe import Recipe

ENGINES = ("tensorflow", "jax")


def choose_engine(wanted: str) -> str:
    """Resolve "auto": JAX where it sees an accelerator, else TensorFlow, else JAX.

    Raises:
        UsageError: the engine's library is not installed.
    """
    installed = [name for name in ENGINES if importlib.util.find_spec(name)]
    if wanted == "auto":
        if "jax" in installed and (installed == ["jax"] or _accelerator()):
            return "jax"
        wanted = "tensorflow"
    if wanted not in installed:
        extra = " (pip install 'bignas-zoo[jax]')" if wanted == "jax" else " (pip install tensorflow)"
        raise UsageError(f"engine '{wanted}': its library is not installed{extra}.")
    return wanted


def _accelerator() -> bool:
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    if importlib.util.find_spec("libtpu") is None and importlib.util.find_spec("jax_plugins") is None:
        return False  # a JAX without plugins knows no accelerator, and need not be loaded to say so
    import jax

    with quiet_native():  # libtpu on a machine without a TPU says so at length
        return jax.default_backend() != "cpu"


def use_backend(engine: str) -> None:
    """Make Keras run on an engine's library; must come before Keras is imported.

    Raises:
        UsageError: Keras runs on another one in this process already.
    """
    loaded = sys.modules.get("keras")
    if loaded is None:
        os.environ["KERAS_BACKEND"] = engine
    elif loaded.backend.backend() != engine:
        raise UsageError(
            f"engine '{engine}': Keras runs on {loaded.backend.backend()} in this process. "
            f"Set KERAS_BACKEND={engine} before the first import, or use the command line."
        )


def host_index(name: str) -> int:
    """Return which of the processes that train together this one is, before any device is claimed."""
    if name == "tensorflow":
        return int(json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {}).get("index", 0))
    if os.environ.get("JAX_COORDINATOR_ADDRESS") == "auto":
        from bignas_zoo.recipes.engines.jax import join_hosts

        return join_hosts()
    return int(os.environ.get("JAX_PROCESS_ID", 0)) if os.environ.get("JAX_COORDINATOR_ADDRESS") else 0


def make_engine(name: str, recipe: Recipe, preprocess: Preprocess) -> Engine:
    """Return an engine by name; Keras must run on its library (see `use_backend`)."""
    if name == "jax":
        from bignas_zoo.recipes.engines.jax import JaxEngine

        return JaxEngine(recipe, preprocess)
    from bignas_zoo.recipes.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(recipe, preprocess)
