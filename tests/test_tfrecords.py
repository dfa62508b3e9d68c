"""Images and training batches from TFRecord files: order, hosts, resuming, hold-out, crops, broken files."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.models.preprocess import read_image
from bignas_zoo.recipes.data.tfrecord_batches import TFRecordBatches, random_crop
from bignas_zoo.recipes.data.tfrecords import (
    choose_records,
    count_records,
    find_files,
    read_records,
    size_of,
    tfrecord_images,
)


def encode(pixels: np.ndarray, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return buffer.getvalue()


def one_colour(label: int, side: int = 20) -> bytes:
    """An image that tells its label: red is twice the label."""
    return encode(np.full((side, side + 6, 3), (2 * label, 100, 200), np.uint8))


def record(encoded: bytes | None, label: int | None) -> bytes:
    features = {}
    if encoded is not None:
        features["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    if label is not None:
        features["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    content: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return content


def write(path: Path | str, contents: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in contents:
            writer.write(content)
    return str(path)


def write_set(folder: Path | str, sizes: list[int], offset: int = 0) -> str:
    """Write files of the given sizes; the images' labels count through all of them. Returns the pattern."""
    label = 0
    for number, size in enumerate(sizes):
        contents = [record(one_colour(n), n + offset) for n in range(label, label + size)]
        write(f"{folder}/train-{number:05d}", contents)
        label += size
    return f"{folder}/train-*"


def make(pattern: str, batch_size: int = 4, **changes: Any) -> TFRecordBatches:
    given = {"classes": 100, "crop_size": 16, "seed": 0, "augment": False, "shuffle_buffer": 8, **changes}
    return TFRecordBatches(pattern, batch_size=batch_size, **given)


def labels_of(batches: TFRecordBatches, steps: range) -> list[int]:
    return [int(label) for step in steps for label in batches.at(step)["labels"]]


def test_an_epoch_has_each_image_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    batches = make(write_set(tmp_path, [7, 5, 12]))
    assert batches.count == 24
    first, second = labels_of(batches, range(6)), labels_of(batches, range(6, 12))
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert first != list(range(24))
    assert set(labels_of(make(write_set(tmp_path, [7, 5, 12]), seed=1), range(2))) != set(first[:8])


def test_batches_are_what_training_takes(tmp_path: Path) -> None:
    batches = make(write_set(tmp_path, [3, 4], offset=1), label_offset=1)
    for step in range(4):  # beyond one epoch
        pixels, labels = map(batches.at(step).get, ("pixels", "labels"))
        assert (pixels.shape, pixels.dtype) == ((4, 16, 16, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((4,), np.int32)
        # Any window of an image of one colour has that colour; JPEG may be off by one or two.
        expected = np.stack([2 * labels, np.full(4, 100), np.full(4, 200)], -1)
        assert np.abs(pixels.astype(int) - expected[:, None, None]).max() <= 2


def test_a_batch_depends_on_its_step_alone(tmp_path: Path) -> None:
    pattern = write_set(tmp_path, [7, 5, 11])
    sequence = make(pattern, augment=True)
    expected = [sequence.at(s) for s in range(15)]
    tf.random.set_seed(1234)  # of the program; nothing here may depend on it
    resumed = make(pattern, augment=True)
    for s in (13, 14, 5):  # within the third epoch, on from there, and back to where the first one ends
        for got, want in zip(resumed.at(s).values(), expected[s].values(), strict=True):
            np.testing.assert_array_equal(got, want)


def test_an_image_is_augmented_differently_each_time(tmp_path: Path) -> None:
    write(tmp_path / "train-0", [record(encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)), 5)])
    pixels = [make(f"{tmp_path}/train-*", 1).at(step)["pixels"] for step in range(3)]
    assert len({p.tobytes() for p in pixels}) == 3


@pytest.mark.parametrize(("sizes", "hosts"), [([6, 6, 6, 6], 2), ([13, 11], 3)])
def test_hosts_share_an_epoch(tmp_path: Path, sizes: list[int], hosts: int) -> None:
    pattern = write_set(tmp_path, sizes)
    epochs = []
    for host in range(hosts):
        batches = make(pattern, 24 // hosts, host=host, hosts=hosts)
        assert batches.count == 24
        epochs.append(labels_of(batches, range(1)))
    assert sorted(label for epoch in epochs for label in epoch) == list(range(24))
    if len(sizes) >= hosts:  # whole files: every second one
        assert sorted(epochs[0]) == [*range(6), *range(12, 18)]


def test_hosts_with_unequal_files_go_on_in_step(tmp_path: Path) -> None:
    pattern = write_set(tmp_path, [10, 4])  # 7 images an epoch and host
    full, short = (Counter(labels_of(make(pattern, 7, host=host, hosts=2), range(1))) for host in (0, 1))
    assert set(full) < set(range(10))
    assert len(full) == 7
    assert set(short) == {10, 11, 12, 13}
    assert sorted(short.values()) == [1, 2, 2, 2]


def test_held_out_images_are_never_trained_on(tmp_path: Path) -> None:
    pattern = write_set(tmp_path, [9, 8, 13])
    files = find_files(pattern)
    held = choose_records(files, 6, seed=3)
    calibration = choose_records(files, 10, seed=3, without=held)
    assert (size_of(held), size_of(calibration)) == (6, 10)
    held_labels, others = (set(read_records(r, 16).labels.tolist()) for r in (held, calibration))
    assert (len(held_labels), len(others), held_labels & others) == (6, 10, set())
    batches = make(pattern, 24, without=held)
    assert batches.count == 24
    assert sorted([*labels_of(batches, range(1)), *held_labels]) == list(range(30))
    assert {k: v.tolist() for k, v in choose_records(files, 6, seed=3).items()} == {
        k: v.tolist() for k, v in held.items()
    }
    assert size_of(choose_records(files, 100, seed=0)) == 30
    assert choose_records(files, 0, seed=0) == {}


def test_records_are_chosen_from_few_files(tmp_path: Path) -> None:
    files = find_files(write_set(tmp_path, [4] * 24))
    chosen = choose_records(files, 5, seed=0)
    assert set(chosen) <= set(files)
    counts = Counter(file for seed in range(12) for file in choose_records(files, 5, seed=seed))
    assert len(counts) > 16  # others for other seeds
    # 40 records need twice as many candidates: 20 of the files.
    assert 16 < len(choose_records(files, 40, seed=0)) <= 20


def test_a_stated_number_of_images_is_checked(tmp_path: Path) -> None:
    pattern = write_set(tmp_path, [5, 6])
    assert make(pattern, images=11).count == 11
    with pytest.raises(
        LocalIOError, match=r"12 images are stated, but there are 11\. State their true number, or none"
    ):
        make(pattern, images=12)
    (tmp_path / "many").mkdir()
    many = write_set(tmp_path / "many", [3] * 9)
    assert make(many, images=25).count == 25  # four files are counted; the estimate is 27
    with pytest.raises(LocalIOError, match="60 images are stated, but there are about 27"):
        make(many, images=60)


def test_a_bucket_works_like_a_folder(tmp_path: Path) -> None:
    pattern = write_set("ram://bucket/set", [5, 6])  # TensorFlow's file system in memory
    local = write_set(tmp_path, [5, 6])
    assert count_records("ram://bucket/set/train-00001") == 6
    for got, want in zip(make(pattern).at(1).values(), make(local).at(1).values(), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(tfrecord_images(pattern, 16).pixels, tfrecord_images(local, 16).pixels)


def test_evaluation_images_are_preprocessed_as_files_are(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    encoded = [encode(draws.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((40, 64), (30, 20), (16, 16))]
    encoded.append(encode(draws.integers(0, 256, (50, 33), np.uint8)))  # grey
    encoded.append(encode(draws.integers(0, 256, (24, 25, 3), np.uint8), "PNG"))
    write(tmp_path / "val-0", [record(e, 7 + i) for i, e in enumerate(encoded[:2])])
    write(tmp_path / "val-1", [record(e, 9 + i) for i, e in enumerate(encoded[2:])])
    images = tfrecord_images(f"{tmp_path}/val-*", 16, label_offset=7, class_names=tuple("abcde"))
    for i, content in enumerate(encoded):
        (tmp_path / f"{i}.jpg").write_bytes(content)
        np.testing.assert_array_equal(images.pixels[i], read_image(tmp_path / f"{i}.jpg", 16))
    assert images.labels.tolist() == [0, 1, 2, 3, 4]
    assert (images.labels.dtype, images.pixels.dtype) == (np.int32, np.uint8)
    assert (images.class_names, images.source) == (tuple("abcde"), "val-0 and others (5 images)")
    few = tfrecord_images(f"{tmp_path}/val-*", 16, limit=3, label_offset=7)
    assert len(few) == 3
    assert all(few.pixels[i].tobytes() == images.pixels[label].tobytes() for i, label in enumerate(few.labels))


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose red tells the column and whose green tells the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, 0 * x], -1).astype(np.uint8)


def window_of(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, width, height of the window that a crop of `coordinates` shows."""
    side = len(pixels)
    columns, rows = pixels[..., 0].astype(float).mean(0), pixels[..., 1].astype(float).mean(1)
    # Pixel centres lie half a step inside; leave the ends out, where the resampler has no neighbours.
    width, height = ((v[-5] - v[4]) * side / (side - 9) for v in (columns, rows))
    return columns.mean() + 0.5 - width / 2, rows.mean() + 0.5 - height / 2, width, height


def test_crops_are_of_the_area_and_shape_asked_for() -> None:
    height, width = 150, 200
    encoded = encode(coordinates(height, width))
    seeds = tf.data.Dataset.range(300).map(lambda i: random_crop(encoded, tf.stack([i, i * 0]), 32))
    windows = np.array([window_of(p) for p in seeds.as_numpy_iterator()])
    area, shape = windows[:, 2] * windows[:, 3] / (height * width), windows[:, 2] / windows[:, 3]
    assert 0.07 < area.min() < 0.12
    assert 0.85 < area.max() < 1.03
    assert 0.72 < shape.min() < 0.82
    assert 1.22 < shape.max() < 1.37
    ends = windows[:, :2] + windows[:, 2:]
    assert windows[:, :2].min() > -2
    assert (ends.max(0) < (width + 2, height + 2)).all()
    assert (windows[:, :2] / (width, height)).max() > 0.5  # the windows lie everywhere


def test_a_crop_is_pillows_bicubic_of_its_window() -> None:
    # A picture too narrow for any window: its centre square. Pillow rounds between its two passes.
    picture = np.random.default_rng(0).integers(60, 190, (40, 900, 3)).astype(np.uint8)
    for kind in ("JPEG", "PNG"):
        encoded = encode(np.asarray(Image.fromarray(picture).resize((1800, 64))), kind)
        for size in (24, 96):
            square = Image.open(io.BytesIO(encoded)).convert("RGB").crop((868, 0, 932, 64))
            expected = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
            got = random_crop(tf.constant(encoded), tf.constant([1, 2]), size).numpy()
            assert got.dtype == np.uint8
            difference = np.abs(expected - got)
            assert difference.mean() < (0.5 if kind == "JPEG" else 1.5)  # a PNG goes through a JPEG


def test_half_of_the_images_are_mirrored(tmp_path: Path) -> None:
    write(tmp_path / "train-0", [record(encode(coordinates(64, 64)), 0)] * 8)
    rising = [make(f"{tmp_path}/*", 100).at(0)["pixels"], make(f"{tmp_path}/*", 100, flip=False).at(0)["pixels"]]
    shares = [(p[:, :, -1, 0].mean(1) > p[:, :, 0, 0].mean(1)).mean() for p in rising]
    assert 0.35 < shares[0] < 0.65
    assert shares[1] == 1


GOOD = [record(one_colour(n), n) for n in range(6)]
BAD_RECORDS = {
    "no label": (
        record(one_colour(1), None),
        "feature 'image/class/label' must be one int64. The record has: image/encoded.",
    ),
    "no image": (
        record(None, 1),
        "feature 'image/encoded' must be one string of bytes. The record has: image/class/label.",
    ),
    "empty": (b"", "feature 'image/encoded' must be one string of bytes. The record has: no features."),
    "no example": (b"\xff\xff\xff", "not a tf.train.Example. Write the files as such."),
    "high label": (
        record(one_colour(1), 10),
        "label 10 is not within 0 to 9. Labels that start at 1 need label_offset",
    ),
    "low label": (record(one_colour(1), -1), "label -1 is not within 0 to 9."),
    "far label": (record(one_colour(1), 2**32 + 1), "label 4294967297 is not within 0 to 9."),
    "no picture": (record(b"no picture", 1), "not a readable image ("),
    "cut picture": (record(one_colour(1)[:300], 1), "image ("),
}


@pytest.mark.parametrize("kind", sorted(BAD_RECORDS))
def test_a_bad_record_is_named(tmp_path: Path, kind: str) -> None:
    content, message = BAD_RECORDS[kind]
    write(tmp_path / "train-0", GOOD)
    file = write(tmp_path / "train-1", [*GOOD[:4], content])
    readers = [lambda: tfrecord_images(f"{tmp_path}/train-*", 16, class_names=tuple("0123456789"))]
    if kind in ("no label", "no example", "far label", "cut picture"):  # one of each way to fail in a graph
        readers.append(lambda: make(f"{tmp_path}/train-*", 11, classes=10).at(0))
    for read in readers:
        with pytest.raises(IntegrityError) as caught:
            read()
        assert str(caught.value).startswith(f"{file}: record 4: ")
        assert message in str(caught.value)


@pytest.mark.slow
def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    write(tmp_path / "train-0", GOOD)
    file = Path(write(tmp_path / "train-1", GOOD[:4]))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1  # within the last record
    file.write_bytes(content)
    expected = rf"^{file}: record 3: damaged or truncated \(corrupted record at \d+\)\. Copy the file again\.$"
    batches = make(f"{tmp_path}/train-*")
    for _ in range(2):  # asking again says the same
        with pytest.raises(IntegrityError, match=expected):
            batches.at(0)
    with pytest.raises(IntegrityError, match=expected):
        tfrecord_images(f"{tmp_path}/train-*", 16)


def test_a_truncated_file_is_found(tmp_path: Path) -> None:
    pattern = write_set(tmp_path, [6, 6, 6, 6, 6, 6, 6])
    file = Path(find_files(pattern)[1])  # not one of those counted to check a stated number
    file.write_bytes(file.read_bytes()[:-50])
    expected = rf"^{file}: record 5 goes beyond the file's end: truncated, or not a TFRecord file\. Copy"
    for read in (lambda: make(pattern), lambda: tfrecord_images(pattern, 16)):
        with pytest.raises(IntegrityError, match=expected):
            read()
    with pytest.raises(
        IntegrityError, match=rf"^{file}: record 5: damaged or truncated \(truncated record at \d+.*\)\. Copy"
    ):
        labels_of(make(pattern, images=42), range(11))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    file = tmp_path / "train-0"
    file.write_text("not a TFRecord file at all, but text")
    with pytest.raises(
        IntegrityError, match=rf"^{file}: record 0 goes beyond the file's end: truncated, or not a TFRecord"
    ):
        make(f"{tmp_path}/train-*")


def test_no_files_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(
        LocalIOError, match=rf"^{tmp_path}/nothing-\*: no file matches\. Name TFRecord files by a pattern"
    ):
        make(f"{tmp_path}/nothing-*")
    with pytest.raises(LocalIOError, match="cannot be read"):
        find_files("nosuchplace://bucket/train-*")
    write(tmp_path / "empty-0", [])
    with pytest.raises(LocalIOError, match="no images left to train on for host 0 of 1, 0 being held out"):
        make(f"{tmp_path}/empty-*")
    with pytest.raises(LocalIOError, match="no images: the TFRecord files are empty"):
        tfrecord_images(f"{tmp_path}/empty-*", 16)
    pattern = write_set(tmp_path, [4])
    with pytest.raises(LocalIOError, match="no images left to train on for host 0 of 1, 4 being held out"):
        make(pattern, without=choose_records(find_files(pattern), 4, seed=0))


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    pattern = write_set(tmp_path, [4, 4])
    batches = make(pattern)
    file = Path(find_files(pattern)[1])
    file.unlink()
    with pytest.raises(LocalIOError, match=rf"^{file}: cannot be read \(.*No such file or directory\)\.$"):
        batches.at(0)


@pytest.mark.slow
def test_real_images(shared_data: Path) -> None:
    pattern = f"{shared_data}/imagenet_sample192-*"
    batches = make(pattern, 500, classes=1000, crop_size=224, augment=True, shuffle_buffer=1000)
    assert batches.count == 1000
    parts = [batches.at(step) for step in range(2)]
    assert sorted(label for part in parts for label in part["labels"].tolist()) == list(range(1000))
    pixels = np.concatenate([part["pixels"] for part in parts])
    assert pixels.shape == (1000, 224, 224, 3)
    blank = (pixels == 128).all((1, 2, 3)).mean()  # the policy's last translation: 0.8 of 1 of 25
    assert 0.01 < blank < 0.06
    imagenette = tfrecord_images(f"{shared_data}/imagenette176-train-*", 64, limit=200, class_names=tuple("0123456789"))
    assert (imagenette.pixels.shape, len(set(imagenette.labels.tolist()))) == ((200, 64, 64, 3), 10)
