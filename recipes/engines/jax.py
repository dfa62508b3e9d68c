"""The training engine on JAX: one device, a mesh of devices, or many hosts.

Weights and optimizer are values: a step is a pure function, compiled once, over arrays whose first
axis is spread over all devices. XLA then sums gradients and batch moments over the whole batch by
itself, so one device and many give the same step.
"""

from __future__ import annotations

import functools
import math
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
from bignas_zoo.recipes.engines.engine import OPTIMIZER, STOP
from bignas_zoo.recipes.engines.optimizer import make_optimizer
from bignas_zoo.recipes.methods import sandwich
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.runtime.quiet import quiet_native

Array = Any
State = dict[str, Array]
Sums = dict[str, Any]
OWN = Execution("one_pass", "native", "cond")
#: XLA on a CPU takes four times as long for convolutions inside a `cond`, see benchmarks/train_step.md.
OWN_CPU = Execution("one_pass", "native", "where")
#: On a TPU what counts is how often memory is read, see benchmarks/tpu_compile.md.
OWN_TPU = Execution("lean", "native", "where", 4)


def execution(recipe: Recipe, mesh: Mesh | None = None) -> Execution:
    """Return how the supernet is computed: the recipe's choices, else the engine's own.

    Args:
        recipe: the recipe.
        mesh: the devices, which may be TPUs; None means others.

    Raises:
        UsageError: the recipe asks for TensorFlow's fused batch norm.
    """
    wanted = {k: getattr(recipe, k) for k in ("batch_norm", "depthwise", "branch") if getattr(recipe, k) != "auto"}
    if wanted.get("batch_norm") == "fused":
        raise UsageError(
            f"recipe '{recipe.name}': batch_norm: 'fused' is TensorFlow's; allowed: lean, one_pass, two_pass."
        )
    own = {"tpu": OWN_TPU, "cpu": OWN_CPU}.get(platform_of(mesh) if mesh is not None else "", OWN)
    pack = recipe.pack or own.pack
    if mesh is not None:
        pack = math.gcd(pack, recipe.batch_size // mesh.size)  # images of one device only
    return Execution(**{**vars(own), **wanted, "pack": pack})


def platform_of(mesh: Mesh) -> str:
    """Return what a mesh is of: "cpu", "gpu" or "tpu"."""
    return str(mesh.devices.flat[0].platform)


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
        sums: Sums | None = None
        weights = {name: state[name] for name in self.names}
        for index in range(sandwich.children_count(self.recipe, alone=alone)):
            sums = self.child(weights, batch, steering, resident, sums, index=index, alone=alone)
        assert sums is not None
        return self.apply(state, sums["gradients"], learning_rate), sums["values"]

    def child(
        self,
        weights: Mapping[str, Array],
        batch: Mapping[str, Array],
        steering: Mapping[str, Array],
        resident: Mapping[str, Array] | None,
        before: Sums | None,
        *,
        index: int,
        alone: bool,
    ) -> Sums:
        """Differentiate one child's part of the loss: one child's activations are in memory at a time.

        Args:
            weights, batch, steering, resident: see `__call__`.
            before: what the children before this one left; None for the first.
            index: see `sandwich.child_loss`.
            alone: whether there are no others.

        Returns:
            ``gradients`` summed so far, ``values`` to report, and the ``targets`` of further children.
        """
        recipe = self.recipe
        images, labels = sandwich.images_of(recipe, self.preprocess, batch, resident)
        targets = before["targets"] if before else sandwich.first_targets(recipe, labels)
        share = sandwich.share_of(recipe, alone=alone)

        def term(w: Any) -> Any:
            loss, *rest = sandwich.child_loss(
                recipe, w, images, targets, steering, batch["row"], index, share, self.how
            )
            return loss, rest

        (value, (loss, logits)), slope = jax.value_and_grad(term, has_aux=True)(weights)
        if before is None:
            values = {"loss": value, "biggest": loss, "accuracy": sandwich.accuracy(logits, labels)}
            if STOP in batch:
                values[STOP] = batch[STOP].max()
            return {
                "gradients": slope,
                "values": values,
                "targets": sandwich.further_targets(recipe, targets, logits),
            }
        return {
            "gradients": {k: before["gradients"][k] + v for k, v in slope.items()},
            "values": {**before["values"], "loss": before["values"]["loss"] + value, "smallest": loss},
            "targets": targets,
        }

    def apply(self, state: State, gradients: Mapping[str, Array], learning_rate: Array) -> State:
        """Take the optimizer's step."""
        slots = {k: v for k, v in state.items() if k.startswith(OPTIMIZER)}
        slots[self._rate] = learning_rate
        updated, new = self._optimizer.stateless_apply(
            list(slots.values()), [gradients[n] for n in self.names], [state[n] for n in self.names]
        )
        return {**dict(zip(self.names, updated, strict=True)), **dict(zip(slots, new, strict=True))}


def shape_of(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return what stands for an array when a step is compiled without one."""
    struct: Any = jax.ShapeDtypeStruct
    return struct(shape, dtype)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Return how arrays lie on a mesh: whole on every device, and spread along the first axis."""
    whole, rows = PartitionSpec(), PartitionSpec("batch")  # type: ignore[no-untyped-call]
    return NamedSharding(mesh, whole), NamedSharding(mesh, rows)


def compile_step(step: PureStep, mesh: Mesh, *, alone: bool) -> Any:
    """Return the compiled step: state replicated over the mesh and donated, the batch spread over it.

    The recipe's `program` says whether it is one program or one a child.
    """
    if step.recipe.program == "child" or (step.recipe.program == "auto" and platform_of(mesh) in ("tpu", "cpu")):
        return SplitStep(step, mesh, alone=alone)
    whole, rows = shardings(mesh)
    return jax.jit(
        functools.partial(step, alone=alone),
        in_shardings=(whole, rows, whole, whole, whole),
        out_shardings=whole,
        donate_argnums=0,
    )


class SplitStep:
    """A step as one program a child and one for the optimizer: they compile side by side."""

    def __init__(self, step: PureStep, mesh: Mesh, *, alone: bool) -> None:
        whole, rows = shardings(mesh)
        sums = {"gradients": whole, "values": whole, "targets": rows}
        self._names = step.names
        self._children = [
            jax.jit(
                functools.partial(step.child, index=index, alone=alone),
                in_shardings=(whole, rows, whole, whole, sums if index else None),
                out_shardings=sums,
                donate_argnums=4 if index else (),
            )
            for index in range(sandwich.children_count(step.recipe, alone=alone))
        ]
        self._apply = jax.jit(step.apply, in_shardings=whole, out_shardings=whole, donate_argnums=0)

    def __call__(
        self,
        state: State,
        batch: Mapping[str, Array],
        steering: Mapping[str, Array],
        learning_rate: Array,
        resident: Mapping[str, Array] | None,
    ) -> tuple[State, dict[str, Array]]:
        """Run the programs; see `PureStep.__call__`."""
        weights = {name: state[name] for name in self._names}
        sums = None
        for child in self._children:
            sums = child(weights, batch, steering, resident, sums)
        assert sums is not None
        return self._apply(state, sums["gradients"], learning_rate), sums["values"]

    def lower(
        self, state: State, batch: Any, steering: Any, learning_rate: Any, resident: Any
    ) -> dict[str, jax.stages.Lowered]:
        """Trace all programs on arrays or their shapes; return them by name."""
        weights = {name: state[name] for name in self._names}
        found: dict[str, jax.stages.Lowered] = {}
        sums = None
        for index, child in enumerate(self._children):
            found[f"child {index + 1}"] = lowered = child.lower(weights, batch, steering, resident, sums)
            sums = jax.tree.map(lambda like: shape_of(like.shape, like.dtype), lowered.out_info)
        assert sums is not None
        found["optimizer"] = self._apply.lower(state, sums["gradients"], learning_rate)
        return found


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
        with quiet_native():  # see `engine`
            self.host = join_hosts()
            self.hosts = jax.process_count()
            self.mesh = Mesh(np.array(devices or jax.devices()), ("batch",))
        self.devices = f"JAX, {self.mesh.size} x {self.mesh.devices.flat[0].device_kind}"
        if recipe.batch_size % self.mesh.size:
            raise UsageError(
                f"recipe '{recipe.name}': batch_size {recipe.batch_size} does not divide by {self.mesh.size} devices."
            )
        self._whole, self._rows = shardings(self.mesh)
        self._step = PureStep(recipe, preprocess, execution(recipe, self.mesh))
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
        stop: bool = False,
    ) -> Mapping[str, Any]:
        """Run one optimizer step; see `Engine`."""
        if self.hosts > 1:
            batch = {**batch, STOP: np.full(len(batch["row"]), stop, np.float32)}
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
