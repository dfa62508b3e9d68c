"""The log of measured children: what still holds is not measured again, and nothing else is taken from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from equality import random_weights

from bignas_zoo import macs
from bignas_zoo.architecture import spaces
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError
from bignas_zoo.files.say import silent
from bignas_zoo.measure import front_children
from bignas_zoo.measure.front_children import measure_front
from bignas_zoo.measure.trained import Trained
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.recipe import Recipe

CHILDREN = 8


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    recipe = Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0,) * 3, std=(64.0,) * 3, steps=1, holdout=10,
        front_children=CHILDREN,
    )  # fmt: skip
    images = LabelledImages(np.zeros((8, 20, 20, 3), np.uint8), np.zeros(8, np.int32), tuple("abcde"), "black")
    return Trained(recipe, {"w": np.ones(3, np.float16)}, images.pixels, images, images, images, b"")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[ChildSpec]:
    """Which children were measured; their accuracy is their share of the biggest one's MACs."""
    found: list[ChildSpec] = []

    class Counting:
        def __init__(self, *_: Any) -> None: ...

        def top1(self, spec: ChildSpec, images: LabelledImages) -> float:
            found.append(spec)
            return round(100 * macs(spec) / macs(TINY.biggest), 4)

    monkeypatch.setattr(front_children, "Evaluator", Counting)
    return found


def test_nothing_is_measured_twice(run: Trained, measured: list[ChildSpec], tmp_path: Path) -> None:
    log = tmp_path / "measured.jsonl"
    first = measure_front(run, log, silent)
    assert len(measured) == len(first) == CHILDREN
    assert measure_front(run, log, silent) == first
    assert len(measured) == CHILDREN


@pytest.mark.parametrize(
    "other",
    [
        lambda r: dataclasses.replace(r, weights={"w": np.zeros(3, np.float16)}),
        lambda r: dataclasses.replace(r, calibration=r.calibration + np.uint8(1)),
        lambda r: dataclasses.replace(r, holdout=dataclasses.replace(r.holdout, labels=r.holdout.labels + 1)),
        lambda r: dataclasses.replace(r, holdout=dataclasses.replace(r.holdout, pixels=r.holdout.pixels + np.uint8(1))),
    ],
    ids=["weights", "calibration", "labels", "pixels"],
)
def test_other_weights_or_images_are_measured_anew(
    other: Callable[[Trained], Trained], run: Trained, measured: list[ChildSpec], tmp_path: Path
) -> None:
    log = tmp_path / "measured.jsonl"
    measure_front(run, log, silent)
    measure_front(other(run), log, silent)
    assert len(measured) == 2 * CHILDREN


def test_damaged_lines_are_measured_anew(run: Trained, measured: list[ChildSpec], tmp_path: Path) -> None:
    log = tmp_path / "measured.jsonl"
    first = measure_front(run, log, silent)
    lines = log.read_bytes().splitlines()
    digest = json.loads(lines[0])["of"]
    lines[1], lines[2], lines[3] = lines[1][:90], b"\xff\xfe", json.dumps({"spec": 3, "of": digest}).encode()
    log.write_bytes(b"\n".join(lines))
    again = measure_front(run, log, silent)
    assert {m.spec for m in again} == {m.spec for m in first}
    assert len(measured) == CHILDREN + 3
    assert all("of" in json.loads(line) for line in log.read_text().splitlines())


def test_a_child_of_another_space_is_not_measured(run: Trained) -> None:
    # The same choices, but relu6: with these weights its figure would be one of a network that nobody trained.
    other = dataclasses.replace(TINY, activation="relu6")
    calibration = np.random.default_rng(0).integers(0, 256, (64, 20, 20, 3), np.uint8)
    evaluator = front_children.Evaluator(TINY, random_weights(0, TINY), run.preprocess, calibration)
    images = LabelledImages(np.zeros((1, 20, 20, 3), np.uint8), np.zeros(1, np.int32), tuple("abcde"), "zeros")
    assert evaluator.top1(TINY.smallest, images) in (0.0, 100.0)
    with pytest.raises(UsageError, match="of another space"):
        evaluator.top1(other.smallest, images)
