"""Checkpoints: exact, complete or not taken, the newest good one, the last few and the best kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from bignas_zoo.architecture import spaces
from bignas_zoo.errors import IntegrityError, LocalIOError, RecipeError, TrainingStoppedError
from bignas_zoo.files import store
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.checkpoint import Best

STATE = {
    "stem.kernel": np.array([[1.5, -0.0], [np.float32(1e-45), np.float32(3.4e38)]], np.float32),
    "optimizer.0000": np.array(7, np.int64),
    "optimizer.0001": np.array(0.1, np.float32),
    "optimizer.0002": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    return Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0,) * 3, std=(64.0,) * 3, steps=9, holdout=10,
        batch_size=32, seed=5,
    )  # fmt: skip


def state(value: float) -> dict[str, np.ndarray]:
    return {"a": np.full(3, value, np.float32)}


def steps(workdir: Path) -> list[str]:
    return sorted(p.name for p in (workdir / "checkpoints").iterdir())


def test_what_is_read_is_what_was_written_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path, recipe) is None
    checkpoint.save(tmp_path, recipe, 3, STATE, Best(2, 71.25))
    read = checkpoint.newest(tmp_path, recipe)
    assert read is not None
    assert (read.step, read.best) == (3, Best(2, 71.25))
    assert read.state.keys() == STATE.keys()
    for name, value in STATE.items():
        assert (read.state[name].shape, read.state[name].dtype) == (value.shape, value.dtype), name
        assert read.state[name].tobytes() == value.tobytes(), name


def test_the_manifest(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, recipe, 3, STATE)
    folder = tmp_path / "checkpoints" / "step-000003"
    data = json.loads((folder / "manifest.json").read_text())
    stored = (folder / "state.safetensors").read_bytes()
    assert data.pop("versions")["numpy"] == np.__version__
    assert data.pop("recipe")["batch_size"] == 32
    assert data == {
        "schema": "bignas-zoo/checkpoint/1",
        "step": 3,
        "data_position": 96,
        "seed": 5,
        "best": None,
        "state": {
            "file": "state.safetensors",
            "bytes": len(stored),
            "sha256": hashlib.sha256(stored).hexdigest(),
        },
    }


def test_the_last_ones_and_the_best_are_kept(recipe: Recipe, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(tmp_path, recipe, step, state(step), Best(2, 90.0) if step > 1 else None)
    assert steps(tmp_path) == ["step-000002", "step-000004", "step-000005"]
    checkpoint.save(tmp_path, recipe, 6, state(6), Best(6, 91.0), keep=1)
    assert steps(tmp_path) == ["step-000006"]


def test_steps_beyond_a_million_are_ordered_as_numbers(recipe: Recipe, tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, recipe, step, state(step))
    read = checkpoint.newest(tmp_path, recipe)
    assert read is not None
    assert read.step == 1_000_000


def test_an_unfinished_one_is_never_taken_and_is_cleared_away(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, recipe, 2, state(2))
    checkpoint.save(tmp_path, recipe, 4, state(4))
    folder = tmp_path / "checkpoints" / "step-000004"
    (folder / "manifest.json").unlink()
    (folder / ".bignas-tmp-x").write_bytes(b"half")
    said: list[str] = []
    read = checkpoint.newest(tmp_path, recipe, said.append)
    assert read is not None
    assert read.step == 2
    assert said == [f"{folder}: never finished; passed over"]
    checkpoint.save(tmp_path, recipe, 5, state(5))
    assert steps(tmp_path) == ["step-000002", "step-000005"]


@pytest.mark.parametrize("file", ["manifest.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_one_is_passed_over_loudly(recipe: Recipe, tmp_path: Path, file: str, damage: str) -> None:
    checkpoint.save(tmp_path, recipe, 2, state(2), Best(1, 50.0))
    checkpoint.save(tmp_path, recipe, 4, state(4), Best(4, 60.0))
    path = tmp_path / "checkpoints" / "step-000004" / file
    good = path.read_bytes()
    changed = {"flip": good[:-20] + bytes([good[-20] ^ 0x80]) + good[-19:], "cut": good[:-1], "empty": b""}
    if (file, damage) == ("manifest.json", "cut"):
        changed["cut"] = good[:-2]  # without the newline alone it is the same JSON
    path.write_bytes(changed[damage])
    said: list[str] = []
    read = checkpoint.newest(tmp_path, recipe, said.append)
    assert read is not None
    assert (read.step, read.best) == (2, Best(1, 50.0))
    (line,) = said
    assert str(path) in line
    assert line.endswith("It is passed over.")
    # The run goes on from before the damaged one and writes its own of that step.
    checkpoint.save(tmp_path, recipe, 3, state(3), Best(1, 50.0))
    assert steps(tmp_path) == ["step-000002", "step-000003"]


def test_a_damaged_one_is_replaced_at_its_own_step(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, recipe, 2, state(2))
    checkpoint.save(tmp_path, recipe, 4, state(4))
    (tmp_path / "checkpoints" / "step-000004" / "state.safetensors").write_bytes(b"")
    checkpoint.save(tmp_path, recipe, 4, state(5))
    read = checkpoint.newest(tmp_path, recipe)
    assert read is not None
    assert read.state["a"].tolist() == [5.0] * 3


def test_if_all_are_damaged_nothing_starts_over_silently(recipe: Recipe, tmp_path: Path) -> None:
    for step in (2, 4):
        checkpoint.save(tmp_path, recipe, step, state(step))
        (tmp_path / "checkpoints" / f"step-00000{step}" / "state.safetensors").write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        checkpoint.newest(tmp_path, recipe)
    assert str(caught.value) == (
        f"{tmp_path}/checkpoints: no good checkpoint is left; damaged: step-000004, step-000002. "
        "Choose another --output, or delete that folder to start from the beginning."
    )
    assert caught.value.exit_code == 4


def test_another_recipe_is_refused_by_its_keys(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, recipe, 2, state(2))
    changed = dataclasses.replace(recipe, learning_rate=0.5, dropout=0.0)
    with pytest.raises(RecipeError, match="different keys: dropout, learning_rate. Choose another --output"):
        checkpoint.newest(tmp_path, changed)


def test_other_versions_are_said(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "versions", lambda: {"python": "3.11.7", "keras": "3.14"})
    checkpoint.save(tmp_path, recipe, 2, state(2))
    monkeypatch.setattr(checkpoint, "versions", lambda: {"python": "3.11.7", "keras": "3.15"})
    said: list[str] = []
    checkpoint.newest(tmp_path, recipe, said.append)
    (line,) = said
    assert "(keras 3.14 -> 3.15)" in line
    assert "bit for bit" in line


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_never_written(recipe: Recipe, tmp_path: Path, value: float) -> None:
    checkpoint.save(tmp_path, recipe, 2, state(2))
    with pytest.raises(TrainingStoppedError, match="step 4: 'a' holds values that are not numbers") as caught:
        checkpoint.save(tmp_path, recipe, 4, {"a": np.array([1, value], np.float32), "n": np.array(1)})
    assert caught.value.exit_code == 8
    assert steps(tmp_path) == ["step-000002"]


@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
def test_a_full_disk_leaves_the_others(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, recipe, step, state(step))
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if Path(target).name == file:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", full)
        with pytest.raises(LocalIOError, match="No space left on device"):
            checkpoint.save(tmp_path, recipe, 3, state(3))
    read = checkpoint.newest(tmp_path, recipe)
    assert read is not None
    assert read.step == 2
    assert (tmp_path / "checkpoints" / "step-000001" / "manifest.json").is_file()


def test_a_state_of_another_make_is_refused_by_name() -> None:
    one, two = state(1), {"a": np.zeros(3, np.float32), "b": np.array(0)}
    checkpoint.check_state(one, state(2), Path("run"))
    with pytest.raises(IntegrityError, match="1 values do not fit, such as 'b'"):
        checkpoint.check_state(one, two, Path("run"))
    with pytest.raises(IntegrityError, match="such as 'a'"):
        checkpoint.check_state({"a": np.zeros((3, 1), np.float32)}, one, Path("run"))


KILLER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.recipe import Recipe

recipe = Recipe(name="x", space="bignas-cifar10", crop_size=32, mean=(1.,)*3, std=(1.,)*3, steps=9, holdout=1)
checkpoint.versions = dict

def state(step):
    return {"a": np.full(1000, step, np.float32)}

def dying(function, left):
    def call(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

root, died, point = Path(sys.argv[1]), True, 0
while died:
    point += 1
    run = root / str(point)
    for step in (1, 2, 3):
        checkpoint.save(run, recipe, step, state(step), checkpoint.Best(1, 50.0))
    child = os.fork()
    if child == 0:
        left = [point]
        for name in ("mkdir", "open", "fdopen", "fsync", "chmod", "replace", "unlink", "rmdir"):
            setattr(os, name, dying(getattr(os, name), left))
        checkpoint.save(run, recipe, 4, state(4), checkpoint.Best(4, 60.0))
        os._exit(0)
    died = os.waitpid(child, 0)[1] != 0
    said = []
    read = checkpoint.newest(run, recipe, said.append)
    assert read.step in ((3, 4) if died else (4,)), (point, read.step)
    assert read.state["a"].tolist() == [read.step] * 1000, point
    assert not any("damaged" in line for line in said), said
    checkpoint.save(run, recipe, 5, state(5), read.best)
    left_over = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    expected = {read.best.step, read.step, 5}
    kept = {f"checkpoints/step-00000{n}/{f}" for n in expected for f in ("manifest.json", "state.safetensors")}
    assert set(left_over) == kept, (point, left_over)
print(point)
"""


@pytest.mark.slow
def test_killed_at_every_call_of_a_write(tmp_path: Path) -> None:
    # Every call that changes the disk is a point to die at: afterwards the newest checkpoint is the old or the new
    # one, whole, and the next write leaves nothing behind. NumPy as backend: fork before TensorFlow's threads.
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "numpy", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 15


def test_a_run_from_before_a_recipe_field_existed_goes_on_with_the_fields_default(
    recipe: Recipe, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path, recipe, 3, STATE)
    path = tmp_path / "checkpoints" / "step-000003" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["recipe"]["start_from"]
    path.write_text(json.dumps(manifest))
    found = checkpoint.newest(tmp_path, recipe)
    assert found
    assert found.step == 3
    with pytest.raises(RecipeError, match="start_from"):
        checkpoint.newest(tmp_path, dataclasses.replace(recipe, start_from="bignas-cifar10"))
