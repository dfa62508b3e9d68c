"""The training loop: recipe and images in, a run folder out.

A run folder holds ``recipe.json``, ``metrics.jsonl`` (one JSON object a line) and
``checkpoint.safetensors``. How a run starts, in order:

1. a checkpoint is there and its recipe is the same: go on from its step;
2. a checkpoint is there with another recipe: refuse, naming the keys that differ;
3. no checkpoint: start from the seed.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import LocalIOError, PreemptedError, TrainingStoppedError
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes import checkpoint
from bignas_zoo.recipes.data import LabelledImages, TrainingBatches
from bignas_zoo.recipes.engine import choose_engine, make_engine
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.sandwich import control
from bignas_zoo.recipes.schedule import learning_rate
from bignas_zoo.store import atomic_write, write_json

METRICS = "metrics.jsonl"
LOG_EVERY = 20
#: Training images up to this size stay in an accelerator's memory (uint8; CIFAR-10 is 0.2 GB).
RESIDENT_BYTES = 4 << 30


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
    images: LabelledImages,
    workdir: Path,
    evaluate: Callable[[dict[str, np.ndarray]], dict[str, float]],
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, np.ndarray]:
    """Train a supernet, or finish an interrupted run.

    Args:
        recipe: the recipe.
        images: those to train on; nothing held out may be among them.
        workdir: the run's folder; made if missing.
        evaluate: supernet weights to named accuracies in percent, for the learning curve.
        report: told after each step.

    Returns:
        The trained weights.

    Raises:
        TrainingStoppedError: the loss is not a number; the last checkpoint stays.
        PreemptedError: SIGTERM came; the checkpoint is complete.
        RecipeError: the folder holds a run of another recipe.
        LocalIOError: the folder cannot be written.
    """
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    _make_folder(workdir)
    done = checkpoint.load(workdir, recipe)
    name = choose_engine(recipe.engine)
    engine = make_engine(name, recipe, preprocess)
    start = 0
    if done:
        start, state = done
        engine.restore(state)
    write_json(workdir / "recipe.json", recipe.to_json())
    log = _Log(workdir / METRICS, keep_until=start)
    resident = images.pixels.nbytes < RESIDENT_BYTES and name == "jax"
    stream = TrainingBatches(images, recipe, host=engine.host, hosts=engine.hosts, resident=resident)
    if resident:
        engine.hold(stream.held())

    def save(step: int) -> None:
        checkpoint.save(workdir, recipe, step, engine.state())

    began = last = time.monotonic()
    with _stop_requests() as stop:
        for step in range(start, recipe.steps):
            alone = step < recipe.biggest_only_steps
            # Ctrl-C in here may leave a step half applied; the last checkpoint is what counts then.
            values = engine.step(stream.at(step), control(recipe, step), learning_rate(recipe, step), alone=alone)
            if not math.isfinite(values["loss"]):
                raise TrainingStoppedError(
                    f"step {step}: the loss is {values['loss']}. The checkpoint in {workdir} is from before; "
                    "lower learning_rate or lengthen warmup_steps in the recipe, and start a new run."
                )
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
            if (step + 1) % recipe.evaluate_every == 0 or ended:
                log.add({"step": step + 1, "evaluation": evaluate(engine.weights())})
            if (step + 1) % recipe.checkpoint_every == 0 or ended:
                save(step + 1)
            if stop.requested and not ended:
                save(step + 1)
                raise PreemptedError(
                    f"stopped on request after step {step + 1:,} of {recipe.steps:,}. "
                    "Run the same command again to go on."
                )
    return engine.weights()


def _make_folder(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"{workdir}: cannot be created ({error.strerror}).") from error


class _Log:
    """JSON lines, rewritten whole so that a resumed run holds each step once."""

    def __init__(self, path: Path, keep_until: int) -> None:
        self.path = path
        old = path.read_text("utf-8").splitlines() if path.is_file() else []
        self.records: list[dict[str, Any]] = [json.loads(line) for line in old]
        self.records = [r for r in self.records if r["step"] <= keep_until]
        self._write()

    def add(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        self._write()

    def _write(self) -> None:
        atomic_write(self.path, "".join(json.dumps(r) + "\n" for r in self.records).encode())


class _Stop:
    requested = False


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Turn SIGTERM into a request that the loop honours between two steps."""
    stop = _Stop()

    def ask(*_: object) -> None:
        stop.requested = True

    try:
        old = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, old)
