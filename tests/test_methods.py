"""Training methods: a recipe's section, what 0.1.0 wrote, and a method with a state of its own in the loop."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import ROOT, TINY
from test_recipe import MINIMAL as GENERAL

from bignas_zoo.architecture import spaces
from bignas_zoo.errors import PreemptedError, RecipeError
from bignas_zoo.files.store import sha256
from bignas_zoo.models.elastic import Execution
from bignas_zoo.recipes import methods
from bignas_zoo.recipes import train as loop
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.engines.engine import StepInput
from bignas_zoo.recipes.methods.method import Control, Examples, Method, Part, State, Term, total
from bignas_zoo.recipes.methods.sandwich import Sandwich
from bignas_zoo.recipes.recipe import Recipe, parse_recipe
from bignas_zoo.recipes.rules import Rule, within
from bignas_zoo.recipes.runs import checkpoint

OWN = """\
biggest_only_steps: 10
random_children: 3
smallest_child: false
distillation: false
distillation_temperature: 2.0
regularise: all
loss_reduction: mean
"""
#: The recipe of a run that version 0.1.0 made, as it stored it.
RECORDED = json.loads((ROOT / "bignas_zoo/data/families/bignas-cifar10/family.json").read_text())["training"]["recipe"]


@dataclass(frozen=True)
class Coin:
    """A method for these tests: it tosses a coin each step, and learns from its figures how often."""

    name: ClassVar[str] = "coin"
    rules: ClassVar[Mapping[str, Rule]] = {"bias": within(0, 1)}

    bias: float = 0.5

    def problem(self, steps: int) -> str:
        return "bias: of a run of one step." if steps == 1 else ""


def coin_start(recipe: Recipe) -> State:
    return {"heads": np.zeros((), np.float32)}


def toss(recipe: Recipe, step: int, state: State) -> Control:
    return Control("heads" if state["heads"] % 2 else "tails", {"heads": state["heads"]})


def coin_loss(recipe: Recipe, phase: str) -> tuple[Part, ...]:
    raise AssertionError("the engine of these tests computes nothing")


def count(recipe: Recipe, step: int, state: State, control: Control, figures: Mapping[str, float]) -> State:
    return {"heads": state["heads"] + np.float32(figures["loss"])}


@pytest.fixture
def coin(monkeypatch: pytest.MonkeyPatch) -> Method:
    method = Method(Coin, coin_start, toss, coin_loss, count)
    monkeypatch.setitem(methods.METHODS, "coin", method)
    return method


def section(text: str, name: str = "sandwich") -> str:
    return f"method:\n  name: {name}\n" + "".join(f"  {line}\n" for line in text.splitlines())


def test_flat_and_sectioned_recipes_are_the_same() -> None:
    flat, sectioned = parse_recipe(GENERAL + OWN), parse_recipe(GENERAL + section(OWN))
    assert flat == sectioned
    assert flat.method == Sandwich(10, 3, False, False, 2.0, "all", "mean")
    assert flat.to_json() == sectioned.to_json()
    for text in ("", "method: sandwich\n", section("")):
        assert parse_recipe(GENERAL + text).method == Sandwich()


def test_a_recipe_that_version_0_1_0_stored_is_read_and_stored_as_it_was() -> None:
    recipe = parse_recipe(json.dumps(RECORDED))
    assert recipe.method == Sandwich(loss_reduction="mean")
    assert json.dumps(recipe.to_json()) == json.dumps(RECORDED)  # in the same order, too
    assert list(RECORDED)[15:22] == [line.split(":")[0] for line in OWN.splitlines()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: sandwitch\n", "r.yaml: method: unknown method 'sandwitch'. Did you mean 'sandwich'?"),
        (
            "method: tuna\n",
            "r.yaml: method: unknown method 'tuna'. Known: coin, matched-sandwich, progressive-shrinking, sandwich.",
        ),
        (section("bias: 0.5"), "r.yaml: method: 'sandwich' has no field 'bias'. "),
        (section("distillation: true", "coin"), "r.yaml: method: 'coin' has no field 'distillation'. Known: bias."),
        (section("steps: 5"), "r.yaml: method: 'sandwich' has no field 'steps'. "),
        (
            section("regularize: all"),
            "r.yaml: method: 'sandwich' has no field 'regularize'. Did you mean 'regularise'?",
        ),
        (section("random_children: 1.5"), "r.yaml: method.random_children: must be of type int, got 1.5."),
        (section("1: 2"), "r.yaml: method: 'sandwich' has no field '1'. "),
        ("method: {random_children: 2}\n", "r.yaml: method: must be a name, or a mapping with a name, got "),
        ("method: [sandwich]\n", "r.yaml: method: must be a name, or a mapping with a name, got ['sandwich']."),
        ("method: null\n", "r.yaml: method: must be a name, or a mapping with a name, got None."),
        ("method: {name: 5}\n", "r.yaml: method: must be a name, or a mapping with a name, got {'name': 5}."),
        (section("") + "random_children: 2\n", "r.yaml: random_children: stand beside a section 'method'. "),
        (section("", "coin") + "random_children: 2\n", "r.yaml: random_children: stand beside a section 'method'. "),
        ("bias: 0.5\n", "r.yaml: unknown key 'bias'. "),
        (section("bias: 2", "coin"), "recipe 'toy': bias: must be within 0 and 1, got 2.0."),
        (section("") + "method: coin\n", "r.yaml: key 'method' stands twice."),
        (section("loss_reduction: max"), "recipe 'toy': loss_reduction: must be one of sum, mean, got 'max'."),
        (section("biggest_only_steps: 1001"), "recipe 'toy': biggest_only_steps: more than steps (1000)."),
    ],
)
@pytest.mark.usefixtures("coin")
def test_a_section_is_as_strict_as_the_rest(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(GENERAL + text, "r.yaml")
    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("coin")
def test_another_method_is_stored_with_its_section() -> None:
    recipe = parse_recipe(GENERAL + section("bias: 0.25", "coin"))
    assert recipe.method == Coin(0.25)
    data = recipe.to_json()
    assert data["method"] == {"name": "coin", "bias": 0.25}
    assert "random_children" not in data
    assert parse_recipe(json.dumps(data)) == recipe
    assert recipe.with_fields(bias=1.0, steps=7) == parse_recipe(
        GENERAL.replace("1000", "7") + section("bias: 1", "coin")
    )


def test_fields_are_changed_by_their_names_wherever_they_are() -> None:
    changed = parse_recipe(GENERAL).with_fields(random_children=1, dropout=0.0)
    assert changed == parse_recipe(GENERAL + "random_children: 1\ndropout: 0\n")
    with pytest.raises(TypeError, match="random_childs"):
        changed.with_fields(random_childs=1)
    with pytest.raises(RecipeError, match="random_children: must be a whole number within 0 and 64, got 65"):
        changed.with_fields(random_children=65)


@pytest.mark.parametrize("place", ["train.py", "schedule.py", "engines", "tpu", "runs", "data"])
def test_only_the_list_of_methods_knows_one(place: str) -> None:
    root = ROOT / "recipes" / place
    for path in [root] if root.is_file() else sorted(root.glob("*.py")):
        assert "sandwich" not in path.read_text("utf-8").lower(), path


def test_a_loss_is_the_sum_of_its_parts() -> None:
    # By hand: 2 + 3 * 5 = 17, and the last part that names a figure counts.
    def first(weights: Any, examples: Examples, steering: Any, carried: Any, how: Execution) -> Term:
        assert carried is None
        return Term(2.0, {"biggest": 2.0, "smallest": 2.0}, np.full(4, 5.0))

    def second(weights: Any, examples: Examples, steering: Any, carried: Any, how: Execution) -> Term:
        return Term(3 * carried[0], {"smallest": 15.0}, carried)

    examples = Examples(np.zeros((4, 2, 2, 3)), np.zeros(4), np.arange(4))
    how = Execution("one_pass", "native", "where")
    assert total((first, second), {}, examples, {}, how) == (17.0, {"biggest": 2.0, "smallest": 15.0})


def test_a_run_of_version_0_1_0_goes_on(tmp_path: Path) -> None:
    text = json.dumps(RECORDED)
    recipe = parse_recipe(text)
    checkpoint.save(tmp_path, recipe, 400, {"a": np.ones(3, np.float32)})
    path = tmp_path / "checkpoints" / "step-000400" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["recipe"] == RECORDED
    own = {f.name: RECORDED[f.name] for f in fields(Sandwich) if f.name not in Sandwich.later}
    general = {k: v for k, v in RECORDED.items() if k not in own}
    sectioned = parse_recipe(json.dumps({**general, "method": {"name": "sandwich", **own}}))
    for resumed in (recipe, sectioned):
        last = checkpoint.newest(tmp_path, resumed)
        assert last
        assert (last.step, last.method, list(last.weights)) == (400, {}, ["a"])
    with pytest.raises(RecipeError, match="different keys: random_children, smallest_child. "):
        checkpoint.newest(tmp_path, sectioned.with_fields(random_children=1, smallest_child=False))
    del manifest["recipe"]["distillation_temperature"]  # written before this field was there
    path.write_text(json.dumps(manifest))
    assert checkpoint.newest(tmp_path, sectioned)


@pytest.mark.usefixtures("coin")
def test_a_run_of_another_method_is_refused_by_its_fields(tmp_path: Path) -> None:
    tossed = parse_recipe(GENERAL + section("bias: 0.25", "coin"))
    checkpoint.save(tmp_path, tossed, 4, {"a": np.ones(3, np.float32)})
    assert checkpoint.newest(tmp_path, tossed)
    with pytest.raises(RecipeError, match=r"different keys: method\.bias\. "):
        checkpoint.newest(tmp_path, tossed.with_fields(bias=0.5))
    with pytest.raises(RecipeError, match=r"different keys: method\.bias, method\.name\. "):
        checkpoint.newest(tmp_path, parse_recipe(GENERAL))


class Adder:
    """An engine whose only weight is the sum of what it was steered by; its loss is 1."""

    devices, host, hosts, holds_images = "nothing", 0, 1, False

    def __init__(self, *_: Any) -> None:
        self.sum = np.zeros((), np.float32)
        self.phases: list[str] = []

    def step(self, given: StepInput) -> dict[str, float]:
        self.phases.append(given.control.phase)
        self.sum = self.sum + given.control.steering["heads"]
        return {"loss": 1.0, "accuracy": 0.5}

    def weights(self) -> dict[str, np.ndarray]:
        return {"sum": self.sum}

    state = weights

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.sum = state["sum"]


@pytest.mark.usefixtures("coin")
def test_a_methods_state_is_updated_each_step_and_goes_into_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    engines: list[Adder] = []
    monkeypatch.setattr(loop, "make_engine", lambda *_: engines.append(Adder()) or engines[-1])
    recipe = Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0,) * 3, std=(64.0,) * 3, steps=6, holdout=10,
        batch_size=2, method=Coin(), evaluate_every=100, checkpoint_every=2,
    )  # fmt: skip
    images = LabelledImages(np.zeros((8, 20, 20, 3), np.uint8), np.zeros(8, np.int32), tuple("abcde"), "black")

    def stop(progress: loop.Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(PreemptedError, match="after step 3 of 6"):
        loop.train(recipe, images, tmp_path / "cut", lambda w: {}, stop)
    last = checkpoint.newest(tmp_path / "cut", recipe)
    assert last
    assert ({k: float(v) for k, v in last.method.items()}, list(last.weights)) == ({"heads": 3.0}, ["sum"])
    resumed = loop.train(recipe, images, tmp_path / "cut", lambda w: {})
    whole = loop.train(recipe, images, tmp_path / "whole", lambda w: {})
    assert resumed["sum"] == whole["sum"] == 0 + 1 + 2 + 3 + 4 + 5  # each step is steered by the steps before it
    assert [e.phases for e in engines] == [
        ["tails", "heads", "tails"], ["heads", "tails", "heads"],
        ["tails", "heads", "tails", "heads", "tails", "heads"],
    ]  # fmt: skip
    states = [tmp_path / run / "checkpoints" / "step-000006" / "state.safetensors" for run in ("cut", "whole")]
    assert sha256(states[0]) == sha256(states[1])
