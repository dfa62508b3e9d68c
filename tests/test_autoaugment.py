"""AutoAugment v0 against Pillow: every operation, the policy's table, and the whole of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from bignas_zoo.recipes.data import autoaugment as aa


def noise(height: int = 24, width: int = 33, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours with some noise, not over the full range: histograms as of a real image."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [40 + 2 * x, 20 + x + 2 * y, 200 - 2 * y]
    values = np.stack(channels, -1) + np.random.default_rng(1).normal(0, 8, (height, width, 3))
    return np.clip(values, 10, 240).astype(np.uint8)


def flat() -> np.ndarray:
    return np.full((12, 12, 3), 77, np.uint8)


def few() -> np.ndarray:
    """Two values only, in too few pixels for 255 steps."""
    return np.tile(np.array([[9, 200]], np.uint8)[:, :, None], (4, 3, 3))


IMAGES = {"noise": noise(), "photo": photo(), "flat": flat(), "few": few()}


def pil_affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Map output pixel (x, y) to input (a x + b y + c, d x + e y + f): Pillow counts from pixel corners."""
    a, b, c, d, e, f = matrix
    c, f = c + 0.5 - (a + b) / 2, f + 0.5 - (d + e) / 2
    fill = (128, 128, 128)
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.NEAREST, fillcolor=fill
    )


def pil_solarize_add(image: Image.Image, addition: int) -> Image.Image:
    return image.point([min(v + addition, 255) if v < 128 else v for v in range(256)] * 3)


def pil(name: str, image: np.ndarray, level: int, sign: float) -> np.ndarray:
    """Apply an operation by Pillow, with the magnitudes of the published policy."""
    part, picture = level / 10, Image.fromarray(image)
    done = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "color": lambda: ImageEnhance.Color(picture).enhance(part * 1.8 + 0.1),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
        "posterize": lambda: ImageOps.posterize(picture, max(1, int(part * 4))),
        "rotate": lambda: picture.rotate(sign * 30 * part, Image.Resampling.NEAREST, fillcolor=(128, 128, 128)),
        "shear_x": lambda: pil_affine(picture, (1, sign * 0.3 * part, 0, 0, 1, 0)),
        "shear_y": lambda: pil_affine(picture, (1, 0, 0, sign * 0.3 * part, 1, 0)),
        "solarize": lambda: ImageOps.solarize(picture, int(part * 256)),
        "solarize_add": lambda: pil_solarize_add(picture, int(part * 110)),
        "translate_y": lambda: pil_affine(picture, (1, 0, 0, 0, 1, sign * 250 * part)),
    }[name]()
    return np.asarray(done)


def ours(name: str, image: np.ndarray, level: int, sign: float) -> np.ndarray:
    argument = aa.argument_of(name, level) * (sign if name in aa.EITHER_SIGN else 1)
    result: np.ndarray = aa.OPERATIONS[name](tf.constant(image), tf.constant(argument, tf.float32)).numpy()
    return result


POINTWISE = ["autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add"]
GEOMETRIC = ["rotate", "shear_x", "shear_y"]


@pytest.mark.parametrize("which", sorted(IMAGES))
@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_operations_are_pillows(name: str, which: str) -> None:
    for level in range(11):
        result = ours(name, IMAGES[which], level, 1.0)
        np.testing.assert_array_equal(result, pil(name, IMAGES[which], level, 1.0))
        assert (result.dtype, result.shape) == (np.uint8, IMAGES[which].shape)


@pytest.mark.parametrize("which", sorted(IMAGES))
def test_color_is_pillows(which: str) -> None:
    # Both cut a float32 product; one may fuse multiplication and addition: off by one at a whole number.
    for level in range(11):
        expected, result = pil("color", IMAGES[which], level, 1.0), ours("color", IMAGES[which], level, 1.0)
        difference = np.abs(expected.astype(int) - result)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("shape", [(24, 33), (32, 32), (17, 40)])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_are_pillows(name: str, sign: float, shape: tuple[int, int]) -> None:
    # Nearest pixel: only where a source point lies half way between two pixels may the two differ. In a shear
    # that is true of whole rows or columns, which are left out; in a rotation of few pixels.
    image = noise(*shape)
    for level in range(11):
        expected, result = pil(name, image, level, sign), ours(name, image, level, sign)
        different = (expected != result).any(-1)
        if name == "rotate":
            assert different.mean() < 0.01, level
        else:
            along = 0 if name == "shear_x" else 1
            clear = np.abs(0.03 * level * np.arange(shape[along]) % 1 - 0.5) > 1e-3
            assert clear.mean() > 0.7
            assert not different.take(np.flatnonzero(clear), along).any(), level
        assert result.dtype == np.uint8


def test_translation_is_exact_and_fills_with_grey() -> None:
    image = np.arange(300 * 3, dtype=np.uint16).reshape(300, 1, 3).astype(np.uint8)
    up, down = ours("translate_y", image, 4, 1.0), ours("translate_y", image, 4, -1.0)  # 4 of 10 of 250: 100 pixels
    np.testing.assert_array_equal(up[:200], image[100:])
    np.testing.assert_array_equal(down[100:], image[:200])
    assert (up[200:] == 128).all()
    assert (down[:100] == 128).all()


def test_level_nine_moves_a_224_pixel_image_out_of_sight() -> None:
    # 9 of 10 of 250 pixels are 225. The published policy does that, too.
    assert (ours("translate_y", noise(224, 8), 9, 1.0) == 128).all()


def test_geometry_by_hand() -> None:
    image = np.zeros((3, 3, 3), np.uint8)
    image[0, 1] = 255  # top centre
    left = aa.rotate(tf.constant(image), tf.constant(90.0)).numpy()
    assert left[1, 0].tolist() == [255, 255, 255]  # counterclockwise: now at the left
    assert left.sum() == 3 * 255
    sheared = aa.shear_x(tf.constant(image + 1), tf.constant(1.0)).numpy()[:, :, 0]
    # Row y is read y pixels further right; what lies outside is grey.
    assert sheared.tolist() == [[1, 0, 1], [1, 1, 128], [1, 128, 128]]


def test_levels_beyond_their_operation() -> None:
    image = noise()
    np.testing.assert_array_equal(ours("posterize", image, 2, 1.0), image & 0x80)  # level 2 asks for 0.8 bits
    np.testing.assert_array_equal(ours("posterize", image, 6, 1.0), image & 0xC0)  # 2.4 bits
    np.testing.assert_array_equal(ours("solarize", image, 10, 1.0), image)  # nothing reaches 256


#: The policy, typed from tensorflow/tpu's models/official/efficientnet/autoaugment.py, `policy_v0`.
PUBLISHED = """
Equalize 0.8 1 ShearY 0.8 4
Color 0.4 9 Equalize 0.6 3
Color 0.4 1 Rotate 0.6 8
Solarize 0.8 3 Equalize 0.4 7
Solarize 0.4 2 Solarize 0.6 2
Color 0.2 0 Equalize 0.8 8
Equalize 0.4 8 SolarizeAdd 0.8 3
ShearX 0.2 9 Rotate 0.6 8
Color 0.6 1 Equalize 1.0 2
Invert 0.4 9 Rotate 0.6 0
Equalize 1.0 9 ShearY 0.6 3
Color 0.4 7 Equalize 0.6 0
Posterize 0.4 6 AutoContrast 0.4 7
Solarize 0.6 8 Color 0.6 9
Solarize 0.2 4 Rotate 0.8 9
Rotate 1.0 7 TranslateY 0.8 9
ShearX 0.0 0 Solarize 0.8 4
ShearY 0.8 0 Color 0.6 4
Color 1.0 0 Rotate 0.6 2
Equalize 0.8 4 Equalize 0.0 8
Equalize 1.0 4 AutoContrast 0.6 2
ShearY 0.4 7 SolarizeAdd 0.6 7
Posterize 0.8 2 Solarize 0.6 10
Solarize 0.6 8 Equalize 0.6 1
Color 0.8 6 Rotate 0.4 5
"""
NAMES = {
    "AutoContrast": "autocontrast", "Color": "color", "Equalize": "equalize", "Invert": "invert",
    "Posterize": "posterize", "Rotate": "rotate", "ShearX": "shear_x", "ShearY": "shear_y",
    "Solarize": "solarize", "SolarizeAdd": "solarize_add", "TranslateY": "translate_y",
}  # fmt: skip


def test_policy_is_the_published_one() -> None:
    rows = [line.split() for line in PUBLISHED.split("\n") if line]
    steps = [[(NAMES[r[i]], float(r[i + 1]), int(r[i + 2])) for i in (0, 3)] for r in rows]
    assert len(steps) == 25
    assert [list(pair) for pair in aa.POLICY_V0] == steps
    assert set(aa.OPERATIONS) == set(NAMES.values())  # none missing, none unused
    assert tuple(aa.OPERATIONS)[:4] == aa.EITHER_SIGN


def augment_many(image: np.ndarray, count: int, key: int = 3) -> np.ndarray:
    """Augment one image `count` times inside tf.data, with seeds (key, 0), (key, 1) and so on."""
    seeds = tf.data.Dataset.range(count)
    results = seeds.map(lambda i: aa.autoaugment(tf.constant(image), tf.stack([tf.cast(key, tf.int64), i])))
    return np.stack(list(results.as_numpy_iterator()))


@pytest.fixture(scope="module")
def augmented() -> np.ndarray:
    return augment_many(photo(), 400)


def expected_of(image: np.ndarray, draws: np.ndarray) -> tuple[int, np.ndarray]:
    """Apply the published policy by Pillow: [sub-policy, two probabilities, two signs]."""
    which = int(draws[0] * 25)
    row = PUBLISHED.strip().split("\n")[which].split()
    for i in (0, 1):
        name, probability, level = NAMES[row[3 * i]], float(row[3 * i + 1]), int(row[3 * i + 2])
        if draws[1 + i] < probability:
            image = pil(name, image, level, -1.0 if draws[3 + i] < 0.5 else 1.0)
    return which, image


def test_the_whole_policy_is_pillows(augmented: np.ndarray) -> None:
    image, seen, wrong = photo(), Counter[int](), []
    for i, result in enumerate(augmented):
        draws = tf.random.stateless_uniform([5], tf.constant([3, i], tf.int64), alg="philox").numpy()
        which, expected = expected_of(image, draws)
        seen[which] += 1
        different = (np.abs(expected.astype(int) - result) > 1).any(-1).mean()
        if different > 0.02:  # a column half way between two (see above), of 64
            wrong.append((i, which, different))
    assert wrong == []
    assert set(seen) == set(range(25))
    assert max(seen.values()) < 40  # 16 expected of each


def test_the_result_depends_on_the_seed_alone(augmented: np.ndarray) -> None:
    tf.random.set_seed(99)
    np.testing.assert_array_equal(augment_many(photo(), 20), augmented[:20])
    eager = aa.autoaugment(tf.constant(photo()), tf.constant([3, 1])).numpy()
    np.testing.assert_array_equal(eager, augmented[1])
    assert len({a.tobytes() for a in augmented}) > 40
    assert not np.array_equal(augment_many(photo(), 20, key=4), augmented[:20])


def test_shape_stays_known() -> None:
    def check(image: Any) -> Any:
        result = aa.autoaugment(image, tf.constant([0, 1]))
        assert result.shape == (24, 33, 3)
        return result

    dataset = tf.data.Dataset.from_tensors(noise()).map(check)
    assert dataset.element_spec.shape == (24, 33, 3)
    assert dataset.element_spec.dtype == tf.uint8
