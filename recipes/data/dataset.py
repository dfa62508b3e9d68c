"""Where a recipe's images come from, and how they are split.

Images that fit into memory are read once; TFRecord files of any number of images are streamed, and only
those held out, for calibration and for the test are read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bignas_zoo.errors import LocalIOError, RecipeError, UsageError
from bignas_zoo.recipes.data.class_folders import read_splits, stratified
from bignas_zoo.recipes.data.images import (
    LABELLED_HELP,
    LabelledImages,
    TrainingBatches,
    is_cifar10,
    read_labelled,
    split_holdout,
)
from bignas_zoo.recipes.data.packing import is_packed, read_packed
from bignas_zoo.recipes.engines.engine import Engine
from bignas_zoo.recipes.randomness import philox
from bignas_zoo.recipes.recipe import Recipe

#: Training images up to this size stay in an accelerator's memory (uint8; CIFAR-10 is 0.2 GB).
RESIDENT_BYTES = 4 << 30
#: Part of each class that is kept for the test where a folder has no split of its own.
TEST_PART = 0.15


class Batches(Protocol):
    """Training batches as a function of the step."""

    def at(self, step: int) -> Mapping[str, np.ndarray]:
        """Return this host's part of a step's batch, as `augment.images_of` takes it."""


@dataclass(frozen=True)
class StreamedImages:
    """Training images in TFRecord files.

    Attributes:
        pattern: of the files.
        class_names: index to name.
        without: records that are held out, see `tfrecords.choose_records`.
        count: images that are trained on.
        source: what they are, for the record.
    """

    pattern: str
    class_names: tuple[str, ...]
    without: Mapping[str, np.ndarray]
    count: int
    source: str

    def __len__(self) -> int:
        return self.count

    def batches(self, recipe: Recipe, host: int, hosts: int) -> Batches:
        """Return the batches of one host."""
        from bignas_zoo.recipes.data.tfrecord_batches import TFRecordBatches

        batches: Batches = TFRecordBatches(
            self.pattern,
            classes=len(self.class_names),
            batch_size=recipe.batch_size // hosts,
            crop_size=recipe.crop_size,
            crop_area=recipe.crop_area,
            seed=recipe.seed,
            label_offset=recipe.label_offset,
            without=self.without,
            host=host,
            hosts=hosts,
            augment=recipe.augment == "autoaugment",
            flip=recipe.flip,
        )
        return batches


TrainingImages = LabelledImages | StreamedImages


@dataclass(frozen=True)
class Dataset:
    """A recipe's images, split.

    Attributes:
        images: those to train on.
        calibration: ``[n, crop, crop, 3]`` uint8 of them.
        holdout: training images kept out.
        test: those of the test split; none of a packed data set.
    """

    images: TrainingImages
    calibration: np.ndarray
    holdout: LabelledImages
    test: LabelledImages


def open_batches(images: TrainingImages, recipe: Recipe, engine: Engine) -> Batches:
    """Return an engine's batches; it holds the images itself if that is better and they are small enough."""
    if isinstance(images, StreamedImages):
        return images.batches(recipe, engine.host, engine.hosts)
    resident = engine.holds_images and images.pixels.nbytes < RESIDENT_BYTES
    stream = TrainingBatches(images, recipe, host=engine.host, hosts=engine.hosts, resident=resident)
    if resident:
        engine.hold(stream.held())
    return stream


def open_dataset(recipe: Recipe, data: str | Path, test_data: str | Path | None = None) -> Dataset:
    """Read and split a recipe's images.

    Args:
        recipe: gives crop size, hold-out, calibration images and seed.
        data: a folder with CIFAR-10's files; one with ``train/CLASS`` and ``test/CLASS``, or with
            ``CLASS`` alone, of which a part of each class is then kept for the test; or TFRecord files:
            a folder or bucket with ``train-*`` and ``validation-*``, or a pattern of the training files;
            or a packed data set (``FILE.npz``, see `recipes.data.packing`), which has no test images.
        test_data: pattern of the TFRecord test files, where they cannot be told from `data`.

    Raises:
        LocalIOError, IntegrityError: images cannot be read or are damaged.
        UsageError: the classes are not as many as the space's.
        RecipeError: the recipe wants what these images cannot give.
    """
    if not is_packed(data) and not is_tfrecords(data):
        _check_fields(recipe, data)
    if is_packed(data):
        dataset = _packed(recipe, Path(data), test_data)
    elif is_tfrecords(data):
        from bignas_zoo.recipes.data.tfrecords import find_files, test_pattern, training_pattern

        pattern = training_pattern(str(data))
        find_files(pattern)  # before anything is said of test files
        dataset = _tfrecords(recipe, pattern, str(test_data or test_pattern(pattern)))
    else:
        dataset = _split(recipe, *_folders(recipe, Path(data)))
    classes, space = len(dataset.images.class_names), recipe.search_space
    if classes != space.classes:
        raise UsageError(
            f"{data}: {classes} classes, but space '{space.name}' has {space.classes}. "
            "Set classes in the recipe, or give --classes-from-folders."
        )
    return dataset


def training_images(recipe: Recipe, data: str | Path) -> LabelledImages:
    """Read all training images, those that `open_dataset` holds out among them, in the order it splits them in.

    Raises:
        RecipeError: the recipe needs TFRecord files.
        LocalIOError, IntegrityError: see `open_dataset`.
    """
    _check_fields(recipe, data)
    if not is_tfrecords(data):
        return _folders(recipe, Path(data))[0]
    from bignas_zoo.recipes.data import tfrecords

    pattern = tfrecords.training_pattern(str(data))
    names = tfrecords.class_names(tfrecords.find_files(pattern), recipe.search_space.classes, recipe.label_offset)
    return tfrecords.tfrecord_images(pattern, recipe.crop_size, label_offset=recipe.label_offset, class_names=names)


def _check_fields(recipe: Recipe, data: str | Path) -> None:
    """Refuse what only batches from TFRecord files can do."""
    if recipe.augment != "none":
        raise RecipeError(
            f"recipe '{recipe.name}': augment: '{recipe.augment}' works on TFRecord files only, and {data} would be "
            "trained on from memory. Set augment to none."
        )
    if recipe.label_offset and not is_tfrecords(data):
        raise RecipeError(
            f"recipe '{recipe.name}': label_offset: {recipe.label_offset} is for labels in TFRecord files; the classes "
            f"of {data} are counted from 0. Set it to 0."
        )


def _packed(recipe: Recipe, path: Path, test_data: str | Path | None) -> Dataset:
    _check_fields(recipe, path)
    everything = read_packed(path)
    side, names = everything.pixels.shape[1], everything.class_names
    if side != recipe.crop_size:
        raise LocalIOError(
            f"{path}: images of {side} px, but recipe '{recipe.name}' has crop_size {recipe.crop_size}. "
            "Pack them with this recipe."
        )
    if test_data is None:
        return _split(recipe, everything, dataclasses.replace(everything.take(slice(0)), source="no images"))
    from bignas_zoo.recipes.data.tfrecords import tfrecord_images

    test = tfrecord_images(str(test_data), side, label_offset=recipe.label_offset, class_names=names)
    return _split(recipe, everything, test)


def is_tfrecords(data: str | Path) -> bool:
    """Return whether a place holds TFRecord files: a bucket, a pattern, or a folder with such names."""
    text = str(data)
    folder = Path(text)
    if os.path.isdir(text):  # whatever its name looks like
        return not is_cifar10(folder) and any(next(folder.glob(p), None) for p in ("*.tfrecord*", "train-*-of-*"))
    if "://" in text or any(c in text for c in "*?[") or Path(text).is_file():
        return True
    return not is_cifar10(folder) and any(next(folder.glob(p), None) for p in ("*.tfrecord*", "train-*-of-*"))


def _folders(recipe: Recipe, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and the test images of CIFAR-10's files or of class folders."""
    if is_cifar10(folder):
        everything = read_labelled(folder, "train", recipe.crop_size, ())
        return everything, read_labelled(folder, "test", recipe.crop_size, everything.class_names)
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. {LABELLED_HELP}")
    if not any(p.is_dir() for p in folder.iterdir()):
        raise LocalIOError(f"{folder}: no images found. {LABELLED_HELP}")
    parts = read_splits(folder, recipe.crop_size)
    everything, test = parts["train"], parts.get("test")
    if test is None:  # val, too, chooses nothing here: children are chosen on images held out of training
        test = parts.get("val")
    if test is None:
        everything, test = stratified(everything, TEST_PART, recipe.seed, folder.name)
    return everything, test


def _split(recipe: Recipe, everything: LabelledImages, test: LabelledImages) -> Dataset:
    images, holdout = split_holdout(everything, recipe.holdout_images(len(everything)), recipe.seed)
    order = philox(recipe.seed, "calibration").permutation(len(images))
    calibration = images.take(np.sort(order[: recipe.calibration_images])).pixels
    return Dataset(images, calibration, holdout, test)


def _tfrecords(recipe: Recipe, pattern: str, test: str) -> Dataset:
    """Read images into memory if they fit and are not augmented by tf.data; else stream them."""
    from bignas_zoo.recipes.data import tfrecords

    files, side, offset = tfrecords.find_files(pattern), recipe.crop_size, recipe.label_offset
    names = tfrecords.class_names(files, recipe.search_space.classes, offset)
    tests = tfrecords.tfrecord_images(test, side, label_offset=offset, class_names=names)
    count = sum(map(tfrecords.count_records, files))
    if recipe.augment == "none" and 3 * side**2 * count < RESIDENT_BYTES:
        everything = tfrecords.tfrecord_images(pattern, side, label_offset=offset, class_names=names)
        return _split(recipe, everything, tests)
    held = tfrecords.choose_records(files, recipe.holdout_images(count), recipe.seed)
    some = tfrecords.choose_records(files, recipe.calibration_images, recipe.seed, without=held)
    images = StreamedImages(pattern, names, held, count - tfrecords.size_of(held), f"{pattern} ({count:,} images)")
    calibration = tfrecords.read_records(some, side, offset, names).pixels
    return Dataset(images, calibration, tfrecords.read_records(held, side, offset, names), tests)
