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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import PreemptedError, TrainingStoppedError
from bignas_zoo.files import names
from bignas_zoo.files.say import Say, silent
from bignas_zoo.files.store import write_json
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.dataset import Batches, TrainingImages, open_batches
from bignas_zoo.recipes.engines.choosing import choose_engine, host_index, make_engine
from bignas_zoo.recipes.engines.engine import STOP, Engine, StepInput
from bignas_zoo.recipes.methods import method_of
from bignas_zoo.recipes.methods.method import Method, State
from bignas_zoo.recipes.progress import Progress
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.folder import hold
from bignas_zoo.recipes.runs.images import remember_images
from bignas_zoo.recipes.runs.log import RunLog
from bignas_zoo.recipes.runs.start import starting_state
from bignas_zoo.recipes.runs.stopping import StopRequest, stop_requests
from bignas_zoo.recipes.schedule import learning_rate

Evaluate = Callable[[dict[str, np.ndarray]], dict[str, float]]
#: From steps done to how many the run is to have in all: as many as the recipe says, or fewer.
Shorten = Callable[[int], int]
LOG_EVERY = 20


@dataclass(frozen=True)
class _Host:
    """What takes part in the steps of a run on this host: the same for all of them.

    Attributes:
        recipe, method: how it is trained.
        workdir: the run's folder.
        engine, stream: what computes the steps, and the batches it is fed.
        stop: whether somebody asked this process to stop.
    """

    recipe: Recipe
    method: Method
    workdir: Path
    engine: Engine
    stream: Batches
    stop: StopRequest

    def given(self, step: int, state: State) -> StepInput | None:
        """Return what the engine is given for a step; nothing after the last one."""
        if step == self.recipe.steps:
            return None
        control = self.method.control(self.recipe, step, state)
        return StepInput(self.stream.at(step), control, learning_rate(self.recipe, step))

    def stopped(self, step: int) -> BaseException:
        """Return what to raise where the run ends early."""
        return self.stop.error(f" after step {step:,} of {self.recipe.steps:,}")


@dataclass(frozen=True)
class _Position:
    """How far a run is.

    Attributes:
        step: steps done.
        state: the method's own.
        best: the best evaluation so far.
    """

    step: int
    state: State
    best: checkpoint.Best | None = None


@dataclass(frozen=True)
class _Record:
    """What the host that writes keeps of a run, and whom it tells.

    Attributes:
        log: the run's.
        evaluate, report, say, shorten: see `train`.
        began: seconds of the monotonic clock.
    """

    log: RunLog
    evaluate: Evaluate
    report: Callable[[Progress], None]
    say: Say
    shorten: Shorten | None
    began: float


def train(
    recipe: Recipe,
    images: TrainingImages,
    workdir: Path,
    evaluate: Evaluate,
    report: Callable[[Progress], None] = lambda progress: None,
    say: Say = silent,
    shorten: Shorten | None = None,
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
        shorten: asked after each step of how many steps the run is to be; where these are fewer than the recipe's, the
            recipe in the run's folder and the schedule change from there on.

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
        position = _open_run(recipe, images, workdir, engine, say)
        log = RunLog(workdir, position.step, say)
        with closing(log), stop_requests() as stop:
            host = _Host(recipe, method_of(recipe), workdir, engine, open_batches(images, recipe, engine), stop)
            _lead(host, _Record(log, evaluate, report, say, shorten, time.monotonic()), position)
        return engine.weights()


def _open_run(recipe: Recipe, images: TrainingImages, workdir: Path, engine: Engine, say: Say) -> _Position:
    """Put an engine where a run stands, and write down what the run is."""
    position = _starting_position(recipe, workdir, engine, say)
    remember_images(workdir, images, resumed=position.step > 0)
    write_json(workdir / names.RECIPE, recipe.to_json())
    if position.step < recipe.steps:
        say(f"training from step {position.step:,} on {engine.devices}; the first step compiles, which takes longest")
    else:
        say(f"{workdir}: trained already, all {position.step:,} steps")
    return position


def _starting_position(recipe: Recipe, workdir: Path, engine: Engine, say: Say) -> _Position:
    """Restore an engine from the run's checkpoint, or from the family that the recipe names; return the position."""
    own = method_of(recipe).init(recipe)
    last = checkpoint.newest(workdir, recipe, say)
    if last:
        checkpoint.check_state(last.state, checkpoint.joined(engine.state(), own), workdir)
        engine.restore(last.state)
        return _Position(last.step, last.method, last.best)
    if recipe.start_from:
        engine.restore(starting_state(recipe, engine.state(), say))
    return _Position(0, own)


def _follow(recipe: Recipe, images: TrainingImages, workdir: Path, engine: Engine) -> dict[str, np.ndarray]:
    """Take part in the steps of a run whose files another host writes; it needs the same run folder to resume."""
    position = _starting_position(recipe, workdir, engine, silent)
    with stop_requests() as stop:
        host = _Host(recipe, method_of(recipe), workdir, engine, open_batches(images, recipe, engine), stop)
        given = host.given(position.step, position.state)
        while given:
            position, figures, given = _take_step(host, position, given)
            if figures.get(STOP):
                raise host.stopped(position.step)
    return engine.weights()


def _lead(host: _Host, record: _Record, position: _Position) -> None:
    """Take all steps that are left, and keep the run's files."""
    position = _missed_evaluation(host, record, position)
    if host.stop.requested and host.engine.hosts == 1:
        raise host.stopped(position.step)
    last, given = record.began, host.given(position.step, position.state)
    while given:
        control, rate = given.control, given.learning_rate
        position, figures, given = _take_step(host, position, given)
        asked = figures.pop(STOP, 0) > 0
        now = time.monotonic()
        speed, last = host.recipe.batch_size / max(now - last, 1e-9), now
        _tell(host, record, position.step, figures, speed, control.phase, rate)
        position = _keep(host, record, position, asked=asked)
        shorter = _shortened(host, record, position)
        if shorter is not host:
            host = shorter
            given = host.given(position.step, position.state)


def _shortened(host: _Host, record: _Record, position: _Position) -> _Host:
    """Take the run's new number of steps, if there is one, with a checkpoint that knows of it."""
    recipe, step = host.recipe, position.step
    steps = max(record.shorten(step), step + 1) if record.shorten and step < recipe.steps else recipe.steps
    if steps >= recipe.steps:
        return host
    host = replace(host, recipe=replace(recipe, steps=steps))
    write_json(host.workdir / names.RECIPE, host.recipe.to_json())
    _save(host, position)
    return host


def _take_step(
    host: _Host, position: _Position, given: StepInput
) -> tuple[_Position, dict[str, float], StepInput | None]:
    """Take one step.

    Returns:
        The position after it, its figures, and what the next step is given.
    """
    step, state = position.step, position.state
    # Ctrl-C in here may leave a step half applied; the last checkpoint is what counts then.
    running = host.engine.step(replace(given, stop=host.stop.requested))
    # While an accelerator computes; a method with a state of its own waits for it.
    upcoming = None if state else host.given(step + 1, state)
    figures = _figures(running, step, host.workdir)
    state = host.method.update(host.recipe, step, state, given.control, figures)
    return replace(position, step=step + 1, state=state), figures, upcoming or host.given(step + 1, state)


def _tell(
    host: _Host, record: _Record, step: int, figures: Mapping[str, float], speed: float, phase: str, rate: float
) -> None:
    """Report a step, and log every `LOG_EVERY`-th and the last."""
    recipe = host.recipe
    record.report(Progress(step, recipe.steps, figures["loss"], speed, phase, figures.get("accuracy")))
    if step % LOG_EVERY == 0 or step == recipe.steps:
        record.log.add(
            {
                "step": step,
                "seconds": round(time.monotonic() - record.began, 1),
                "learning_rate": rate,
                "images_per_second": round(speed, 1),
                "phase": phase,
                **{k: round(v, 5) for k, v in figures.items()},
            }
        )


def _keep(host: _Host, record: _Record, position: _Position, *, asked: bool) -> _Position:
    """Evaluate and save after a step, where the recipe or a request to stop says so.

    Args:
        asked: whether any of many hosts was asked to stop when the step began.

    Returns:
        The position, with what may be a new best evaluation.
    """
    recipe, step, before = host.recipe, position.step, position.best
    if not host.stop.requested and _evaluates(recipe, step):
        position = _evaluated(host, record, position)
    ends = asked if host.engine.hosts > 1 else host.stop.requested  # many hosts stop after the same step
    ended = step == recipe.steps
    if position.best != before or ended or ends or step % recipe.checkpoint_every == 0:
        _save(host, position)
    if ends:
        record.say(f"checkpoint of step {step:,} written")
        raise host.stopped(step)
    return position


def _missed_evaluation(host: _Host, record: _Record, position: _Position) -> _Position:
    """Make the evaluation that an interrupted run was to make after its last step."""
    step = position.step
    if not step or not _evaluates(host.recipe, step) or record.log.evaluated(step):
        return position
    after = _evaluated(host, record, position)
    if after.best != position.best:
        _save(host, after)
    return after


def _evaluated(host: _Host, record: _Record, position: _Position) -> _Position:
    """Log the accuracies of now, unless a request to stop cuts it short; return the position with the best of all."""
    try:
        with host.stop.at_once():
            accuracies = record.evaluate(host.engine.weights())
    except (PreemptedError, KeyboardInterrupt):
        if not host.stop.requested:
            raise
        return position  # the checkpoint comes first; the resumed run makes up for it
    record.log.add({"step": position.step, "evaluation": accuracies})
    biggest, best = accuracies.get("biggest"), position.best
    if biggest is None or (best and biggest <= best.accuracy):
        return position
    return replace(position, best=checkpoint.Best(position.step, biggest))


def _save(host: _Host, position: _Position) -> None:
    state = checkpoint.joined(host.engine.state(), position.state)
    recipe = host.recipe
    checkpoint.save(host.workdir, recipe, position.step, state, position.best, recipe.keep_checkpoints)


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


def _evaluates(recipe: Recipe, step: int) -> bool:
    return step % recipe.evaluate_every == 0 or step == recipe.steps
