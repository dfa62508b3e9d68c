"""The photographs of a folder: read, split, and what is odd about them in words."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bignas_zoo.errors import LocalIOError, UsageError
from bignas_zoo.models.preprocess import SUFFIXES
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.data.class_folders import read_splits, stratified
from bignas_zoo.recipes.data.images import OTHERS
from bignas_zoo.recipes.data.packing import SUFFIX, is_packed, read_packed
from bignas_zoo.recipes.recipe import Recipe

#: Images of a class that are few; how many times the smallest class the largest may be.
FEW_IMAGES, UNEVEN = 10, 10


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Images by use.

    Attributes:
        folder: the folder's own name.
        train: to train on.
        holdout: to choose slices on.
        test: to report on; None where the folder has no such split.
        left_out: files beside the images by the ending of their names: how many are not read.
    """

    folder: str
    train: LabelledImages
    holdout: LabelledImages
    test: LabelledImages | None
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)


def read_photographs(folder: Path, recipe: Recipe, seed: int) -> Photographs:
    """Read a folder's images and split off those to hold out.

    Args:
        folder: see `recipes.data.class_folders.read_splits`; or a packed file, of training images alone.
        recipe: gives the crop, and what part is held out.
        seed: of the split.

    Raises:
        UsageError: fewer than two classes, or a class has none to train on after one is held out.
        LocalIOError: no such folder, or nothing in it.
        IntegrityError: an image is damaged, or a sub-folder has no place.
    """
    if recipe.holdout >= 1:
        raise UsageError(f"recipe '{recipe.name}': holdout: for photographs a part below 1, got {recipe.holdout}.")
    parts = {"train": _packed(folder, recipe)} if is_packed(folder) else read_splits(folder, recipe.crop_size)
    train, held = parts["train"], parts.get("val")
    if held is None:
        train, held = stratified(train, recipe.holdout, seed, folder.name)
    name = folder.resolve().name.removesuffix(SUFFIX)
    return Photographs(name, train, held, parts.get("test"), _left_out(folder))


def _left_out(folder: Path) -> dict[str, int]:
    """Count the files that are no images by their names, hidden ones apart."""
    if not folder.is_dir():
        return {}
    below = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = [path for path in below if not any(part.startswith(".") or part in OTHERS for part in path.parts)]
    return dict(Counter(path.suffix.lower() or path.name for path in files if path.suffix.lower() not in SUFFIXES))


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
    counts = counts_of(images.train)
    test = "no test images: accuracies are those of the held-out ones"
    if images.test is not None:
        test = f"{len(images.test):,} to test on"
    said = [
        f"{len(images.train):,} images of {len(counts)} classes to train on, {len(images.holdout):,} held out, {test}"
    ]
    few = {name: count for name, count in counts.items() if count < FEW_IMAGES}
    if few:
        listed = ", ".join(f"{name} ({count})" for name, count in list(few.items())[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        said.append(f"Warning: fewer than {FEW_IMAGES} images to train on: {listed}{more}; expect little of them")
    least, most = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    if counts[most] > UNEVEN * counts[least]:
        said.append(f"Warning: uneven classes: {counts[most]:,} images of {most}, {counts[least]:,} of {least}")
    if images.left_out:
        listed = ", ".join(f"{suffix} ({count:,})" for suffix, count in list(images.left_out.items())[:5])
        read = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
        said.append(f"Warning: {sum(images.left_out.values()):,} files are not read, which are no {read}: {listed}")
    labels: dict[bytes, set[int]] = {}
    for image, label in zip(images.train.pixels, images.train.labels, strict=True):
        labels.setdefault(_digest(image), set()).add(int(label))
    if copies := len(images.train) - len(labels):
        said.append(f"Warning: {copies:,} training images are copies of others")
    if contradictory := [classes for classes in labels.values() if len(classes) > 1]:
        some = " and ".join(images.train.class_names[i] for i in sorted(contradictory[0])[:2])
        said.append(f"Warning: {len(contradictory):,} images stand in more than one class, such as {some}")
    for name, split in splits_of(images).items():
        missing = [label for label, count in counts_of(split).items() if not count]
        if missing:
            said.append(f"Warning: no {name} images of {', '.join(missing[:5])}")
        if name != "train":
            both = sum(_digest(image) in labels for image in split.pixels)
            if both:
                said.append(
                    f"Warning: {both:,} of {len(split):,} {name} images are training images as well: accuracy on them "
                    "says too much"
                )
    return said


def _digest(image: np.ndarray) -> bytes:
    """Return what equal images have in common."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def splits_of(images: Photographs) -> dict[str, LabelledImages]:
    """Return the images by what they are for."""
    splits = {"train": images.train, "holdout": images.holdout}
    return splits if images.test is None else {**splits, "test": images.test}


def counts_of(images: LabelledImages) -> dict[str, int]:
    """Return how many images each class has."""
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    return {name: int(count) for name, count in zip(images.class_names, counts, strict=True)}
