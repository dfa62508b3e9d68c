"""Labelled images in TFRecord files: which records there are, and images for evaluation and calibration.

A record is a ``tf.train.Example`` with ``image/encoded`` (a JPEG, or another format Pillow and TensorFlow
read) and ``image/class/label`` (one int64), as the usual ImageNet converters write it. Files may lie wherever
`tf.io.gfile` reaches: a folder, ``gs://`` and so on.

`recipes.data.tfrecord_batches` makes training batches of them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.models.backend import keras
from bignas_zoo.models.preprocess import decode_image
from bignas_zoo.models.tensorflow import tf
from bignas_zoo.recipes.data.images import LabelledImages
from bignas_zoo.recipes.randomness import philox

if keras.backend.backend() != "tensorflow":
    tf.config.set_visible_devices([], "GPU")  # TensorFlow only reads here; the memory is the engine's

ENCODED, LABEL, TEXT = "image/encoded", "image/class/label", "image/class/text"
#: Bytes around each record's content: its length and the checksums of length and content.
HEADER, FOOTER = 12, 4
#: Records are chosen from at least so many files, if there are so many.
SPREAD = 16

#: File name to the sorted numbers, from 0, of some of its records.
Records = Mapping[str, np.ndarray]


def find_files(pattern: str) -> tuple[str, ...]:
    """Return the files that match a pattern, sorted by name.

    Args:
        pattern: of `tf.io.gfile.glob`, such as ``gs://bucket/imagenet/train-*``.

    Raises:
        LocalIOError: none match, or the place cannot be read.
    """
    with file_errors(pattern):
        files = tuple(sorted(tf.io.gfile.glob(pattern)))
    if not files:
        raise LocalIOError(
            f"{pattern}: no file matches. Name TFRecord files by a pattern such as FOLDER/train-* or gs://BUCKET/train-*."
        )
    return files


def training_pattern(place: str) -> str:
    """Return the pattern of the training files of a folder or bucket; a pattern or file stays as it is."""
    if any(c in place for c in "*?[") or not tf.io.gfile.isdir(place):
        return place
    base = place.rstrip("/")
    for pattern in (f"{base}/train*", f"{base}/*train*"):
        if tf.io.gfile.glob(pattern):
            return pattern
    raise LocalIOError(
        f"{place}: no TFRecord file there has 'train' in its name. Give a pattern, such as {base}/part-*."
    )


def test_pattern(training: str) -> str:
    """Return the pattern of the test files that lie beside training files.

    Raises:
        LocalIOError: none are found by the usual names.
    """
    folder, _, name = training.rpartition("/")
    for split in ("validation", "val", "test"):
        pattern = f"{folder}/" * bool(folder) + name.replace("train", split)
        if "train" in name and tf.io.gfile.glob(pattern):
            return pattern
    raise LocalIOError(
        f"{training}: no test files beside it (looked for validation, val and test in place of train). "
        "Name them with --test-data."
    )


def class_names(files: Sequence[str], classes: int, label_offset: int, limit: int = 50_000) -> tuple[str, ...]:
    """Return the names that the records' ``image/class/text`` gives the classes; "class 7" where there is none.

    Args:
        files: read one after the other until every class has a name, or `limit` records are read.
        classes: how many.
        label_offset: the first class's label in the files.
        limit: of records.
    """
    texts: dict[int, str] = {}
    read = 0
    for file in files:
        for _, where, content in numbered_records(file, limit - read):
            read += 1
            label, text = _label_and_text(content, where)
            if text and 0 <= label - label_offset < classes:
                texts.setdefault(label - label_offset, text)
        if len(texts) == classes or read >= limit:
            break
    names = [texts.get(i, f"class {i}") for i in range(classes)]
    twice = {name for name in names if names.count(name) > 1}  # ImageNet has two cranes
    return tuple(f"{name} ({i})" if name in twice else name for i, name in enumerate(names))


def _label_and_text(serialized: bytes, where: str) -> tuple[int, str]:
    features = _features(serialized, where)
    text = features[TEXT].bytes_list.value if TEXT in features else ()
    label = features[LABEL].int64_list.value if LABEL in features else ()
    name = text[0].decode("utf-8", "replace") if text else ""
    return (label[0] if label else -1), "".join(c for c in name if c.isprintable()).strip()


def _features(serialized: bytes, where: str) -> Any:
    try:
        return tf.train.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise IntegrityError(f"{where}: not a tf.train.Example. Write the files as such.") from error


def count_records(file: str) -> int:
    """Count a file's records by the lengths before them; their content is neither read nor checked.

    Raises:
        LocalIOError: the file cannot be read.
        IntegrityError: it ends within a record, or is no TFRecord file.
    """
    count = position = 0
    with file_errors(file):
        size = tf.io.gfile.stat(file).length
        # Plain files are some twenty times faster without gfile's read-ahead.
        with tf.io.gfile.GFile(file, "rb") if "://" in file else open(file, "rb", buffering=0) as stream:
            while position + HEADER <= size:
                stream.seek(position)
                position += HEADER + int.from_bytes(stream.read(HEADER)[:8], "little") + FOOTER
                count += 1
    if position != size:
        raise IntegrityError(
            f"{file}: record {max(count - 1, 0)} goes beyond the file's end: truncated, or not a TFRecord file. "
            "Copy the file again."
        )
    return count


def choose_records(files: Sequence[str], count: int, seed: int, *, without: Records | None = None) -> Records:
    """Choose records at random by `seed`, out of few of the files: neither choice nor reading needs them all.

    Files are taken in random order until there are `SPREAD` of them and they hold twice as many records as
    asked for; the records are drawn from those. With fewer files it is a draw from all records.

    Args:
        files: names.
        count: how many records.
        seed: of the draw.
        without: records that may not be chosen.

    Returns:
        The chosen records; fewer than `count` if there are no more.

    Raises:
        LocalIOError, IntegrityError: see `count_records`.
    """
    taken: list[tuple[int, int]] = []
    for opened, number in enumerate(philox(seed, "record files").permutation(len(files))):
        if count == 0 or (opened >= SPREAD and len(taken) >= 2 * count):
            break
        kept = np.ones(count_records(files[number]), bool)
        kept[(without or {}).get(files[number], np.zeros(0, np.int64))] = False
        taken += [(int(number), int(record)) for record in np.flatnonzero(kept)]
    drawn = sorted(taken[i] for i in philox(seed, "records").permutation(len(taken))[:count])
    names = sorted({files[number] for number, _ in drawn})
    return {name: np.array([r for n, r in drawn if files[n] == name], np.int64) for name in names}


def size_of(records: Records) -> int:
    """Return how many records were chosen."""
    return sum(len(numbers) for numbers in records.values())


def tfrecord_images(
    pattern: str,
    crop_size: int,
    limit: int | None = None,
    label_offset: int = 0,
    class_names: tuple[str, ...] = (),
    crop_fraction: float = 1.0,
) -> LabelledImages:
    """Read the images of TFRecord files, as `read_records` does.

    Args:
        pattern: see `find_files`.
        crop_size: side in pixels.
        limit: at most so many, drawn by `choose_records`; None takes all, in the files' order.
        label_offset, class_names, crop_fraction: see `read_records`.

    Raises:
        LocalIOError, IntegrityError: see `find_files` and `read_records`.
    """
    files = find_files(pattern)
    if limit is None:
        records: Records = {file: np.arange(count_records(file)) for file in files}
    else:
        records = choose_records(files, limit, seed=0)
    return read_records(records, crop_size, label_offset, class_names, crop_fraction)


def read_records(
    records: Records,
    crop_size: int,
    label_offset: int = 0,
    class_names: tuple[str, ...] = (),
    crop_fraction: float = 1.0,
) -> LabelledImages:
    """Read some records, preprocessed as image files are (`models.preprocess.read_image`).

    All pixels are kept in memory: ``3 * crop_size**2`` bytes an image, 0.15 MB at 224.

    Args:
        records: which ones, see `choose_records`.
        crop_size: side in pixels.
        label_offset: the first class's label in the files; 1 where label 0 is the background.
        class_names: the classes in label order; () leaves the highest label unchecked.
        crop_fraction: side of the square that is cut, in parts of an image's shorter side.

    Returns:
        The images, file by file.

    Raises:
        LocalIOError: a file cannot be read, or there are no records.
        IntegrityError: a record is damaged, lacks a feature, or has an impossible label; an image is damaged.
    """
    total = size_of(records)
    if not total:
        raise LocalIOError("no images: the TFRecord files are empty. Name files with images.")
    pixels = np.empty((total, crop_size, crop_size, 3), np.uint8)
    labels = np.empty(total, np.int32)
    classes = len(class_names) or None

    def read(place: int, where: str, serialized: bytes) -> None:
        encoded, labels[place] = parse_record(serialized, where, label_offset, classes)
        pixels[place] = decode_image(io.BytesIO(encoded), crop_size, where, crop_fraction)

    place = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without the interpreter's lock
        for file, numbers in records.items():
            wanted = set(numbers.tolist())
            some = [(name, content) for i, name, content in numbered_records(file, max(wanted) + 1) if i in wanted]
            places = range(place, place + len(some))
            list(pool.map(read, places, *zip(*some, strict=True)))
            place += len(some)
    source = f"{os.path.basename(next(iter(records)))} and others" if len(records) > 1 else os.path.basename(*records)
    return LabelledImages(pixels, labels, class_names, f"{source} ({total:,} images)")


def numbered_records(file: str, stop: int | None = None) -> Iterator[tuple[int, str, bytes]]:
    """Give each record's number, its place for error messages, and its content, up to record `stop`.

    Raises:
        LocalIOError: the file cannot be read.
        IntegrityError: a record is damaged.
    """
    number = 0
    try:
        for content in tf.data.TFRecordDataset(file).take(-1 if stop is None else stop).as_numpy_iterator():
            yield number, f"{file}: record {number}", content
            number += 1
    except tf.errors.DataLossError as error:
        raise IntegrityError(
            f"{file}: record {number}: damaged or truncated ({reason(error)}). Copy the file again."
        ) from error
    except tf.errors.OpError as error:
        raise LocalIOError(f"{file}: cannot be read ({reason(error)}).") from error


def parse_record(serialized: bytes, where: str, label_offset: int, classes: int | None) -> tuple[bytes, int]:
    """Return a record's encoded image and its label, counted from 0.

    Raises:
        IntegrityError: it is no ``tf.train.Example``, lacks a feature, or its label is impossible.
    """
    features = _features(serialized, where)
    for name, kind, values in (
        (ENCODED, "one string of bytes", features[ENCODED].bytes_list.value if ENCODED in features else ()),
        (LABEL, "one int64", features[LABEL].int64_list.value if LABEL in features else ()),
    ):
        if len(values) != 1:
            raise IntegrityError(
                f"{where}: feature '{name}' must be {kind}. "
                f"The record has: {', '.join(sorted(features)) or 'no features'}."
            )
    stored = features[LABEL].int64_list.value[0]
    if stored < label_offset or (classes is not None and stored >= label_offset + classes):
        last = "up" if classes is None else str(label_offset + classes - 1)
        raise IntegrityError(
            f"{where}: label {stored} is not within {label_offset} to {last}. "
            "Labels that start at 1 need label_offset 1, those that start at 0 label_offset 0."
        )
    return features[ENCODED].bytes_list.value[0], stored - label_offset


@contextlib.contextmanager
def file_errors(where: str) -> Iterator[None]:
    """Turn what TensorFlow or Python raise on an unreadable file into `LocalIOError`."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        raise LocalIOError(f"{where}: cannot be read ({reason(error)}).") from error


def reason(error: Any) -> str:
    """Return an exception's own words, without TensorFlow's graph names."""
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    return re.sub(r"^\{\{.*?\}\} |\s*\[(\[\{\{|Op:).*", "", " ".join(text.split()))[:200]
