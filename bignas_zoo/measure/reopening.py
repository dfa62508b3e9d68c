"""A trained family opened again: its weights, and its images split as they were for the training.

Same seed, same positions: so no child is chosen on images that the weights were trained on, and the accuracy that is
reported is on test images, which choose nothing. The paper chooses on training images, having trained on all of them
(BigNAS section 4.4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.say import Say
from bignas_zoo.measure.trained import Trained
from bignas_zoo.recipes.data.dataset import open_dataset
from bignas_zoo.recipes.recipe import parse_recipe
from bignas_zoo.zoo.family import Family, no_weights


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
    recipe = parse_recipe(json.dumps(training.get("recipe")), f"recipe of family '{family.name}'")
    space, _ = family.supernet("search")
    if recipe.search_space != space:
        raise UsageError(
            f"family '{family.name}': its space '{space.name}' is not the one its recipe has in this version."
        )
    dataset = open_dataset(recipe, data, test_data)
    if dataset.images.class_names != family.class_names:
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
