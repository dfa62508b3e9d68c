"""One's own images: a folder with one sub-folder a class, with or without its own splits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.files import records
from bignas_zoo.recipes.data.images import LabelledImages, image_folder, subfolders
from bignas_zoo.recipes.randomness import philox

SPLITS = ("train", "val", "test")
EXPECTED = "Expected FOLDER/CLASS/*.jpg, or FOLDER/train/CLASS/*.jpg with val/CLASS and test/CLASS if there are such."


def read_splits(folder: Path, crop_size: int, crop_fraction: float = 1.0) -> dict[str, LabelledImages]:
    """Read ``train`` and, where the folder has them, ``val`` and ``test``.

    Args:
        folder: ``folder/CLASS/*.jpg``, or ``folder/train/CLASS/*.jpg`` with ``val`` and ``test`` beside it.
        crop_size: side in pixels.
        crop_fraction: side of the square that is cut, in parts of an image's shorter side.

    Returns:
        Split to images; a folder without splits is all ``train``.

    Raises:
        UsageError: fewer than two classes, or a class has too few images.
        LocalIOError: no such folder, or nothing in it.
        IntegrityError: an image is damaged, or a sub-folder has no place.
    """
    names, root = class_names(folder), _root(folder)
    train = image_folder(root, crop_size, names, crop_fraction=crop_fraction)
    parts = {
        part: dataclasses.replace(images, source=f"{folder.name}/{images.source}")
        for part in SPLITS[1:]
        if root != folder and (folder / part).is_dir()
        for images in [image_folder(folder / part, crop_size, names, crop_fraction=crop_fraction)]
    }
    _check_counts(root, train, least=1 if "val" in parts else 2)
    return {"train": train, **parts}


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the classes of a folder: the names of the sub-folders that hold its (training) images, sorted.

    Raises:
        UsageError: fewer than two, or a name that is not printable.
        LocalIOError: no such folder.
        IntegrityError: a sub-folder has no place.
    """
    root = _root(folder)
    names = subfolders(root)
    if len(names) < 2:
        what = f"one class, '{names[0]}'" if names else "no sub-folders"
        raise UsageError(f"{root}: {what}; a classifier needs at least two classes. {EXPECTED}")
    try:
        return records.class_names(names, len(names))
    except ValueError as error:
        raise UsageError(f"{root}: a sub-folder's name is not printable text; rename it ({error}).") from error


def stratified(images: LabelledImages, part: float, seed: int, folder: str) -> tuple[LabelledImages, LabelledImages]:
    """Hold out the same part of each class, at least one image and never all.

    Args:
        images: all of them.
        part: of each class, between 0 and 1.
        seed: of the draw.
        folder: their name, for the record.

    Returns:
        The remaining images and the held-out ones.
    """
    held = np.zeros(len(images), bool)
    for label in range(len(images.class_names)):
        index = np.flatnonzero(images.labels == label)
        count = min(max(1, round(part * len(index))), len(index) - 1)
        held[philox(seed, "holdout", label).permutation(index)[:count]] = True
    source = f"images held out of {folder} ({int(held.sum()):,} images)"
    return images.take(~held), dataclasses.replace(images.take(held), source=source)


def _root(folder: Path) -> Path:
    """Return where the training classes are: a *class* named train holds images, not folders."""
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. {EXPECTED}")
    train = folder / "train"
    if not train.is_dir() or not subfolders(train):
        return folder
    unknown = [name for name in subfolders(folder) if name not in SPLITS]
    if unknown:
        raise IntegrityError(
            f"{folder}: sub-folder '{unknown[0]}' beside 'train' is none of {', '.join(SPLITS)}. {EXPECTED}"
        )
    return train


def _check_counts(root: Path, train: LabelledImages, least: int) -> None:
    for label, name in enumerate(train.class_names):
        count = int((train.labels == label).sum())
        if count < least:
            why = "" if least == 1 else ", one of them to hold out"
            raise UsageError(
                f"{root / name}: class '{name}' has {count} image{'' if count == 1 else 's'}; at least {least} "
                f"{'is' if least == 1 else 'are'} needed{why}. Add images, or remove the sub-folder."
            )
