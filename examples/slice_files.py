"""What both Python examples share: a slice folder's description, images as its contract asks, the command line.

Needs numpy and Pillow; copy it beside `litert_classify.py` or `onnxruntime_classify.py` to use them elsewhere.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

#: From pixel values ``[resolution, resolution, 3]`` (float32, 0 to 255) to one score a class.
Classify = Callable[[np.ndarray], np.ndarray]
BICUBIC = Image.Resampling.BICUBIC
UNREADABLE = (
    Image.UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    SyntaxError,
    ValueError,
)


class UserError(Exception):
    """Something the user can mend; `exit_code` is the command's, with the same meaning as bignas-zoo's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


USAGE, DAMAGED, UNREACHABLE = 2, 4, 7


@dataclass(frozen=True)
class SliceFiles:
    """What slice.json and labels.txt of a slice folder say.

    Attributes:
        resolution: side of the network's input in pixels.
        crop_size: side of the square crop that is resized to it.
        crop_fraction: side of the square that is cut, in parts of an image's shorter side.
        mean, std: float32 ``[3]``, in units of pixel values 0 to 255.
        labels: a name for each score, in order.
    """

    resolution: int
    crop_size: int
    crop_fraction: float
    mean: np.ndarray
    std: np.ndarray
    labels: list[str]

    @staticmethod
    def read(folder: Path) -> SliceFiles:
        """Read a folder made by `bignas-zoo get` or `bignas-zoo finetune`."""
        try:
            data = json.loads(read_bytes(folder / "slice.json"))
            contract = data["preprocess"]
            mean, std = (np.array(contract[k], np.float32).reshape(3) for k in ("mean", "std"))
            resolution, crop_size = int(data["resolution"]), int(contract["crop_size"])
            fraction = float(contract.get("crop_fraction", 1))
            if not 0 < fraction <= 1:
                raise ValueError("crop_fraction must be above zero and at most one")
            if not (std > 0).all() or min(resolution, crop_size) < 1:
                raise ValueError("std, resolution and crop_size must be above zero")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / 'slice.json'}: not a slice's description ({type(error).__name__}: {error}). "
                "Make the folder again with `bignas-zoo get`.",
                DAMAGED,
            ) from error
        labels = read_bytes(folder / "labels.txt").decode("utf-8", "replace").splitlines()
        return SliceFiles(resolution, crop_size, fraction, mean, std, labels)

    def pixels(self, path: Path) -> np.ndarray:
        """Decode an image file and bring it to the network's size.

        It is turned upright as its EXIF data say, the shorter side becomes `crop_size` pixels, the longer one is cut
        evenly, the square is resized to `resolution`; both times bicubically with antialiasing, as Pillow does it.
        With a `crop_fraction` below one the central square of that part of the shorter side is cut and resized at once.

        Returns:
            ``[resolution, resolution, 3]`` float32, RGB, some 0 to 255 (bicubic filters overshoot a little).
        """
        rgb, crop = _open(path), self.crop_size
        if self.crop_fraction < 1:
            side = self.crop_fraction * min(rgb.size)
            left, top = ((length - side) / 2 for length in rgb.size)
            rgb = rgb.resize((crop, crop), BICUBIC, box=(left, top, left + side, top + side))
        scale = crop / min(rgb.size)
        if scale != 1:
            rgb = rgb.resize((max(crop, round(rgb.width * scale)), max(crop, round(rgb.height * scale))), BICUBIC)
        left, top = (rgb.width - crop) // 2, (rgb.height - crop) // 2
        square = np.asarray(rgb.crop((left, top, left + crop, top + crop)), np.float32)
        if crop == self.resolution:
            return square
        # In float, channel by channel: on whole numbers Pillow would round the result.
        size = (self.resolution, self.resolution)
        channels = [Image.fromarray(square[..., c].copy()).resize(size, BICUBIC) for c in range(3)]
        return np.stack([np.asarray(c, np.float32) for c in channels], axis=-1)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Return ``(pixels - mean) / std``, channel by channel."""
        return (pixels - self.mean) / self.std

    def check(self, model: Path, size: tuple[int, ...], classes: int) -> None:
        """Refuse a model that is not this slice's: other height and width, or another number of scores."""
        if size != (self.resolution, self.resolution) or classes != len(self.labels):
            raise UserError(
                f"{model}: takes {' x '.join(map(str, size))} px and gives {classes} scores, but the folder's slice "
                f"takes {self.resolution} x {self.resolution} px and has {len(self.labels)} labels. "
                "Give the model that was exported from this slice.",
                DAMAGED,
            )


def takes_pixels(model: Path) -> bool:
    """Return whether a file normalises pixel values 0 to 255 itself; bignas-zoo puts it into the file's name."""
    return "-pixels" in model.stem


def read_bytes(path: Path) -> bytes:
    """Read a file, or say why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).", UNREACHABLE) from error


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _upright(image).convert("RGB")
    except UNREADABLE as error:
        raise UserError(f"{path}: not a readable image ({error}).", DAMAGED) from error
    except OSError as error:
        if error.strerror is None:  # Pillow's own words for a truncated file
            raise UserError(f"{path}: damaged image ({error}).", DAMAGED) from error
        raise UserError(f"{path}: cannot be read ({error.strerror}).", UNREACHABLE) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return image  # EXIF data that cannot be read


def main(load: Callable[[Path, SliceFiles], Classify], suffix: str, about: str) -> int:
    """Read the command line, classify, print; return the exit code.

    Args:
        load: from a model file and its slice to what classifies.
        suffix: of the runtime's files: ".tflite" or ".onnx".
        about: one line for --help.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("folder", type=Path, help="slice folder, made by `bignas-zoo get`")
    parser.add_argument("images", type=Path, nargs="+", metavar="image", help="PNG, JPEG, WebP or BMP")
    parser.add_argument("--model", type=Path, help=f"another {suffix} file of the slice; default: the folder's")
    parser.add_argument("--top", type=int, default=3, help="labels to print for each image (default 3)")
    parser.add_argument("--json", action="store_true", help="print all labels and scores as one JSON object")
    given = parser.parse_args()
    try:
        if given.top < 1:
            raise UserError(f"--top is {given.top}; give 1 or more.", USAGE)
        files = SliceFiles.read(given.folder)
        classify = load(given.model or _find(given.folder, suffix), files)
        found, code = {}, 0
        for path in given.images:
            try:
                scores = classify(files.pixels(path))
            except UserError as error:  # the other images are good
                print(f"Error: {error}", file=sys.stderr)
                code = error.exit_code
                continue
            order = np.argsort(-scores, kind="stable")
            found[str(path)] = [(files.labels[i], float(scores[i])) for i in order]
        _print(found, given)
        return code
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"Error: {error}. Install what the first lines of this example name.", file=sys.stderr)
        return 1


def _find(folder: Path, suffix: str) -> Path:
    """Return the folder's model: the plain one, or else the first by name."""
    plain = folder / f"model{suffix}"
    for path in (plain, *sorted(folder.glob(f"model*{suffix}"))):
        if path.is_file():
            return path
    raise UserError(
        f"{plain}: no such file. Make it with `bignas-zoo export {folder} --format {suffix[1:]}`.", UNREACHABLE
    )


def _print(found: dict[str, Any], given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(found))
        return
    for name, ranked in found.items():
        top = ", ".join(f"{label} {100 * score:.1f} %" for label, score in ranked[: given.top])
        print(f"{name}: {top}")
