"""AutoAugment's ImageNet policy "v0" as TensorFlow operations without hidden random state.

Policy and magnitudes are those of EfficientNet's training code (tensorflow/tpu,
``models/official/efficientnet/autoaugment.py``, `policy_v0`), which BigNAS (arXiv 2003.11142) builds on.
The method is AutoAugment (arXiv 1805.09501); v0 is *not* the ImageNet policy of that paper's table 9, and
its posterize keeps 0 to 4 bits where the paper's keeps 4 to 8.

Every operation maps uint8 ``[height, width, 3]`` to the same shape and agrees with Pillow's operation of that
name. Two of the policy's entries are beyond what their operation is defined for, and what they then did
depended on the TensorFlow of the day. Here "posterize" keeps at least one bit (level 2 asks for none), and
"solarize" with the threshold 256 (level 10) changes nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_zoo.models.tensorflow import tf

Tensor = Any
#: Name, probability, level from 0 to 10.
Step = tuple[str, float, int]

MAX_LEVEL = 10
#: Colour of what a geometric operation moves in from outside the image.
FILL = 128
#: Pixels at level 10, whatever the image's size: at 224 pixels, level 9 moves the whole image out of sight.
#: That is so in the published policy as well.
TRANSLATE = 250.0
ROTATE_DEGREES = 30.0
SHEAR = 0.3
SOLARIZE_ADD = 110

POLICY_V0: tuple[tuple[Step, Step], ...] = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)


def autoaugment(image: Tensor, seed: Tensor) -> Tensor:
    """Apply one of the 25 sub-policies of v0, chosen at random: two operations, each with its probability.

    Args:
        image: ``[height, width, 3]`` uint8, of known static shape.
        seed: ``[2]`` integers; the result depends on image and seed alone.

    Returns:
        The image, changed, of the same shape and type.
    """
    draws = tf.random.stateless_uniform([5], seed, alg="philox")
    which = tf.cast(draws[0] * len(POLICY_V0), tf.int32)
    for i in range(2):
        name, probability, argument = (tf.gather(column[:, i], which) for column in _COLUMNS)
        argument *= tf.where((draws[3 + i] < 0.5) & (name < len(EITHER_SIGN)), -1.0, 1.0)
        # One branch an operation, whatever the level: a graph of 24 branches, not of 100.
        branches = [functools.partial(operation, image, argument) for operation in OPERATIONS.values()]
        unchanged = functools.partial(tf.identity, image)
        branch = tf.where(draws[1 + i] < probability, name, len(branches))
        image = tf.ensure_shape(tf.switch_case(branch, [*branches, unchanged]), image.shape)
    return image


def invert(image: Tensor) -> Tensor:
    """Return the negative."""
    return 255 - image


def posterize(image: Tensor, bits: Tensor) -> Tensor:
    """Keep the `bits` highest bits of each value, 1 to 8."""
    mask = tf.bitwise.left_shift(tf.constant(255, tf.uint8), tf.cast(8 - bits, tf.uint8))
    return tf.bitwise.bitwise_and(image, mask)


def solarize(image: Tensor, threshold: Tensor) -> Tensor:
    """Invert all values from `threshold` (0 to 256) up."""
    values = tf.range(256.0)
    return _look_up(image, tf.where(values < threshold, values, 255 - values))


def solarize_add(image: Tensor, addition: Tensor) -> Tensor:
    """Add `addition` (0 to 110) to all values below 128."""
    values = tf.range(256.0)
    return _look_up(image, tf.where(values < 128, tf.minimum(values + addition, 255), values))


def autocontrast(image: Tensor) -> Tensor:
    """Stretch each channel linearly to the full range; a channel of one value stays."""
    low, high = (tf.cast(f(image, axis=(0, 1)), tf.float64)[:, None] for f in (tf.reduce_min, tf.reduce_max))
    values = tf.range(256, dtype=tf.float64)[None]
    scale = 255.0 / tf.where(high > low, high - low, 1.0)
    # float64 and one product before the sum, as in Pillow: the cut to whole numbers would show any difference.
    stretched = tf.clip_by_value(values * scale + (-low * scale), 0.0, 255.0)
    return _look_up(image, tf.where(high > low, stretched, values))


def equalize(image: Tensor) -> Tensor:
    """Spread the values of each channel so that they are about equally frequent."""
    channel = tf.range(3) * 256
    counts = tf.math.bincount(tf.reshape(tf.cast(image, tf.int32) + channel, [-1]), minlength=768, maxlength=768)
    counts = tf.reshape(counts, [3, 256])
    highest = tf.cast(tf.reduce_max(image, axis=(0, 1)), tf.int32)
    at_highest = tf.gather(counts, highest, axis=1, batch_dims=1)
    # All pixels but those of the highest value, in 255 steps; too few pixels for that leave a channel as it is.
    step = ((tf.reduce_sum(counts, axis=1) - at_highest) // 255)[:, None]
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return _look_up(image, tf.where(step > 0, table, tf.range(256)[None]))


def color(image: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image: factor 0 is grey, 1 the image, more is more colourful."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    # ITU-R 601-2 luma in 16-bit fixed point, Pillow's conversion to "L".
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) // 0x10000
    grey = tf.cast(grey, tf.float32)[..., None]
    blended = grey + factor * (tf.cast(image, tf.float32) - grey)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)


def rotate(image: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counterclockwise about the centre; nearest pixel."""
    height, width = image.shape[:2]
    angle = tf.convert_to_tensor(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = (width - 1) / 2, (height - 1) / 2
    return _affine(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def shear_x(image: Tensor, slope: Tensor) -> Tensor:
    """Shift row `y` by ``-slope * y`` pixels; nearest pixel."""
    return _affine(image, 1.0, slope, 0.0, 0.0, 1.0, 0.0)


def shear_y(image: Tensor, slope: Tensor) -> Tensor:
    """Shift column `x` by ``-slope * x`` pixels; nearest pixel."""
    return _affine(image, 1.0, 0.0, 0.0, slope, 1.0, 0.0)


def translate_y(image: Tensor, pixels: Tensor) -> Tensor:
    """Shift the image up by `pixels`; nearest pixel."""
    return _affine(image, 1.0, 0.0, 0.0, 0.0, 1.0, pixels)


def _look_up(image: Tensor, table: Any) -> Tensor:
    """Replace every value by its entry in a table ``[256]``, or ``[3, 256]``, one a channel."""
    table = tf.cast(table, tf.uint8)
    index = tf.cast(image, tf.int32)
    if table.shape.rank == 2:
        index += tf.range(3) * 256
    return tf.gather(tf.reshape(table, [-1]), index)


def _affine(image: Tensor, *matrix: Any) -> Tensor:
    """Fill output pixel (x, y) from input pixel (a x + b y + c, d x + e y + f), or with `FILL`."""
    transform = tf.stack([tf.cast(value, tf.float32) for value in (*matrix, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=image.shape[:2],
        fill_value=float(FILL),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved[0], image.shape)


#: Name to operation over image and argument; those of either sign stand first.
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_y": translate_y,
    "autocontrast": lambda image, argument: autocontrast(image),
    "color": color,
    "equalize": lambda image, argument: equalize(image),
    "invert": lambda image, argument: invert(image),
    "posterize": posterize,
    "solarize": solarize,
    "solarize_add": solarize_add,
}
#: Operations whose argument is negated half of the time.
EITHER_SIGN = ("rotate", "shear_x", "shear_y", "translate_y")


def argument_of(name: str, level: int) -> float:
    """Return an operation's argument at a level from 0 to 10; 0 for those without one."""
    part = level / MAX_LEVEL
    arguments = {
        "color": part * 1.8 + 0.1,
        "posterize": max(1, int(part * 4)),
        "rotate": part * ROTATE_DEGREES,
        "shear_x": part * SHEAR,
        "shear_y": part * SHEAR,
        "solarize": int(part * 256),
        "solarize_add": int(part * SOLARIZE_ADD),
        "translate_y": part * TRANSLATE,
    }
    return float(arguments.get(name, 0.0))


#: The policy as arrays ``[25, 2]``: index of the operation, probability, argument.
_COLUMNS = (
    np.array([[list(OPERATIONS).index(name) for name, _, _ in pair] for pair in POLICY_V0], np.int32),
    np.array([[probability for _, probability, _ in pair] for pair in POLICY_V0], np.float32),
    np.array([[argument_of(name, level) for name, _, level in pair] for pair in POLICY_V0], np.float32),
)
