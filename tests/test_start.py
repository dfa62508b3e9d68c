"""Runs that start from a family's weights: every weight taken over, nothing of another space, doubts said aloud."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from bignas_zoo.cli.main import main
from bignas_zoo.errors import NotFoundError, RecipeError
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.recipes.recipe import Recipe, find_recipe, read_recipe
from bignas_zoo.recipes.runs.start import starting_state
from bignas_zoo.zoo.registry import get_family

FAMILY = get_family("bignas-cifar10")
SHA = FAMILY.weights.sha256 if FAMILY.weights else ""


@pytest.fixture
def recipe() -> Recipe:
    first = read_recipe(find_recipe("cifar10_cpu"))
    return dataclasses.replace(first, start_from=f"bignas-cifar10@{SHA[:12]}")


def fresh(recipe: Recipe) -> dict[str, np.ndarray]:
    return {**initial_weights(recipe.search_space, 3), "optimizer.0000": np.full(4, 7.0, np.float32)}


def test_all_weights_are_the_familys_and_the_optimizer_is_new(recipe: Recipe) -> None:
    assert FAMILY.folder
    assert FAMILY.weights
    said: list[str] = []
    state = starting_state(recipe, fresh(recipe), said.append)
    stored = load_file(FAMILY.folder / FAMILY.weights.name)
    assert state.keys() == {*stored, "optimizer.0000"}
    for name, value in stored.items():
        np.testing.assert_array_equal(state[name], value.astype(np.float32), strict=True)
    assert state["optimizer.0000"].tolist() == [7.0] * 4
    assert len(said) == 1
    assert SHA[:12] in said[0]


def test_another_number_of_classes_begins_with_a_new_classifier_only(recipe: Recipe) -> None:
    changed = dataclasses.replace(recipe, classes=4)
    new, said = fresh(changed), [""]
    state = starting_state(changed, new, said.append)
    assert state["classifier.kernel"].shape[-1] == 4
    np.testing.assert_array_equal(state["classifier.kernel"], new["classifier.kernel"])
    assert not np.array_equal(state["stem.kernel"], new["stem.kernel"])
    assert any("classifier starts at random" in s for s in said)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed 0"),
        ({"holdout": 1000}, "holdout 2500"),
        ({"mean": (127.5, 127.5, 127.5)}, "mean [125.3"),
    ],
)
def test_what_makes_the_start_doubtful_is_said(recipe: Recipe, changes: dict[str, object], words: str) -> None:
    said: list[str] = []
    starting_state(dataclasses.replace(recipe, **changes), fresh(recipe), said.append)  # type: ignore[arg-type]
    assert any(words in s for s in said)


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        ("bignas-cifar10@0000", RecipeError, SHA[:12]),
        ("bignas-paper", (NotFoundError, RecipeError), "bignas-"),
        ("no-such-family", NotFoundError, "bignas-cifar10"),
    ],
)
def test_a_start_that_cannot_be_is_refused(recipe: Recipe, start: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        starting_state(dataclasses.replace(recipe, start_from=start), fresh(recipe))


def test_another_space_is_refused_by_name(recipe: Recipe) -> None:
    other = dataclasses.replace(recipe, space="bignas-micro")
    with pytest.raises(RecipeError, match=r"bignas-cifar10.*bignas-micro"):
        starting_state(other, fresh(other))


def test_a_wrong_start_is_refused_before_images_are_read_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(find_recipe("cifar10_cpu").read_text("utf-8") + "\nstart_from: nowhere-to-be-found\n")
    done = CliRunner().invoke(main, ["train", str(path), "--data", "absent", "--output", str(tmp_path / "run")])
    assert done.exit_code == 3
    assert "nowhere-to-be-found" in done.stderr
    assert "reading images" not in done.stderr
    assert not (tmp_path / "run").exists()
