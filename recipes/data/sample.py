"""Real images to prove an export with: some to find ranges on, others, labelled, to measure accuracy on."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.models.preprocess import SUFFIXES, Preprocess
from bignas_zoo.recipes.data import LabelledImages, cifar10, image_folder, is_cifar10, unlabelled_images
from bignas_zoo.recipes.data.class_folders import stratified
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.data.packing import is_packed, read_packed
from bignas_zoo.runtime.extras import need_keras

#: More than this changes int8 ranges little; the paper calibrates batch norms on as many.
TRAINING = 1_000
#: Labelled images: as many as fit, since on 2,000 of them chance alone moves the loss of quantising by 0.4 points.
LEAST_TESTS, MOST_TESTS, TEST_PIXELS = 2_000, 10_000, 10_240_000
#: So many images without labels leave enough for ranges when a fifth is held back to compare on.
HELD_BACK_FROM = 80
#: Files that are certainly no TFRecords; any other name may be one's.
OTHER_FILES = (*SUFFIXES, ".json", ".txt", ".csv", ".zip", ".npz", ".pdf", ".heic", ".gif")
#: Sub-folders that hold images to train on, and images to test on, best first.
TRAIN_PARTS, TEST_PARTS = ("train", "training"), ("test", "val", "validation")


@dataclass(frozen=True)
class Sample:
    """Images for one export.

    Attributes:
        training: ``[n, crop, crop, 3]`` uint8 pixels for ranges, no two the same.
        source: what they are, in words.
        test: labelled images, none of them among `training`; None where no labels are known.
        compared: ``[n, crop, crop, 3]`` uint8 pixels to compare a file and its child on: where no labels are known, a
            fifth of the images, which `training` is then without (if enough are left).
    """

    training: np.ndarray
    source: str
    test: LabelledImages | None
    compared: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return what identifies the images that ranges come from: count, source, and a hash in their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.training).tobytes()).hexdigest()
        return {"images": len(self.training), "source": self.source, "pixels_sha256": digest}


def read_sample(
    images: str | Path,
    test_data: str | Path | None,
    preprocess: Preprocess,
    class_names: tuple[str, ...],
    *,
    training: int = TRAINING,
    tests: int | None = None,
) -> Sample:
    """Read images for an export, spread evenly over what there is.

    Args:
        images: a folder of images; or of CIFAR-10's files; or with one sub-folder of images a class, or with such
            in ``train`` and ``test`` (or ``val``); or a packed file, whose labels do not count; or TFRecord files.
            Where their classes are known and `test_data` is not given, accuracy is measured on their test part, or on a
            half that is kept apart.
        test_data: labelled images of any of these kinds, to measure accuracy on.
        preprocess: gives the crop.
        class_names: the model's classes, in label order.
        training, tests: at most so many images of either; by default 1,000, and 2,000 to 10,000 by their size.

    Raises:
        LocalIOError: no images there.
        UsageError: all of them are test images too.
        IntegrityError: an image or file is damaged, or labelled with unknown classes.
    """
    for place in (images, test_data):
        _check_place(place)
    if tests is None:
        tests = min(MOST_TESTS, max(LEAST_TESTS, TEST_PIXELS // preprocess.crop_size**2))
    if test_data is not None and _one_place(images, test_data):
        test_data = None  # split it, or accuracy would be measured on the images that gave the ranges
    wanted = tests if test_data is None else 0
    pixels, source, test = _training(images, preprocess, class_names, training, wanted)
    if test_data is not None:
        test = _labelled(test_data, preprocess, class_names, tests)
    test = _take(test, tests) if test is not None and len(test) else None
    pixels = _distinct(pixels, test.pixels if test else pixels[:0])
    if not len(pixels):
        raise UsageError(f"{images}: every image is also among the test images; name others, best of the training.")
    if test is None and len(pixels) >= HELD_BACK_FROM:
        held = np.arange(len(pixels)) % 5 == 4
        return Sample(pixels[~held], source, None, pixels[held])
    return Sample(pixels, source, test, pixels)


def _check_place(place: str | Path | None) -> None:
    """Refuse a name that is none, and TFRecords where TensorFlow is missing."""
    if place is None:
        return
    if not str(place).strip():
        raise UsageError("images: the name of the place is empty. Name a folder of images.")
    if not is_packed(place) and _is_tfrecords(place):
        if os.path.isfile(place) and Path(place).suffix.lower() in OTHER_FILES:
            raise UsageError(f"{place}: is one file, and none of TFRecords. Name a folder of images.")
        need_keras(f"reading {place} (TFRecord files)")


def _one_place(first: str | Path, second: str | Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _distinct(pixels: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return the images that differ from each other and from some others, in their order."""
    seen = {image.tobytes() for image in without}
    kept = []
    for i, image in enumerate(pixels):
        content = image.tobytes()
        if content not in seen:
            seen.add(content)
            kept.append(i)
    return pixels[kept]


def _training(
    place: str | Path, contract: Preprocess, names: tuple[str, ...], count: int, tests: int
) -> tuple[np.ndarray, str, LabelledImages | None]:
    """Read `count` images for ranges, and at most `tests` others, labelled, if there are such."""
    side, fraction = contract.crop_size, contract.crop_fraction
    if is_packed(place):
        packed = read_packed(Path(place))
        if packed.pixels.shape[1] != side:
            raise UsageError(f"{place}: images of {packed.pixels.shape[1]} pixels, the model's crop is {side}.")
        return _take(packed, count).pixels, packed.source, None
    if _is_tfrecords(place):
        from bignas_zoo.recipes.data.tfrecords import tfrecord_images

        images = tfrecord_images(str(place), side, count, crop_fraction=fraction)
        return images.pixels, f"images of {images.source}", None
    folder = Path(place)
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. Name a folder of images, or TFRecord files.")
    if is_cifar10(folder):
        train, test = cifar10(folder, "train"), _labelled(folder, contract, names, tests) if tests else None
        return _take(train, count).pixels, "CIFAR-10 training images", test
    train_part, test_part = (_part(folder, parts) for parts in (TRAIN_PARTS, TEST_PARTS))
    if train_part:
        pixels = unlabelled_images(train_part, side, count, fraction)
        known = tests and test_part and _has_classes(test_part, names)
        labelled = _labelled(test_part, contract, names, tests) if known and test_part else None
        return pixels, f"images of {folder.name}/{train_part.name}", labelled
    if tests and _has_classes(folder, names):
        ours, theirs = stratified(image_folder(folder, side, names, count + tests, fraction), 0.5, 0, folder.name)
        ours = _take(ours, count)
        return ours.pixels, f"images of {folder.name}", theirs
    pixels = unlabelled_images(folder, side, count, fraction)
    return pixels, f"images of {folder.name}", None


def _labelled(place: str | Path, contract: Preprocess, names: tuple[str, ...], count: int) -> LabelledImages:
    side, fraction = contract.crop_size, contract.crop_fraction
    if _is_tfrecords(place):
        from bignas_zoo.recipes.data.tfrecords import tfrecord_images

        return tfrecord_images(str(place), side, count, class_names=names, crop_fraction=fraction)
    folder = Path(place)
    if is_cifar10(folder):
        images = cifar10(folder, "test")
        if images.class_names != names:
            raise IntegrityError(f"{folder}: holds CIFAR-10, but the model knows other classes.")
        return images
    part = _part(folder, TEST_PARTS)
    return image_folder(part or folder, side, names, count, fraction)


def _part(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _has_classes(folder: Path, names: tuple[str, ...]) -> bool:
    """Return whether the sub-folders are classes of the model."""
    folders = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    return bool(folders) and folders <= set(names)


def _take(images: LabelledImages, count: int) -> LabelledImages:
    """Return at most `count` images, spread evenly."""
    if len(images) <= count:
        return images
    return images.take(evenly(len(images), count))


def _is_tfrecords(place: str | Path) -> bool:
    from bignas_zoo.recipes.data.dataset import is_tfrecords

    return is_tfrecords(place)
