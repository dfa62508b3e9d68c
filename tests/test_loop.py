"""The training loop around the engine: what is saved when, with an engine that only counts."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY

from bignas_zoo.architecture import spaces
from bignas_zoo.errors import IntegrityError, PreemptedError, UsageError
from bignas_zoo.recipes import train as loop
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.engines.engine import StepInput
from bignas_zoo.recipes.methods.sandwich import Sandwich
from bignas_zoo.recipes.recipe import Recipe


class Counter:
    """An engine whose only weight is the number of steps."""

    devices, host, hosts, holds_images = "nothing", 0, 1, False

    def __init__(self, *_: Any) -> None:
        self.count = np.zeros((), np.float32)

    def step(self, given: StepInput) -> dict[str, float]:
        self.count = self.count + np.float32(1)
        return {"loss": 1.0, "accuracy": 0.5, "biggest": 1.0}

    def weights(self) -> dict[str, np.ndarray]:
        return {"count": self.count}

    state = weights

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.count = state["count"]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(loop, "make_engine", Counter)
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    return Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0,) * 3, std=(64.0,) * 3, steps=12, holdout=10,
        batch_size=2, method=Sandwich(biggest_only_steps=12), evaluate_every=3, checkpoint_every=2,
    )  # fmt: skip


@pytest.fixture
def images() -> LabelledImages:
    return LabelledImages(np.zeros((8, 20, 20, 3), np.uint8), np.zeros(8, np.int32), tuple("abcde"), "black")


def stops_at(step: int, number: int) -> Callable[[loop.Progress], None]:
    return lambda progress: signal.raise_signal(number) if progress.step == step else None


def evaluations(run: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["evaluation"]["biggest"]) for r in records if "evaluation" in r]


def checkpoints(run: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").iterdir())


def test_the_best_evaluation_has_its_checkpoint(recipe: Recipe, images: LabelledImages, tmp_path: Path) -> None:
    curve = {3: 10.0, 6: 30.0, 9: 20.0, 12: 30.0}
    weights = loop.train(recipe, images, tmp_path, lambda w: {"biggest": curve[int(w["count"])], "smallest": 1.0})
    assert weights["count"] == 12
    assert evaluations(tmp_path) == list(curve.items())
    assert checkpoints(tmp_path) == [6, 10, 12]
    best = json.loads((tmp_path / "checkpoints" / "step-000012" / "manifest.json").read_text())["best"]
    assert best == {"step": 6, "biggest": 30.0}  # the first of equals


def test_a_request_during_an_evaluation_saves_first_and_the_resumed_run_evaluates(
    recipe: Recipe, images: LabelledImages, tmp_path: Path
) -> None:
    def stopped(weights: dict[str, np.ndarray]) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal cuts the evaluation")

    with pytest.raises(PreemptedError, match="after step 3 of 12"):
        loop.train(recipe, images, tmp_path, stopped)
    assert checkpoints(tmp_path) == [2, 3]
    assert evaluations(tmp_path) == []
    with pytest.raises(PreemptedError, match="after step 3 of 12"):  # again, before the first step
        loop.train(recipe, images, tmp_path, stopped)
    loop.train(recipe, images, tmp_path, lambda w: {"biggest": float(w["count"]), "smallest": 1.0})
    assert evaluations(tmp_path) == [(3, 3.0), (6, 6.0), (9, 9.0), (12, 12.0)]


@pytest.mark.parametrize("stop_at", range(1, 13))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_after_any_step_nothing_is_lost_or_done_twice(
    recipe: Recipe, images: LabelledImages, tmp_path: Path, stop_at: int, number: int
) -> None:
    def curve(weights: dict[str, np.ndarray]) -> dict[str, float]:
        return {"biggest": float(weights["count"]), "smallest": 1.0}

    error = PreemptedError if number == signal.SIGTERM else KeyboardInterrupt
    said: list[str] = []
    with pytest.raises(error):
        loop.train(recipe, images, tmp_path, curve, stops_at(stop_at, number), said.append)
    assert said[1:] == [f"checkpoint of step {stop_at} written"]
    assert max(checkpoints(tmp_path)) == stop_at
    assert loop.train(recipe, images, tmp_path, curve)["count"] == 12
    assert evaluations(tmp_path) == [(3, 3.0), (6, 6.0), (9, 9.0), (12, 12.0)]


def test_how_many_are_kept_is_a_choice(recipe: Recipe, images: LabelledImages, tmp_path: Path) -> None:
    loop.train(dataclasses.replace(recipe, keep_checkpoints=4), images, tmp_path, lambda w: {})
    assert checkpoints(tmp_path) == [6, 8, 10, 12]


def test_a_state_of_another_make_is_refused(
    recipe: Recipe, images: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.train(recipe, images, tmp_path, lambda w: {})
    monkeypatch.setattr(Counter, "state", lambda self: {"count": self.count, "more": self.count})
    with pytest.raises(IntegrityError, match="such as 'more'. Go on with that version"):
        loop.train(recipe, images, tmp_path, lambda w: {})


def test_a_run_goes_on_with_its_own_images_only(recipe: Recipe, images: LabelledImages, tmp_path: Path) -> None:
    others = dataclasses.replace(images, labels=np.array([0, 0, 0, 0, 0, 0, 0, 1], np.int32), source="grey")
    run = {"recipe": recipe, "workdir": tmp_path, "evaluate": lambda w: {}}
    with pytest.raises(PreemptedError):
        loop.train(**run, images=images, report=stops_at(5, signal.SIGTERM))
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(UsageError, match=r"began with other images \(8 of black; now 8 of grey\); different: labels"):
        loop.train(**run, images=others, report=lambda p: None)
    brighter = dataclasses.replace(images, pixels=images.pixels + np.uint8(1))
    with pytest.raises(UsageError, match=r"different: pixels_sha256\."):
        loop.train(**run, images=brighter, report=lambda p: None)
    with pytest.raises(UsageError, match=r"different: count, labels_sha256, pixels_sha256"):
        loop.train(**run, images=images.take(slice(7)), report=lambda p: None)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before
    moved = dataclasses.replace(images, source="elsewhere")  # the same images in another place
    loop.train(**run, images=moved, report=lambda p: None)


def test_images_named_wrongly_before_the_first_checkpoint_do_no_harm(
    recipe: Recipe, images: LabelledImages, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(recipe, evaluate_every=100, checkpoint_every=100)

    def dies(progress: loop.Progress) -> None:
        raise RuntimeError("power cut")

    run = {"recipe": recipe, "workdir": tmp_path, "evaluate": lambda w: {}}
    with pytest.raises(RuntimeError, match="power cut"):
        loop.train(**run, images=images.take(slice(7)), report=dies)
    loop.train(**run, images=images, report=lambda p: None)
    (tmp_path / "images.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"images\.json: not as this version writes it"):
        loop.train(**run, images=images, report=lambda p: None)


class OfTwo(Counter):
    """The first of two hosts; the other one is asked to stop at step 5."""

    hosts = 2

    def step(self, given: StepInput) -> dict[str, float]:
        return {**super().step(given), "stop": float(given.stop or self.count == 5)}


def test_hosts_stop_after_the_same_step(
    recipe: Recipe, images: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "make_engine", OfTwo)
    with pytest.raises(PreemptedError, match="after step 5 of 12"):
        loop.train(recipe, images, tmp_path / "other", lambda w: {})
    assert max(checkpoints(tmp_path / "other")) == 5
    # Asked itself after step 2, it tells the other one with step 3, and both stop there.
    with pytest.raises(PreemptedError, match="after step 3 of 12"):
        loop.train(recipe, images, tmp_path / "own", lambda w: {}, stops_at(2, signal.SIGTERM))
    assert max(checkpoints(tmp_path / "own")) == 3
    assert "stop" not in (tmp_path / "own" / "metrics.jsonl").read_text()


def test_a_host_that_follows_stops_with_the_others(
    recipe: Recipe, images: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "make_engine", OfTwo)
    monkeypatch.setattr(loop, "host_index", lambda name: 1)
    with pytest.raises(PreemptedError, match="after step 5 of 12"):
        loop.train(recipe, images, tmp_path, lambda w: {})
    assert not list(tmp_path.iterdir())  # host 0 writes
