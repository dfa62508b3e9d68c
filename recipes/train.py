"""The training loop: recipe and images in, a run folder out.

A run folder holds ``recipe.json``, ``metrics.jsonl`` (one JSON object a line), ``checkpoints/``,
``tensorboard/`` and a lock. How a run starts, in order:

1. another process trains there: refuse;
2. a good checkpoint is there and its recipe is the same: go on from its step;
3. a good checkpoint is there with another recipe: refuse, naming the keys that differ;
4. checkpoints are there and all are damaged: refuse;
5. no checkpoint: start from the seed, or from the family that the recipe names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import PreemptedError, TrainingStoppedError
from bignas_zoo.files.say import Say, silent
from bignas_zoo.files.store import write_json
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.dataset import Batches, TrainingImages, open_batches
from bignas_zoo.recipes.engines.engine import STOP, Engine, choose_engine, host_index, make_engine
from bignas_zoo.recipes.methods.sandwich import control
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.folder import hold
from bignas_zoo.recipes.runs.images import remember_images
from bignas_zoo.recipes.runs.log import RunLog
from bignas_zoo.recipes.runs.start import starting_state
from bignas_zoo.recipes.runs.stopping import stop_requests
from bignas_zoo.recipes.schedule import learning_rate

LOG_EVERY = 20


@dataclass(frozen=True)
class Progress:
    """What a progress display is told after each step."""

    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    phase: str


def train(
    recipe: Recipe,
    images: TrainingImages,
    workdir: Path,
    evaluate: Callable[[dict[str, np.ndarray]], dict[str, float]],
    report: Callable[[Progress], None] = lambda progress: None,
    say: Say = silent,
) -> dict[str, np.ndarray]:
    """Train a supernet, or finish an interrupted run.

    Args:
        recipe: the recipe.
        images: those to train on; nothing held out may be among them.
        workdir: the run's folder; made if missing.
        evaluate: supernet weights to named accuracies in percent, for the learning curve; ``biggest``
            among them decides which checkpoint is the best.
        report: told after each step.
        say: told where it trains, and what is out of the ordinary, such as a damaged checkpoint.

    Returns:
        The trained weights.

    Raises:
        TrainingStoppedError: the loss or a weight is not a number; the checkpoints stay.
        PreemptedError: SIGTERM came; the checkpoint is complete.
        KeyboardInterrupt: Ctrl-C came; likewise.
        RecipeError: the folder holds a run of another recipe, or the family to start from does not fit.
        UsageError: the run began with other images.
        IntegrityError: every checkpoint in it is damaged.
        LocalIOError: the folder cannot be written, or another process trains there.
    """
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    name = choose_engine(recipe.engine)
    if host_index(name):  # one process of many writes; the others compute
        return _follow(recipe, images, workdir, make_engine(name, recipe, preprocess))
    with hold(workdir, say):  # before any device is claimed
        engine = make_engine(name, recipe, preprocess)
        return _train(recipe, images, workdir, evaluate, report, say, engine)


def _follow(recipe: Recipe, images: TrainingImages, workdir: Path, engine: Engine) -> dict[str, np.ndarray]:
    """Take part in the steps of a run whose files another host writes; it needs the same run folder to resume."""
    done = checkpoint.load(workdir, recipe, silent)
    if done:
        engine.restore(done.state)
    elif recipe.start_from:
        engine.restore(starting_state(recipe, engine.state()))
    stream = open_batches(images, recipe, engine)
    with stop_requests() as stop:
        for step in range(done.step if done else 0, recipe.steps):
            alone, rate = step < recipe.biggest_only_steps, learning_rate(recipe, step)
            running = engine.step(stream.at(step), control(recipe, step), rate, alone=alone, stop=stop.requested)
            if _figures(running, step, workdir).get(STOP):
                raise stop.error(f" after step {step + 1:,} of {recipe.steps:,}")
    return engine.weights()


def _train(
    recipe: Recipe,
    images: TrainingImages,
    workdir: Path,
    evaluate: Callable[[dict[str, np.ndarray]], dict[str, float]],
    report: Callable[[Progress], None],
    say: Say,
    engine: Engine,
) -> dict[str, np.ndarray]:
    done = checkpoint.load(workdir, recipe, say)
    start, best = 0, None
    if done:
        checkpoint.check_state(done.state, engine.state(), workdir)
        start, best = done.step, done.best
        engine.restore(done.state)
    elif recipe.start_from:
        engine.restore(starting_state(recipe, engine.state(), say))
    remember_images(workdir, images, resumed=start > 0)
    write_json(workdir / "recipe.json", recipe.to_json())
    if start < recipe.steps:
        say(f"training from step {start:,} on {engine.devices}; the first step compiles, which takes longest")
    else:
        say(f"{workdir}: trained already, all {start:,} steps")
    log = RunLog(workdir, start, say)
    stream = open_batches(images, recipe, engine)

    def save(step: int) -> None:
        checkpoint.save(workdir, recipe, step, engine.state(), best, recipe.keep_checkpoints)

    def evaluation(step: int) -> bool:
        """Log the accuracies of now, unless a request to stop cuts it short; return whether they are the best."""
        nonlocal best
        try:
            with stop.at_once():
                found = evaluate(engine.weights())
        except (PreemptedError, KeyboardInterrupt):
            if not stop.requested:
                raise
            return False  # the checkpoint comes first; the resumed run makes up for it
        log.add({"step": step, "evaluation": found})
        if "biggest" not in found or (best and found["biggest"] <= best.accuracy):
            return False
        best = checkpoint.Best(step, found["biggest"])
        return True

    began = last = time.monotonic()
    with closing(log), stop_requests() as stop:
        if start and _evaluates(recipe, start) and not log.evaluated(start) and evaluation(start):
            save(start)
        if stop.requested and engine.hosts == 1:
            raise stop.error(f" after step {start:,} of {recipe.steps:,}")
        upcoming = _prepared(stream, recipe, start)
        for step in range(start, recipe.steps):
            alone = step < recipe.biggest_only_steps
            # Ctrl-C in here may leave a step half applied; the last checkpoint is what counts then.
            running = engine.step(*upcoming, learning_rate(recipe, step), alone=alone, stop=stop.requested)
            upcoming = _prepared(stream, recipe, step + 1)  # while an accelerator computes
            values = _figures(running, step, workdir)
            agreed = values.pop(STOP, 0) > 0
            now = time.monotonic()
            speed, last = recipe.batch_size / max(now - last, 1e-9), now
            phase = "biggest" if alone else "sandwich"
            report(Progress(step + 1, recipe.steps, values["loss"], values["accuracy"], speed, phase))
            ended = step + 1 == recipe.steps
            if (step + 1) % LOG_EVERY == 0 or ended:
                log.add(
                    {
                        "step": step + 1,
                        "seconds": round(now - began, 1),
                        "learning_rate": learning_rate(recipe, step),
                        "images_per_second": round(speed, 1),
                        "phase": phase,
                        **{k: round(v, 5) for k, v in values.items()},
                    }
                )
            is_best = not stop.requested and _evaluates(recipe, step + 1) and evaluation(step + 1)
            ends = agreed if engine.hosts > 1 else stop.requested  # many hosts stop after the same step
            if is_best or ended or ends or (step + 1) % recipe.checkpoint_every == 0:
                save(step + 1)
            if ends:
                say(f"checkpoint of step {step + 1:,} written")
                raise stop.error(f" after step {step + 1:,} of {recipe.steps:,}")
    return engine.weights()


def _figures(running: Mapping[str, Any], step: int, workdir: Path) -> dict[str, float]:
    """Wait for a step's figures.

    Raises:
        TrainingStoppedError: one is not a number.
    """
    values = {name: float(value) for name, value in running.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        name = "loss" if "loss" in broken else broken[0]
        raise TrainingStoppedError(
            f"step {step + 1}: the {name} is {values[name]}, and nothing of this step is kept; any checkpoints in "
            f"{workdir} are from before. Lower learning_rate or lengthen warmup_steps in the recipe, and start a new "
            "run in another --output."
        )
    return values


def _prepared(stream: Batches, recipe: Recipe, step: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return a step's batch and what steers it; nothing after the last step."""
    return (stream.at(step), control(recipe, step)) if step < recipe.steps else ({}, {})


def _evaluates(recipe: Recipe, step: int) -> bool:
    return step % recipe.evaluate_every == 0 or step == recipe.steps
