"""A trained family opened again: its weights, and its images split as they were for the training.

Same seed, same positions: so no child is chosen on images that the weights were trained on, and the accuracy that is
reported is on test images, which choose nothing. The paper chooses on training images, having trained on all of them
(BigNAS section 4.4).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import NotFoundError, RecipeError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.say import Say
from bignas_zoo.measure.trained import Trained
from bignas_zoo.models.moments import MIN_IMAGES
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.dataset import Dataset, open_dataset
from bignas_zoo.recipes.recipe import Recipe, parse_recipe
from bignas_zoo.zoo.family import Family, no_weights

#: Of images for an imported family: how many are held out to choose children on, as many as there are enough for.
HELD_OUT = (5_000, 1_000, 200, 40, 10)
SYNSET = re.compile(r"n\d{8}")


def reopen(
    family: Family, weights: Mapping[str, np.ndarray], data: str | Path, test_data: str | Path | None, say: Say
) -> Trained:
    """Return the training that a family came from, with its images split as they were.

    Args:
        family: one with a folder.
        weights: its shared weights, as stored.
        data, test_data: the images of its recipe, see `open_dataset`.
        say: told if these are not the images it was trained on.

    Raises:
        NotFoundError: the family has no weights.
        UsageError: the images have other classes, or no test images; or the family's recipe cannot be followed.
        LocalIOError, IntegrityError: images cannot be read or are damaged.
    """
    if family.folder is None:
        raise NotFoundError(no_weights(family))
    training = family.training
    space, _ = family.supernet("search")
    if "imported" in training:
        recipe, dataset = _of_imported(family, space, data, test_data)
    else:
        recipe = parse_recipe(json.dumps(training.get("recipe")), f"recipe of family '{family.name}'")
        if recipe.search_space != space:
            raise UsageError(
                f"family '{family.name}': its space '{space.name}' is not the one its recipe has in this version."
            )
        dataset = open_dataset(recipe, data, test_data)
    if dataset.images.class_names != family.class_names and not _are_synsets(dataset.images.class_names):
        raise UsageError(
            f"{data}: its classes are not those of family '{family.name}': {', '.join(family.class_names)[:120]}."
        )
    if not len(dataset.test):
        raise UsageError(f"{data}: has no test images, which slices are reported on. Name the unpacked images.")
    counts = {"images": len(dataset.images), "held_out": len(dataset.holdout)}
    if any(training.get(key, count) != count for key, count in counts.items()):
        say(
            f"Warning: {data} has {counts['images']:,} training and {counts['held_out']:,} held-out images; "
            f"'{family.name}' was trained with {training.get('images'):,} and {training.get('held_out'):,}. Some of "
            "those that children are chosen on may have been trained on."
        )
    metrics = family.folder / names.METRICS
    return Trained(
        recipe,
        {name: np.asarray(value, np.float16) for name, value in weights.items()},
        dataset.calibration,
        dataset.images,
        dataset.holdout,
        dataset.test,
        metrics.read_bytes() if metrics.is_file() else b"",
        str(training.get("notes", "")),
        family.license,
        family.source,
    )


def _of_imported(
    family: Family, space: SearchSpace, data: str | Path, test_data: str | Path | None
) -> tuple[Recipe, Dataset]:
    """Return a recipe for weights that others trained, which says what images are to them, and the images.

    Images are read whole, without the border that the family's own contract leaves out; what a search makes says so.
    """
    contract = Preprocess.from_json(family.preprocess)
    for held_out in HELD_OUT:
        recipe = Recipe(
            name=family.name.replace(".", "-"),
            space=space.name,
            crop_size=contract.crop_size,
            mean=contract.mean,
            std=contract.std,
            steps=1,
            holdout=held_out,
            calibration_images=max(MIN_IMAGES, min(2_000, held_out)),
        )
        with contextlib.suppress(RecipeError):  # too few images for that
            dataset = open_dataset(recipe, data, test_data)
            if len(dataset.images) >= MIN_IMAGES:
                return recipe, dataset
    least = MIN_IMAGES + HELD_OUT[-1]
    raise UsageError(
        f"{data}: too few images to search '{family.name}' on: at least {least} to choose by, and a test split."
    )


def _are_synsets(classes: tuple[str, ...]) -> bool:
    """Return whether classes are called as folders of ImageNet are, whose order is that of the labels."""
    return len(classes) == 1000 and all(SYNSET.fullmatch(name) for name in classes)
