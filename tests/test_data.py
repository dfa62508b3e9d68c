"""Readers of images, the hold-out, and training batches as a function of the step."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bignas_zoo.errors import IntegrityError, LocalIOError, RecipeError
from bignas_zoo.models.preprocess import Preprocess, read_image
from bignas_zoo.recipes.data import (
    CIFAR10_CLASSES,
    LabelledImages,
    TrainingBatches,
    augment,
    batches,
    cifar10,
    image_folder,
    read_labelled,
    split_holdout,
    unlabelled_images,
)
from bignas_zoo.recipes.randomness import philox
from bignas_zoo.recipes.recipe import Recipe


def random_images(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def cifar_rows(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Write the official binary form: label, then the red, green and blue plane, row by row."""
    rows = []
    for image, label in zip(pixels, labels, strict=True):
        planes = b"".join(image[:, :, channel].tobytes() for channel in range(3))
        rows.append(bytes([label]) + planes)
    return b"".join(rows)


def tile_file(path: Path, pixels: np.ndarray, labels: Any, columns: int, **extra: Any) -> None:
    """Write images side by side as one lossless picture."""
    rows = -(-len(pixels) // columns)
    grid = np.zeros((rows * 32, columns * 32, 3), np.uint8)
    for n, image in enumerate(pixels):
        top, left = 32 * (n // columns), 32 * (n % columns)
        grid[top : top + 32, left : left + 32] = image
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "WEBP", lossless=True)
    np.savez(path, **{"webp": np.frombuffer(buffer.getvalue(), np.uint8), "labels": labels, **extra})


def test_cifar_binary(tmp_path: Path) -> None:
    pixels, labels = random_images(5), [3, 0, 9, 9, 1]
    (tmp_path / "data_batch_1.bin").write_bytes(cifar_rows(pixels[:3], labels[:3]))
    (tmp_path / "data_batch_2.bin").write_bytes(cifar_rows(pixels[3:4], labels[3:4]))
    (tmp_path / "test_batch.bin").write_bytes(cifar_rows(pixels[4:], labels[4:]))
    train, test = cifar10(tmp_path, "train"), cifar10(tmp_path, "test")
    np.testing.assert_array_equal(train.pixels, pixels[:4])
    np.testing.assert_array_equal(test.pixels, pixels[4:])
    assert (train.labels.tolist(), test.labels.tolist()) == ([3, 0, 9, 9], [1])
    assert (train.labels.dtype, train.pixels.dtype) == (np.int32, np.uint8)
    assert train.class_names == CIFAR10_CLASSES
    assert train.source == "CIFAR-10 train (4 images)"


def test_class_names_are_cifars() -> None:
    # Krizhevsky 2009, in the order of the binary version's batches.meta.txt.
    expected = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert list(CIFAR10_CLASSES) == expected


def test_cifar_tiles(tmp_path: Path) -> None:
    pixels, labels = random_images(7), np.array([0, 9, 2, 2, 5, 7, 1], np.uint8)
    tile_file(tmp_path / "cifar10_train_0.npz", pixels[:5], labels[:5], columns=3)  # one tile stays empty
    tile_file(tmp_path / "cifar10_train_1.npz", pixels[5:], labels[5:], columns=2)
    train = cifar10(tmp_path, "train")
    np.testing.assert_array_equal(train.pixels, pixels)
    assert train.labels.tolist() == labels.tolist()
    assert train.labels.dtype == np.int32
    with pytest.raises(LocalIOError, match="no CIFAR-10 test files"):
        cifar10(tmp_path, "test")


def cut(data: bytes) -> bytes:
    return data[: len(data) - 40]


def flip_in_the_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - b for b in data[middle : middle + 64]) + data[middle + 64 :]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip_in_the_middle,
        lambda d: b"",
        lambda d: b"PK\x03\x04" + bytes(60),
        lambda d: b"rubbish",
        lambda d: d[:99],
    ],
)
def test_damaged_tile_files(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "cifar10_test.npz"
    tile_file(path, random_images(4), np.arange(4), columns=2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"cifar10_test\.npz: damaged CIFAR-10 tile file") as caught:
        cifar10(tmp_path, "test")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "content",
    [
        {"labels": np.arange(4)},
        {"webp": np.zeros(4, np.uint8)},
        {"webp": np.frombuffer(b"no picture", np.uint8), "labels": np.arange(4)},
        {"webp": np.array([{"an": "object"}], object), "labels": np.arange(4)},
    ],
)
def test_tile_files_with_other_content(tmp_path: Path, content: dict[str, Any]) -> None:
    np.savez(tmp_path / "cifar10_test.npz", **content)
    with pytest.raises(IntegrityError, match="damaged CIFAR-10 tile file"):
        cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(5),
        np.array([0, 1, 2, 10]),
        np.array([0, 1, 2, -1]),
        np.array([0.0, 1.0, 2.0, 3.5]),
        np.array([[0], [1], [2], [3]]),
        np.array(3),
        np.array(["a", "b", "c", "d"]),
    ],
)
def test_tile_files_with_wrong_labels(tmp_path: Path, labels: np.ndarray) -> None:
    tile_file(tmp_path / "cifar10_test.npz", random_images(4), labels, columns=2)
    with pytest.raises(IntegrityError, match="damaged CIFAR-10 tile file"):
        cifar10(tmp_path, "test")


def test_tiles_that_are_no_multiple_of_the_side(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 40)).save(buffer, "WEBP", lossless=True)
    webp = np.frombuffer(buffer.getvalue(), np.uint8)
    np.savez(tmp_path / "cifar10_test.npz", webp=webp, labels=np.zeros(2, np.uint8))
    with pytest.raises(IntegrityError, match="damaged CIFAR-10 tile file"):
        cifar10(tmp_path, "test")


@pytest.mark.parametrize("name", ["data_batch_1.bin", "test_batch.bin"])
@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d + b"\x00", lambda d: b"", lambda d: b"\x0a" + d[1:], lambda d: d[1:]]
)
def test_damaged_binary_files(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    data = cifar_rows(random_images(2), [1, 2])
    (tmp_path / name).write_bytes(damage(data))
    with pytest.raises(IntegrityError, match="not a CIFAR-10 binary file"):
        cifar10(tmp_path, "train" if name.startswith("data") else "test")


def test_cifar_in_a_folder_without_it(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="no CIFAR-10 train files. Expected data_batch"):
        cifar10(tmp_path, "train")
    with pytest.raises(LocalIOError, match="absent: no such folder"):
        cifar10(tmp_path / "absent", "train")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    pixels = random_images(4, side=16)
    save(tmp_path / "dog" / "b.png", pixels[1])
    save(tmp_path / "dog" / "a.png", pixels[0])
    save(tmp_path / "cat" / "x.bmp", pixels[2])
    save(tmp_path / "ant" / "y.PNG", pixels[3])
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_image_folder(class_folders: Path) -> None:
    pixels = random_images(4, side=16)
    data = image_folder(class_folders, 16)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.labels.tolist() == [0, 1, 2, 2]
    np.testing.assert_array_equal(data.pixels, pixels[[3, 2, 0, 1]])
    assert len(data) == 4


def test_image_folder_with_given_class_order(class_folders: Path) -> None:
    data = image_folder(class_folders, 16, ("dog", "emu", "ant", "cat"))
    assert data.labels.tolist() == [0, 0, 2, 3]
    assert data.class_names == ("dog", "emu", "ant", "cat")


def test_image_folder_takes_the_centre_of_an_oblong_image(tmp_path: Path) -> None:
    wide = random_images(1, side=20)[0][:8]  # 8 rows of 20
    save(tmp_path / "a" / "wide.png", wide)
    save(tmp_path / "a" / "xtall.png", wide.transpose(1, 0, 2))
    data = image_folder(tmp_path, 8)
    np.testing.assert_array_equal(data.pixels[0], wide[:, 6:14])
    np.testing.assert_array_equal(data.pixels[1], wide[:, 6:14].transpose(1, 0, 2))


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int, quarters: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", 8), np.rot90(stored, quarters))


def test_broken_exif_data_are_left_aside(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / "x.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert read_image(tmp_path / "x.jpg", 8).shape == (8, 8, 3)


def test_image_folder_with_an_unknown_class(class_folders: Path) -> None:
    with pytest.raises(IntegrityError, match="sub-folder 'cat' is none of the classes: ant, dog"):
        image_folder(class_folders, 16, ("ant", "dog"))


def test_image_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    with pytest.raises(LocalIOError, match="no images found"):
        image_folder(tmp_path, 16)
    with pytest.raises(LocalIOError, match="no such folder"):
        image_folder(tmp_path / "absent", 16)


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"rubbish"])
def test_a_damaged_image(class_folders: Path, damage: Callable[[bytes], bytes]) -> None:
    path = class_folders / "dog" / "a.png"
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: image_folder(class_folders, 16), lambda: unlabelled_images(class_folders, 16, 10)):
        with pytest.raises(IntegrityError, match=r"a\.png: "):
            read()


def test_damaged_images_are_named_together(class_folders: Path) -> None:
    """Who has many images does not want to learn of the bad ones one a try."""
    for i in range(7):
        (class_folders / "dog" / f"bad{i}.png").write_bytes(b"no picture")
    with pytest.raises(IntegrityError) as caught:
        image_folder(class_folders, 16)
    text = str(caught.value)
    assert text.startswith("7 of 11 images are damaged. ")
    assert all(f"bad{i}.png" in text for i in range(5))
    assert "bad5.png" not in text


def test_unlabelled_images_are_spread_over_the_names(tmp_path: Path) -> None:
    for n in range(11):
        save(tmp_path / ("sub" if n > 6 else ".") / f"{n:02}.png", np.full((8, 8, 3), 10 * n, np.uint8))
    every = unlabelled_images(tmp_path, 8, 100)
    assert every[:, 0, 0, 0].tolist() == [10 * n for n in range(11)]
    assert unlabelled_images(tmp_path, 8, 3)[:, 0, 0, 0].tolist() == [0, 50, 100]
    assert unlabelled_images(tmp_path, 8, 1).shape == (1, 8, 8, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LocalIOError, match="no images found"):
        unlabelled_images(tmp_path / "empty", 8, 3)
    with pytest.raises(LocalIOError, match="no such folder"):
        unlabelled_images(tmp_path / "absent", 8, 3)


def test_read_labelled_knows_cifar(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(cifar_rows(random_images(2), [1, 2]))
    (tmp_path / "test_batch.bin").write_bytes(cifar_rows(random_images(1), [3]))
    assert len(read_labelled(tmp_path, "train", 32, ())) == 2
    assert read_labelled(tmp_path, "test", 32, CIFAR10_CLASSES).labels.tolist() == [3]
    assert read_labelled(tmp_path, None, 32, ()).labels.tolist() == [3]
    with pytest.raises(IntegrityError, match="holds CIFAR-10, but the model knows other classes"):
        read_labelled(tmp_path, "test", 32, ("cat", "dog"))


def test_read_labelled_knows_class_folders(tmp_path: Path) -> None:
    pixels = random_images(2, side=16)
    save(tmp_path / "train" / "dog" / "a.png", pixels[0])
    save(tmp_path / "test" / "dog" / "b.png", pixels[1])
    np.testing.assert_array_equal(read_labelled(tmp_path, "train", 16, ()).pixels, pixels[:1])
    np.testing.assert_array_equal(read_labelled(tmp_path, "test", 16, ("cat", "dog")).pixels, pixels[1:])
    np.testing.assert_array_equal(read_labelled(tmp_path / "test", None, 16, ()).pixels, pixels[1:])
    with pytest.raises(LocalIOError, match="no such folder"):
        read_labelled(tmp_path / "absent", "test", 16, ())


def numbered(count: int, side: int = 4) -> LabelledImages:
    """Give images of one colour each, which no crop or mirror changes; the label is its number."""
    pixels = np.zeros((count, side, side, 3), np.uint8)
    pixels[...] = np.arange(count)[:, None, None, None]
    return LabelledImages(pixels, np.arange(count, dtype=np.int32), ("a",), "numbered")


def test_split_holdout_is_disjoint_and_complete() -> None:
    rest, held = split_holdout(numbered(200), 50, seed=3)
    assert (len(rest), len(held)) == (150, 50)
    assert sorted([*rest.labels.tolist(), *held.labels.tolist()]) == list(range(200))
    for part in (rest, held):
        assert part.pixels[:, 0, 0, 0].tolist() == part.labels.tolist()


def test_split_holdout_is_decided_by_the_seed() -> None:
    first, again, other = (split_holdout(numbered(200), 50, seed)[1].labels.tolist() for seed in (3, 3, 4))
    assert first == again
    assert first != other
    # A draw without replacement: the mean of 50 out of 0..199 has a deviation of about 7.
    assert 100 - 5 * 7.1 < np.mean(first) < 100 + 5 * 7.1


@pytest.mark.parametrize("count", [10, 11])
def test_split_holdout_leaves_something(count: int) -> None:
    with pytest.raises(RecipeError, match=r"holdout: .* leaves none of numbered to train on\. Lower it in the recipe"):
        split_holdout(numbered(10), count, 0)


def test_philox_streams_belong_to_their_keys() -> None:
    keys: list[tuple[Any, ...]] = [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1), (0, "a", 2), (0, 1, "a")]
    streams = [philox(*key).integers(0, 2**62, 4).tolist() for key in keys]
    assert streams == [philox(*key).integers(0, 2**62, 4).tolist() for key in keys]
    assert len({tuple(s) for s in streams}) == len(keys)


def test_batches_cover_everything_once() -> None:
    assert [b.tolist() for b in batches(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches(np.arange(0), 3)) == []


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "toy",
        "space": "bignas-cifar10",
        "crop_size": 32,
        "mean": (1.0, 1.0, 1.0),
        "std": (1.0, 1.0, 1.0),
        "steps": 100,
        "holdout": 1,
        "batch_size": 8,
    }
    return Recipe(**{**values, **changes})


def test_a_batch_depends_on_its_step_alone() -> None:
    data = LabelledImages(random_images(30, 6), np.arange(30, dtype=np.int32), ("a",), "random")
    made = TrainingBatches(data, recipe(crop_padding=2))
    forwards = [made.at(step) for step in range(12)]
    for step in (11, 3, 7, 0, 3):
        for batches_again in (made, TrainingBatches(data, recipe(crop_padding=2))):
            batch = batches_again.at(step)
            np.testing.assert_array_equal(batch["pixels"], forwards[step]["pixels"])
            np.testing.assert_array_equal(batch["labels"], forwards[step]["labels"])
    other = TrainingBatches(data, recipe(crop_padding=2, seed=1)).at(0)
    assert not np.array_equal(other["pixels"], forwards[0]["pixels"])
    assert forwards[0]["pixels"].shape == (8, 6, 6, 3)
    assert (forwards[0]["pixels"].dtype, forwards[0]["labels"].dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("area", [1.0, 0.3])
def test_the_parts_of_all_hosts_are_the_batch(area: float) -> None:
    data = LabelledImages(random_images(30, 6), np.arange(30, dtype=np.int32), ("a",), "random")
    fields = recipe(crop_padding=2, crop_area=area, batch_size=12)
    whole = TrainingBatches(data, fields).at(5)
    parts = [TrainingBatches(data, fields, host=host, hosts=3).at(5) for host in range(3)]
    for key, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), value)


def test_resident_images_are_cropped_as_on_the_host() -> None:
    data = LabelledImages(random_images(30, 16), np.arange(30, dtype=np.int32), ("a",), "random")
    fields = recipe(crop_padding=2, crop_size=16)
    whole, resident = TrainingBatches(data, fields), TrainingBatches(data, fields, resident=True)
    contract = Preprocess(16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for step in range(5):
        pixels, labels = augment.images_of(fields, contract, resident.at(step), resident.held())
        np.testing.assert_array_equal(pixels, whole.at(step)["pixels"])
        np.testing.assert_array_equal(labels, whole.at(step)["labels"])


def test_resampled_crops_against_pillow() -> None:
    # Pillow's linear filter over a box is the same triangle filter, in 8 bits.
    fields = recipe(crop_size=16, crop_area=0.2, batch_size=20)
    photo = Image.fromarray(random_images(1, side=5)[0]).resize((24, 24), Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(photo)[None], 20, axis=0)
    drawn = augment.draws(fields, 0)
    crops = np.asarray(augment.apply(pixels, drawn, fields))
    assert crops.shape == (20, 16, 16, 3)
    for crop, (top, left, high, wide), mirrored in zip(crops, drawn["box"] * 24, drawn["mirrored"], strict=True):
        box = (left, top, min(left + wide, 24), min(top + high, 24))
        expected = np.asarray(photo.resize((16, 16), Image.Resampling.BILINEAR, box=box), np.float32)
        expected = expected[:, ::-1] if mirrored else expected
        assert np.abs(crop[1:-1, 1:-1] - expected[1:-1, 1:-1]).max() < 3  # the rim sees beyond the box


def test_boxes_keep_area_and_aspect() -> None:
    boxes = augment.draws(recipe(crop_area=0.25, batch_size=5000), 0)["box"]
    top, left, high, wide = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert max((top + high).max(), (left + wide).max()) <= 1 + 1e-6
    assert (high * wide).min() > 0.2
    assert (high * wide).max() > 0.95
    free = (high < 1) & (wide < 1)  # a side that would not fit is cut
    assert (wide / high)[free].min() >= 3 / 4 - 1e-5
    assert (wide / high)[free].max() <= 4 / 3 + 1e-5


@pytest.mark.parametrize(("count", "batch"), [(30, 8), (24, 8), (7, 20), (1, 3)])
def test_each_epoch_visits_each_image_once(count: int, batch: int) -> None:
    made = TrainingBatches(numbered(count), recipe(batch_size=batch, crop_padding=1))
    drawn = [made.at(step) for step in range(-(-5 * count // batch))]
    for part in drawn:
        assert part["pixels"][:, 2, 1, 0].tolist() == part["labels"].tolist()
    order = np.concatenate([part["labels"] for part in drawn])[: 5 * count].reshape(5, count)
    for epoch in order:
        assert sorted(epoch.tolist()) == list(range(count))
    if count > 6:
        assert len({tuple(epoch) for epoch in order.tolist()}) == 5


def reflected(position: int, side: int) -> int:
    """Mirror a position at the outermost pixels, without repeating them."""
    return -position if position < 0 else 2 * (side - 1) - position if position >= side else position


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    side = len(image)
    result = np.zeros_like(image)
    for row, column in itertools.product(range(side), repeat=2):
        result[row, column] = image[reflected(row + down, side), reflected(column + right, side)]
    return result


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_crops_come_from_the_reflected_border(flip: bool, padding: int) -> None:
    image = random_images(1, side=9)[0]
    data = LabelledImages(image[None], np.zeros(1, np.int32), ("a",), "one")
    made = TrainingBatches(data, recipe(batch_size=100, crop_padding=padding, flip=flip))
    crops = np.concatenate([made.at(step)["pixels"] for step in range(20)])
    possible = {}
    for down, right in itertools.product(range(-padding, padding + 1), repeat=2):
        crop = shifted(image, down, right)
        possible[crop.tobytes()] = (down, right, False)
        if flip:
            possible[crop[:, ::-1].tobytes()] = (down, right, True)
    assert len(possible) == (2 * padding + 1) ** 2 * (1 + flip)
    counts = Counter(possible[crop.tobytes()] for crop in crops)
    expected = len(crops) / len(possible)
    assert set(counts) == set(possible.values())
    assert all(abs(n - expected) < 6 * expected**0.5 for n in counts.values())


def test_augmentation_differs_from_step_to_step() -> None:
    data = LabelledImages(random_images(1, side=8), np.zeros(1, np.int32), ("a",), "one")
    made = TrainingBatches(data, recipe(batch_size=4, crop_padding=2))
    assert len({made.at(step)["pixels"].tobytes() for step in range(50)}) > 45


@pytest.mark.slow
def test_real_cifar10(shared_data: Path) -> None:
    train, test = cifar10(shared_data, "train"), cifar10(shared_data, "test")
    assert (len(train), len(test)) == (50_000, 9_500)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    # The mean everybody normalises CIFAR-10 with.
    mean = train.pixels.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=0.0005)
    assert train.pixels.shape == (50_000, 32, 32, 3)
    assert sorted(set(test.labels.tolist())) == list(range(10))


def test_a_grey_image_of_16_bits_is_read_as_one_of_8(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    with Image.open(tmp_path / "16.png") as image:
        assert image.mode.startswith("I")
    expected = np.repeat(grey[..., None], 3, axis=-1)
    for name in ("8.png", "16.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name, 24), expected)
