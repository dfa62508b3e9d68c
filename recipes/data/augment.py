"""Random crops and mirrors, drawn on the host and applied inside the step.

What is drawn for a step depends on the recipe and the step alone; `apply` is the same on every
backend. So images that fit in a device's memory can stay there as uint8, and a batch is a few
numbers an image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bignas_zoo.models.backend import ops
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.randomness import philox
from bignas_zoo.recipes.recipe import Recipe

Tensor = Any
ASPECTS = (3 / 4, 4 / 3)  # Szegedy et al. 2015, section 6


def draws(recipe: Recipe, step: int) -> dict[str, np.ndarray]:
    """Draw how each image of a step is cropped and mirrored.

    Args:
        recipe: gives batch size, crop and flip.
        step: 0-based.

    Returns:
        One entry an image: ``top`` and ``left`` int32 pixels into the padded image, ``mirrored`` int32
        0 or 1; with a random area also ``box``, ``[batch, 4]`` float32: top, left, height and width as
        parts of the image's side.
    """
    generator = philox(recipe.seed, "augment", step)
    top, left = generator.integers(0, 2 * recipe.crop_padding + 1, (2, recipe.batch_size)).astype(np.int32)
    mirrored = generator.random(recipe.batch_size) < (0.5 if recipe.flip else 0.0)
    drawn = {"top": top, "left": left, "mirrored": mirrored.astype(np.int32)}
    if recipe.crop_area < 1:
        drawn["box"] = _boxes(generator, recipe)
    return drawn


def _boxes(generator: np.random.Generator, recipe: Recipe) -> np.ndarray:
    area = generator.uniform(recipe.crop_area, 1, recipe.batch_size)
    aspect = np.exp(generator.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1]), recipe.batch_size))
    sides = np.minimum(np.sqrt([area / aspect, area * aspect]), 1)
    corner = generator.random((2, recipe.batch_size)) * (1 - sides)
    return np.concatenate([corner, sides]).T.astype(np.float32)


def apply(pixels: Tensor, drawn: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    """Crop and mirror a batch.

    Args:
        pixels: ``[batch, side, side, 3]`` uint8, padded by the recipe's `crop_padding`.
        drawn: see `draws`.
        recipe: gives padding and crop size.

    Returns:
        Cropped by whole pixels: ``[batch, unpadded side, unpadded side, 3]`` uint8; resampled:
        ``[batch, crop_size, crop_size, 3]`` float32.
    """
    images = _crop(pixels, drawn["top"], drawn["left"], pixels.shape[1] - 2 * recipe.crop_padding)
    if "box" in drawn:
        images = _resample(images, drawn["box"], recipe.crop_size)
    mirrored = ops.cast(drawn["mirrored"], "bool")[:, None, None, None]
    return ops.where(mirrored, ops.flip(images, axis=2), images)


def images_of(
    recipe: Recipe, preprocess: Preprocess, batch: Mapping[str, Tensor], resident: Mapping[str, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return a batch's normalised images and its labels.

    Args:
        recipe: gives the crop.
        preprocess: the input contract.
        batch: ``pixels`` and ``labels``, or ``index`` into `resident`; with what `draws` drew, unless the
            pixels are cropped already; and ``row``, the global index of each image.
        resident: all padded images and their labels, in the device's memory.

    Returns:
        ``[batch, crop, crop, 3]`` float32 and ``[batch]`` int32.
    """
    if resident is None:
        pixels, labels = batch["pixels"], batch["labels"]
    else:
        pixels, labels = (ops.take(resident[key], batch["index"], axis=0) for key in ("pixels", "labels"))
    if "mirrored" in batch:
        pixels = apply(pixels, batch, recipe)
    return preprocess.normalise(pixels), labels


def _crop(pixels: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    if pixels.shape[1] == side:
        return pixels
    rows = top[:, None] + ops.arange(side, dtype="int32")
    columns = left[:, None] + ops.arange(side, dtype="int32")
    pixels = ops.take_along_axis(pixels, rows[:, :, None, None], axis=1)
    return ops.take_along_axis(pixels, columns[:, None, :, None], axis=2)


def _resample(images: Tensor, box: Tensor, side: int) -> Tensor:
    """Resample each image's box to a square, linearly, by one small matrix an axis."""
    rows = _weights(box[:, 0], box[:, 2], images.shape[1], side)
    columns = _weights(box[:, 1], box[:, 3], images.shape[2], side)
    high = ops.einsum("bij,bjkc->bikc", rows, ops.cast(images, "float32"))
    return ops.einsum("blk,bikc->bilc", columns, high)


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """Return ``[batch, side, size]`` weights of a triangle filter, widened where the box shrinks."""
    centres = (start[:, None] + (ops.arange(side, dtype="float32") + 0.5) / side * length[:, None]) * size - 0.5
    reach = ops.maximum(length * size / side, 1.0)[:, None, None]
    distance = ops.abs(centres[:, :, None] - ops.arange(size, dtype="float32")) / reach
    weights = ops.maximum(1 - distance, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)
