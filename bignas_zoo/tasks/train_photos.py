"""`train photos`: a folder of one's own photographs to a whole family of classifiers, in a given time."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import RecipeError
from bignas_zoo.files import names
from bignas_zoo.files.outputs import write_output
from bignas_zoo.files.say import Say, silent
from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.tasks.cutting import cut, verified_path
from bignas_zoo.zoo.family import MATCHED
from bignas_zoo.zoo.license import license_of
from bignas_zoo.zoo.registry import get_family

if TYPE_CHECKING:
    from bignas_zoo.recipes.recipe import Recipe

#: The recipe that is meant where none is named.
PHOTOS = "photos"
#: The slice that training starts from.
FAMILY, PARENT = "efficientnet-lite", "efficientnet-lite0-160"
MINUTES = 60.0


def photos_recipe(recipe: str | Path, engine: str | None = None) -> Recipe | None:
    """Read a recipe, and return it if it is one of photographs: of their method, without a family to start from.

    Raises:
        NotFoundError, LocalIOError, RecipeError: there is no such recipe, or it is not valid.
    """
    from bignas_zoo.recipes.recipe import find_recipe, read_recipe

    settings = read_recipe(find_recipe(recipe), {"engine": engine} if engine else None)
    return settings if settings.method.name == MATCHED and not settings.start_from else None


def train_photos(
    data: str | Path,
    output: str | Path,
    *,
    recipe: str | Path = PHOTOS,
    engine: str | None = None,
    minutes: float = MINUTES,
    seed: int = 0,
    license: str | None = None,
    say: Say = silent,
    report: Callable[[Any], None] = lambda progress: None,
) -> Path:
    """Train a supernet on one's own photographs and make a family of it; an interrupted run goes on.

    It starts from EfficientNet-Lite0, which knows ImageNet: a classifier is fitted to its features, its channels are
    sorted, and the sandwich rule trains it with smaller children whose batch norms have statistics matched to its own.

    Args:
        data: ``FOLDER/CLASS/*.jpg``, or ``train/CLASS`` in it with ``val/CLASS``, ``test/CLASS`` or both beside it;
            without ``val`` a part of each class is held out to choose slices on, and without ``test`` accuracies are
            those of the held-out images, and say so. Or a packed file of training images.
        output: the run's folder; the family is in ``family`` inside it.
        recipe: ``photos``, ``photos_gpu``, or a YAML file like theirs.
        engine: "tensorflow", "jax" or "auto"; None takes the recipe's.
        minutes: that it may take in all, by the wall clock; the number of steps is chosen by the speed of this machine.
        seed: of every draw.
        license: of the new weights; None takes EfficientNet-Lite's.
        say: told what is going on, a sentence at a time.
        report: told a `bignas_zoo.recipes.progress.Progress` after each step.

    Returns:
        The family's folder, to be given to `get` and the others as `family`.

    Raises:
        RecipeError, NotFoundError: the recipe is not valid, or of another method, or there is none.
        UsageError: fewer than two classes, or a class has too few images; or Keras is not installed.
        LocalIOError, IntegrityError: images cannot be read or are damaged, or the folder cannot be written.
        TrainingStoppedError: the loss or a weight is not a number.
        PreemptedError: stopped by SIGTERM; run again to go on.
    """
    need_keras("train photos")
    deadline = time.monotonic() + 60 * minutes  # reading the images counts
    license_of(license)
    base = photos_recipe(recipe, engine)
    if base is None:
        raise RecipeError(f"recipe '{recipe}': is not of method '{MATCHED}', or has start_from; see {PHOTOS}.yaml.")
    from bignas_zoo.recipes.engines.choosing import choose_engine, use_backend

    use_backend(choose_engine(base.engine))
    from bignas_zoo.hub_cards.report import render_report
    from bignas_zoo.measure import photos, photos_images
    from bignas_zoo.measure.photos_start import Parent
    from bignas_zoo.recipes.runs.folder import check_output, hold
    from bignas_zoo.recipes.runs.stopping import stop_requests

    photos.minutes_of(minutes)
    photos.seed_of(seed)
    check_output(Path(output), data)
    home = get_family(FAMILY)
    slice_ = home.find(PARENT)
    with stop_requests() as stop, stop.at_once():
        say(f"reading images from {data}")
        images = photos_images.read_photographs(Path(data), base, seed)
        for sentence in photos_images.remarks(images):
            say(sentence)
        with hold(Path(output), say):  # a place that cannot be written shows now, not after the features
            pass
        parent = Parent(
            cut(home, slice_).weights, slice_.license, slice_.source,
            verified_path(home, home.notice) if home.notice else None,
        )  # fmt: skip
        command = [
            "bignas-zoo", "train", Path(recipe).stem, "--data", images.folder, "--minutes", f"{minutes:g}",
            "--seed", f"{seed}", "--output", Path(output).name,
        ]  # fmt: skip
        folder = photos.train_photos_family(
            base, photos.family_name(images.folder), images, parent, Path(output), deadline=deadline, seed=seed,
            license=license_of(license, slice_.license), command=shlex.join(command), say=say, report=report,
        )  # fmt: skip
        page = Path(output) / names.REPORT
        write_output(page, render_report(Path(output)).encode(), ".html")
        say(f"report: {page}")
        return folder
