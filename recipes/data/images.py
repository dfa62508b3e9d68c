"""Labelled images in memory, and training batches as a pure function of the step.

Readers: CIFAR-10 (the official binary version, or ``.npz`` files that hold one lossless tile image
each), and a folder of images with one sub-folder a class. All give `LabelledImages`.
"""

from __future__ import annotations

import functools
import io
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bignas_zoo.errors import IntegrityError, LocalIOError, RecipeError
from bignas_zoo.models.preprocess import SUFFIXES, read_image
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.randomness import philox
from bignas_zoo.recipes.recipe import Recipe

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_SIDE = 32
#: Folders that systems make beside one's own: archives of a Mac, thumbnails of a NAS, Windows' bin.
OTHERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
#: How many damaged images an error names.
NAMED = 5


@dataclass(frozen=True)
class LabelledImages:
    """Images of one size with their labels.

    Attributes:
        pixels: ``[n, side, side, 3]`` uint8, RGB.
        labels: ``[n]`` int32.
        class_names: index to name.
        source: what they are, for the record.
    """

    pixels: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> LabelledImages:
        """Return the chosen images."""
        return LabelledImages(self.pixels[index], self.labels[index], self.class_names, self.source)


def cifar10(folder: Path, split: str) -> LabelledImages:
    """Read CIFAR-10.

    Args:
        folder: holds ``data_batch_1.bin`` … and ``test_batch.bin`` (the official binary version), or
            ``cifar10_train_*.npz`` and ``cifar10_test.npz``.
        split: "train" or "test".

    Returns:
        The images, 32x32.

    Raises:
        LocalIOError: the folder holds neither form.
        IntegrityError: a file is damaged.
    """
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. {CIFAR10_HELP}")
    binary = sorted(folder.glob("data_batch_*.bin" if split == "train" else "test_batch.bin"))
    tiles = sorted(folder.glob("cifar10_train_*.npz" if split == "train" else "cifar10_test.npz"))
    if not binary and not tiles:
        raise LocalIOError(f"{folder}: no CIFAR-10 {split} files. {CIFAR10_HELP}")
    parts = [_cifar_binary(p) for p in binary] if binary else [_cifar_tiles(p) for p in tiles]
    pixels, labels = (np.concatenate(a) for a in zip(*parts, strict=True))
    source = f"CIFAR-10 {split} ({len(labels):,} images)"
    return LabelledImages(pixels, labels.astype(np.int32), CIFAR10_CLASSES, source)


CIFAR10_HELP = (
    "Expected data_batch_*.bin and test_batch.bin of CIFAR-10's binary version "
    "(https://www.cs.toronto.edu/~kriz/cifar.html), or cifar10_*.npz tiles; name their folder with --data."
)


LABELLED_HELP = (
    "Expected CLASS/*.png (for training also train/CLASS and test/CLASS, or TFRecord files), or CIFAR-10's "
    "data_batch_*.bin and test_batch.bin."
)


def _cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    row = 1 + 3 * CIFAR10_SIDE**2
    data = np.fromfile(path, np.uint8)
    if len(data) == 0 or len(data) % row or data[::row].max() > 9:
        raise IntegrityError(f"{path}: not a CIFAR-10 binary file (rows of {row} bytes, labels 0 to 9).")
    rows = data.reshape(-1, row)
    planes = rows[:, 1:].reshape(-1, 3, CIFAR10_SIDE, CIFAR10_SIDE)
    return planes.transpose(0, 2, 3, 1).copy(), rows[:, 0]


#: What numpy, zipfile and Pillow raise on a file that is not what it should be.
DAMAGED = (
    KeyError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError,
    MemoryError,
)  # fmt: skip


#: Bytes of one file of tiles, unpacked: some ten times what 10,000 images take.
MOST_TILES = 128 << 20


def check_archive(path: Path, most: int) -> None:
    """Refuse a ``.npz`` file that unpacks to more than `most` bytes; raises ValueError or BadZipFile."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > most:
        raise ValueError(f"unpacks to {size:,} bytes, at most {most:,} are read")


def _cifar_tiles(path: Path) -> tuple[np.ndarray, np.ndarray]:
    side = CIFAR10_SIDE
    try:
        check_archive(path, MOST_TILES)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            encoded, labels = file["webp"].tobytes(), file["labels"]
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.isin(labels, range(10)).all():
            raise ValueError("labels are not whole numbers of 0 to 9")
        grid = np.asarray(Image.open(io.BytesIO(encoded), formats=("WEBP", "PNG")).convert("RGB"))
        rows, columns = grid.shape[0] // side, grid.shape[1] // side
        tiles = grid.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
        if len(tiles) < len(labels):
            raise ValueError(f"{len(tiles)} tiles for {len(labels)} labels")
    except DAMAGED as error:
        raise IntegrityError(f"{path}: damaged CIFAR-10 tile file ({error}).") from error
    return tiles[: len(labels)].copy(), labels


def image_folder(
    folder: Path,
    crop_size: int,
    class_names: tuple[str, ...] = (),
    limit: int | None = None,
    crop_fraction: float = 1.0,
) -> LabelledImages:
    """Read a folder with one sub-folder of images a class.

    Args:
        folder: ``folder/CLASS/*.png`` and so on.
        crop_size: side in pixels of the centre square cut from each image.
        class_names: the classes in label order; by default the sub-folders' names, sorted.
        limit: read at most so many, spread evenly over classes and names; None takes all.
        crop_fraction: side of that square in parts of an image's shorter side.

    Returns:
        The images, ``crop_size`` square.

    Raises:
        LocalIOError: no such folder, or no images in it.
        IntegrityError: an image is damaged, or a sub-folder is no class.
    """
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. Name a folder with one sub-folder of images a class.")
    below = subfolders(folder)
    names = class_names or tuple(below)
    unknown = [name for name in below if name not in names]
    if unknown:
        raise IntegrityError(
            f"{folder}: sub-folder '{unknown[0]}' is none of the classes: {', '.join(names[:10])}"
            f"{', …' if len(names) > 10 else ''}."
        )
    present = [(label, name) for label, name in enumerate(names) if name in below]
    files = [(path, label) for label, name in present for path in image_files(folder / name)]
    if limit is not None and len(files) > limit:
        files = [files[i] for i in evenly(len(files), limit)]
    if not files:
        raise LocalIOError(f"{folder}: no images found. Expected {folder.name}/CLASS/*{{{','.join(SUFFIXES)}}}.")
    labels = np.array([label for _, label in files], np.int32)
    pixels = _read_all([path for path, _ in files], crop_size, crop_fraction)
    return LabelledImages(pixels, labels, names, _source(folder, labels))


def _source(folder: Path, labels: np.ndarray) -> str:
    return f"{folder.name} ({len(labels):,} images)"


def _read_all(files: list[Path], crop_size: int, crop_fraction: float) -> np.ndarray:
    """Decode images; where some are damaged, name them together, not one at each try."""
    pixels = np.empty((len(files), crop_size, crop_size, 3), np.uint8)
    damaged = []
    for i, path in enumerate(files):
        try:
            pixels[i] = read_image(path, crop_size, crop_fraction)
        except IntegrityError as error:
            damaged.append(error)
    if len(damaged) > 1:
        words = " ".join(str(error) for error in damaged[:NAMED])
        raise IntegrityError(
            f"{len(damaged)} of {len(files):,} images are damaged. {words}{' …' if len(damaged) > NAMED else ''}"
        )
    if damaged:
        raise damaged[0]
    return pixels


def subfolders(folder: Path) -> list[str]:
    """Return the names of a folder's folders, sorted, but for hidden ones and those that systems make (`OTHERS`)."""
    folders = [p.name for p in folder.iterdir() if p.is_dir()]
    return sorted(name for name in folders if not name.startswith(".") and name not in OTHERS)


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if _is_image(p))


def _is_image(path: Path) -> bool:
    """Return whether a file is an image by its name, and no other's note on one: Macs keep such as ``._NAME.jpg``."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def unlabelled_images(folder: Path, crop_size: int, limit: int, crop_fraction: float = 1.0) -> np.ndarray:
    """Read up to `limit` images from a folder and its sub-folders, spread evenly over the names.

    Returns:
        ``[n, crop_size, crop_size, 3]`` uint8.

    Raises:
        LocalIOError: no such folder, or no images in it.
        IntegrityError: an image is damaged.
    """
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. Name a folder of images.")
    files = sorted(p for p in folder.rglob("*") if _is_image(p))
    if not files:
        raise LocalIOError(f"{folder}: no images found (looked for {', '.join(SUFFIXES)}).")
    return _read_all([files[i] for i in evenly(len(files), limit)], crop_size, crop_fraction)


def split_holdout(data: LabelledImages, count: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split training images into those trained on and those held out, at random by `seed`.

    Returns:
        The remaining images and the `count` held-out ones.

    Raises:
        RecipeError: nothing would be left to train on.
    """
    if count >= len(data):
        raise RecipeError(
            f"holdout: holding out {count:,} images leaves none of {data.source} to train on. Lower it in the recipe."
        )
    order = philox(seed, "holdout").permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))


class TrainingBatches:
    """Batches of images in memory; batch `step` depends on the recipe and `step` alone.

    Args:
        data: the images to train on.
        recipe: gives order, crop and mirror.
        host, hosts: which part of each batch is wanted: that of this process among all.
        resident: leave images where an engine holds them (`held`), and give out positions only.
    """

    def __init__(
        self, data: LabelledImages, recipe: Recipe, *, host: int = 0, hosts: int = 1, resident: bool = False
    ) -> None:
        pad = recipe.crop_padding
        self.labels, self.recipe, self.resident = data.labels, recipe, resident
        size = recipe.batch_size // hosts
        self.rows = np.arange(host * size, (host + 1) * size)
        self.padded = np.pad(data.pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        self._order = functools.lru_cache(maxsize=2)(
            lambda epoch: philox(recipe.seed, "order", epoch).permutation(len(data))
        )

    def held(self) -> dict[str, np.ndarray]:
        """Return what an engine holds for resident batches: padded ``pixels`` and ``labels``."""
        return {"pixels": self.padded, "labels": self.labels}

    def at(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's part of a step's batch, as `augment.images_of` takes it."""
        recipe, total = self.recipe, len(self.labels)
        positions = step * recipe.batch_size + self.rows
        index = np.array([self._order(int(p // total))[p % total] for p in positions], np.int32)
        from bignas_zoo.recipes.data import augment  # loads Keras, which reading images does without

        drawn = {key: value[self.rows] for key, value in augment.draws(recipe, step).items()}
        batch = {"row": self.rows.astype(np.int32)}
        if self.resident:
            return {**batch, "index": index, **drawn}
        batch["labels"] = self.labels[index]
        if "box" in drawn:
            return {**batch, "pixels": self.padded[index], **drawn}
        return {**batch, "pixels": self._crop(index, drawn)}

    def _crop(self, index: np.ndarray, drawn: dict[str, np.ndarray]) -> np.ndarray:
        """Crop and mirror by whole pixels, as `augment.apply` does on a device."""
        side = np.arange(self.padded.shape[1] - 2 * self.recipe.crop_padding)
        rows, columns = drawn["top"][:, None] + side, drawn["left"][:, None] + side
        columns = np.where(drawn["mirrored"][:, None], columns[:, ::-1], columns)
        return np.asarray(self.padded[index[:, None, None], rows[:, :, None], columns[:, None, :]])


def batches(pixels: np.ndarray, size: int) -> Iterable[np.ndarray]:
    """Cut an array of images into consecutive batches; the last one may be smaller."""
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size]


def is_cifar10(folder: Path) -> bool:
    """Return whether a folder holds CIFAR-10 in one of its forms."""
    return folder.is_dir() and any(any(folder.glob(p)) for p in ("*_batch*.bin", "cifar10_*.npz"))


def read_labelled(
    folder: Path, split: str | None, crop_size: int, class_names: tuple[str, ...], crop_fraction: float = 1.0
) -> LabelledImages:
    """Read labelled images in whichever of the known forms a folder holds.

    Args:
        folder: CIFAR-10 files, or one sub-folder of images a class.
        split: "train" or "test": with class folders, those under ``folder/train`` or ``folder/test``;
            None: CIFAR-10's test files, or the class folders right under `folder`.
        crop_size: side in pixels.
        class_names: the classes in label order; () takes the folder's own.
        crop_fraction: side of the square that is cut, in parts of an image's shorter side.

    Raises:
        LocalIOError: no such folder, or no images in it.
        IntegrityError: a file is damaged, or a sub-folder is no class.
    """
    if not folder.is_dir():
        raise LocalIOError(f"{folder}: no such folder. {LABELLED_HELP}")
    if is_cifar10(folder):
        if class_names not in ((), CIFAR10_CLASSES):
            raise IntegrityError(f"{folder}: holds CIFAR-10, but the model knows other classes.")
        return cifar10(folder, split or "test")
    place = folder / split if split else folder
    return image_folder(place, crop_size, class_names, crop_fraction=crop_fraction)
