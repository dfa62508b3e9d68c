"""The training engine on JAX: one device, a mesh of devices, or many hosts.

Weights and optimizer are values: a step is a pure function, compiled once, over arrays whose first
axis is spread over all devices. XLA then sums gradients and batch moments over the whole batch by
itself, so one device and many give the same step.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bignas_zoo.errors import UsageError
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.recipes import sandwich
from bignas_zoo.recipes.engine import OPTIMIZER
from bignas_zoo.recipes.optimizer import make_optimizer
from bignas_zoo.recipes.recipe import Recipe

Array = Any
State = dict[str, Array]
OWN = Execution("one_pass", "native", "cond")


def execution(recipe: Recipe) -> Execution:
    """Return how the supernet is computed: the recipe's choices, else the engine's own.

    Raises:
        UsageError: the recipe asks for TensorFlow's fused batch norm.
    """
    wanted = {k: getattr(recipe, k) for k in ("batch_norm", "depthwise", "branch") if getattr(recipe, k) != "auto"}
    if wanted.get("batch_norm") == "fused":
        raise UsageError(f"recipe '{recipe.name}': batch_norm: 'fused' is TensorFlow's; allowed: one_pass, two_pass.")
    return Execution(**{**vars(OWN), **wanted})


class PureStep:
    """A training step as a pure function of its state, ready to be compiled for any devices."""

    def __init__(self, recipe: Recipe, preprocess: Preprocess, how: Execution | None = None) -> None:
        self.recipe, self.preprocess, self.how = recipe, preprocess, how or execution(recipe)
        initial = initial_weights(recipe.search_space, recipe.seed, last_gamma=recipe.last_gamma)
        variables = {k: keras.Variable(v, name=k.replace(".", "_")) for k, v in initial.items()}
        self.names = tuple(variables)
        self._optimizer = make_optimizer(recipe, list(variables.values()))
        slots = list(self._optimizer.variables)
        self._rate = f"{OPTIMIZER}{[v is self._optimizer._learning_rate for v in slots].index(True):04d}"
        self.initial: dict[str, np.ndarray] = {
            **initial,
            **{f"{OPTIMIZER}{i:04d}": np.array(v) for i, v in enumerate(slots)},
        }

    def __call__(
        self,
        state: State,
        batch: Mapping[str, Array],
        steering: Mapping[str, Array],
        learning_rate: Array,
        resident: Mapping[str, Array] | None,
        *,
        alone: bool,
    ) -> tuple[State, dict[str, Array]]:
        """Return the next state, and the loss with its parts."""
        weights = {name: state[name] for name in self.names}
        loss, parts, gradients = self.gradients(weights, batch, steering, resident, alone=alone)
        slots = {k: v for k, v in state.items() if k.startswith(OPTIMIZER)}
        slots[self._rate] = learning_rate
        updated, new = self._optimizer.stateless_apply(
            list(slots.values()), [gradients[n] for n in self.names], list(weights.values())
        )
        state = {**dict(zip(self.names, updated, strict=True)), **dict(zip(slots, new, strict=True))}
        return state, {"loss": loss, **parts}

    def gradients(
        self,
        weights: Mapping[str, Array],
        batch: Mapping[str, Array],
        steering: Mapping[str, Array],
        resident: Mapping[str, Array] | None,
        *,
        alone: bool,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Differentiate child by child, so that one child's activations are in memory at a time."""
        recipe = self.recipe
        images, labels = sandwich.images_of(recipe, self.preprocess, batch, resident)
        targets = sandwich.first_targets(recipe, labels)
        share = sandwich.share_of(recipe, alone=alone)
        total: Array = 0.0
        parts: dict[str, Array] = {}
        gradients: dict[str, Array] = {}
        for index in range(sandwich.children_count(recipe, alone=alone)):

            def term(w: Any, index: int = index, targets: Any = targets) -> Any:
                loss, *rest = sandwich.child_loss(
                    recipe, w, images, targets, steering, batch["row"], index, share, self.how
                )
                return loss, rest

            (value, (loss, logits)), slope = jax.value_and_grad(term, has_aux=True)(weights)
            total = total + value
            gradients = {k: gradients[k] + v for k, v in slope.items()} if gradients else slope
            if index == 0:
                parts = {"biggest": loss, "accuracy": sandwich.accuracy(logits, labels)}
                targets = sandwich.further_targets(recipe, targets, logits)
            else:
                parts["smallest"] = loss
        return total, parts, gradients


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Return how arrays lie on a mesh: whole on every device, and spread along the first axis."""
    whole, rows = PartitionSpec(), PartitionSpec("batch")  # type: ignore[no-untyped-call]
    return NamedSharding(mesh, whole), NamedSharding(mesh, rows)


def compile_step(step: PureStep, mesh: Mesh, *, alone: bool) -> Any:
    """Return the jitted step: state replicated over the mesh and donated, the batch spread over it."""
    whole, rows = shardings(mesh)
    return jax.jit(
        functools.partial(step, alone=alone),
        in_shardings=(whole, rows, whole, whole, whole),
        out_shardings=whole,
        donate_argnums=0,
    )


def join_hosts() -> int:
    """Join the processes that train together, if the environment names their coordinator; return this one's index.

    ``JAX_COORDINATOR_ADDRESS`` (host:port of process 0), ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``; on a
    Cloud TPU pod the address alone may say "auto".

    Raises:
        UsageError: the number or the index of processes is missing.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address or jax.distributed.is_initialized():
        return int(jax.process_index())
    if address == "auto":
        jax.distributed.initialize()
        return int(jax.process_index())
    try:
        count, index = (int(os.environ[k]) for k in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    except (KeyError, ValueError) as error:
        raise UsageError(
            "JAX_COORDINATOR_ADDRESS is set, so JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers as well."
        ) from error
    jax.distributed.initialize(address, count, index)
    return index


class JaxEngine:
    """See `Engine`."""

    holds_images = True

    def __init__(self, recipe: Recipe, preprocess: Preprocess, devices: Any = None) -> None:
        self.host, self.hosts = join_hosts(), jax.process_count()
        self.mesh = Mesh(np.array(devices or jax.devices()), ("batch",))
        if recipe.batch_size % self.mesh.size:
            raise UsageError(
                f"recipe '{recipe.name}': batch_size {recipe.batch_size} does not divide by {self.mesh.size} devices."
            )
        self._whole, self._rows = shardings(self.mesh)
        self._step = PureStep(recipe, preprocess)
        self._resident: dict[str, Array] | None = None
        self._compiled: dict[bool, Any] = {}
        self._state: State = {}
        self.restore(self._step.initial)

    def hold(self, resident: Mapping[str, np.ndarray]) -> None:
        """Put all training images into each device's memory; see `Engine`."""
        self._resident = {k: jax.device_put(v, self._whole) for k, v in resident.items()}

    def step(
        self,
        batch: Mapping[str, np.ndarray],
        steering: Mapping[str, np.ndarray],
        learning_rate: float,
        *,
        alone: bool,
    ) -> Mapping[str, Any]:
        """Run one optimizer step; see `Engine`."""
        if alone not in self._compiled:
            self._compiled[alone] = compile_step(self._step, self.mesh, alone=alone)
        place: Any = jax.make_array_from_process_local_data
        spread = {k: place(self._rows, v) for k, v in batch.items()}
        self._state, values = self._compiled[alone](
            self._state, spread, dict(steering), np.float32(learning_rate), self._resident
        )
        return dict(values)

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the supernet's weights."""
        return {name: np.array(self._state[name]) for name in self._step.names}

    def state(self) -> dict[str, np.ndarray]:
        """Return weights and optimizer state; see `Engine`."""
        return {name: np.array(value) for name, value in self._state.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a `state`."""
        self._state = {
            name: jax.device_put(np.asarray(state[name], like.dtype).reshape(like.shape), self._whole)
            for name, like in self._step.initial.items()
        }
