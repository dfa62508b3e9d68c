"""Training batches from TFRecord files through tf.data: any number of images, any place, one or many hosts.

The engine may be any: batches are numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError
from bignas_zoo.models.tensorflow import tf
from bignas_zoo.recipes.data.autoaugment import autoaugment
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.data.tfrecords import (
    ENCODED,
    LABEL,
    Records,
    count_records,
    find_files,
    numbered_records,
    parse_record,
    reason,
    size_of,
)
from bignas_zoo.recipes.randomness import philox

Tensor = Any
#: Files read at once, and so mixed with each other.
FILES_AT_ONCE = 16
#: Files counted to check a stated number of images.
COUNTED = 4
#: More than any file has records: a record of this host is named by ``file * FILE + record``.
FILE = 1 << 32
FEATURES = {ENCODED: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}


class TFRecordBatches:
    """Augmented training batches; batch `step` depends on the arguments, the files and `step` alone.

    An image is cut at random (from 8 to 100 % of its area, sides 3:4 to 4:3; its centre square where ten tries
    find no such window), resized bicubically with antialiasing, mirrored half of the time and put through
    AutoAugment v0. What happens to it is drawn from (seed, epoch, position in the epoch).

    *Order.* An epoch reads this host's files in a random order, `FILES_AT_ONCE` at a time in turns, and
    shuffles the records within a buffer. The buffer holds the last `shuffle_buffer` records as they are in
    the files, so ImageNet's JPEGs of 110 kB take 0.9 GB at 8,192.

    *Hosts.* Host `host` of `hosts` reads every `hosts`-th file, or, if there are fewer files than hosts, all
    files and keeps every `hosts`-th record. An epoch of a host has ``count // hosts`` images: where its files
    hold some more, others are left out in every epoch; where they hold some fewer, some come twice.

    *Resuming.* A step in the middle of an epoch is reached by reading that epoch's records from its start
    and dropping them before they are decoded: at the speed of the disk, not of the processor.

    Attributes:
        count: images in an epoch over all hosts.
    """

    def __init__(
        self,
        pattern: str,
        *,
        classes: int,
        batch_size: int,
        crop_size: int,
        seed: int,
        label_offset: int = 0,
        without: Records | None = None,
        images: int | None = None,
        host: int = 0,
        hosts: int = 1,
        augment: bool = True,
        flip: bool = True,
        crop_area: float = 0.08,
        shuffle_buffer: int = 8_192,
    ) -> None:
        """Look for the files.

        Args:
            pattern: of the files, see `tfrecords.find_files`.
            classes: number of classes.
            batch_size: images a step on this host.
            crop_size: side of the result in pixels.
            seed: of every draw.
            label_offset: the first class's label in the files.
            without: records not to train on, see `tfrecords.choose_records`.
            images: in all files, those of `without` included. None counts them by reading every record's
                length: seconds for ImageNet on a local disk, minutes in a bucket. A stated number is compared
                with that of up to `COUNTED` files.
            host, hosts: which host this is, and how many there are.
            augment: whether to apply AutoAugment.
            flip: whether to mirror.
            crop_area: least part of the image's area that a random crop takes.
            shuffle_buffer: in records.

        Raises:
            LocalIOError: no files, none to train on, or `images` is wrong.
            IntegrityError: a file that was counted is truncated.
        """
        files = find_files(pattern)
        without = without or {}
        self.count = _number_of_images(pattern, files, images) - size_of(without)
        self.share_files = len(files) >= hosts
        self.files = files[host::hosts] if self.share_files else files
        self.epoch_length = self.count // hosts
        # Lazily: the first file nearly always settles it.
        some = any(count_records(file) > len(without.get(file, ())) for file in self.files)
        if self.epoch_length < 1 or not some:
            raise LocalIOError(
                f"{pattern}: no images left to train on for host {host} of {hosts}, {size_of(without):,} being held "
                "out. Name more files or hold out fewer."
            )
        self.classes, self.batch_size, self.crop_size, self.label_offset = classes, batch_size, crop_size, label_offset
        self.host, self.hosts, self.augment, self.flip, self.shuffle_buffer = host, hosts, augment, flip, shuffle_buffer
        self.crop_area = crop_area
        held = [number * FILE + without[file] for number, file in enumerate(self.files) if file in without]
        self.held = np.concatenate([np.zeros(0, np.int64), *held])
        keys = ("file order", "record order", "augment")
        self.seeds = {key: philox(seed, "tfrecords", key).integers(2**31, size=2) for key in keys}
        self._batches: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
        self._next = -1

    def at(self, step: int) -> dict[str, np.ndarray]:
        """Return the batch of a step; fast for consecutive steps, while a jump starts the reader anew.

        Returns:
            ``pixels`` ``[batch, crop, crop, 3]`` uint8, ``labels`` ``[batch]`` int32, and ``row`` ``[batch]``
            int32: the place of each image in the batch of all hosts.

        Raises:
            IntegrityError: a record is damaged, lacks a feature, or has an impossible label; an image is damaged.
            LocalIOError: a file cannot be read.
        """
        if step != self._next:
            self._batches = self.from_step(step)
        self._next = -1
        pixels, labels = next(self._batches)
        self._next = step + 1
        row = np.arange(self.batch_size, dtype=np.int32) + self.host * self.batch_size
        return {"pixels": pixels, "labels": labels, "row": row}

    def from_step(self, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give the batches from a step on, without end; see `at`."""
        batches = iter(self._dataset(step).as_numpy_iterator())
        while True:
            try:
                pixels, labels = next(batches)
            except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter: a message that quotes bytes
                raise self._cause(step, error) from error
            if labels.min() < 0 or labels.max() >= self.classes:
                raise self._cause(step, "a label is impossible")
            yield pixels, labels
            step += 1

    def _dataset(self, step: int) -> tf.data.Dataset:
        images = self._records(step).map(self._image, tf.data.AUTOTUNE, deterministic=True)
        return images.batch(self.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def _records(self, step: int) -> tf.data.Dataset:
        """Give (epoch, position in it, file number, record number, content) from a step on."""
        epoch, position = divmod(step * self.batch_size, self.epoch_length)
        return tf.data.Dataset.range(epoch, tf.int64.max).flat_map(self._epoch).skip(position)

    def _epoch(self, epoch: Tensor) -> tf.data.Dataset:
        # Acts in this traced function alone: without it, Dataset.shuffle mixes in the program's global seed.
        tf.random.set_seed(1)
        draws = tf.random.stateless_uniform([len(self.files)], self._seed("file order", epoch), alg="philox")
        records = tf.data.Dataset.from_tensor_slices(tf.argsort(draws, stable=True)).interleave(
            self._file, FILES_AT_ONCE, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if len(self.held):
            records = records.filter(
                lambda file, number, content: tf.reduce_all(self.held != tf.cast(file, tf.int64) * FILE + number)
            )
        if not self.share_files:
            records = records.shard(self.hosts, self.host)
        order = self._seed("record order", epoch)[0]
        records = records.shuffle(self.shuffle_buffer, order, reshuffle_each_iteration=False)
        return records.repeat().take(self.epoch_length).enumerate().map(lambda i, record: (epoch, i, *record))

    def _file(self, file: Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(tf.gather(self.files, file)).enumerate()
        return records.map(lambda number, content: (file, number, content))

    def _image(self, epoch: Tensor, position: Tensor, file: Tensor, number: Tensor, content: Tensor) -> Any:
        record = tf.io.parse_single_example(content, FEATURES)
        seed = tf.random.fold_in(self._seed("augment", epoch), position * self.hosts + self.host, alg="philox")
        crop, mirror, change = tf.unstack(tf.random.split(seed, 3, alg="philox"))
        pixels = random_crop(record[ENCODED], crop, self.crop_size, self.crop_area)
        if self.flip:
            mirrored = tf.random.stateless_uniform([], mirror, alg="philox") < 0.5
            pixels = tf.where(mirrored, tf.reverse(pixels, [1]), pixels)
        if self.augment:
            pixels = autoaugment(pixels, change)
        # Far labels are cut so that they stay impossible as int32.
        label = tf.clip_by_value(record[LABEL] - self.label_offset, -1, self.classes)
        return pixels, tf.cast(label, tf.int32)

    def _seed(self, key: str, epoch: Tensor) -> Tensor:
        return tf.random.fold_in(self.seeds[key], epoch, alg="philox")

    def _cause(self, step: int, problem: Any) -> BigNASError:
        """Find the record that spoiled a batch, and return an error that names it."""
        try:
            try:
                self._check(step)
            except tf.errors.OpError:  # some file is damaged: noticed as the buffer fills, long before its turn
                for file in self.files:
                    for _ in numbered_records(file):
                        pass
        except BigNASError as error:
            return error
        return IntegrityError(f"step {step}: the batch cannot be made ({reason(problem)}).")

    def _check(self, step: int) -> None:
        for *_, file, number, content in self._records(step).take(self.batch_size).as_numpy_iterator():
            where = f"{self.files[file]}: record {number}"
            encoded, _ = parse_record(content, where, self.label_offset, self.classes)
            try:
                tf.io.decode_image(encoded, channels=3, expand_animations=False)
            except tf.errors.OpError as error:
                raise IntegrityError(f"{where}: not a readable image ({reason(error)}).") from error


def random_crop(encoded: Tensor, seed: Tensor, crop_size: int, crop_area: float = 0.08) -> Tensor:
    """Decode a random window of an image and resize it bicubically with antialiasing.

    Args:
        encoded: scalar string: a JPEG, of which only the window is decoded. Other formats are brought to
            one first, at quality 100.
        seed: ``[2]`` integers.
        crop_size: side of the result in pixels.
        crop_area: least part of the image's area.

    Returns:
        ``[crop_size, crop_size, 3]`` uint8.
    """
    jpeg = tf.cond(tf.io.is_jpeg(encoded), lambda: encoded, lambda: _to_jpeg(encoded))
    shape = tf.image.extract_jpeg_shape(jpeg)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(crop_area, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    smaller = tf.reduce_any(size[:2] < shape[:2])  # after ten failures it is the whole image
    side = tf.reduce_min(shape[:2])
    square = tf.concat([(shape[:2] - side) // 2, [side, side]], 0)
    window = tf.where(smaller, tf.concat([begin[:2], size[:2]], 0), square)
    # The exact transform, as Pillow's, whose pixels evaluation sees; it costs nothing.
    pixels = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
    resized = tf.image.resize(pixels, [crop_size, crop_size], "bicubic", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def _to_jpeg(encoded: Tensor) -> Tensor:
    pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False)


def _number_of_images(pattern: str, files: tuple[str, ...], stated: int | None) -> int:
    """Count the images of all files, or check a stated number against a few of them."""
    if stated is None:
        return sum(count_records(file) for file in files)
    some = evenly(len(files), COUNTED)
    counted = sum(count_records(files[i]) for i in some) * len(files) // len(some)
    wrong = stated != counted if len(some) == len(files) else not counted / 2 <= stated <= counted * 2
    if wrong:
        about = "" if len(some) == len(files) else "about "
        raise LocalIOError(
            f"{pattern}: {stated:,} images are stated, but there are {about}{counted:,}. "
            "State their true number, or none to have them counted."
        )
    return stated
