"""How long a training on photographs is: its pace by a clock of our own, and which weights it ends with."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bignas_zoo.architecture.spaces.photos import PHOTOS
from bignas_zoo.measure import photos, photos_plan
from bignas_zoo.measure.photos_plan import WINDOW, Pace
from bignas_zoo.recipes.recipe import find_recipe, read_recipe
from bignas_zoo.search.children import Measured

RECIPE = dataclasses.replace(read_recipe(find_recipe("photos")), steps=1_000, evaluate_every=250)
END = 20.0


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(deadline: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Pace, Clock, list[str]]:
    monkeypatch.setattr(photos_plan, "_end_seconds", lambda recipe, images, step_seconds: END * step_seconds)
    clock, said = Clock(), list[str]()
    return Pace(RECIPE, SimpleNamespace(), deadline, said.append, clock), clock, said  # type: ignore[arg-type]


def run(pace: Pace, clock: Clock, seconds: Any) -> tuple[int, int]:
    """Take steps until the pace says stop; return how many, and how often it changed its mind."""
    step, steps, changes = 0, RECIPE.steps, 0
    evaluate = pace.apart(lambda weights: setattr(clock, "now", clock.now + 30))
    while step < steps:
        step += 1
        clock.now += seconds(step)
        if step % RECIPE.evaluate_every == 0:
            evaluate({})
        asked = pace(step)
        changes += asked != steps
        assert asked <= steps
        steps = asked
    return step, changes


def test_a_run_as_fast_as_planned_makes_all_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, clock, said = paced(1_000 + 4 * 30 + END + 60, monkeypatch)
    assert run(pace, clock, lambda step: 5 if step in (1, 3, 7, 12, 20, 33) else 1) == (1_000, 0)  # six compile
    assert said == []


def test_a_slower_machine_makes_fewer_steps_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = 1_000 + 4 * 30 + END
    pace, clock, said = paced(deadline, monkeypatch)
    steps, changes = run(pace, clock, lambda step: 1 if step <= 300 else 2)
    # After 300 steps and one evaluation 810 s are left; two evaluations and an end of 40 s take 100: 355 steps.
    assert 600 <= steps <= 660
    assert clock.now + 2 * END <= deadline + 2 * WINDOW
    assert 1 <= changes <= 4
    assert len(said) == changes
    assert "steps take" in said[0]


def test_without_time_left_one_more_step_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, clock, _ = paced(50, monkeypatch)
    steps, _ = run(pace, clock, lambda step: 1)
    assert steps == 3 * WINDOW + 1  # two windows may have compiled; the third is measured


@pytest.mark.parametrize(
    ("count", "before", "after", "kept", "words"),
    [
        (120, 50.0, 40.0, "trained", "All weights are trained"),
        (20, 40.0, 60.0, "trained", "over all children 60.0 % of the held-out images after training, 40.0 % before"),
        (20, 60.0, 40.0, "start", "Only the classifier is new, features stay as they were: over all children 40.0 %"),
    ],
)
def test_few_images_keep_what_is_right_more_often(
    count: int, before: float, after: float, kept: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {"x": np.zeros(1, np.float32)}
    monkeypatch.setattr(photos, "read_weights", lambda path: start)
    monkeypatch.setattr(
        photos, "_measured",
        lambda recipe, weights, images, say: [Measured(PHOTOS.smallest, before if weights is start else after, "grid")],
    )  # fmt: skip
    few: Any = SimpleNamespace(train=SimpleNamespace(class_names=("a",), __len__=None))
    few.train = type("Images", (), {"class_names": ("a",), "__len__": lambda self: count})()
    trained = {"x": np.ones(1, np.float32)}
    weights, measured, verdict = photos._better(RECIPE, trained, few, lambda text: None)
    assert weights is {"trained": trained, "start": start}[kept]
    assert measured[0].top1 == (before if kept == "start" else after)
    assert words in verdict
