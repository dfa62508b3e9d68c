"""The way to a GPU machine and back, without one: JAX on the CPU, TensorFlow and others out of reach."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import quick_jax
from conftest import ROOT
from PIL import Image
from trainer import RECIPE

from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError, UsageError
from bignas_zoo.models.weights import read_weights
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.runs import checkpoint, transfer
from bignas_zoo.recipes.runs.transfer import collect, restore

#: Not on the machines that `recipes/gpu.sh` is for. (An entry of None makes an import fail as if nothing were there.)
ABSENT = ("tensorflow", "ai_edge_litert", "jinja2", "matplotlib", "h5py")
STEPS = 700
SITE = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))
sys.path.append({tests!r})
from bignas_zoo.architecture import spaces
from trainer_space import MINI
spaces.SPACES["mini"] = MINI
"""


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        name="micro", space="bignas-micro", crop_size=24, mean=(128.0,) * 3, std=(64.0,) * 3, steps=6, holdout=10,
        batch_size=8,
    )  # fmt: skip


def state(scale: float = 1.0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "stem.kernel": generator.normal(size=(3, 3, 3, 16)).astype(np.float32) * np.float32(scale),
        "optimizer.0000": np.array(6, np.int64),
        "optimizer.0001": generator.normal(size=(3, 3, 3, 16)).astype(np.float32),
    }


def run_at(folder: Path, recipe: Recipe, step: int) -> Path:
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(recipe.to_json()))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "notes.txt").write_text("mine.\n")
    checkpoint.save(folder, recipe, step, state(), checkpoint.Best(3, 50.0))
    return folder


def test_a_finished_run_comes_home_as_its_float16_weights_in_parts(recipe: Recipe, tmp_path: Path) -> None:
    manifest = collect(run_at(tmp_path / "run", recipe, 6), tmp_path / "out", "Images: these.", part_bytes=300)
    size = 3 * 3 * 3 * 16 * 2
    parts = sorted((tmp_path / "out").glob("state.safetensors.*"), key=lambda p: int(p.suffix[1:]))
    assert len(parts) == len(manifest["files"]) - 2 > size / 300
    assert all(p.stat().st_size <= 300 for p in parts)
    assert restore(tmp_path / "out", tmp_path / "back") == 6
    found = checkpoint.newest(tmp_path / "back", recipe)
    assert found is not None
    assert found.state.keys() == {"stem.kernel"}
    np.testing.assert_array_equal(found.state["stem.kernel"], state()["stem.kernel"].astype("f2").astype("f4"))
    assert (found.step, found.best) == (6, checkpoint.Best(3, 50.0))
    assert (tmp_path / "back" / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'
    notes = (tmp_path / "back" / "notes.txt").read_text()
    assert notes.startswith("mine. Images: these. Trained on ")
    assert f"numpy {np.__version__}" in notes


def test_an_unfinished_run_takes_its_optimizer_along_if_that_fits(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path / "run", recipe, 4)
    assert collect(run, tmp_path / "out")["whole"] is True
    assert restore(tmp_path / "out", tmp_path / "back") == 4
    found = checkpoint.newest(tmp_path / "back", recipe)
    assert found is not None
    for name, value in state().items():
        np.testing.assert_array_equal(found.state[name], value)
        assert found.state[name].dtype == value.dtype
    monkeypatch.setattr(transfer, "WHOLE_BYTES", 100)
    assert collect(run, tmp_path / "out")["whole"] is False
    with pytest.raises(UsageError, match=r"at step 4 of 6, and its optimizer was too large to travel\. Finish it"):
        restore(tmp_path / "out", tmp_path / "other")


def test_what_cannot_be_collected_or_restored_is_said(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"holds no training run \(no recipe\.json\)"):
        collect(tmp_path, tmp_path / "out")
    run = run_at(tmp_path / "run", recipe, 6)
    collect(run, tmp_path / "out")
    with pytest.raises(LocalIOError, match="holds a run already. Choose another folder"):
        restore(tmp_path / "out", run)
    part = tmp_path / "out" / "state.safetensors.0"
    whole = part.read_bytes()
    for wrong in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        part.write_bytes(wrong)
        with pytest.raises(IntegrityError, match=r"state\.safetensors\.0: damaged.* Fetch the folder again"):
            restore(tmp_path / "out", tmp_path / "back")
    part.unlink()
    with pytest.raises(IntegrityError, match=r"state\.safetensors\.0: missing"):
        restore(tmp_path / "out", tmp_path / "back")
    for manifest in ("{}", '{"schema": "bignas-zoo/family/1"}', "[]"):
        (tmp_path / "out" / "manifest.json").write_text(manifest)
        with pytest.raises(IntegrityError, match="not as `collect` writes it"):
            restore(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_script_is_sound_and_explains_itself() -> None:
    script = ROOT / "recipes" / "gpu.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "recipes/gpu.sh train RECIPE" in done.stderr
    assert "#" not in done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and its images: two classes, 10 px."""
    folder = tmp_path_factory.mktemp("gpu")
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 4)):
        for name in "ab":
            (folder / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{i}.png")
    (folder / "mini.yaml").write_text(
        RECIPE.format(steps=STEPS).replace("evaluate_every: 5", f"evaluate_every: {STEPS}")
        + "depthwise: native\nprecision: bfloat16\n"
    )
    for name, absent in (("there", ABSENT), ("here", ())):
        (folder / name).mkdir()
        site = SITE.format(absent=absent, tests=str(folder / name))
        (folder / name / "sitecustomize.py").write_text(site)
        text = (ROOT / "tests" / "trainer.py").read_text()
        literal = text[text.index("MINI = ") : text.index("RECIPE = ")]
        (folder / name / "trainer_space.py").write_text(
            f"from bignas_zoo.architecture.space import SearchSpace, StageSpace\n{literal}"
        )
    return folder


def script(place: Path, side: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHON": sys.executable, "BIGNAS_GPU": str(place / "gpu"), "OUT": str(place / "out"),
        "PYTHONPATH": str(place / side), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick_jax.FLAGS,
    }  # fmt: skip
    return subprocess.Popen(
        [str(ROOT / "recipes" / "gpu.sh"), *arguments], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in out + err, out + err
    return process.returncode, out + err


@pytest.mark.slow
def test_packed_trained_stopped_resumed_brought_home_and_made_a_family(place: Path) -> None:
    recipe, data = str(place / "mini.yaml"), place / "gpu" / "data"
    data.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(place / "here")}
    pack = [sys.executable, "-m", "bignas_zoo.recipes.data.packed", recipe, "--data", str(place / "images")]
    subprocess.run([*pack, "--output", str(data / "mini.npz")], check=True, env=environment)
    # As `pack` leaves what is too large for one journey.
    subprocess.run("sha256sum mini.npz > mini.npz.sha256", shell=True, cwd=data, check=True)
    subprocess.run(["split", "--bytes=9000", "--numeric-suffixes", "mini.npz", "mini.npz.part-"], cwd=data, check=True)
    (data / "mini.npz").unlink()
    assert len(list(data.glob("*.part-*"))) > 1

    training, run = script(place, "there", "train", recipe), place / "gpu" / "run-mini"
    while training.poll() is None and not (run / "metrics.jsonl").is_file():
        time.sleep(0.2)
    while training.poll() is None and not (run / "metrics.jsonl").read_text():
        time.sleep(0.05)
    training.send_signal(signal.SIGTERM)
    code, said = finish(training)
    assert code == 75, said
    assert "stopped on request after step" in said
    assert "Not finished: run the same command again (exit code 75)." in said
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    assert manifest["whole"] is True
    assert 20 <= manifest["step"] < STEPS

    code, said = finish(script(place, "there", "train", recipe))
    assert code == 0, said
    assert f"bignas-zoo family {run} --data DATA (the images that {data / 'mini.npz'} was packed of)" in said
    assert f"step {STEPS:,} of {STEPS:,}, weights in float16" in said
    assert f'{{"step": {STEPS}, "evaluation": ' in said

    code, said = finish(script(place, "here", "restore", str(place / "out"), str(place / "home")))
    assert code == 0, said
    family = [sys.executable, "-m", "bignas_zoo.cli", "family", str(place / "home"), "--data"]
    wrong = subprocess.run(
        [*family, str(data / "mini.npz")], env=environment, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "without the test images that a family is measured on" in wrong.stderr
    subprocess.run([*family, str(place / "images")], env=environment, check=True, capture_output=True)
    shipped = read_weights(place / "home" / "family" / "supernet.safetensors")
    trained = read_weights(run / "checkpoints" / f"step-{STEPS:06d}" / "state.safetensors")
    assert all(v.dtype == np.float16 for v in shipped.values())
    for name, value in shipped.items():
        np.testing.assert_array_equal(value, trained[name].astype(np.float16))
    notes = json.loads((place / "home" / "family" / "family.json").read_text())["training"]["notes"]
    assert "packed as WebP without losses" in notes
    assert "jax " in notes


@pytest.mark.slow
def test_a_limit_that_is_over_before_the_first_checkpoint_asks_for_another_run(place: Path) -> None:
    recipe, data = place / "hasty.yaml", place / "gpu" / "data"
    recipe.write_text((place / "mini.yaml").read_text())
    data.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(place / "here")}
    pack = [sys.executable, "-m", "bignas_zoo.recipes.data.packed", str(recipe), "--data", str(place / "images")]
    subprocess.run([*pack, "--output", str(data / "hasty.npz")], check=True, env=environment)
    code, said = finish(script(place, "there", "train", str(recipe), "2"))  # less than it takes to start
    assert code == 75, said
    assert "Not finished: run the same command again (exit code 75)." in said
