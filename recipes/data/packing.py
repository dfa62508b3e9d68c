"""Training images in one file, small enough to travel to a machine that has neither the images nor TensorFlow.

A packed data set is an uncompressed ``.npz`` file of WebP images in the order of the data set it was made of,
already cut to the recipe's crop: what is drawn by seed and position (hold-out, calibration, batches) is the
same. Images of up to `LOSSLESS_SIDE` pixels are stored exactly (CIFAR-10's 50,000: 89.0 MB), larger ones with
losses. The 9,469 training images of Imagenette (JPEG of quality 70 at 176 px, 60.7 MB) take 45.6 MB at quality 75 and
differ from the originals by 3.07 of 255 on average (35.5 dB); at 85 it is 63.4 MB and, on 500 of them, 2.1 of 255.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.recipes.data.images import DAMAGED, LabelledImages, check_archive

SCHEMA = "bignas-zoo/packed/1"
SUFFIX = ".npz"
QUALITY = 75
LOSSLESS_SIDE = 32
ADVICE = "Pack the images again: python -m bignas_zoo.recipes.data.packed RECIPE --data DATA --output FILE.npz"


def is_packed(data: str | Path) -> bool:
    """Return whether a place names a packed data set: one file that ends in ``.npz``."""
    text = str(data)
    return text.endswith(SUFFIX) and not any(c in text for c in "*?[") and not Path(text).is_dir()


def pack(images: LabelledImages, quality: int = QUALITY) -> bytes:
    """Return a packed data set.

    Args:
        images: at least one.
        quality: of WebP, 0 to 100; without effect up to `LOSSLESS_SIDE` pixels, which are stored exactly.
    """
    exact = images.pixels.shape[1] <= LOSSLESS_SIDE

    def encode(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=exact, quality=100 if exact else quality, method=4)
        return buffer.getvalue()

    with ThreadPoolExecutor() as pool:  # Pillow encodes without the interpreter's lock
        encoded = list(pool.map(encode, images.pixels))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        schema=np.array(SCHEMA),
        source=np.array(f"{images.source}, packed as WebP {'without losses' if exact else f'of quality {quality}'}"),
        class_names=np.array(images.class_names),
        labels=images.labels.astype(np.int32),
        offsets=np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        webp=np.frombuffer(b"".join(encoded), np.uint8),
    )
    return buffer.getvalue()


def read_packed(path: Path) -> LabelledImages:
    """Read a packed data set.

    Returns:
        The images in the order in which they were packed.

    Raises:
        LocalIOError: no such file.
        IntegrityError: it is damaged, or no packed data set.
    """
    fields = _fields(path, ("source", "class_names", "labels", "offsets", "webp"))
    try:
        labels, offsets, names = fields["labels"], fields["offsets"], tuple(map(str, fields["class_names"]))
        if not len(labels) or not np.isin(labels, range(len(names))).all() or len(offsets) != len(labels) + 1:
            raise ValueError("labels, classes and images do not fit together")
        encoded = fields["webp"].tobytes()

        def decode(place: int) -> np.ndarray:
            with Image.open(io.BytesIO(encoded[offsets[place] : offsets[place + 1]]), formats=("WEBP",)) as image:
                return np.asarray(image.convert("RGB"))

        first = decode(0)
        pixels = np.empty((len(labels), *first.shape), np.uint8)

        def place_image(place: int) -> None:
            pixels[place] = decode(place)

        with ThreadPoolExecutor() as pool:
            list(pool.map(place_image, range(len(labels))))
    except DAMAGED as error:
        raise IntegrityError(f"{path}: damaged packed data set ({error}). {ADVICE}") from error
    return LabelledImages(pixels, labels.astype(np.int32), names, str(fields["source"]))


def packed_class_names(path: Path) -> tuple[str, ...]:
    """Return the class names of a packed data set; raises as `read_packed` does."""
    return tuple(map(str, _fields(path, ("class_names",))["class_names"]))


def packed_source(path: Path) -> str:
    """Return what a packed data set was made of; raises as `read_packed` does."""
    return str(_fields(path, ("source",))["source"])


def _fields(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read some arrays of a packed data set; the format holds a checksum of each."""
    if not path.is_file():
        raise LocalIOError(f"{path}: no such file. {ADVICE}")
    try:
        check_archive(path, path.stat().st_size)  # it is not compressed
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["schema"]) != SCHEMA:
                raise ValueError(f"schema is {str(file['schema'])[:60]!r}, not {SCHEMA!r}")
            return {name: file[name] for name in names}
    except (*DAMAGED, AttributeError, TypeError) as error:  # one bare array has no entries
        raise IntegrityError(f"{path}: damaged, or no packed data set ({error}). {ADVICE}") from error
