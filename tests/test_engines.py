"""The engines take the same step: TensorFlow and JAX, one device, two replicas, two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

TOLERANCE = 5e-5  # of each tensor's largest value, after five full steps


#: Everything that is off in the paper's step: labels for all children, everyone regularised, no smallest
#: child, a temperature, resampled crops, Nesterov SGD, a late start of the small children.
KNOBS: dict[str, object] = {
    "regularise": "all", "smallest_child": False, "random_children": 1, "distillation_temperature": 2.0,
    "crop_area": 0.5, "optimizer": "sgd", "loss_reduction": "mean", "biggest_only_steps": 2,
}  # fmt: skip
#: AlphaNet's loss and AttentiveNAS's sampling.
ALPHANET: dict[str, object] = {"divergence": "alpha", "candidates": 2, "random_children": 1, "biggest_only_steps": 0}
Job = tuple[str, dict[str, object]]
#: A mode and fields of the recipe, by name; those of one library are run in one process, which takes seconds to load.
TENSORFLOW: dict[str, Job] = {
    "tensorflow": ("tensorflow", {}),
    "where-two_pass": ("tensorflow", {"branch": "where", "batch_norm": "two_pass"}),
    "shifted": ("tensorflow", {"depthwise": "shifted"}),
    "where-one_pass-4": ("tensorflow", {"branch": "where", "batch_norm": "one_pass", "pack": 4}),
    "knobs": ("tensorflow", KNOBS),
    "alphanet": ("tensorflow", ALPHANET),
}
JAX: dict[str, Job] = {
    "jax": ("jax", {}),
    "jax-step-cond": ("jax", {"program": "step", "branch": "cond"}),
    "jax-knobs": ("jax", KNOBS),
    "jax-alphanet": ("jax", ALPHANET),
    "jaxtpu": ("jaxtpu", {}),
}
State = dict[str, np.ndarray]


def start(jobs: dict[Path, Job], port: int = 0) -> subprocess.Popen[str]:
    environment = {**os.environ, "PARITY_PORT": str(port), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "tests" / "engine_parity.py")]
    for out, (mode, fields) in jobs.items():
        command += [mode, str(out), json.dumps(fields)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], outs: Iterable[Path]) -> list[State]:
    stdout, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr[-2000:]
    reports = [json.loads(line) for line in stdout.splitlines() if line.startswith('{"mode"')]
    states = [{k: v for k, v in np.load(out).items() if not k.startswith("optimizer.")} for out in outs]
    assert len(reports) == len(states)
    assert all(report["moved"] > 0.01 for report in reports)  # steps that change nothing would agree as well
    return states


def run(jobs: dict[str, Job], folder: Path) -> dict[str, State]:
    """Return the state that each job ends with."""
    outs = {folder / f"{name}.npz": job for name, job in jobs.items()}
    return dict(zip(jobs, finish(start(outs), outs), strict=True))


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
def of_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    return run(TENSORFLOW, tmp_path_factory.mktemp("tensorflow"))


@pytest.fixture(scope="module")
def of_jax(tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    return run(JAX, tmp_path_factory.mktemp("jax"))


@pytest.fixture(scope="module")
def reference(of_tensorflow: dict[str, State]) -> State:
    return of_tensorflow["tensorflow"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mirrored", "jax2"])
def test_two_devices_take_the_steps_of_one(mode: str, reference: State, tmp_path: Path) -> None:
    assert worst(run({mode: (mode, {})}, tmp_path)[mode], reference) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax", "jaxtpu"])
def test_jax_takes_the_steps_of_tensorflow(name: str, of_jax: dict[str, State], reference: State) -> None:
    assert worst(of_jax[name], reference) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["worker", "jaxworker"])
def test_two_processes_take_the_steps_of_one(mode: str, reference: State, tmp_path: Path) -> None:
    port = free_ports()
    outs = [tmp_path / f"{i}.npz" for i in range(2)]
    workers = [start({out: (f"{mode}{i}", {})}, port) for i, out in enumerate(outs)]
    try:
        for worker, out in zip(workers, outs, strict=True):
            assert worst(finish(worker, [out])[0], reference) < TOLERANCE
    finally:
        for worker in workers:  # after a failure the other one waits for its peer
            worker.kill()
            worker.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["where-two_pass", "shifted", "where-one_pass-4"])
def test_other_forms_take_the_same_steps(name: str, of_tensorflow: dict[str, State], reference: State) -> None:
    assert worst(of_tensorflow[name], reference) < TOLERANCE


@pytest.mark.slow
def test_jax_takes_the_same_steps_by_one_program_with_conditionals(of_jax: dict[str, State], reference: State) -> None:
    assert worst(of_jax["jax-step-cond"], reference) < TOLERANCE


@pytest.mark.slow
def test_every_knob_on_both_engines(of_tensorflow: dict[str, State], of_jax: dict[str, State]) -> None:
    assert worst(of_jax["jax-knobs"], of_tensorflow["knobs"]) < TOLERANCE


@pytest.mark.slow
def test_alphanets_and_attentivenas_rules_on_both_engines(
    of_tensorflow: dict[str, State], of_jax: dict[str, State]
) -> None:
    assert worst(of_jax["jax-alphanet"], of_tensorflow["alphanet"]) < TOLERANCE
