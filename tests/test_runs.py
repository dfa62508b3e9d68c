"""Whole runs as processes: killed, asked to stop, doubled, gone wrong; and always the same weights in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from trainer import RECIPE

STEPS = 12
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in two classes, and the recipe beside it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 34), ("test", 2)):
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    (folder / "mini.yaml").write_text(RECIPE.format(steps=STEPS))
    return folder


def start(data: Path, run: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "trainer.py"), "train", str(data / "mini.yaml"), "--data", str(data),
         "--output", str(run)],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err
    return process.returncode, " ".join(err.split())


def end(run: Path) -> bytes:
    return (run / "checkpoints" / f"step-{STEPS:06d}" / "state.safetensors").read_bytes()


def newest(run: Path) -> str:
    return max(p.parent.name for p in run.glob("checkpoints/*/manifest.json"))


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    code, said = finish(start(data, run))
    assert code == 0, said
    return run


def test_killed_again_and_again_the_weights_are_the_same(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Between two checkpoints; while a state is written; when a state is complete and its manifest is not.
    for point, left in (
        ("step:3", "step-000002"),
        ("replace:state.safetensors:2", "step-000004"),
        ("replace:manifest.json:3", "step-000006"),
    ):
        assert finish(start(data, run, KILL=point))[0] == -signal.SIGKILL
        assert newest(run) == left
    code, said = finish(start(data, run))
    assert code == 0, said
    assert end(run) == end(uninterrupted)
    logs = [[json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()] for r in (run, uninterrupted)]
    for log in logs:
        for record in log:
            record.pop("seconds", None)
            record.pop("images_per_second", None)
    assert logs[0] == logs[1]
    assert not list(run.rglob("checkpoints/*/.bignas-tmp-*"))
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_sigterm_is_exit_code_75_and_a_second_trainer_is_refused_meanwhile(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = start(data, run, PAUSE="7")
    assert first.stdout is not None
    assert first.stdout.readline() == "paused after step 7\n"
    code, said = finish(start(data, run))
    assert code == 7
    assert f"in use by process {first.pid} on " in said
    first.send_signal(signal.SIGTERM)
    code, said = finish(first)
    assert code == 75
    assert said.endswith("stopped on request after step 7 of 12. Run the same command again to go on.")
    assert newest(run) == "step-000007"
    assert finish(start(data, run))[0] == 0
    assert end(run) == end(uninterrupted)


def test_sigterm_after_the_training_is_exit_code_75_too(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    code, said = finish(start(data, run, MEASURE="stop"))
    assert code == 75
    assert said.endswith("stopped on request. Run the same command again to go on.")
    assert end(run) == end(uninterrupted)


def test_weights_that_are_no_numbers_are_exit_code_8_and_no_checkpoint(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    # The sixth step, after which a checkpoint is due, breaks the weights; its own loss is still fine.
    run = tmp_path / "run"
    code, said = finish(start(data, run, POISON="6"))
    assert code == 8
    assert "step 6: " in said
    assert "holds values that are not numbers, so no checkpoint was written" in said
    assert newest(run) == "step-000005"
    state = Path("checkpoints", "step-000005", "state.safetensors")
    assert (run / state).read_bytes() == (uninterrupted / state).read_bytes()


def test_a_loss_that_is_no_number_is_exit_code_8_and_the_checkpoints_stay(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, said = finish(start(data, run, POISON="7"))
    assert code == 8
    assert f"step 8: the loss is nan, and nothing of this step is kept; any checkpoints in {run}" in said
    assert newest(run) == "step-000006"
    assert finish(start(data, run))[0] == 0  # without the poison
    assert end(run) == end(uninterrupted)
