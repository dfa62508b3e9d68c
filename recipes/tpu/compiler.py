"""Compile a recipe's training step for a TPU that is not there, and read what the compiler says.

JAX with libtpu holds the whole TPU compiler. Given a topology's name it compiles for abstract cores
on any machine with a CPU, and its executable knows the memory, the arithmetic and the traffic of one
core. Times are the compiler's estimates, never measurements.

The compiler runs in a process of its own (``python -m bignas_zoo.recipes.tpu.compiler``): it wants its
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
from dataclasses import asdict
from typing import Any

from bignas_zoo.errors import BigNASError, UsageError
from bignas_zoo.recipes.recipe import Recipe, parse_recipe
from bignas_zoo.recipes.tpu.report import CompileReport, Program

#: Memory of one core as JAX counts cores (a v2 or v3 chip has two, later chips one), in GiB.
#: Source: "System architecture" pages of Google Cloud's TPU documentation, one a generation.
HBM_GIB = {"TPU v2": 8, "TPU v3": 16, "TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}
EXAMPLES = ("v3:8x8", "v4:4x4x4", "v5e:8x8", "v6e:8x8", "v5e:2x2")
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
TAIL = 600  # characters of a dead compiler's last words


def compile_only(
    recipe: Recipe, topology: str, report: Callable[[float], None] = lambda seconds: None, every: float = 1.0
) -> CompileReport:
    """Compile the whole step of a recipe (its method's loss and the optimizer) for a TPU topology.

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
    if not re.fullmatch(r"[a-z0-9]+:[1-9][0-9]*(x[1-9][0-9]*){1,2}", topology):
        raise UsageError(f"--compile-only {topology}: no such topology. Examples: {', '.join(EXAMPLES)}.")
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
    command = [sys.executable, "-m", "bignas_zoo.recipes.tpu.compiler", json.dumps(request)]
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
        program = Program.of(name, lowered[name].compile(), time.monotonic() - start, device)
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
    """Trace the programs of the last step on what a training run gives them: cropped pixels, labels, rows.

    Returns:
        The programs by name, and the bytes of optimizer state.
    """
    import jax
    import numpy as np

    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.engines import jax as engine_jax

    def like(array: Any) -> Any:
        return engine_jax.shape_of(array.shape, array.dtype)

    size, side = recipe.batch_size, recipe.crop_size
    batch = {
        "pixels": engine_jax.shape_of((size, side, side, 3), np.uint8),
        "labels": engine_jax.shape_of((size,), np.int32),
        "row": engine_jax.shape_of((size,), np.int32),
    }
    step = engine_jax.PureStep(recipe, Preprocess(side, recipe.mean, recipe.std), engine_jax.execution(recipe, mesh))
    last = step.method.control(recipe, recipe.steps - 1, step.method.init(recipe))
    given = engine_jax.Arguments(
        batch, jax.tree.map(like, dict(last.steering)), engine_jax.shape_of((), np.float32), None
    )
    lowered = engine_jax.SplitStep(step, mesh, last.phase).lower(jax.tree.map(like, step.initial), given)
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

    versions = {}
    for package in ("jax", "jaxlib", "libtpu"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # a copy that is not a package
            continue
    return versions


if __name__ == "__main__":
    main(sys.argv[1])
