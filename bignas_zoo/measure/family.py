"""From a recipe to a family: train, measure the front, store slices with their statistics.

The weights are rounded to float16 *before* anything is calibrated or measured, so every figure
belongs to the bytes that ship.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.measure.evaluate import BATCH, Evaluator, child_top1
from bignas_zoo.models.calibration import MIN_IMAGES, calibrate
from bignas_zoo.models.child import build_child, get_weights, set_weights
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.models.weights import write_weights
from bignas_zoo.recipes.data import LabelledImages, batches
from bignas_zoo.recipes.data.dataset import Dataset, TrainingImages, open_dataset
from bignas_zoo.recipes.engines.engine import OPTIMIZER, choose_engine, host_index
from bignas_zoo.recipes.recipe import Recipe, read_recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.folder import check_output, hold
from bignas_zoo.recipes.runs.log import METRICS
from bignas_zoo.recipes.runs.start import starting_family
from bignas_zoo.recipes.runs.stopping import stop_requests
from bignas_zoo.recipes.train import Progress
from bignas_zoo.recipes.train import train as train_supernet
from bignas_zoo.search import rounds
from bignas_zoo.search.children import Candidate, Measured
from bignas_zoo.search.costs import figures
from bignas_zoo.search.evolution import Evolution
from bignas_zoo.search.front import name_members, pareto, thin
from bignas_zoo.search.log import Log, measured_to_json
from bignas_zoo.zoo.family import FAMILY_FILE, SCHEMA

FRONT_SCHEMA = "bignas-zoo/front/1"
FRONT_FILE, SUPERNET_FILE, MEASURED_FILE = "front.json", "supernet.safetensors", "measured.jsonl"
NOTES_FILE, RECIPE_FILE = "notes.txt", "recipe.json"
CURVE_CALIBRATION = 1_000
#: Part of the digest that logged measurements are found by; another way of measuring needs another name.
PROTOCOL = "population moments of the calibration images; top-1 of the held-out ones"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A finished training run: everything a family is made from.

    Attributes:
        recipe: the recipe.
        weights: the supernet's, float16 as they ship.
        calibration: ``[n, crop, crop, 3]`` uint8 training images.
        images: those trained on.
        holdout, test: the other splits.
        metrics: the run's ``metrics.jsonl``.
        notes: what else there is to say about the run, from its ``notes.txt``.
    """

    recipe: Recipe
    weights: dict[str, np.ndarray]
    calibration: np.ndarray
    images: TrainingImages
    holdout: LabelledImages
    test: LabelledImages
    metrics: bytes
    notes: str = ""

    @property
    def preprocess(self) -> Preprocess:
        """The input contract."""
        return Preprocess(self.recipe.crop_size, self.recipe.mean, self.recipe.std)

    @property
    def rounded(self) -> dict[str, np.ndarray]:
        """The shipped weights as float32: what is calibrated and measured."""
        return {name: value.astype(np.float32) for name, value in self.weights.items()}

    def child(self, spec: ChildSpec) -> keras.Model:
        """Cut and calibrate one child."""
        child = build_child(spec)
        set_weights(child, spec, slice_weights(self.rounded, spec), calibrated=False)
        inputs = (self.preprocess.inputs(b, spec.resolution) for b in batches(self.calibration, BATCH))
        calibrate(child, (np.asarray(x) for x in inputs))
        return child


def train_family(
    path: Path,
    data: str | Path,
    output: Path,
    *,
    test_data: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    say: Say,
    report: Callable[[Progress], None],
) -> Path | None:
    """Train by a recipe and make a family; see `bignas_zoo.train`.

    Returns:
        The family's folder; None where the training ran on JAX, as `make_family` needs TensorFlow, or the data
        have no test images.
    """
    # The training itself asks for more: it saves a checkpoint first.
    with stop_requests() as stop, stop.at_once():
        return _train_family(path, data, output, test_data, changes or {}, say, report)


def _train_family(
    path: Path,
    data: str | Path,
    output: Path,
    test_data: str | Path | None,
    changes: Mapping[str, Any],
    say: Say,
    report: Callable[[Progress], None],
) -> Path | None:
    recipe = read_recipe(path, changes)
    check_output(output, data)
    store.check_free(output / "family", force=True, marker=FAMILY_FILE)  # now, not after hours of training
    if recipe.start_from and not (output / checkpoint.FOLDER).exists():
        starting_family(recipe)  # images can take minutes to read
    say(f"reading images from {data}")
    dataset = open_dataset(recipe, data, test_data)
    say(
        f"{len(dataset.images):,} images of {recipe.search_space.classes} classes to train on, "
        f"{len(dataset.holdout):,} held out, {len(dataset.test):,} to test on"
    )
    if len(dataset.calibration) < MIN_IMAGES:  # before the training, not after it
        raise UsageError(
            f"{data}: {len(dataset.images)} images are left to train on, after holdout and test images; calibration "
            f"needs at least {MIN_IMAGES}. Give more images, or lower holdout in the recipe."
        )
    if recipe.batch_size > len(dataset.images):  # a slip that would take the machine's memory
        raise UsageError(
            f"recipe '{recipe.name}': batch_size: {recipe.batch_size:,} is more than the {len(dataset.images):,} "
            f"images of {data} that are left to train on. Lower it in the recipe."
        )
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    space = recipe.search_space

    def curve(weights: dict[str, np.ndarray]) -> dict[str, float]:
        evaluator = Evaluator(space, weights, preprocess, dataset.calibration[:CURVE_CALIBRATION])
        ends = {"smallest": space.smallest, "biggest": space.biggest}
        return {name: round(evaluator.top1(spec, dataset.holdout), 2) for name, spec in ends.items()}

    train_supernet(recipe, dataset.images, output, curve, report, say)
    elsewhere = host_index(choose_engine(recipe.engine)) or keras.backend.backend() != "tensorflow"
    if elsewhere or not len(dataset.test):
        return None  # measured and exported by one process, on TensorFlow, see `make_family`
    return _finish(recipe, dataset, output, say)


def make_family(data: str | Path, output: Path, *, test_data: str | Path | None, say: Say) -> Path:
    """Make the family of a finished run.

    Args:
        data, test_data: see `open_dataset`.
        output: the run's folder.
        say: told of each child measured.

    Returns:
        The family's folder.

    Raises:
        NotFoundError: the folder holds no finished run.
        UsageError: the data have no test images.
        LocalIOError, IntegrityError: images or the run cannot be read or are damaged.
    """
    if not (output / RECIPE_FILE).is_file():
        raise NotFoundError(
            f"{output}: holds no training run (no {RECIPE_FILE}). Name the folder given to train --output."
        )
    recipe = read_recipe(output / RECIPE_FILE)
    done = checkpoint.load(output, recipe, say)
    if done is None or done.step < recipe.steps:
        step = done.step if done else 0
        raise NotFoundError(
            f"{output}: the run is at step {step:,} of {recipe.steps:,}. Finish it with the command that began it."
        )
    say(f"reading images from {data}")
    with stop_requests() as stop, stop.at_once():
        dataset = open_dataset(recipe, data, test_data)
        if not len(dataset.test):
            raise UsageError(
                f"{data}: packed training images, without the test images that a family is measured on. Name the "
                "images they were packed of with --data."
            )
        return _finish(recipe, dataset, output, say)


def _finish(recipe: Recipe, dataset: Dataset, output: Path, say: Say) -> Path:
    done = checkpoint.load(output, recipe, say)
    if done is None:
        raise NotFoundError(f"{output}: holds no checkpoint.")
    shipped = {k: v.astype(np.float16) for k, v in done.state.items() if not k.startswith(OPTIMIZER)}
    metrics = (output / METRICS).read_bytes()
    notes = (output / NOTES_FILE).read_text("utf-8").strip() if (output / NOTES_FILE).is_file() else ""
    run = Trained(recipe, shipped, dataset.calibration, dataset.images, dataset.holdout, dataset.test, metrics, notes)
    with hold(output, say):
        return write_family(run, measure(run, output / MEASURED_FILE, say), output / "family", say)


def measure(run: Trained, log: Path, say: Say) -> tuple[Measured, ...]:
    """Measure the front's children on the held-out images.

    Args:
        run: the finished training.
        log: JSON lines of measurements; those in it of the same weights and images are not made again.
        say: told of each.

    Returns:
        All measurements.
    """
    recipe, space = run.recipe, run.recipe.search_space
    evaluator = Evaluator(space, run.rounded, run.preprocess, run.calibration)
    kept = Log.open(log, fingerprint(run), space, say, others="drop")
    if kept.known:
        say(f"{len(kept.known)} children are measured already")

    def tell(p: rounds.Progress) -> None:
        say(f"child {p.done}/{p.children}: {p.child.macs / 1e6:.2f} MMACs, {p.child.top1:.2f} % held out")

    return rounds.search(
        Evolution(space, (), figures, recipe.seed, population=recipe.front_children // 2),
        rounds.each(lambda spec: accuracy(evaluator, spec, run.holdout)),
        figures,
        children=recipe.front_children,
        start=corners(space),
        log=kept,
        report=tell,
    )


def accuracy(evaluator: Evaluator, spec: ChildSpec, images: LabelledImages) -> float:
    """Return a child's accuracy in percent as it is stored: four digits after the point."""
    return round(evaluator.top1(spec, images), 4)


def corners(space: SearchSpace) -> list[Candidate]:
    """Return both ends of a space, which are slices of every family."""
    return [Candidate(space.smallest, "corner"), Candidate(space.biggest, "corner")]


def fingerprint(run: Trained) -> str:
    """Return a digest of everything a measurement depends on: weights, images, and how it is made."""
    digest = hashlib.sha256(PROTOCOL.encode() + json.dumps(run.preprocess.to_json()).encode())
    for name, value in sorted(run.weights.items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    for array in (run.calibration, run.holdout.pixels, run.holdout.labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def write_family(
    run: Trained,
    measured: tuple[Measured, ...],
    folder: Path,
    say: Say,
    *,
    keep: Sequence[Measured] = (),
    only: Mapping[str, Measured] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a family's folder: weights, named slices with statistics, front, description.

    Each slice is cut from the rounded weights, calibrated, and measured on the test images, which no
    choice has seen.

    Args:
        run: the finished training.
        measured: the front's children, both corners among them.
        folder: the family's folder; a family already there is replaced once the new one is complete.
        say: told of each slice.
        keep: children that are slices even where the front would leave them out.
        only: name to child, where these alone are to be slices.
        training: how the family was made, for its description; by default, by this run.

    Returns:
        The folder.
    """
    recipe, space = run.recipe, run.recipe.search_space
    inner = sorted(dict.fromkeys((*thin(pareto(measured)), *keep)), key=lambda m: (m.macs, m.top1))
    members = only or name_members(recipe.name, space, inner, measured)
    with store.new_folder(folder, force=True, marker=FAMILY_FILE) as new:
        (new / "bn").mkdir()
        write_weights(new / SUPERNET_FILE, run.weights, {"family": recipe.name})
        slices = [_write_slice(run, name, member, new, say) for name, member in members.items()]
        front = {
            "schema": FRONT_SCHEMA,
            "chosen_on": f"{len(run.holdout):,} training images held out of training",
            "measured": [measured_to_json(m) for m in measured],
        }
        store.write_json(new / FRONT_FILE, front)
        store.atomic_write(new / METRICS, run.metrics)
        description = {
            "schema": SCHEMA,
            "name": recipe.name,
            "description": f"Supernet of space '{space.name}' trained on {run.images.source}.",
            "license": "Apache-2.0",
            "space": space.to_json(),
            "class_names": list(run.images.class_names),
            "preprocess": run.preprocess.to_json(),
            "weights": _record(new, SUPERNET_FILE),
            "front": _record(new, FRONT_FILE),
            "metrics": _record(new, METRICS),
            "training": dict(training) if training is not None else _training(run),
            "slices": sorted(slices, key=lambda s: str(s["name"])),
        }
        store.write_json(new / FAMILY_FILE, store.sealed(description))
    return folder


def _training(run: Trained) -> dict[str, Any]:
    """Return how a family was made: the record of its run."""
    return {
        "recipe": run.recipe.to_json(),
        "images": len(run.images),
        "held_out": len(run.holdout),
        "calibration_images": len(run.calibration),
        "machine": machine(),
        "versions": versions(),
        "command": "bignas-zoo train RECIPE --data FOLDER --output RUN",
        "notes": run.notes,
    }


def _write_slice(run: Trained, name: str, member: Measured, folder: Path, say: Say) -> dict[str, Any]:
    """Calibrate and measure one slice, store its statistics, and return its entry in family.json."""
    from bignas_zoo.export.describe import file_info
    from bignas_zoo.export.tflite import convert  # TensorFlow, which a training on JAX does without

    child = run.child(member.spec)
    stored = get_weights(child, member.spec)
    file = f"bn/{name}.safetensors"
    statistics = {k: v for k, v in stored.items() if k.endswith((".mean", ".variance"))}
    write_weights(folder / file, statistics, {"slice": name})
    top1 = child_top1(child, member.spec.resolution, run.preprocess, run.test)
    say(f"{name}: {member.macs / 1e6:.2f} MMACs, {top1:.2f} % on {run.test.source}")
    info = file_info(
        name, run.images.class_names, run.preprocess.to_json(), macs=member.macs, resolution=member.spec.resolution
    )
    return {
        "name": name,
        "spec": member.spec.to_json(),
        "top1": round(top1, 4),
        "top1_images": len(run.test),
        "top1_source": run.test.source,
        "holdout_top1": member.top1,
        "holdout_images": len(run.holdout),
        "bytes": len(convert(child, info=info)),
        "statistics": _record(folder, file),
    }


def _record(folder: Path, name: str) -> dict[str, Any]:
    return {"file": name, **store.record(folder / name)}
