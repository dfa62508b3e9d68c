"""How many steps a training on photographs makes: as many as fit into its time, and fewer where time grows short."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bignas_zoo.architecture import cost
from bignas_zoo.files.say import Say
from bignas_zoo.measure.photos_images import Photographs
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data import LabelledImages, TrainingBatches
from bignas_zoo.recipes.engines.choosing import choose_engine, make_engine
from bignas_zoo.recipes.engines.engine import StepInput
from bignas_zoo.recipes.methods import matched, method_of
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.runs.start import starting_state

#: Images a class from which on training beat the features that it began with wherever it was tried (docs/photos.md).
PLENTY = 100
#: Fewer steps than these leave the children far apart; and a bound of the passes over few images, of which nothing was
#: measured above 87.
FEWEST_STEPS, MOST_EPOCHS = 20, 150
#: How often both ends are measured on the held-out images while they are trained.
EVALUATIONS = 4
#: Part of a step's time that a forward pass alone takes.
FORWARD_PART = 1 / 3
#: Seconds that compiling one phase takes on a machine whose step takes one second, and what the end takes at least.
COMPILE_SECONDS, LEAST_END = 9.0, 20.0
#: Steps that the speed is taken from while training, and the least part of them that is worth a change.
WINDOW, WORTH_IT = 50, 0.03


def are_few(images: Photographs) -> bool:
    """Return whether the training images are so few that training may do harm."""
    return len(images.train) < PLENTY * len(images.train.class_names)


def planned(base: Recipe, name: str, images: Photographs, start: Path, deadline: float, seed: int, say: Say) -> Recipe:
    """Choose as many steps as fit into the time, from the speed of a few.

    Args:
        base: how it is trained; its steps are the most that are made.
        name: of the family.
        images: of one's own.
        start: the starting family's folder.
        deadline: of the monotonic clock, in seconds.
        seed: of every draw.
        say: told of the plan.

    Returns:
        The run's recipe.
    """
    most = min(base.steps, max(FEWEST_STEPS, MOST_EPOCHS * len(images.train) // base.batch_size))
    recipe = _recipe(base, name, images, start, most, seed)
    step_seconds = _measured_step(recipe, images.train)
    trained = matched.children_of(str(start))
    compiling = (len(trained) - 2 + EVALUATIONS) * COMPILE_SECONDS * step_seconds
    ends = cost.macs(trained[-1].spec) + cost.macs(trained[0].spec)
    curve = EVALUATIONS * _forward_seconds(recipe, step_seconds) * len(images.holdout) * ends
    left = deadline - time.monotonic() - _end_seconds(recipe, images, step_seconds) - curve - compiling
    fewest = min(FEWEST_STEPS, most)
    steps = max(fewest, min(most, int(left / step_seconds)))
    if left < fewest * step_seconds:
        over = (fewest * step_seconds - left) / 60
        say(
            f"the time is short: only the fewest steps, {fewest}, are made, and it will take about {max(1, over):.0f} "
            f"min longer (compiling, and measuring {len(trained)} children)"
        )
    epochs = steps * recipe.batch_size / len(images.train)
    enough = ", no more in any time" if steps == most else ""
    say(
        f"a step of {recipe.batch_size} images takes {step_seconds:.2f} s here: {steps:,} steps, {epochs:.1f} epochs"
        f"{enough}"
    )
    return _recipe(base, name, images, start, steps, seed)


class Pace:
    """Keeps a training within its time: told of each step, it answers how many there are to be in all.

    Args:
        recipe: the run's.
        images: of one's own; they are measured at the end.
        deadline: of the monotonic clock, in seconds.
        say: told of a change.
        clock: in seconds.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Photographs,
        deadline: float,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recipe, self.images, self.deadline, self.say, self.clock = recipe, images, deadline, say, clock
        self.steps, self._calls, self._aside, self._longest = recipe.steps, 0, 0.0, 0.0
        self._seen: deque[tuple[int, float]] = deque(maxlen=WINDOW + 1)

    def apart(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function whose time does not count as that of steps: the evaluations between them."""

        def timed(argument: Any) -> Any:
            began = self.clock()
            try:
                return work(argument)
            finally:
                taken = self.clock() - began
                self._aside += taken
                self._longest = max(self._longest, taken)

        return timed

    def __call__(self, step: int) -> int:
        """Return how many steps there are to be, after so many."""
        now = self.clock()
        self._seen.append((step, now - self._aside))
        (first, then), (_, latest) = self._seen[0], self._seen[-1]
        self._calls += 1
        if self._calls <= 2 * WINDOW or step % WINDOW:  # the first ones compile
            return self.steps
        step_seconds = (latest - then) / (step - first)
        evaluations = (self.steps - step) // self.recipe.evaluate_every * self._longest
        left = self.deadline - now - evaluations - _end_seconds(self.recipe, self.images, step_seconds)
        steps = max(step + 1, step + int(left / step_seconds))
        if steps < self.steps - WORTH_IT * self.recipe.steps:
            self.say(f"steps take {step_seconds:.2f} s now: to end in time {steps:,} are made, not {self.steps:,}")
            self.steps = steps
        return self.steps


def _end_seconds(recipe: Recipe, images: Photographs, step_seconds: float) -> float:
    """Return how long it takes to measure the children and write the family."""
    judged = len(images.holdout) * (1 + are_few(images)) + (len(images.test) if images.test else 0)
    macs = sum(cost.macs(child.spec) for child in matched.children_of(recipe.start_from))
    return LEAST_END + 1.3 * _forward_seconds(recipe, step_seconds) * judged * macs


def _forward_seconds(recipe: Recipe, step_seconds: float) -> float:
    """Return the seconds of a forward pass, for one image and one multiply-add."""
    trained = matched.children_of(recipe.start_from)
    macs = [cost.macs(child.spec) for child in trained]
    return FORWARD_PART * step_seconds / recipe.batch_size / (macs[-1] + sum(macs) / len(macs) + macs[0])


def _recipe(base: Recipe, name: str, images: Photographs, start: Path, steps: int, seed: int) -> Recipe:
    """Return a recipe with what these images and this run make of it."""
    return dataclasses.replace(
        base, name=name, classes=len(images.train.class_names), batch_size=min(base.batch_size, len(images.train)),
        steps=steps, warmup_steps=min(base.warmup_steps, max(1, steps // 10)),
        evaluate_every=max(50, math.ceil(steps / EVALUATIONS)),
        checkpoint_every=max(25, min(base.checkpoint_every, steps // 10)), seed=seed, start_from=str(start),
    )  # fmt: skip


def _measured_step(recipe: Recipe, train: LabelledImages) -> float:
    """Return the seconds of a step, of the quicker of two after one that compiles."""
    engine = make_engine(choose_engine(recipe.engine), recipe, Preprocess(recipe.crop_size, recipe.mean, recipe.std))
    engine.restore(starting_state(recipe, engine.state()))
    stream, method = TrainingBatches(train, recipe), method_of(recipe)
    control, taken = method.control(recipe, 0, {}), []
    for step in range(3):
        began = time.monotonic()
        figures = engine.step(StepInput(stream.at(step), control, 0.0))
        float(figures["loss"])
        taken.append(time.monotonic() - began)
    return min(taken[1:])
