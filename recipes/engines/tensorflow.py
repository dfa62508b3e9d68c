"""The training engine on TensorFlow: one device, replicas of one or many hosts, or a TPU.

XLA has no usable gradient of depthwise convolutions on CPUs (25 to 40 times slower than
TensorFlow's own), so compilation is off there; `tf.cond` skips absent layers at run time instead.
Under a `tf.distribute` strategy each batch norm takes its moments over all replicas with one
all-reduce, which `tf.cond` does not allow, so everything is computed and masked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from bignas_zoo.errors import UsageError
from bignas_zoo.models.backend import keras
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.models.tensorflow import tf
from bignas_zoo.recipes.data import augment
from bignas_zoo.recipes.engines.engine import OPTIMIZER, STOP, StepInput
from bignas_zoo.recipes.engines.optimizer import make_optimizer
from bignas_zoo.recipes.methods import method_of
from bignas_zoo.recipes.methods.method import Examples, total
from bignas_zoo.recipes.recipe import Recipe

STRATEGIES = ("single", "mirrored", "multi_worker", "tpu")


def choose_strategy() -> str:
    """Return the strategy for what is there: TF_CONFIG names workers, TPU_NAME a TPU; else GPUs are counted."""
    if os.environ.get("TPU_NAME"):
        return "tpu"
    if len(json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {}).get("worker", [])) > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "single"


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Return a strategy by name, over all devices TensorFlow sees.

    "mirrored" without a GPU takes the logical CPU devices. "tpu" connects to the TPU that TPU_NAME
    names ("local" on a TPU machine itself).
    """
    if name == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy([d.name for d in tf.config.list_logical_devices(kind)])
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
        return tf.distribute.TPUStrategy(resolver)
    return tf.distribute.get_strategy()


def execution(recipe: Recipe, strategy: str) -> Execution:
    """Return how the supernet is computed: the recipe's choices, else the strategy's own.

    Raises:
        UsageError: the recipe asks for a form that the strategy cannot compute.
    """
    alone = strategy == "single"
    own = Execution("fused" if alone else "synchronised", "native", "cond" if alone else "where")
    wanted = {k: getattr(recipe, k) for k in ("batch_norm", "depthwise", "branch") if getattr(recipe, k) != "auto"}
    if wanted.get("batch_norm") == "lean":
        raise UsageError(f"recipe '{recipe.name}': batch_norm: 'lean' is JAX's; allowed: fused, one_pass, two_pass.")
    if not alone and (wanted.get("branch") == "cond" or "batch_norm" in wanted):
        raise UsageError(
            f"recipe '{recipe.name}': strategy '{strategy}' needs synchronised batch norms and branch 'where'; "
            "set batch_norm and branch to auto."
        )
    return Execution(**{**vars(own), **wanted, "pack": recipe.pack or 1})


def _kind() -> str:
    return next((kind for kind in ("TPU", "GPU") if tf.config.list_logical_devices(kind)), "CPU")


class TensorFlowEngine:
    """See `Engine`."""

    def __init__(self, recipe: Recipe, preprocess: Preprocess, strategy: str | None = None) -> None:
        name = strategy or choose_strategy()
        self.recipe, self.preprocess = recipe, preprocess
        self.how = execution(recipe, name)
        self.strategy = make_strategy(name)
        self.compiled = name == "tpu"
        self.devices = f"TensorFlow, {self.strategy.num_replicas_in_sync} x {_kind()}"
        self.holds_images = name == "single" and bool(tf.config.list_logical_devices("GPU"))
        resolver = self.strategy.cluster_resolver
        shared = name == "multi_worker" and resolver is not None
        self.host = resolver.task_id if shared else 0
        self.hosts = len(resolver.cluster_spec().as_dict()["worker"]) if shared else 1
        initial = initial_weights(recipe.search_space, recipe.seed, last_gamma=recipe.last_gamma)
        with self.strategy.scope():
            self.variables = {k: keras.Variable(v, name=k.replace(".", "_")) for k, v in initial.items()}
            self.trained = [v for name, v in self.variables.items() if method_of(recipe).trains(recipe, name)]
            self.optimizer = make_optimizer(recipe, self.trained)
        self._resident: dict[str, Any] | None = None
        self._steps: dict[str, Any] = {}

    def hold(self, resident: Mapping[str, np.ndarray]) -> None:
        """Put all training images into the device's memory; see `Engine`."""
        self._resident = {k: tf.constant(v) for k, v in resident.items()}

    def _compile(self, phase: str) -> Any:
        parts = method_of(self.recipe).loss(self.recipe, phase)
        variables = self.trained
        replicas = self.strategy.num_replicas_in_sync

        def replica(batch: Any, steering: Any) -> Any:
            with tf.GradientTape() as tape:
                weights = {name: v.value for name, v in self.variables.items()}
                images, labels = augment.images_of(self.recipe, self.preprocess, batch, self._resident)
                loss, figures = total(parts, weights, Examples(images, labels, batch["row"]), steering, self.how)
                scaled = loss / replicas  # the optimizer sums gradients over replicas
            gradients = tape.gradient(scaled, [v.value for v in variables])
            self.optimizer.apply(gradients, variables)
            asked = {STOP: tf.reduce_max(batch[STOP])} if STOP in batch else {}
            return {"loss": loss, **figures, **asked}

        @tf.function(jit_compile=self.compiled, autograph=False)  # type: ignore[untyped-decorator]
        def step(batch: Any, steering: Any) -> Any:
            if replicas == 1:
                return replica(batch, steering)
            values = self.strategy.run(replica, (batch, steering))
            return {k: self.strategy.reduce("MEAN", v, axis=None) for k, v in values.items()}

        return step

    def step(self, given: StepInput) -> Mapping[str, Any]:
        """Run one optimizer step; see `Engine`."""
        batch, phase = dict(given.batch), given.control.phase
        if self.hosts > 1:
            batch[STOP] = np.full(len(batch["row"]), given.stop, np.float32)
        self.optimizer.learning_rate.assign(given.learning_rate)
        if phase not in self._steps:
            self._steps[phase] = self._compile(phase)
        steering = {k: tf.constant(v) for k, v in given.control.steering.items()}
        values: Mapping[str, Any] = self._steps[phase](self._spread(batch), steering)
        return values

    def _spread(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Give each replica of this host its rows."""
        if self.strategy.num_replicas_in_sync == 1:
            return {k: tf.constant(v) for k, v in batch.items()}
        local = self.strategy.num_replicas_in_sync // self.hosts
        size = len(batch["row"]) // local

        def part(context: Any) -> dict[str, Any]:
            start = context.replica_id_in_sync_group % local * size
            return {k: tf.constant(v[start : start + size]) for k, v in batch.items()}

        return self.strategy.experimental_distribute_values_from_function(part)

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the supernet's weights."""
        return {name: _numpy(v) for name, v in self.variables.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return weights and optimizer state; see `Engine`."""
        slots = {f"{OPTIMIZER}{i:04d}": _numpy(v) for i, v in enumerate(self.optimizer.variables)}
        return {**self.weights(), **slots}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a `state`."""
        for name, variable in self.variables.items():
            variable.assign(state[name])
        for i, variable in enumerate(self.optimizer.variables):
            variable.assign(state[f"{OPTIMIZER}{i:04d}"])


def _numpy(variable: keras.Variable) -> np.ndarray:
    """Return a variable's value; replicas hold equal ones, and the first is taken."""
    local = tf.distribute.get_strategy().experimental_local_results(variable.value)
    return np.array(local[0])
