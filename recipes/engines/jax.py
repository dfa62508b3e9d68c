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
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bignas_zoo.errors import UsageError
from bignas_zoo.models.backend import keras
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.recipes.data import augment
from bignas_zoo.recipes.engines.engine import OPTIMIZER, STOP, StepInput
from bignas_zoo.recipes.engines.optimizer import make_optimizer
from bignas_zoo.recipes.methods import method_of
from bignas_zoo.recipes.methods.method import Examples, Part
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


class Arguments(NamedTuple):
    """What a compiled step takes besides its state.

    Attributes:
        batch: rows of a batch, spread over the devices.
        steering: see `Control`.
        learning_rate: float32 scalar.
        resident: all images, in each device's memory; None where a batch brings its own.
    """

    batch: Mapping[str, Array]
    steering: Mapping[str, Array]
    learning_rate: Array
    resident: Mapping[str, Array] | None


class PureStep:
    """A training step as a pure function of its state, ready to be compiled for any devices."""

    def __init__(self, recipe: Recipe, preprocess: Preprocess, how: Execution | None = None) -> None:
        self.recipe, self.preprocess, self.how = recipe, preprocess, how or execution(recipe)
        self.method = method_of(recipe)
        initial = initial_weights(recipe.search_space, recipe.seed, last_gamma=recipe.last_gamma)
        variables = {k: keras.Variable(v, name=k.replace(".", "_")) for k, v in initial.items()}
        self.names = tuple(variables)
        self.trained = tuple(name for name in variables if self.method.trains(recipe, name))
        self._optimizer = make_optimizer(recipe, [variables[name] for name in self.trained])
        slots = list(self._optimizer.variables)
        self._rate = f"{OPTIMIZER}{[v is self._optimizer._learning_rate for v in slots].index(True):04d}"
        self.initial: dict[str, np.ndarray] = {
            **initial,
            **{f"{OPTIMIZER}{i:04d}": np.array(v) for i, v in enumerate(slots)},
        }

    def __call__(self, state: State, given: Arguments, *, phase: str) -> tuple[State, dict[str, Array]]:
        """Return the next state, and the loss with its figures."""
        sums: Sums | None = None
        weights = {name: state[name] for name in self.names}
        for part in self.parts(phase):
            sums = self.add(weights, given, sums, part=part)
        assert sums is not None
        return self.apply(state, sums["gradients"], given.learning_rate), sums["values"]

    def parts(self, phase: str) -> tuple[Part, ...]:
        """Return the parts of the loss of a step."""
        return tuple(self.method.loss(self.recipe, phase))

    def add(self, weights: Mapping[str, Array], given: Arguments, before: Sums | None, *, part: Part) -> Sums:
        """Differentiate one part of the loss: one part's activations are in memory at a time.

        Args:
            weights: the supernet's.
            given: to the step.
            before: what the parts before this one left; None for the first.
            part: of the method's loss.

        Returns:
            ``gradients`` summed so far, ``values`` to report, and what is ``carried`` to further parts.
        """
        images, labels = augment.images_of(self.recipe, self.preprocess, given.batch, given.resident)
        examples = Examples(images, labels, given.batch["row"])

        def term(w: Any) -> Any:
            whole = {**weights, **w}
            value, *rest = part(whole, examples, given.steering, before["carried"] if before else None, self.how)
            return value, rest

        moved = {name: weights[name] for name in self.trained}
        (value, (figures, carried)), slope = jax.value_and_grad(term, has_aux=True)(moved)
        if before is None:
            values = {"loss": value, **figures}
            if STOP in given.batch:
                values[STOP] = given.batch[STOP].max()
            return {"gradients": slope, "values": values, "carried": carried}
        return {
            "gradients": {k: before["gradients"][k] + v for k, v in slope.items()},
            "values": {**before["values"], "loss": before["values"]["loss"] + value, **figures},
            "carried": carried,
        }

    def apply(self, state: State, gradients: Mapping[str, Array], learning_rate: Array) -> State:
        """Take the optimizer's step."""
        slots = {k: v for k, v in state.items() if k.startswith(OPTIMIZER)}
        slots[self._rate] = learning_rate
        updated, new = self._optimizer.stateless_apply(
            list(slots.values()), [gradients[n] for n in self.trained], [state[n] for n in self.trained]
        )
        return {**state, **dict(zip(self.trained, updated, strict=True)), **dict(zip(slots, new, strict=True))}


def shape_of(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return what stands for an array when a step is compiled without one."""
    struct: Any = jax.ShapeDtypeStruct
    return struct(shape, dtype)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Return how arrays lie on a mesh: whole on every device, and spread along the first axis."""
    whole, rows = PartitionSpec(), PartitionSpec("batch")  # type: ignore[no-untyped-call]
    return NamedSharding(mesh, whole), NamedSharding(mesh, rows)


def compile_step(step: PureStep, mesh: Mesh, phase: str) -> Any:
    """Return the compiled step of a phase: state replicated over the mesh and donated, the batch spread over it.

    The recipe's `program` says whether it is one program or one a part of the loss.
    """
    if step.recipe.program == "child" or (step.recipe.program == "auto" and platform_of(mesh) in ("tpu", "cpu")):
        return SplitStep(step, mesh, phase)
    whole, rows = shardings(mesh)
    return jax.jit(
        functools.partial(step, phase=phase),
        in_shardings=(whole, Arguments(rows, whole, whole, whole)),  # type: ignore[arg-type]
        out_shardings=whole,
        donate_argnums=0,
    )


class SplitStep:
    """A step as one program a part of the loss and one for the optimizer: they compile side by side."""

    def __init__(self, step: PureStep, mesh: Mesh, phase: str) -> None:
        whole, rows = shardings(mesh)
        sums = {"gradients": whole, "values": whole, "carried": rows}
        given = Arguments(rows, whole, whole, whole)  # type: ignore[arg-type]
        self._names = step.names
        self._parts = [
            jax.jit(
                functools.partial(step.add, part=part),
                in_shardings=(whole, given, sums if index else None),
                out_shardings=sums,
                donate_argnums=2 if index else (),
            )
            for index, part in enumerate(step.parts(phase))
        ]
        self._apply = jax.jit(step.apply, in_shardings=whole, out_shardings=whole, donate_argnums=0)

    def __call__(self, state: State, given: Arguments) -> tuple[State, dict[str, Array]]:
        """Run the programs; see `PureStep.__call__`."""
        weights = {name: state[name] for name in self._names}
        sums = None
        for part in self._parts:
            sums = part(weights, given, sums)
        assert sums is not None
        return self._apply(state, sums["gradients"], given.learning_rate), sums["values"]

    def lower(self, state: State, given: Arguments) -> dict[str, jax.stages.Lowered]:
        """Trace all programs on arrays or their shapes; return them by name: "child 1" and so on, "optimizer"."""
        weights = {name: state[name] for name in self._names}
        programs: dict[str, jax.stages.Lowered] = {}
        sums = None
        for index, part in enumerate(self._parts):
            programs[f"child {index + 1}"] = lowered = part.lower(weights, given, sums)
            sums = jax.tree.map(lambda like: shape_of(like.shape, like.dtype), lowered.out_info)
        assert sums is not None
        programs["optimizer"] = self._apply.lower(state, sums["gradients"], given.learning_rate)
        return programs


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
        self._compiled: dict[str, Any] = {}
        self._state: State = {}
        self.restore(self._step.initial)

    def hold(self, resident: Mapping[str, np.ndarray]) -> None:
        """Put all training images into each device's memory; see `Engine`."""
        self._resident = {k: jax.device_put(v, self._whole) for k, v in resident.items()}

    def step(self, given: StepInput) -> Mapping[str, Any]:
        """Run one optimizer step; see `Engine`."""
        batch, phase = dict(given.batch), given.control.phase
        if self.hosts > 1:
            batch[STOP] = np.full(len(batch["row"]), given.stop, np.float32)
        if phase not in self._compiled:
            self._compiled[phase] = compile_step(self._step, self.mesh, phase)
        place: Any = jax.make_array_from_process_local_data
        spread = {k: place(self._rows, v) for k, v in batch.items()}
        arguments = Arguments(spread, dict(given.control.steering), np.float32(given.learning_rate), self._resident)
        self._state, values = self._compiled[phase](self._state, arguments)
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
