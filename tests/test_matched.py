"""The method `matched-sandwich`: what a step computes, what it leaves alone, and that both engines agree."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from matched_steps import SIDE, images_of, recipe_of, steps
from test_photos_parts import SMALL
from test_writers import weights_of

from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.errors import RecipeError, UsageError
from bignas_zoo.files import store
from bignas_zoo.models.numpy_forward import numpy_forward
from bignas_zoo.models.preprocess import resize
from bignas_zoo.models.slicing import slice_weights, supernet_shapes
from bignas_zoo.models.weights import write_weights
from bignas_zoo.recipes import train as loop
from bignas_zoo.recipes.data import TrainingBatches
from bignas_zoo.recipes.engines.engine import StepInput
from bignas_zoo.recipes.engines.tensorflow import TensorFlowEngine
from bignas_zoo.recipes.methods import matched
from bignas_zoo.recipes.methods.matched import MatchedSandwich
from bignas_zoo.recipes.recipe import read_recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.schedule import learning_rate


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A starting family with the space's two corners and two others."""
    folder = tmp_path_factory.mktemp("start")
    weights = {k: v for k, v in weights_of(SMALL.biggest).items() if k in supernet_shapes(SMALL)}
    write_weights(folder / "supernet.safetensors", weights)
    children = [SMALL.smallest, *(uniform_child(SMALL, ("start", i)) for i in range(2)), SMALL.biggest]
    slices = []
    for i, child in enumerate(children):
        file = f"{i}.safetensors"
        write_weights(
            folder / file, {k: v for k, v in weights_of(child, i).items() if k.endswith(("mean", "variance"))}
        )
        slices.append({
            "name": f"child-{i}", "spec": child.to_json(), "top1": None, "top1_images": None, "top1_source": "",
            "holdout_top1": None, "bytes": None, "statistics": {"file": file, **store.record(folder / file)},
        })  # fmt: skip
    record = {"file": "supernet.safetensors", **store.record(folder / "supernet.safetensors")}
    description = {
        "schema": "bignas-zoo/family/2", "name": "start", "description": "a test", "license": "MIT", "source": "",
        "space": SMALL.to_json(), "class_names": list("abcde"), "weights": record, "training": {}, "slices": slices,
        "preprocess": {"crop_size": SIDE, "mean": [128] * 3, "std": [64] * 3},
    }  # fmt: skip
    from bignas_zoo.zoo.family import SCHEMA

    store.write_json(folder / "family.json", store.sealed({**description, "schema": SCHEMA}))
    return folder


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def test_a_step_s_losses_by_hand(start: Path) -> None:
    recipe = recipe_of(str(start), flip=False)
    _, (first, *_) = steps(recipe, TensorFlowEngine)
    children = {child.name: child for child in matched.children_of(str(start))}
    names = first["phase"].split("+")[1:]
    assert len(names) == 1
    batch = TrainingBatches(images_of(), recipe).at(0)
    pixels = batch["pixels"] if "pixels" in batch else images_of().pixels[batch["index"]]
    inputs = ((pixels - 128.0) / 64.0).astype(np.float32)
    shared = {k: v for k, v in weights_of(SMALL.biggest).items() if k in supernet_shapes(SMALL)}
    *_, biggest = children.values()
    losses, soft = [], None
    for child in (biggest, children[names[0]], children["child-0"]):
        x = np.asarray(resize(inputs, child.spec.resolution), np.float64)
        logits = numpy_forward(child.spec, {**slice_weights(shared, child.spec), **child.statistics}, x)
        if soft is None:
            target = np.eye(5)[batch["labels"]] * 0.9 + 0.1 / 5
            soft = np.exp(log_softmax(logits))
        else:
            target = soft
        losses.append(-(target * log_softmax(logits)).sum(-1).mean())
    assert first["biggest"] == pytest.approx(losses[0], rel=1e-4)
    assert first["smallest"] == pytest.approx(losses[2], rel=1e-4)
    assert first["loss"] == pytest.approx(sum(losses), rel=1e-4)


@pytest.mark.slow
def test_frozen_weights_stay_and_the_others_move(start: Path) -> None:
    recipe = recipe_of(str(start))
    engine, figures = steps(recipe, TensorFlowEngine)
    before = weights_of(SMALL.biggest)
    moved = {name for name, array in engine.weights().items() if not np.array_equal(array, before[name])}
    still = {name for name in engine.weights() if name.startswith(("stem", "stage1."))}
    assert moved == set(engine.weights()) - still
    assert len({f["phase"] for f in figures}) == 2  # both children in the middle had their turn
    assert all(len(f["phase"].split("+")) == 2 for f in figures)
    # The optimizer keeps nothing of what it does not move.
    whole, _ = steps(recipe.with_fields(frozen_stages=-1), TensorFlowEngine)
    assert len(whole.state()) - len(engine.state()) == 2 * len(still)


def test_phases(start: Path) -> None:
    recipe = recipe_of(str(start), biggest_only_steps=2, middle_children=2)
    assert [matched.control(recipe, step, {}).phase for step in range(3)] == [
        "biggest", "biggest", "ends+child-1+child-2",
    ]  # fmt: skip
    assert len(matched.loss(recipe, "biggest")) == 1
    assert len(matched.loss(recipe, "ends+child-1+child-2")) == 4
    lone = recipe_of(str(start), smallest_child=False, middle_children=1)
    assert matched.control(lone, 0, {}).phase == "ends+child-1+child-2"
    assert len(matched.loss(lone, "ends+child-1+child-2")) == 3


def test_starts_that_cannot_be(start: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="name the family that training starts from"):
        matched.children_of("")
    with pytest.raises(UsageError, match="trained one by one"):
        matched.children_of("efficientnet-lite")
    data = {k: v for k, v in store.read_json(start / "family.json").items() if k != store.SEAL}
    (tmp_path / "without").mkdir()
    for file in start.glob("*.safetensors"):
        (tmp_path / "without" / file.name).write_bytes(file.read_bytes())
    data["slices"] = store.read_json(start / "family.json")["slices"][:-1]
    store.write_json(tmp_path / "without/family.json", store.sealed(data))
    with pytest.raises(RecipeError, match="the space's biggest child among them"):
        matched.children_of(str(tmp_path / "without"))
    assert MatchedSandwich(biggest_only_steps=5).problem(4) == "biggest_only_steps: more than steps (4)."
    with pytest.raises(RecipeError, match="frozen_stages"):
        dataclasses.replace(recipe_of(str(start)), method=MatchedSandwich(frozen_stages=-2))


@pytest.mark.slow
def test_both_engines_agree(start: Path, tmp_path: Path) -> None:
    results = []
    for engine in ("tensorflow", "jax"):
        out = tmp_path / f"{engine}.npz"
        command = [sys.executable, str(ROOT / "tests/matched_steps.py"), engine, str(start), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results.append(dict(np.load(out)))
    theirs, ours = results
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=2e-4)
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() <= 2e-3 * max(np.abs(array).max(), 1e-3), name


def test_a_run_may_grow_shorter_and_a_killed_one_knows_it(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(recipe_of(str(start)), steps=8, checkpoint_every=2, evaluate_every=8)
    rates, step = [], TensorFlowEngine.step

    def noted(engine: TensorFlowEngine, given: StepInput) -> Mapping[str, Any]:
        rates.append(given.learning_rate)
        return step(engine, given)

    monkeypatch.setattr(TensorFlowEngine, "step", noted)
    loop.train(recipe, images_of(), tmp_path, lambda weights: {}, shorten=lambda done: 8 if done < 3 else 5)
    shorter = dataclasses.replace(recipe, steps=5)
    assert rates == [learning_rate(recipe if i < 3 else shorter, i) for i in range(5)]
    assert read_recipe(tmp_path / "recipe.json") == shorter
    assert checkpoint.newest(tmp_path, shorter).step == 5  # type: ignore[union-attr]
    # Killed after recipe.json was written and before the checkpoint that knows of it.
    shutil.rmtree(tmp_path / "checkpoints/step-000005")
    manifest = tmp_path / "checkpoints/step-000004/manifest.json"
    assert manifest.is_file()
    manifest.write_text(manifest.read_text().replace('"steps": 5', '"steps": 8'))
    assert checkpoint.newest(tmp_path, shorter).step == 4  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="different keys: steps"):
        checkpoint.newest(tmp_path, dataclasses.replace(recipe, steps=9))
