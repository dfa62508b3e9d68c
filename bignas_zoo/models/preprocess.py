"""From image files to the network's input: one definition for every use.

Training, calibration, evaluation, parity checks and the phone all see the same numbers: the central square of an RGB
image (`crop_fraction` of its shorter side) is brought to `crop_size` pixels, resized bicubically (with antialiasing)
to the child's resolution, and normalised channel by channel.

Reference: BigNAS (arXiv 2003.11142) section 3.1 and appendix: one fixed crop, resized bicubically
to every target resolution, at test time as well.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bignas_zoo.errors import IntegrityError, LocalIOError

Tensor = Any
#: What Pillow raises on a file that is no image, or one of unreasonable size.
UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    SyntaxError,
    ValueError,
)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
#: What an image may be, whatever its name says: Pillow would run Ghostscript over an EPS file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


@dataclass(frozen=True)
class Preprocess:
    """The input contract of a family.

    Attributes:
        crop_size: side in pixels of the square crop that every resolution is resized from.
        mean, std: per channel (red, green, blue), in units of pixel values 0 to 255.
        crop_fraction: side of that square in parts of the image's shorter side.
    """

    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_fraction: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the contract as JSON data, with the fixed parts spelled out."""
        data = {**asdict(self), "channels": "RGB", "resize": "bicubic, antialias"}
        if self.crop_fraction == 1:  # as files were written before it was there
            del data["crop_fraction"]
        return data

    @staticmethod
    def from_json(data: Any) -> Preprocess:
        """Rebuild from `to_json` data.

        Raises:
            IntegrityError: a key is missing or has the wrong type.
        """
        try:
            mean, std = (tuple(float(v) for v in data[k]) for k in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
                raise ValueError("mean and std need three values, std above zero")
            fraction = float(data.get("crop_fraction", 1))
            if not 0 < fraction <= 1:
                raise ValueError("crop_fraction must be above 0 and at most 1")
            return Preprocess(int(data["crop_size"]), mean, std, fraction)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"preprocess: not a valid description ({error}).") from error

    @property
    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, ``[3]`` float32 each."""
        return np.array(self.mean, np.float32), np.array(self.std, np.float32)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map pixel values to network input.

        Args:
            pixels: ``[..., 3]``, values 0 to 255, any number type.

        Returns:
            float32 of the same shape, ``(pixels - mean) / std``.
        """
        mean, std = self.vectors
        if isinstance(pixels, np.ndarray):
            return (pixels.astype(np.float32) - mean) / std
        from bignas_zoo.models.backend import ops

        return (ops.cast(pixels, "float32") - mean) / std

    def inputs(self, pixels: Tensor, resolution: int) -> Tensor:
        """Normalise a batch of crops and bring it to a resolution.

        Args:
            pixels: ``[batch, crop_size, crop_size, 3]``, values 0 to 255.
            resolution: target side in pixels.

        Returns:
            ``[batch, resolution, resolution, 3]`` float32.
        """
        return resize(self.normalise(pixels), resolution)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize square float images bicubically with antialiasing; the identity if nothing changes.

    Args:
        images: ``[batch, size, size, 3]`` float32.
        resolution: target side in pixels.

    Returns:
        ``[batch, resolution, resolution, 3]`` float32.
    """
    if images.shape[1] == resolution:
        return images
    from bignas_zoo.models.backend import ops

    return ops.image.resize(images, (resolution, resolution), interpolation="bicubic", antialias=True)


def resize_arrays(images: np.ndarray, resolution: int) -> np.ndarray:
    """Do `resize`'s work without a framework: Pillow's filter is the same, in float32."""
    if images.shape[1] == resolution:
        return images
    side = (resolution, resolution)
    return np.stack(
        [
            np.stack(
                [
                    np.asarray(
                        Image.fromarray(np.ascontiguousarray(image[..., i])).resize(side, Image.Resampling.BICUBIC)
                    )
                    for i in range(image.shape[-1])
                ],
                axis=-1,
            )
            for image in images.astype(np.float32)
        ]
    )


def read_image(path: Path, crop_size: int, crop_fraction: float = 1.0) -> np.ndarray:
    """Decode an image file and cut its centre square.

    It is turned upright as its EXIF data say, its shorter side is resized to `crop_size` (bicubic), the longer one cut
    evenly. With a `crop_fraction` below 1 the central square of that part of the shorter side is resized, at once.

    Args:
        path: PNG, JPEG, WebP or BMP.
        crop_size: side of the result in pixels.
        crop_fraction: side of the square that is cut, in parts of the shorter side.

    Returns:
        ``[crop_size, crop_size, 3]`` uint8, RGB.

    Raises:
        LocalIOError: the file cannot be opened.
        IntegrityError: it is not an image, is damaged, or is unreasonably large.
    """
    return decode_image(path, crop_size, str(path), crop_fraction)


def decode_image(source: Path | BinaryIO, crop_size: int, name: str, crop_fraction: float = 1.0) -> np.ndarray:
    """Do `read_image`'s work for a file or a stream of encoded bytes; `name` is for error messages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                rgb = _rgb(upright(image))
    except UNREADABLE as error:
        raise IntegrityError(f"{name}: not a readable image ({error}). Replace or remove it.") from error
    except OSError as error:
        if error.strerror is None:  # Pillow's own words for a truncated file
            raise IntegrityError(f"{name}: damaged image ({error}). Replace or remove it.") from error
        raise LocalIOError(f"{name}: cannot be read ({error.strerror}).") from error
    if crop_fraction < 1:
        return np.asarray(_central(rgb, crop_size, crop_fraction))
    width, height = rgb.size
    scale = crop_size / min(width, height)
    if scale != 1:
        rgb = rgb.resize(
            (max(crop_size, round(width * scale)), max(crop_size, round(height * scale))),
            Image.Resampling.BICUBIC,
        )
    left, top = (rgb.width - crop_size) // 2, (rgb.height - crop_size) // 2
    return np.asarray(rgb.crop((left, top, left + crop_size, top + crop_size)))


def _central(rgb: Image.Image, crop_size: int, crop_fraction: float) -> Image.Image:
    """Cut and resize in one step; the square's corners need not lie on whole pixels."""
    side = crop_fraction * min(rgb.size)
    left, top = ((length - side) / 2 for length in rgb.size)
    box = (left, top, left + side, top + side)
    return rgb.resize((crop_size, crop_size), Image.Resampling.BICUBIC, box=box)


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB; Pillow itself makes nearly all of a 16-bit grey image white."""
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    grey = np.rint(np.asarray(image) / 257)  # 65,535 to 255
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF data say; phones store most photographs on their side."""
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return image  # EXIF data that cannot be read; pixels that cannot are found by whoever reads them
