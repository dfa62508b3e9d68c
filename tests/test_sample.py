"""Images for exports: which of what lies in a folder, never the same for ranges and for accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_tfrecords as records
from PIL import Image

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.measure.sample import read_sample
from bignas_zoo.models.preprocess import Preprocess

CONTRACT = Preprocess(8, (0.0,) * 3, (1.0,) * 3)
NAMES = ("ant", "bee", "cat")


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    """Write images, each of one colour of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (first + i, 0, 0)).save(folder / f"{first + i:03d}.png")
    return folder


def classes(folder: Path, each: int, first: int = 0) -> Path:
    for label, name in enumerate(NAMES):
        pictures(folder / name, each, first + label * each)
    return folder


def colours(pixels: np.ndarray) -> list[int]:
    return sorted(pixels[:, 0, 0, 0].tolist())


def test_a_flat_folder_has_no_labels_and_is_taken_evenly(tmp_path: Path) -> None:
    found = read_sample(pictures(tmp_path / "mine", 11), None, CONTRACT, NAMES, training=6)
    assert colours(found.training) == [0, 2, 4, 6, 8, 10]
    assert found.test is None
    assert found.to_json()["images"] == 6
    assert found.source == "images of mine"


def test_class_folders_are_halved_without_overlap(tmp_path: Path) -> None:
    found = read_sample(classes(tmp_path, 10), None, CONTRACT, NAMES)
    assert found.test
    assert len(found.training) == len(found.test) == 15
    assert colours(np.concatenate([found.training, found.test.pixels])) == list(range(30))
    assert [int((found.test.labels == k).sum()) for k in range(3)] == [5, 5, 5]
    assert all(c // 10 == k for c, k in zip(found.test.pixels[:, 0, 0, 0], found.test.labels, strict=True))


@pytest.mark.parametrize("part", ["test", "val"])
def test_splits_are_taken_as_they_are(tmp_path: Path, part: str) -> None:
    classes(tmp_path / "train", 10)
    classes(tmp_path / part, 4, first=100)
    found = read_sample(tmp_path, None, CONTRACT, NAMES)
    assert colours(found.training) == list(range(30))
    assert found.test
    assert colours(found.test.pixels) == list(range(100, 112))


def test_named_test_images_come_first(tmp_path: Path) -> None:
    found = read_sample(
        classes(tmp_path / "a", 10), classes(tmp_path / "b", 2, first=200), CONTRACT, NAMES, training=9, tests=5
    )
    assert len(found.training) == 9
    assert found.test
    assert min(colours(found.test.pixels)) >= 200
    assert len(found.test) == 5


def test_tfrecords_give_both(tmp_path: Path) -> None:
    for split, size in (("train", 9), ("validation", 6)):
        contents = [records.record(records.one_colour(7 * i % 27), i % 3) for i in range(size)]
        records.write(tmp_path / f"{split}-00000-of-00001", contents)
    train, test = (str(tmp_path / f"{part}-*") for part in ("train", "validation"))
    found = read_sample(train, test, CONTRACT, NAMES)
    assert len(found.training) == 9
    assert found.test
    assert found.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="no such folder"):
        read_sample(tmp_path / "none", None, CONTRACT, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LocalIOError, match="no images found"):
        read_sample(tmp_path / "empty", None, CONTRACT, NAMES)
    pictures(tmp_path / "t" / "dog", 2)
    with pytest.raises(IntegrityError, match="'dog' is none of the classes: ant, bee, cat"):
        read_sample(pictures(tmp_path / "flat", 3), tmp_path / "t", CONTRACT, NAMES)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no")
    with pytest.raises(IntegrityError, match=r"x\.png: not a readable image"):
        read_sample(tmp_path / "bad", None, CONTRACT, NAMES)


def test_cifar10_is_split_as_it_comes(shared_data: Path) -> None:
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    found = read_sample(shared_data, None, Preprocess(32, (0.0,) * 3, (1.0,) * 3), names, training=100, tests=50)
    assert found.test
    assert (len(found.training), len(found.test)) == (100, 50)
    with pytest.raises(IntegrityError, match="other classes"):
        read_sample(shared_data, None, CONTRACT, NAMES)
