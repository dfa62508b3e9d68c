"""Five steps of one engine, as a script: ``python engine_parity.py MODE OUT.npz FIELDS [MODE OUT.npz FIELDS]...``.

FIELDS are the recipe's, as JSON. Several are run one after the other; the first one's MODE prepares the process.

MODE is "tensorflow", "mirrored" (two logical CPU devices), "worker0" and "worker1" (two processes on
loopback, the port in PARITY_PORT), "jax", "jax2" (two virtual CPU devices), or "jaxworker0" and
"jaxworker1" (two processes).
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from unittest import mock

import numpy as np
import quick_jax

STEPS, BATCH = 5, 16


def prepare(mode: str) -> None:
    """Set what must be set before the libraries are loaded."""
    os.environ["KERAS_BACKEND"] = "jax" if mode.startswith("jax") else "tensorflow"
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.modules["matplotlib"] = None  # Keras would load it if it is there
    if not mode.startswith("jax"):
        sys.modules["jax"] = None  # and TensorFlow this
    quick_jax.set_flags(*(["--xla_force_host_platform_device_count=2"] if mode == "jax2" else []))
    if mode.startswith("jaxworker"):
        address = f"localhost:{os.environ['PARITY_PORT']}"
        os.environ.update(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=mode[-1])
    if mode.startswith("worker"):
        port = int(os.environ["PARITY_PORT"])
        workers = [f"localhost:{port}", f"localhost:{port + 1}"]
        task = {"type": "worker", "index": int(mode[-1])}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})


def small_space():
    """A space with every kind of choice that compiles in seconds."""
    from bignas_zoo.architecture.space import SearchSpace
    from bignas_zoo.architecture.stage import StageSpace

    return SearchSpace(
        name="parity",
        source="tests",
        classes=5,
        resolutions=(8, 10, 12, 14),
        stem_widths=(8, 16),
        stem_stride=1,
        stages=(
            StageSpace(widths=(8, 16), depths=(1, 2), kernels=(3,), stride=2, expansions=(2,), squeeze_excite=None),
            StageSpace(widths=(16, 24), depths=(1, 2), kernels=(3, 5), stride=2, expansions=(2,)),
        ),
        head_widths=(24, 32),
    )


def make_recipe(**changes):
    from bignas_zoo.architecture import spaces
    from bignas_zoo.recipes.recipe import Recipe

    spaces.SPACES.setdefault("parity", small_space())
    fields = {
        "name": "parity", "space": "parity", "crop_size": 14, "mean": (128.0,) * 3, "std": (64.0,) * 3, "steps": 10,
        "holdout": 1, "batch_size": BATCH, "learning_rate": 0.02, "learning_rate_batch": BATCH, "crop_padding": 2,
        "weight_decay": 1e-3, "decay": "linear",
    }  # fmt: skip
    return Recipe(**fields).with_fields(**changes)


def run(mode: str, recipe):
    """Return the state after the steps, and the last step's figures."""
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data import LabelledImages, TrainingBatches
    from bignas_zoo.recipes.engines.engine import STOP, StepInput
    from bignas_zoo.recipes.methods import method_of
    from bignas_zoo.recipes.schedule import learning_rate

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (50, 14, 14, 3)).astype(np.uint8)
    images = LabelledImages(pixels, generator.integers(0, 5, 50).astype(np.int32), tuple("abcde"), "noise")
    preprocess = Preprocess(14, recipe.mean, recipe.std)
    if mode.startswith("jax"):
        from bignas_zoo.recipes.engines import jax as engine_jax

        engine = engine_jax.JaxEngine(recipe, preprocess)
    else:
        from bignas_zoo.recipes.engines.tensorflow import TensorFlowEngine

        strategies = {"tensorflow": "single", "mirrored": "mirrored"}
        engine = TensorFlowEngine(recipe, preprocess, strategies.get(mode, "multi_worker"))
    # Gammas, betas and biases of no special form: where one is zero by symmetry, only rounding is compared.
    state = {
        k: v + generator.normal(size=v.shape).astype(v.dtype) * 0.3 if k.endswith(("gamma", "beta", "bias")) else v
        for k, v in engine.state().items()
    }
    engine.restore(state)
    stream = TrainingBatches(images, recipe, host=engine.host, hosts=engine.hosts, resident=engine.holds_images)
    if stream.resident:
        engine.hold(stream.held())
    method = method_of(recipe)
    for step in range(STEPS):
        # Between hosts: the second one is asked to stop before the last step, and both get to know.
        asked = engine.host > 0 and step == STEPS - 1
        control = method.control(recipe, step, method.init(recipe))
        values = engine.step(StepInput(stream.at(step), control, learning_rate(recipe, step), asked))
        assert (float(values.get(STOP, 0)) > 0) == (engine.hosts > 1 and step == STEPS - 1)
    return state, engine.state(), {name: float(value) for name, value in values.items()}


def platform(mode: str) -> AbstractContextManager[object]:
    """Have JAX's engine take this machine for a TPU in mode "jaxtpu"."""
    if mode != "jaxtpu":
        return nullcontext()
    return mock.patch("bignas_zoo.recipes.engines.jax.platform_of", return_value="tpu")


def report(mode: str, out: str, fields: str) -> None:
    with platform(mode):
        start, state, values = run(mode, make_recipe(**json.loads(fields)))
    moved = max(float(np.abs(state[k] - start[k]).max()) for k in state if not k.startswith("optimizer"))
    np.savez(out, **state)
    print(json.dumps({"mode": mode, "moved": moved, **values}))


def main(*jobs: str) -> None:
    prepare(jobs[0])
    if jobs[0] == "mirrored":
        import tensorflow as tf

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    for first in range(0, len(jobs), 3):
        report(*jobs[first : first + 3])


if __name__ == "__main__":
    main(*sys.argv[1:])
