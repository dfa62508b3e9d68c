"""Compile a recipe's training step for a TPU that is not there, and read what the compiler says.

JAX with libtpu holds the whole TPU compiler. Given a topology's name it compiles for abstract cores
on any machine with a CPU, and its executable knows the memory, the arithmetic and the traffic of one
core. Times are the compiler's estimates, never measurements.

The compiler runs in a process of its own (``python -m bignas_zoo.recipes.tpu_compile``): it wants its
environment before JAX is loaded, prints what it likes, and may end the process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from bignas_zoo.errors import BigNASError, UsageError
from bignas_zoo.recipes.recipe import Recipe, parse_recipe

#: Memory of one core as JAX counts cores (a v2 or v3 chip has two, later chips one), in GiB.
#: Source: "System architecture" pages of Google Cloud's TPU documentation, one a generation.
HBM_GIB = {"TPU v2": 8, "TPU v3": 16, "TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}
EXAMPLES = ("v3:8x8", "v4:4x4x4", "v5e:8x8", "v6e:8x8", "v5e:2x2")
#: BigNAS, arXiv 2003.11142: 36 hours on a v3 pod of 8x8 chips. The seconds a step are this project's
#: reading of it (see imagenet_tpu.yaml).
PAPER_HOURS, PAPER_STEP_SECONDS = 36.0, 1.1
ESTIMATE = "the compiler's estimate, not a measurement"
#: What libtpu would otherwise ask a cloud machine's metadata server for.
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is touched, so none needs locking
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
ANSWER = "bignas-zoo answer: "
OPTIMIZER = "optimizer"
TAIL = 600  # characters of a dead compiler's last words


@dataclass(frozen=True)
class Program:
    """What the compiler says of one of the programs that make a step, for one core.

    Attributes:
        name: "child 1" (the biggest) and so on, or "optimizer".
        temporary_bytes, argument_bytes, output_bytes: memory; outputs that take over an argument's
            are not counted.
        flops, bytes_accessed: arithmetic and memory traffic.
        estimated_seconds: the compiler's "optimal seconds".
        compile_seconds: from tracing done to program, others compiling beside it.
    """

    name: str
    temporary_bytes: int
    argument_bytes: int
    output_bytes: int
    flops: float
    bytes_accessed: float
    estimated_seconds: float
    compile_seconds: float

    @property
    def memory_bytes(self) -> int:
        """All memory the program needs while it runs."""
        return self.temporary_bytes + self.argument_bytes + self.output_bytes

    @staticmethod
    def of(name: str, compiled: Any, seconds: float) -> Program:
        """Read a compiled program; it has `memory_analysis` and `cost_analysis` as JAX's executables do."""
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        return Program(
            name,
            int(memory.temp_size_in_bytes),
            int(memory.argument_size_in_bytes),
            int(memory.output_size_in_bytes - memory.alias_size_in_bytes),
            float(cost["flops"]),
            float(cost["bytes accessed"]),
            float(cost["optimal_seconds"]),
            seconds,
        )


@dataclass(frozen=True)
class CompileReport:
    """What the TPU compiler says of a training step. Its programs run one after the other.

    Attributes:
        recipe: its name.
        topology, device: as asked for, and the kind of core.
        cores: how many.
        batch, steps: of the recipe.
        hbm_bytes: memory one core has; 0 if unknown.
        held_bytes: optimizer state, which stays in memory while the children's programs run.
        programs: one a child, and the optimizer's.
        compile_seconds, compile_cpu_seconds: of tracing and compiling all of them.
        versions: of jax, jaxlib and libtpu.
    """

    recipe: str
    topology: str
    device: str
    cores: int
    batch: int
    steps: int
    hbm_bytes: int
    held_bytes: int
    programs: tuple[Program, ...]
    compile_seconds: float
    compile_cpu_seconds: float
    versions: dict[str, str]

    @property
    def memory_bytes(self) -> int:
        """The most memory that one core needs at a time."""
        return max(p.memory_bytes + (0 if p.name == OPTIMIZER else self.held_bytes) for p in self.programs)

    @property
    def temporary_bytes(self) -> int:
        """The most memory that a program needs besides its arguments and results."""
        return max(p.temporary_bytes for p in self.programs)

    @property
    def flops(self) -> float:
        """Arithmetic of one core and step."""
        return sum(p.flops for p in self.programs)

    @property
    def bytes_accessed(self) -> float:
        """Memory traffic of one core and step."""
        return sum(p.bytes_accessed for p in self.programs)

    @property
    def estimated_seconds(self) -> float:
        """Estimated seconds of a step."""
        return sum(p.estimated_seconds for p in self.programs)

    @property
    def estimated_hours(self) -> float:
        """Estimated hours for all steps of the recipe; input, evaluation and checkpoints are left out."""
        return self.estimated_seconds * self.steps / 3600

    def table(self) -> list[tuple[str, str, str]]:
        """Return rows for people: what, value, note."""
        fits = f"of {_gib(self.hbm_bytes)}" if self.hbm_bytes else "memory of a core unknown"
        if 0 < self.hbm_bytes < self.memory_bytes:
            fits += ": DOES NOT FIT"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [
            ("recipe", self.recipe, f"{self.steps:,} steps of {self.batch:,} images"),
            ("topology", self.topology, f"{self.cores} cores ({self.device}), {self.batch // self.cores} images each"),
            ("memory a core", _gib(self.memory_bytes), f"{fits}; {_gib(self.temporary_bytes)} of it temporary"),
            ("arithmetic a core", f"{self.flops / 1e12:.3f} TFLOP", ESTIMATE),
            ("bytes moved a core", _gib(self.bytes_accessed), ESTIMATE),
            *(
                (
                    f"  {p.name}",
                    f"{p.estimated_seconds:.4f} s",
                    f"{_gib(p.bytes_accessed)} moved, {_gib(p.temporary_bytes)} temporary; {ESTIMATE}",
                )
                for p in self.programs
            ),
            ("time a step", f"{self.estimated_seconds:.4f} s", f"{ESTIMATE}; the paper: about {PAPER_STEP_SECONDS} s"),
            ("all steps", f"{self.estimated_hours:.1f} h", f"{ESTIMATE}; the paper: {PAPER_HOURS:.0f} h on v3:8x8"),
            ("compiling", f"{self.compile_seconds:.0f} s", f"{self.compile_cpu_seconds:.0f} s of CPU; {versions}"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every figure, and the paper's, as JSON data."""
        summed = ("memory_bytes", "temporary_bytes", "flops", "bytes_accessed", "estimated_seconds", "estimated_hours")
        return {
            **asdict(self),
            "images_per_core": self.batch // self.cores,
            **{key: getattr(self, key) for key in summed},
            "estimates_are": ESTIMATE,
            "paper": {"hours": PAPER_HOURS, "seconds_per_step": PAPER_STEP_SECONDS, "topology": "v3:8x8"},
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> CompileReport:
        """Rebuild from the fields alone."""
        return CompileReport(**{**data, "programs": tuple(Program(**p) for p in data["programs"])})


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def compile_only(
    recipe: Recipe, topology: str, report: Callable[[float], None] = lambda seconds: None, every: float = 1.0
) -> CompileReport:
    """Compile the whole step of a recipe (the sandwich and the optimizer) for a TPU topology.

    Args:
        recipe: the recipe; its batch is spread over all cores.
        topology: as JAX names them, e.g. ``v3:8x8`` (128 cores, the paper's pod).
        report: told the seconds that passed, every now and then.
        every: how often, in seconds.

    Returns:
        The compiler's figures.

    Raises:
        UsageError: libtpu is missing, no such topology, the batch does not divide by its cores, or
            the step does not fit into a core's memory.
        BigNASError: the compiler failed.
    """
    for library in ("jax", "libtpu"):
        if importlib.util.find_spec(library) is None:
            raise UsageError(
                f"--compile-only {topology}: {library} is not installed: pip install 'bignas-zoo[tpu]' "
                "(the TPU's compiler; it needs no TPU)."
            )
    answer = _in_own_process({"recipe": recipe.to_json(), "topology": topology}, report, every)
    if "error" in answer:
        raise UsageError(answer["error"])
    return CompileReport.from_json(answer)


def _in_own_process(request: dict[str, Any], report: Callable[[float], None], every: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bignas_zoo.recipes.tpu_compile", json.dumps(request)]
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=out, stderr=log
        )
        try:
            while process.poll() is None:
                report(time.monotonic() - began)
                try:
                    process.wait(every)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:  # interrupted
                process.kill()
                process.wait()
        out.seek(0)
        log.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith(ANSWER)]
        if process.returncode == 0 and lines:
            answer: dict[str, Any] = json.loads(lines[-1].removeprefix(ANSWER))
            return answer
        raise BigNASError(
            f"--compile-only {request['topology']}: the TPU compiler ended with exit code {process.returncode}. "
            f"Its last words: {' '.join(log.read()[-TAIL:].split())}"
        )


def main(request: str) -> None:
    """Answer one request of `compile_only`, in a process made for it."""
    data = json.loads(request)
    recipe = parse_recipe(json.dumps(data["recipe"]))
    try:
        answer = asdict(compile_here(recipe, data["topology"]))
    except UsageError as error:
        answer = {"error": str(error)}
    print(ANSWER + json.dumps(answer))


def compile_here(
    recipe: Recipe,
    topology: str,
    only: Sequence[str] = (),
    tell: Callable[[Program], None] = lambda program: None,
) -> CompileReport:
    """Compile in this process, whose environment must be `ENVIRONMENT` before JAX and Keras are loaded.

    Args:
        recipe, topology: see `compile_only`.
        only: names of the programs wanted; () for all.
        tell: told of each program once it is compiled.
    """
    import jax

    began = time.monotonic()
    mesh = _mesh(topology)
    device = mesh.devices.flat[0].device_kind
    if recipe.batch_size % mesh.size:
        raise UsageError(
            f"recipe '{recipe.name}': batch_size {recipe.batch_size} does not divide by the {mesh.size} cores of "
            f"{topology}: take a multiple of {mesh.size}, or a topology of fewer cores."
        )
    lowered, held = _lower(recipe, mesh)

    def compiled(name: str) -> Program:
        start = time.monotonic()
        program = Program.of(name, lowered[name].compile(), time.monotonic() - start)
        tell(program)
        return program

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            programs = tuple(pool.map(compiled, only or lowered))
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(_reason(str(error), topology, recipe)) from error
    return CompileReport(
        recipe.name, topology, device, mesh.size, recipe.batch_size, recipe.steps,
        HBM_GIB.get(device, 0) << 30, held, programs,
        time.monotonic() - began, _cpu_seconds(), _versions(),
    )  # fmt: skip


def _mesh(topology: str) -> Any:
    """Return a mesh over the abstract cores of a topology."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh

    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise UsageError(
            f"--compile-only {topology}: the TPU compiler knows no such topology ({reason}). "
            f"Examples: {', '.join(EXAMPLES)}."
        ) from error
    return Mesh(np.array(described.devices).reshape(-1), ("batch",))


def _lower(recipe: Recipe, mesh: Any) -> tuple[dict[str, Any], int]:
    """Trace the step's programs on what a training run gives them: cropped pixels, labels, rows.

    Returns:
        The programs by name, and the bytes of optimizer state.
    """
    import jax
    import numpy as np

    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes import engine_jax
    from bignas_zoo.recipes.sandwich import control

    def like(array: Any) -> Any:
        return engine_jax.shape_of(array.shape, array.dtype)

    size, side = recipe.batch_size, recipe.crop_size
    batch = {
        "pixels": engine_jax.shape_of((size, side, side, 3), np.uint8),
        "labels": engine_jax.shape_of((size,), np.int32),
        "row": engine_jax.shape_of((size,), np.int32),
    }
    step = engine_jax.PureStep(recipe, Preprocess(side, recipe.mean, recipe.std), engine_jax.execution(recipe, mesh))
    steering = jax.tree.map(like, control(recipe, recipe.biggest_only_steps))
    split = engine_jax.SplitStep(step, mesh, alone=recipe.biggest_only_steps >= recipe.steps)
    rate = engine_jax.shape_of((), np.float32)
    lowered = split.lower(jax.tree.map(like, step.initial), batch, steering, rate, None)
    return lowered, sum(v.nbytes for k, v in step.initial.items() if k not in step.names)


def _reason(error: str, topology: str, recipe: Recipe) -> str:
    short = re.sub(r"\s+", " ", error)[:300]
    if "RESOURCE_EXHAUSTED" in error:
        return (
            f"recipe '{recipe.name}': a step of batch {recipe.batch_size} does not fit into the memory of a core of "
            f"{topology} ({short}). Lower batch_size, or take a topology of more cores."
        )
    return f"--compile-only {topology}: the TPU compiler refused the step ({short})."


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("jax", "jaxlib", "libtpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a copy that is not a package
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1])
