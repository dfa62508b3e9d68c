"""Images for exports: which of what lies in a folder, never the same for ranges and for accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_tfrecords as records
from PIL import Image

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.data.sample import read_sample

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
    for split, size, first in (("train", 9, 0), ("validation", 6, 9)):
        contents = [records.record(records.one_colour(7 * (first + i) % 27), i % 3) for i in range(size)]
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


def test_what_both_options_name_is_halved(tmp_path: Path) -> None:
    """Accuracy is never measured on the images that gave the ranges."""
    place = classes(tmp_path, 10)
    found = read_sample(place, place / ".", CONTRACT, NAMES)
    assert found.test
    assert not set(colours(found.training)) & set(colours(found.test.pixels))
    assert len(found.training) == len(found.test) == 15


def test_test_images_among_the_others_are_left_out(tmp_path: Path) -> None:
    labelled = classes(tmp_path / "labelled", 4)  # colours 0 to 11
    found = read_sample(pictures(tmp_path / "all", 30), labelled, CONTRACT, NAMES)
    assert colours(found.training) == list(range(12, 30))
    with pytest.raises(UsageError, match="every image is also among the test images"):
        read_sample(pictures(tmp_path / "same", 12), labelled, CONTRACT, NAMES)


def test_copies_count_once(tmp_path: Path) -> None:
    for i in range(9):
        Image.new("RGB", (8, 8), (i % 2, 0, 0)).save(pictures(tmp_path, 0) / f"{i}.png")
    assert colours(read_sample(tmp_path, None, CONTRACT, NAMES).training) == [0, 1]


def test_without_labels_a_fifth_is_held_back_to_compare_on(tmp_path: Path) -> None:
    found = read_sample(pictures(tmp_path / "many", 100), None, CONTRACT, NAMES)
    assert colours(found.compared) == list(range(4, 100, 5))
    assert colours(np.concatenate([found.training, found.compared])) == list(range(100))
    few = read_sample(pictures(tmp_path / "few", 79), None, CONTRACT, NAMES)
    assert len(few.training) == len(few.compared) == 79


def test_some_of_many_are_evenly_spread() -> None:
    assert evenly(9, 3).tolist() == [0, 4, 8]
    assert evenly(4, 10).tolist() == [0, 1, 2, 3]
    assert evenly(1, 1).tolist() == [0]
