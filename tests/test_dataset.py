"""From a place with images to their splits: folders with and without splits, TFRecords in memory and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_tfrecords as records
from PIL import Image

from bignas_zoo.errors import LocalIOError, UsageError
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.data.dataset import StreamedImages, is_tfrecords, open_batches, open_dataset
from bignas_zoo.recipes.recipe import Recipe


class Machine:
    """An engine as far as batches are concerned."""

    def __init__(self, *, holds_images: bool = False) -> None:
        self.host, self.hosts, self.holds_images, self.held = 0, 1, holds_images, None

    def hold(self, resident: Any) -> None:
        self.held = resident


def recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "toy", "space": "bignas-micro", "crop_size": 16, "mean": (128.0,) * 3, "std": (64.0,) * 3, "steps": 4,
        "holdout": 6, "batch_size": 4, "classes": 3, "calibration_images": 64,
    }  # fmt: skip
    return Recipe(**{**fields, **changes})


def class_folder(root: Path, count: int, names: str = "abc") -> Path:
    """Images whose red value says class and number."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((16, 16, 3), 80 * label + i, np.uint8)).save(root / name / f"{i:02d}.png")
    return root


def identities(pixels: np.ndarray) -> set[int]:
    return set(pixels[:, 0, 0, 0].tolist())


def test_a_folder_without_splits_keeps_a_part_of_each_class_for_the_test(tmp_path: Path) -> None:
    found = open_dataset(recipe(), class_folder(tmp_path / "mine", 20))
    assert np.bincount(found.test.labels).tolist() == [3, 3, 3]  # 15 % of 20
    assert len(found.holdout) == 6
    assert len(found.images) == 60 - 9 - 6
    assert isinstance(found.images, LabelledImages)
    parts = [identities(p.pixels) for p in (found.images, found.holdout, found.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60
    assert identities(found.calibration) <= parts[0]
    assert found.test.source == "images held out of mine (9 images)"


def test_a_folder_with_splits_is_taken_as_it_is(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 10)
    class_folder(tmp_path / "test", 2)
    found = open_dataset(recipe(holdout=0.2), tmp_path)
    assert (len(found.images), len(found.holdout), len(found.test)) == (24, 6, 6)


def test_other_classes_than_the_spaces_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"3 classes, but space 'bignas-micro' has 10.*--classes-from-folders"):
        open_dataset(recipe(classes=0), class_folder(tmp_path, 5))
    with pytest.raises(UsageError, match="one class, 'a'"):
        open_dataset(recipe(), class_folder(tmp_path / "one", 5, "a"))


@pytest.fixture
def tfrecords(tmp_path: Path) -> str:
    for split, sizes in (("train", [9, 9, 9]), ("validation", [6])):
        for number, size in enumerate(sizes):
            contents = [records.record(records.one_colour((7 * number + i) % 27), i % 3) for i in range(size)]
            records.write(tmp_path / f"{split}-{number:05d}-of-{len(sizes):05d}", contents)
    return str(tmp_path)


def test_small_tfrecords_come_into_memory(tfrecords: str) -> None:
    assert is_tfrecords(tfrecords)
    found = open_dataset(recipe(), tfrecords)
    assert isinstance(found.images, LabelledImages)
    assert (len(found.images), len(found.holdout), len(found.test)) == (21, 6, 6)
    assert found.images.class_names == ("class 0", "class 1", "class 2")


def test_augmented_tfrecords_are_streamed_without_those_held_out(tfrecords: str) -> None:
    made = recipe(augment="autoaugment")
    found = open_dataset(made, tfrecords)
    assert isinstance(found.images, StreamedImages)
    assert (len(found.images), len(found.holdout), len(found.test)) == (21, 6, 6)
    batch = open_batches(found.images, made, Machine()).at(0)
    assert {k: (v.shape, str(v.dtype)) for k, v in batch.items()} == {
        "pixels": ((4, 16, 16, 3), "uint8"), "labels": ((4,), "int32"), "row": ((4,), "int32"),
    }  # fmt: skip


def test_a_pattern_finds_the_test_files_beside_it_or_asks(tfrecords: str, tmp_path: Path) -> None:
    found = open_dataset(recipe(), f"{tfrecords}/train-*")
    assert len(found.test) == 6
    named = open_dataset(recipe(), f"{tfrecords}/train-0000[01]*", f"{tfrecords}/train-00002*")
    assert (len(named.images) + len(named.holdout), len(named.test)) == (18, 9)
    (tmp_path / "validation-00000-of-00001").unlink()
    with pytest.raises(LocalIOError, match="no test files beside it.*--test-data"):
        open_dataset(recipe(), f"{tfrecords}/train-*")


def test_classes_bear_the_names_that_the_records_give(tmp_path: Path) -> None:
    import tensorflow as tf

    texts = ["crane", "robin", "crane"]  # ImageNet has two cranes

    def named(label: int) -> bytes:
        example = tf.train.Example.FromString(records.record(records.one_colour(label), label + 1))
        example.features.feature["image/class/text"].bytes_list.value.append(texts[label].encode())
        content: bytes = example.SerializeToString()
        return content

    for split in ("train", "val"):
        records.write(tmp_path / f"x-{split}.tfrecord", [named(i % 3) for i in range(9)])
    found = open_dataset(recipe(label_offset=1, holdout=2), tmp_path)
    assert found.images.class_names == ("crane (0)", "robin", "crane (2)")
    assert sorted(found.test.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_an_engine_that_holds_images_is_given_them_once(tmp_path: Path) -> None:
    made = recipe(crop_padding=2)
    images = open_dataset(made, class_folder(tmp_path, 20)).images
    sent, held = Machine(), Machine(holds_images=True)
    assert "pixels" in open_batches(images, made, sent).at(0)
    assert sent.held is None
    assert set(open_batches(images, made, held).at(0)) == {"row", "index", "top", "left", "mirrored"}
    assert held.held["pixels"].shape == (len(images), 20, 20, 3)
