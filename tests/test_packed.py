"""Packed data sets: the same images in the same order, and what happens to files that are none."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from bignas_zoo.architecture import spaces
from bignas_zoo.errors import IntegrityError, LocalIOError, RecipeError, UsageError
from bignas_zoo.files.say import silent
from bignas_zoo.recipes.data import LabelledImages, packed
from bignas_zoo.recipes.data.dataset import open_dataset, training_images
from bignas_zoo.recipes.data.packing import is_packed, pack, packed_class_names, packed_source, read_packed
from bignas_zoo.recipes.recipe import Recipe


def images(side: int, count: int = 12) -> LabelledImages:
    """Smooth images, as photographs are: noise says little about a lossy format."""
    generator = np.random.default_rng(0)
    rows = np.linspace(0, 1, side)
    slopes = generator.uniform(0, 250, (count, 1, 1, 3))
    pixels = (slopes * (rows[:, None] * rows)[None, :, :, None]).astype(np.uint8)
    return LabelledImages(pixels, np.arange(count, dtype=np.int32) % 5, tuple("abcdé"), f"slopes ({count} images)")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    return Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0,) * 3, std=(64.0,) * 3, steps=1, holdout=10,
        calibration_images=64, seed=3,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders without a test split: 5 classes of 30 images."""
    generator = np.random.default_rng(1)
    for name in "abcde":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(30):
            pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i:02}.png")
    return tmp_path / "data"


def test_small_images_come_back_bit_for_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (12, 32, 32, 3), np.uint8)
    original = dataclasses.replace(images(32), pixels=noise)
    (tmp_path / "a.npz").write_bytes(pack(original))
    found = read_packed(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.pixels, noise)
    np.testing.assert_array_equal(found.labels, original.labels)
    assert found.labels.dtype == np.int32
    assert found.class_names == tuple("abcdé") == packed_class_names(tmp_path / "a.npz")
    assert found.source == "slopes (12 images), packed as WebP without losses" == packed_source(tmp_path / "a.npz")


def test_larger_images_come_back_nearly(tmp_path: Path) -> None:
    original = images(48)
    sizes = {}
    for quality in (30, 90):
        (tmp_path / "a.npz").write_bytes(pack(original, quality))
        sizes[quality] = (tmp_path / "a.npz").stat().st_size
        found = read_packed(tmp_path / "a.npz")
        assert found.source.endswith(f"packed as WebP of quality {quality}")
        assert np.abs(found.pixels.astype(int) - original.pixels).mean() < 3
    assert sizes[30] < sizes[90]


def test_the_splits_are_those_of_the_unpacked_images(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(pack(training_images(recipe, folder)))
    whole, found = open_dataset(recipe, folder), open_dataset(recipe, path)
    for part in ("images", "holdout"):
        np.testing.assert_array_equal(getattr(found, part).pixels, getattr(whole, part).pixels)
        np.testing.assert_array_equal(getattr(found, part).labels, getattr(whole, part).labels)
    np.testing.assert_array_equal(found.calibration, whole.calibration)
    assert len(found.calibration) == 64
    assert (len(found.test), len(whole.test)) == (0, 20)  # 15 % of 30 in each of five classes, rounded to even


@pytest.mark.parametrize(
    ("name", "answer"),
    [("a.npz", True), ("gs://b/a.npz", True), ("cifar10_*.npz", False), ("a", False), ("a.tfrecord", False)],
)
def test_what_names_a_packed_data_set(name: str, answer: bool, tmp_path: Path) -> None:
    assert is_packed(name) is answer
    (tmp_path / "folder.npz").mkdir()
    assert not is_packed(tmp_path / "folder.npz")


def damaged(path: Path, how: str) -> None:
    data = bytearray(pack(images(20)))
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "flipped":  # in the middle of the images, which come last
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            place = file.getinfo("webp.npy").header_offset + 400
        data[place] ^= 0xFF
    elif how == "text":
        data = bytearray(b"not a zip file")
    path.write_bytes(data)
    if how == "foreign":  # CIFAR-10's own tiles
        np.savez(path, webp=np.zeros(3, np.uint8), labels=np.zeros(2, int))
    elif how == "array":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    elif how == "labels":
        with np.load(path, allow_pickle=False) as file:
            fields = {**file, "labels": np.full(12, 7, np.int32)}
        np.savez(path, **fields)


@pytest.mark.parametrize("how", ["cut", "flipped", "text", "foreign", "array", "labels"])
def test_a_file_that_is_none_is_an_integrity_error_with_advice(how: str, tmp_path: Path) -> None:
    damaged(tmp_path / "a.npz", how)
    with pytest.raises(IntegrityError, match="packed data set") as caught:
        read_packed(tmp_path / "a.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'a.npz'}: ")
    assert str(caught.value).endswith(
        "Pack the images again: python -m bignas_zoo.recipes.data.packed RECIPE --data DATA --output FILE.npz"
    )


def test_no_file_another_size_and_tfrecord_augmentation_are_said(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match=r"none\.npz: no such file\. Pack the images again"):
        open_dataset(recipe, tmp_path / "none.npz")
    (tmp_path / "a.npz").write_bytes(pack(images(24)))
    with pytest.raises(LocalIOError, match=r"images of 24 px, but recipe 'tiny' has crop_size 20\. Pack them"):
        open_dataset(recipe, tmp_path / "a.npz")
    with pytest.raises(
        RecipeError, match=r"augment: 'autoaugment' works on TFRecord files only, and .*a\.npz would be"
    ):
        open_dataset(dataclasses.replace(recipe, augment="autoaugment"), tmp_path / "a.npz")


def test_a_family_of_packed_images_alone_is_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bignas_zoo.measure import from_recipe

    (tmp_path / "a.npz").write_bytes(pack(images(20, 90)))
    (tmp_path / "recipe.json").touch()
    monkeypatch.setattr(from_recipe, "read_recipe", lambda path: recipe)
    monkeypatch.setattr(from_recipe.checkpoint, "newest", lambda *_: from_recipe.checkpoint.Checkpoint(1, {}, None))
    with pytest.raises(UsageError, match=r"without the test images that a family is measured on\. Name the images"):
        from_recipe.make_family(tmp_path / "a.npz", tmp_path, test_data=None, say=silent)


@pytest.mark.slow
def test_the_command_packs_and_says_how_much(tmp_path: Path) -> None:
    """The recipe of one's own images on class folders, as it is typed."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((80, 90, 3), 60 * i, np.uint8)).save(tmp_path / "data" / name / f"{i}.jpg")
    command = [sys.executable, "-m", "bignas_zoo.recipes.data.packed", "image_folder", "--data", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out.npz")], capture_output=True, text=True, check=True, timeout=120
    )
    size = (tmp_path / "out.npz").stat().st_size
    assert done.stdout == f"{tmp_path / 'out.npz'}: 6 images, {size:,} bytes\n"  # one of each class kept for the test
    assert read_packed(tmp_path / "out.npz").pixels.shape == (6, 64, 64, 3)
    wrong = subprocess.run(
        [*command[:-1], str(tmp_path / "none"), "--output", str(tmp_path / "b.npz")],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip
    assert wrong.returncode == 7
    assert f"Error: {tmp_path / 'none'}: no such folder." in wrong.stderr
    assert packed.QUALITY == 75
