"""From one's own photographs to a family: a start, a training that ends in time, a front of measured children."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.errors import LocalIOError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.files.say import Say
from bignas_zoo.measure.evaluate import child_top1
from bignas_zoo.measure.family import write_family
from bignas_zoo.measure.photos_report import write_report_data
from bignas_zoo.measure.photos_start import Parent, write_start
from bignas_zoo.measure.trained import Trained
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data import LabelledImages, TrainingBatches
from bignas_zoo.recipes.data.class_folders import read_splits, stratified
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.data.packing import SUFFIX, is_packed, pack, read_packed
from bignas_zoo.recipes.engines.choosing import choose_engine, make_engine
from bignas_zoo.recipes.engines.engine import StepInput
from bignas_zoo.recipes.methods import matched, method_of
from bignas_zoo.recipes.progress import Progress
from bignas_zoo.recipes.recipe import Recipe, read_recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.start import starting_state
from bignas_zoo.recipes.train import train as train_supernet
from bignas_zoo.search.children import Measured
from bignas_zoo.zoo.family import check_family, load_family

#: Fewer steps than these leave the children far apart.
FEWEST_STEPS = 20
#: Images of a class, at least; how many times the smallest class the largest may be.
LEAST_IMAGES, UNEVEN = 10, 10
#: How often both ends are measured on the held-out images while they are trained.
EVALUATIONS = 4
#: Part of a step's time that a forward pass alone takes.
FORWARD_PART = 1 / 3
#: Training images that int8 ranges come from: no more are kept, and fewer are too few (`export.ranges`); and how well.
MOST_RANGES, LEAST_RANGES, RANGES_QUALITY = 128, 64, 90
#: Seconds that compiling one phase takes on a machine whose step takes one second, and what the end takes at least.
COMPILE_SECONDS, LEAST_END = 9.0, 20.0


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Images by use.

    Attributes:
        folder: the folder's own name.
        train: to train on.
        holdout: to choose slices on.
        test: to report on; None where the folder has no such split.
    """

    folder: str
    train: LabelledImages
    holdout: LabelledImages
    test: LabelledImages | None


def read_photographs(folder: Path, recipe: Recipe, seed: int) -> Photographs:
    """Read a folder's images and split off those to hold out.

    Args:
        folder: see `recipes.data.class_folders.read_splits`; or a packed file, of training images alone.
        recipe: gives the crop, and what part is held out.
        seed: of the split.

    Raises:
        UsageError: fewer than two classes, or a class has fewer than 10 images.
        LocalIOError: no such folder, or nothing in it.
        IntegrityError: an image is damaged, or a sub-folder has no place.
    """
    parts = {"train": _packed(folder, recipe)} if is_packed(folder) else read_splits(folder, recipe.crop_size)
    train, held = parts["train"], parts.get("val")
    few = {name: count for name, count in _counts(train).items() if count < LEAST_IMAGES}
    if few:
        listed = ", ".join(f"{name} ({count})" for name, count in list(few.items())[:5])
        raise UsageError(
            f"{folder}: too few images to train on, at least {LEAST_IMAGES} a class are needed: {listed}. Add some, or "
            "take `bignas-zoo finetune --freeze`."
        )
    if held is None:
        train, held = stratified(train, recipe.holdout, seed, folder.name)
    return Photographs(folder.resolve().name.removesuffix(SUFFIX), train, held, parts.get("test"))


def _packed(file: Path, recipe: Recipe) -> LabelledImages:
    """Read a packed data set of the recipe's crop."""
    images = read_packed(file)
    if images.pixels.shape[1] != recipe.crop_size:
        raise LocalIOError(
            f"{file}: images of {images.pixels.shape[1]} px, but recipe '{recipe.name}' has crop_size "
            f"{recipe.crop_size}. Pack them with this recipe."
        )
    return images


def remarks(images: Photographs) -> list[str]:
    """Return what a user should know of the images before they are trained on, a sentence each."""
    counts = _counts(images.train)
    test = "no test images: accuracies are those of the held-out ones"
    if images.test is not None:
        test = f"{len(images.test):,} to test on"
    said = [
        f"{len(images.train):,} images of {len(counts)} classes to train on, {len(images.holdout):,} held out, {test}"
    ]
    least, most = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    if counts[most] > UNEVEN * counts[least]:
        said.append(f"Warning: uneven classes: {counts[most]:,} images of {most}, {counts[least]:,} of {least}")
    seen: set[bytes] = set()
    copies = sum(_is_copy(image, seen) for image in images.train.pixels)
    if copies:
        said.append(f"Warning: {copies:,} training images are copies of others")
    for name, split in _splits(images).items():
        missing = [label for label, count in _counts(split).items() if not count]
        if missing:
            said.append(f"Warning: no {name} images of {', '.join(missing[:5])}")
        if name != "train":
            both = sum(image.tobytes() in seen for image in split.pixels)
            if both:
                said.append(
                    f"Warning: {both:,} of {len(split):,} {name} images are training images as well: accuracy on them "
                    "says too much"
                )
    return said


def _is_copy(image: np.ndarray, seen: set[bytes]) -> bool:
    """Return whether an image has been seen before, and remember it."""
    content = image.tobytes()
    known = content in seen
    seen.add(content)
    return known


def train_photos_family(
    base: Recipe,
    name: str,
    images: Photographs,
    parent: Parent,
    output: Path,
    *,
    minutes: float,
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
        minutes: to take in all, of the wall clock.
        seed: of every draw.
        license: of the new weights.
        command: that does the same again.
        say: told what is going on.
        report: told after each step.

    Returns:
        The family's folder.
    """
    deadline = time.monotonic() + minutes * 60
    preprocess = Preprocess(base.crop_size, base.mean, base.std)
    start = output / names.START
    if not _is_start(start, images.train.class_names):
        write_start(start, parent, preprocess, images.train, images.holdout, say=say, report=report)
    recipe = _begun(output, base, seed) or _planned(base, name, images, start, deadline, seed, say)
    curve = _curve(recipe, images.holdout, preprocess)
    weights = train_supernet(recipe, images.train, output, curve, report, say)
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


def _recipe(base: Recipe, name: str, images: Photographs, start: Path, steps: int, seed: int) -> Recipe:
    """Return a recipe with what these images and this run make of it."""
    return dataclasses.replace(
        base, name=name, classes=len(images.train.class_names), batch_size=min(base.batch_size, len(images.train)),
        steps=steps, warmup_steps=min(base.warmup_steps, max(1, steps // 10)),
        evaluate_every=max(50, math.ceil(steps / EVALUATIONS)),
        checkpoint_every=max(25, min(base.checkpoint_every, steps // 10)), seed=seed, start_from=str(start),
    )  # fmt: skip


def _planned(
    base: Recipe,
    name: str,
    images: Photographs,
    start: Path,
    deadline: float,
    seed: int,
    say: Say,
) -> Recipe:
    """Choose as many steps as fit into the time, from the speed of a few."""
    recipe = _recipe(base, name, images, start, base.steps, seed)
    step_seconds = _measured_step(recipe, images.train)
    trained = matched.children_of(str(start))
    phases = len(trained) - 2
    judged = len(images.holdout) + (len(images.test) if images.test else 0)
    macs = sum(cost.macs(child.spec) for child in trained)
    a_step = cost.macs(trained[-1].spec) + macs / len(trained) + cost.macs(trained[0].spec)
    forward = FORWARD_PART * step_seconds / recipe.batch_size / a_step  # of one image and multiply-add
    end = LEAST_END + 1.3 * forward * judged * macs
    ends = cost.macs(trained[-1].spec) + cost.macs(trained[0].spec)
    curve = EVALUATIONS * (forward * len(images.holdout) * ends + COMPILE_SECONDS * step_seconds)
    left = deadline - time.monotonic() - end - curve - phases * COMPILE_SECONDS * step_seconds
    steps = max(FEWEST_STEPS, min(base.steps, int(left / step_seconds)))
    if left < FEWEST_STEPS * step_seconds:
        say(f"the time is short: only the fewest steps, {FEWEST_STEPS}, are made, and it will take longer")
    epochs = steps * recipe.batch_size / len(images.train)
    say(f"a step of {recipe.batch_size} images takes {step_seconds:.2f} s here: {steps:,} steps, {epochs:.1f} epochs")
    return _recipe(base, name, images, start, steps, seed)


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
    run = _trained(
        recipe, weights, images.train, images.holdout, judged,
        metrics=(output / names.METRICS).read_bytes(), license=license, source=parent.source,
    )  # fmt: skip
    measured = []
    for child in matched.children_of(recipe.start_from):
        top1 = child_top1(run.child(child.spec), child.spec.resolution, preprocess, images.holdout)
        say(f"{child.name}: {cost.macs(child.spec) / 1e6:.1f} MMACs, {top1:.2f} % of the held-out images")
        measured.append(Measured(child.spec, round(top1, 4), "corner" if _is_corner(child) else "grid"))
    training = {
        "recipe": {**recipe.to_json(), "start_from": "efficientnet-lite0"},
        "images": len(images.train),
        "held_out": len(images.holdout),
        "calibration_images": 0,
        "classes": {part: _counts(split) for part, split in _splits(images).items()},
        "machine": machine(),
        "versions": versions(),
        "command": command,
        "notes": "Statistics of batch norms are matched to EfficientNet-Lite0's, not those of any images.",
    }
    folder = write_family(
        run, tuple(measured), output / names.FAMILY_FOLDER, say, training=training, notice=parent.notice,
        training_images=_some_packed(images.train),
    )  # fmt: skip
    best = load_family(folder).slices[-1]
    assert best.spec
    counts = {part: _counts(split) for part, split in _splits(images).items()}
    write_report_data(output, run.child(best.spec), best.name, judged, preprocess, remarks(images), counts)
    return folder


def _some_packed(train: LabelledImages) -> bytes | None:
    """Pack some of the training images, for int8; None where there are too few for that."""
    if len(train) < LEAST_RANGES:
        return None
    some = train.take(evenly(len(train), min(len(train), MOST_RANGES)))
    return pack(dataclasses.replace(some, source=f"{len(some):,} of the training images"), RANGES_QUALITY)


def _is_corner(child: matched.Trained) -> bool:
    return child.spec in (child.spec.space.smallest, child.spec.space.biggest)


def _splits(images: Photographs) -> dict[str, LabelledImages]:
    splits = {"train": images.train, "holdout": images.holdout}
    return splits if images.test is None else {**splits, "test": images.test}


def _counts(images: LabelledImages) -> dict[str, int]:
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    return {name: int(count) for name, count in zip(images.class_names, counts, strict=True)}


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
