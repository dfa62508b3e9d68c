"""Slices of a family of one's own photographs against the same networks tuned alone.

    python benchmarks/photos_alone.py RUN --data FOLDER [--child whole-160 --child narrow-64]

RUN is a finished run of `bignas-zoo train photos` on FOLDER. A child begins where the family began (classifier, sorted
channels, matched statistics), and is trained on the labels with the run's own fields (images, order, crops, optimizer,
peak rate, frozen stages) for as many steps as the family's training took it in, with the cosine over these. Accuracies
are those of the held-out and of the test images, as the family's. Each result is a line of JSON on stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Alone:
    """A method of training: one child of the starting family, on the labels."""

    name: ClassVar[str] = "alone"
    rules: ClassVar[Mapping[str, Any]] = {}

    child: str = ""
    frozen_stages: int = 2

    def problem(self, steps: int) -> str:
        """Return nothing: there is nothing to be wrong."""
        return ""


def method():
    """Return the method; a child's loss is that of the family's biggest, which learns from the labels as well."""
    from bignas_zoo.recipes.methods import matched
    from bignas_zoo.recipes.methods.method import Control, Method, keep_state, no_state

    def loss(recipe, phase):
        child = next(c for c in matched.children_of(recipe.start_from) if c.name == phase)
        view = dataclasses.replace(recipe, method=matched.MatchedSandwich(distillation=False))
        return (functools.partial(matched.child_loss, view, child, 0, 1.0),)

    def trains(recipe, name):
        view = dataclasses.replace(recipe, method=matched.MatchedSandwich(frozen_stages=recipe.method.frozen_stages))
        return matched.trains(view, name)

    return Method(Alone, no_state, lambda recipe, *_: Control(recipe.method.child, {}), loss, keep_state, trains)


def own_steps(recipe) -> dict[str, int]:
    """Return how many steps of a run trained each child."""
    from bignas_zoo.recipes.methods import matched

    children = matched.children_of(recipe.start_from)
    count = dict.fromkeys([child.name for child in children], 0)
    for step in range(recipe.steps):
        phase = matched.control(recipe, step, {}).phase.split("+")
        for name in (children[-1].name, *([] if phase == ["biggest"] else [*phase[1:], children[0].name])):
            count[name] += 1
    return count


def main() -> None:
    """Train children alone and print what they come to beside the family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--child", action="append", help="of the starting family [default: smallest and biggest]")
    arguments = parser.parse_args()

    from bignas_zoo.measure import photos
    from bignas_zoo.measure.evaluate import child_top1
    from bignas_zoo.measure.photos_images import read_photographs
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.methods import METHODS, matched
    from bignas_zoo.recipes.recipe import read_recipe
    from bignas_zoo.recipes.train import train
    from bignas_zoo.zoo.registry import get_family

    METHODS[Alone.name] = method()
    recipe = dataclasses.replace(
        read_recipe(arguments.run / "recipe.json"), start_from=str((arguments.run / "start").resolve())
    )
    images = read_photographs(arguments.data, recipe, recipe.seed)
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    children, count = matched.children_of(recipe.start_from), own_steps(recipe)
    slices = {s.spec: s for s in get_family(arguments.run / "family").slices}
    for child in children:
        if child.name not in (arguments.child or (children[0].name, children[-1].name)):
            continue
        steps = count[child.name]
        alone = dataclasses.replace(
            recipe, method=Alone(child.name, recipe.method.frozen_stages), steps=steps, evaluate_every=steps,
            checkpoint_every=steps, warmup_steps=min(recipe.warmup_steps, max(1, steps // 10)),
        )  # fmt: skip
        began = time.process_time()
        with tempfile.TemporaryDirectory() as place:
            weights = train(alone, images.train, Path(place), lambda weights: {})
        seconds = time.process_time() - began
        run = photos._trained(alone, weights, images.train, images.holdout, images.holdout)
        right = {
            part: round(child_top1(run.child(child.spec), child.spec.resolution, preprocess, judged), 2)
            for part, judged in (("held_out", images.holdout), ("test", images.test))
            if judged is not None
        }
        slice_ = slices.get(child.spec)
        family = {"held_out": slice_ and slice_.holdout_top1, "test": slice_ and slice_.top1}
        row = {"child": child.name, "steps": steps, "seed": recipe.seed, "alone": right, "family": family}
        print(json.dumps({**row, "cpu_seconds": round(seconds)}), flush=True)


if __name__ == "__main__":
    main()
