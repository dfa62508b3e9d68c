"""From a recipe to a family: train, measure children, choose the front, store it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bignas_zoo.errors import BigNASError, NotFoundError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.files.say import Say
from bignas_zoo.measure.evaluate import Evaluator
from bignas_zoo.measure.family import write_family
from bignas_zoo.measure.front_children import measure_front
from bignas_zoo.measure.trained import Trained
from bignas_zoo.models.backend import keras
from bignas_zoo.models.moments import MIN_IMAGES
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.dataset import Dataset, open_dataset
from bignas_zoo.recipes.engines.choosing import choose_engine, host_index
from bignas_zoo.recipes.progress import Progress
from bignas_zoo.recipes.recipe import Recipe, read_recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.folder import check_output, hold
from bignas_zoo.recipes.runs.start import starting_family
from bignas_zoo.recipes.runs.stopping import stop_requests
from bignas_zoo.recipes.train import train as train_supernet
from bignas_zoo.zoo.license import license_of

CURVE_CALIBRATION = 1_000


def train_family(
    recipe: Recipe,
    data: str | Path,
    output: Path,
    *,
    test_data: str | Path | None = None,
    license: str | None = None,
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
        license_of(license)  # refused now, not after hours of training
        _check_start(recipe, data, output)
        say(f"reading images from {data}")
        dataset = open_dataset(recipe, data, test_data)
        say(
            f"{len(dataset.images):,} images of {recipe.search_space.classes} classes to train on, "
            f"{len(dataset.holdout):,} held out, {len(dataset.test):,} to test on"
        )
        _check_images(recipe, dataset, data)
        weights = train_supernet(recipe, dataset.images, output, _curve(recipe, dataset), report, say)
        host = host_index(choose_engine(recipe.engine))
        if license is not None and not host:
            store.atomic_write(output / names.RUN_LICENSE, f"{license}\n".encode())  # for `family`, told or not
        license = license_of(license, _inherited_license(recipe, output, say))
        elsewhere = host or keras.backend.backend() != "tensorflow"
        if elsewhere or not len(dataset.test):
            return None  # measured and exported by one process, on TensorFlow, see `make_family`
        return _finish(recipe, dataset, weights, license, output, say)


def _check_start(recipe: Recipe, data: str | Path, output: Path) -> None:
    """Refuse what can be refused before the images are read, which can take minutes."""
    check_output(output, data)
    store.check_free(output / names.FAMILY_FOLDER, force=True, marker=names.FAMILY)  # now, not after hours of training
    if recipe.start_from and not (output / checkpoint.FOLDER).exists():
        starting_family(recipe)


def _check_images(recipe: Recipe, dataset: Dataset, data: str | Path) -> None:
    """Refuse images that are too few, before the training and not after it."""
    if len(dataset.calibration) < MIN_IMAGES:
        raise UsageError(
            f"{data}: {len(dataset.images)} images are left to train on, after holdout and test images; calibration "
            f"needs at least {MIN_IMAGES}. Give more images, or lower holdout in the recipe."
        )
    if recipe.batch_size > len(dataset.images):  # a slip that would take the machine's memory
        raise UsageError(
            f"recipe '{recipe.name}': batch_size: {recipe.batch_size:,} is more than the {len(dataset.images):,} "
            f"images of {data} that are left to train on. Lower it in the recipe."
        )


def _curve(recipe: Recipe, dataset: Dataset) -> Callable[[dict[str, np.ndarray]], dict[str, float]]:
    """Return what measures both ends of the space while they are trained, on the held-out images."""
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    space = recipe.search_space

    def curve(weights: dict[str, np.ndarray]) -> dict[str, float]:
        evaluator = Evaluator(space, weights, preprocess, dataset.calibration[:CURVE_CALIBRATION])
        ends = {"smallest": space.smallest, "biggest": space.biggest}
        return {name: round(evaluator.top1(spec, dataset.holdout), 2) for name, spec in ends.items()}

    return curve


def make_family(
    data: str | Path, output: Path, *, test_data: str | Path | None, license: str | None = None, say: Say
) -> Path:
    """Make the family of a finished run.

    Args:
        data, test_data: see `open_dataset`.
        output: the run's folder.
        license: of the weights; None takes what `train` was told, else that of the family they were started from, or
            else "unknown".
        say: told of each child measured.

    Returns:
        The family's folder.

    Raises:
        NotFoundError: the folder holds no finished run.
        UsageError: the data have no test images.
        LocalIOError, IntegrityError: images or the run cannot be read or are damaged.
    """
    recipe, weights = _finished(output, say)
    license = license_of(license, _inherited_license(recipe, output, say))
    say(f"reading images from {data}")
    with stop_requests() as stop, stop.at_once():
        dataset = open_dataset(recipe, data, test_data)
        if not len(dataset.test):
            raise UsageError(
                f"{data}: packed training images, without the test images that a family is measured on. Name the "
                "images they were packed of with --data."
            )
        return _finish(recipe, dataset, weights, license, output, say)


def _finished(output: Path, say: Say) -> tuple[Recipe, dict[str, np.ndarray]]:
    """Return the recipe of a run that has come to its end, and the weights it trained."""
    if not (output / names.RECIPE).is_file():
        raise NotFoundError(
            f"{output}: holds no training run (no {names.RECIPE}). Name the folder given to train --output."
        )
    recipe = read_recipe(output / names.RECIPE)
    last = checkpoint.newest(output, recipe, say)
    if last is None or last.step < recipe.steps:
        step = last.step if last else 0
        raise NotFoundError(
            f"{output}: the run is at step {step:,} of {recipe.steps:,}. Finish it with the command that began it."
        )
    return recipe, last.weights


def _inherited_license(recipe: Recipe, output: Path, say: Say) -> str:
    """Return the licence that `train` was told, else that of the weights a run starts from; "unknown" without any."""
    told = output / names.RUN_LICENSE
    if told.is_file():
        return license_of(told.read_text("utf-8", errors="replace").strip())
    if not recipe.start_from:
        return UNKNOWN
    try:
        return starting_family(recipe).license
    except BigNASError as error:  # of no importance to a run that is past its start
        say(f"the licence of the weights that the training started from cannot be read: {error}")
        return UNKNOWN


def _source(recipe: Recipe) -> str:
    """Return where the weights of a run come from, in words."""
    start = f", from the weights of {recipe.start_from}" if recipe.start_from else ""
    return f"trained by `bignas-zoo train`, recipe {recipe.name}{start}"


def _finish(
    recipe: Recipe, dataset: Dataset, weights: Mapping[str, np.ndarray], license: str, output: Path, say: Say
) -> Path:
    """Measure children of trained weights, and write the family into the run's folder."""
    shipped = {name: value.astype(np.float16) for name, value in weights.items()}
    metrics = (output / names.METRICS).read_bytes()
    notes = (output / names.NOTES).read_text("utf-8").strip() if (output / names.NOTES).is_file() else ""
    run = Trained(
        recipe, shipped, dataset.calibration, dataset.images, dataset.holdout, dataset.test, metrics, notes,
        license, _source(recipe),
    )  # fmt: skip
    with hold(output, say):
        return write_family(run, measure_front(run, output / names.MEASURED, say), output / names.FAMILY_FOLDER, say)
