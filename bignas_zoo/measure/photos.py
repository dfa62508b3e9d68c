"""From one's own photographs to a family: a start, a training that ends in time, a front of measured children."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.errors import UsageError
from bignas_zoo.files import names
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.files.say import Say, silent
from bignas_zoo.measure.evaluate import child_top1
from bignas_zoo.measure.family import write_family
from bignas_zoo.measure.photos_images import Photographs, counts_of, remarks, splits_of
from bignas_zoo.measure.photos_plan import Pace, are_few, planned
from bignas_zoo.measure.photos_report import write_report_data
from bignas_zoo.measure.photos_start import Parent, write_start
from bignas_zoo.measure.trained import Trained
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.weights import read_weights
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.data.packing import pack
from bignas_zoo.recipes.methods import matched
from bignas_zoo.recipes.progress import Progress
from bignas_zoo.recipes.recipe import Recipe, read_recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.train import train as train_supernet
from bignas_zoo.search.children import Measured
from bignas_zoo.zoo.family import check_family, load_family

#: Training images that int8 ranges come from: no more are kept, and fewer are too few (`export.ranges`); and how well.
MOST_RANGES, LEAST_RANGES, RANGES_QUALITY = 128, 64, 90


def train_photos_family(
    base: Recipe,
    name: str,
    images: Photographs,
    parent: Parent,
    output: Path,
    *,
    deadline: float,
    seed: int,
    license: str,
    command: str,
    say: Say,
    report: Callable[[Progress], None],
) -> Path:
    """Train on one's own photographs and make a family; a run that was stopped goes on.

    Args:
        base: how it is trained; its steps are the most that are made.
        name: of the family.
        images: of one's own, of the recipe's crop.
        parent: EfficientNet-Lite0.
        output: the run's folder.
        deadline: when to be done, by the monotonic clock in seconds.
        seed: of every draw.
        license: of the new weights.
        command: that does the same again.
        say: told what is going on.
        report: told after each step.

    Returns:
        The family's folder.
    """
    preprocess = Preprocess(base.crop_size, base.mean, base.std)
    start = output / names.START
    if not _is_start(start, images.train.class_names):
        write_start(start, parent, preprocess, images.train, images.holdout, say=say, report=report)
    recipe = _begun(output, base, seed) or planned(base, name, images, start, deadline, seed, say)
    pace = Pace(recipe, images, deadline, say)
    curve = pace.apart(_curve(recipe, images.holdout, preprocess))
    weights = train_supernet(recipe, images.train, output, curve, report, say, pace)
    recipe = read_recipe(output / names.RECIPE)
    return _finish(recipe, weights, images, parent, preprocess, output, license, command, say)


def _is_start(folder: Path, class_names: tuple[str, ...]) -> bool:
    """Return whether an earlier attempt has written the starting family of these classes, and it is whole."""
    if not (folder / names.FAMILY).is_file():
        return False
    family = check_family(folder)
    if family.class_names != class_names:
        raise UsageError(
            f"{folder}: an earlier run was of other classes ({', '.join(family.class_names[:5])}, …). Choose another "
            "--output."
        )
    return True


def _begun(output: Path, base: Recipe, seed: int) -> Recipe | None:
    """Return the recipe of a run that has begun: its steps are counted already."""
    if not (output / checkpoint.FOLDER).exists():
        return None
    recipe = read_recipe(output / names.RECIPE)
    for name, theirs, ours in (("seed", recipe.seed, seed), ("method", recipe.method, base.method)):
        if theirs != ours:
            raise UsageError(
                f"{output}: holds a run with {name} {theirs}, not {ours}. Go on with that one, or choose another "
                "--output."
            )
    return recipe


def _curve(
    recipe: Recipe, holdout: LabelledImages, preprocess: Preprocess
) -> Callable[[dict[str, np.ndarray]], dict[str, float]]:
    """Return what measures both ends while they are trained."""
    ends = matched.children_of(recipe.start_from)
    ends_by_name = {"smallest": ends[0], "biggest": ends[-1]}

    def curve(weights: dict[str, np.ndarray]) -> dict[str, float]:
        run = _trained(recipe, weights, holdout, holdout, holdout)
        return {
            name: round(child_top1(run.child(child.spec), child.spec.resolution, preprocess, holdout), 2)
            for name, child in ends_by_name.items()
        }

    return curve


def _trained(
    recipe: Recipe,
    weights: Mapping[str, np.ndarray],
    train: LabelledImages,
    holdout: LabelledImages,
    test: LabelledImages,
    **facts: Any,
) -> Trained:
    """Return a run as a value, with the statistics that it was trained with."""
    return Trained(
        recipe=recipe,
        weights={name: array.astype(np.float16) for name, array in weights.items()},
        calibration=train.pixels[:0],
        images=train,
        holdout=holdout,
        test=test,
        statistics={child.spec: child.statistics for child in matched.children_of(recipe.start_from)},
        **{"metrics": b"", **facts},
    )


def _finish(
    recipe: Recipe,
    weights: Mapping[str, np.ndarray],
    images: Photographs,
    parent: Parent,
    preprocess: Preprocess,
    output: Path,
    license: str,
    command: str,
    say: Say,
) -> Path:
    """Measure the children, and write the family of those worth having."""
    judged = images.test
    if judged is None:
        source = f"{images.holdout.source}, which also chose the slices, so it is an optimistic figure"
        judged = dataclasses.replace(images.holdout, source=source)
    weights, measured, verdict = _better(recipe, weights, images, say)
    run = _trained(
        recipe, weights, images.train, images.holdout, judged,
        metrics=(output / names.METRICS).read_bytes(), license=license, source=parent.source,
    )  # fmt: skip
    say(verdict)
    training = {
        "recipe": {**recipe.to_json(), "start_from": "efficientnet-lite0"},
        "images": len(images.train),
        "held_out": len(images.holdout),
        "calibration_images": 0,
        "classes": {part: counts_of(split) for part, split in splits_of(images).items()},
        "machine": machine(),
        "versions": versions(),
        "command": command,
        "notes": f"Statistics of batch norms are matched to EfficientNet-Lite0's, not those of any images. {verdict}",
    }
    folder = write_family(
        run, tuple(measured), output / names.FAMILY_FOLDER, say, training=training, notice=parent.notice,
        training_images=_some_packed(images.train, recipe.name),
    )  # fmt: skip
    best = load_family(folder).slices[-1]
    assert best.spec
    counts = {part: counts_of(split) for part, split in splits_of(images).items()}
    write_report_data(output, run.child(best.spec), best.name, judged, preprocess, remarks(images), counts)
    return folder


def _better(
    recipe: Recipe, weights: Mapping[str, np.ndarray], images: Photographs, say: Say
) -> tuple[Mapping[str, np.ndarray], list[Measured], str]:
    """Measure the children on the held-out images; where images are few, with the weights of the start as well.

    Returns:
        The weights that are right more often, over all children; how often each child is with them; and a sentence on
        which they are and why.
    """
    measured = _measured(recipe, weights, images, say)
    if not are_few(images):
        return weights, measured, "All weights are trained: there are images enough for that."
    say("the same with the features that training began with, since images are few")
    start = read_weights(Path(recipe.start_from) / names.SUPERNET)
    untrained = _measured(recipe, start, images, silent)
    before, after = (sum(m.top1 for m in of) / len(of) for of in (untrained, measured))
    compared = f"over all children {after:.1f} % of the held-out images after training, {before:.1f} % before"
    if after >= before:
        return weights, measured, f"Trained weights are kept: {compared}."
    return start, untrained, f"Only the classifier is new, features stay as they were: {compared}."


def _measured(recipe: Recipe, weights: Mapping[str, np.ndarray], images: Photographs, say: Say) -> list[Measured]:
    """Return how often each child is right on the held-out images."""
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    run = _trained(recipe, weights, images.train, images.holdout, images.holdout)
    measured = []
    for child in matched.children_of(recipe.start_from):
        top1 = child_top1(run.child(child.spec), child.spec.resolution, preprocess, images.holdout)
        say(f"{child.name}: {cost.macs(child.spec) / 1e6:.1f} MMACs, {top1:.2f} % of the held-out images")
        measured.append(Measured(child.spec, round(top1, 4), "corner" if _is_corner(child) else "grid"))
    return measured


def _some_packed(train: LabelledImages, family: str) -> bytes | None:
    """Pack some of the training images, for int8; None where there are too few for that."""
    if len(train) < LEAST_RANGES:
        return None
    some = train.take(evenly(len(train), min(len(train), MOST_RANGES)))
    return pack(dataclasses.replace(some, source=f"images of {family}'s training"), RANGES_QUALITY)


def _is_corner(child: matched.Trained) -> bool:
    return child.spec in (child.spec.space.smallest, child.spec.space.biggest)


def family_name(folder: str) -> str:
    """Name a family after its data, in the characters that names may have."""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.lower()).strip("-")
    return "-".join(filter(None, letters.split("-")))[:48] or "photos"


def seed_of(value: int) -> int:
    """Check a seed; raises UsageError."""
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise UsageError(f"--seed: must be a whole number from 0 to {(1 << 31) - 1:,}, got {value!r:.40}.")
    return value


def minutes_of(value: float) -> float:
    """Check a number of minutes; raises UsageError."""
    if not math.isfinite(value) or not 1 <= value <= 100_000:
        raise UsageError(f"--minutes: must be from 1 to 100,000, got {value:g}.")
    return value
