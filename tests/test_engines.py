"""The engines take the same step: TensorFlow and JAX, one device, two replicas, two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

TOLERANCE = 5e-5  # of each tensor's largest value, after five full steps


def start(mode: str, out: Path, port: int = 0, **fields: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PARITY_PORT": str(port), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "tests" / "engine_parity.py"), mode, str(out), json.dumps(fields)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], out: Path) -> dict[str, np.ndarray]:
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr[-2000:]
    report = json.loads(stdout.splitlines()[-1])
    assert report["moved"] > 0.01  # steps that change nothing would agree as well
    return {k: v for k, v in np.load(out).items() if not k.startswith("optimizer.")}


def run(mode: str, folder: Path, **fields: object) -> dict[str, np.ndarray]:
    return finish(start(mode, folder / f"{mode}.npz", **fields), folder / f"{mode}.npz")


def free_ports() -> int:
    """Return the first of two neighbouring free ports."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("localhost", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("localhost", port + 1))
            except OSError:
                continue
            return port
    pytest.skip("no two neighbouring free ports")


def worst(state: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    assert set(state) == set(reference)
    return max(float(np.abs(state[k] - v).max() / np.abs(v).max()) for k, v in reference.items())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return run("tensorflow", tmp_path_factory.mktemp("parity"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mirrored", "jax", "jax2", "jaxtpu"])
def test_an_engine_takes_the_steps_of_tensorflow_on_one_device(
    mode: str, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert worst(run(mode, tmp_path), reference) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["worker", "jaxworker"])
def test_two_processes_take_the_steps_of_one(mode: str, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    port = free_ports()
    outs = [tmp_path / f"{i}.npz" for i in range(2)]
    workers = [start(f"{mode}{i}", out, port) for i, out in enumerate(outs)]
    try:
        for worker, out in zip(workers, outs, strict=True):
            assert worst(finish(worker, out), reference) < TOLERANCE
    finally:
        for worker in workers:  # after a failure the other one waits for its peer
            worker.kill()
            worker.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"branch": "where", "batch_norm": "two_pass"},
        {"depthwise": "shifted"},
        {"branch": "where", "batch_norm": "one_pass", "pack": 4},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_other_forms_take_the_same_steps(
    fields: dict[str, object], reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert worst(run("tensorflow", tmp_path, **fields), reference) < TOLERANCE


@pytest.mark.slow
def test_jax_takes_the_same_steps_by_one_program_with_conditionals(
    reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert worst(run("jax", tmp_path, program="step", branch="cond"), reference) < TOLERANCE


@pytest.mark.slow
def test_every_knob_on_both_engines(tmp_path: Path) -> None:
    # Everything that is off in the paper's step: labels for all children, everyone regularised, no
    # smallest child, a temperature, resampled crops, Nesterov SGD, a late start of the small children.
    fields = {
        "regularise": "all", "smallest_child": False, "random_children": 1, "distillation_temperature": 2.0,
        "crop_area": 0.5, "optimizer": "sgd", "loss_reduction": "mean", "biggest_only_steps": 2,
    }  # fmt: skip
    one, other = (run(mode, tmp_path, **fields) for mode in ("tensorflow", "jax"))
    assert worst(other, one) < TOLERANCE
