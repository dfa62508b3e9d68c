"""`slice_and_calibrate`: any child of a family's space, with batch norms of one's own images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError
from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.tasks.cutting import supernet_weights
from bignas_zoo.zoo import registry
from bignas_zoo.zoo.family import Family

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bignas_zoo.models.weighted import WeightedNetwork

#: Images that are normalised at once.
BATCH = 250


def slice_and_calibrate(
    family: str | Path, spec: ChildSpec, images: np.ndarray | str | Path, *, limit: int = 2_000
) -> keras.Model:
    """Cut any child of a family's space and calibrate its batch norms on one's own images; by Keras.

    Args:
        family: name or folder of a family with weights.
        spec: any point of its space, e.g. ``get_space("bignas-cifar10").spec(...)``.
        images: ``[n, crop, crop, 3]`` pixel values 0 to 255 (RGB; crop as the family says), or a
            folder of images. At least 64; training images, not those accuracy is reported on.
        limit: how many images of a folder to use.

    Returns:
        The calibrated child: normalised images to logits.

    Raises:
        UsageError: the spec is of another space, the images are too few or misshapen, or Keras is not installed.
        NotFoundError: no such family, or it has no weights.
        LocalIOError, IntegrityError: images or weights cannot be read or are damaged.
    """
    need_keras("slice_and_calibrate")
    weights, batches = _uncalibrated(family, spec, images, limit, "slice_and_calibrate")
    from bignas_zoo.models.calibration import calibrate
    from bignas_zoo.models.child import build_child, set_weights

    child = build_child(spec)
    set_weights(child, spec, weights, calibrated=False)
    calibrate(child, batches, variance=spec.bn_variance)
    return child


def cut_and_calibrate(
    family: Family | str | Path, spec: ChildSpec, images: np.ndarray | str | Path, *, limit: int = 2_000
) -> WeightedNetwork:
    """Do the same without Keras, by numpy: the result is what `to_tflite` and `to_onnx` take as well.

    Args:
        family, spec, images, limit: see `slice_and_calibrate`.

    Returns:
        The child with its calibrated weights; its statistics are those that Keras finds, to 1e-5 of the largest.

    Raises:
        UsageError, NotFoundError, LocalIOError, IntegrityError: see `slice_and_calibrate`.
    """
    weights, batches = _uncalibrated(family, spec, images, limit, "cut_and_calibrate")
    from bignas_zoo.models.numpy_calibration import calibrate_arrays
    from bignas_zoo.models.weighted import WeightedNetwork

    return WeightedNetwork(spec, calibrate_arrays(spec, weights, batches))


def _uncalibrated(
    family: Family | str | Path, spec: ChildSpec, images: np.ndarray | str | Path, limit: int, what: str
) -> tuple[dict[str, np.ndarray], Iterator[np.ndarray]]:
    """Return a child's weights without statistics, and batches of images as it takes them."""
    import numpy as np

    from bignas_zoo.models.preprocess import Preprocess, resize_arrays
    from bignas_zoo.models.slicing import slice_weights
    from bignas_zoo.recipes.data import batches, unlabelled_images

    home = family if isinstance(family, Family) else registry.get_family(family)
    space, _ = home.supernet(what)
    home.check_calibrates(what)
    if spec.space != space:
        raise UsageError(f"spec: is of space '{spec.space.name}', but family '{home.name}' has space '{space.name}'.")
    supernet = supernet_weights(home, what)
    preprocess = Preprocess.from_json(home.preprocess)
    side = preprocess.crop_size
    if isinstance(images, str | Path):
        images = unlabelled_images(Path(images), side, limit, preprocess.crop_fraction)
    pixels = np.asarray(images)
    _check_pixels(pixels, side)
    weights = {name: array.astype(np.float32) for name, array in slice_weights(supernet, spec).items()}
    inputs = (resize_arrays(preprocess.normalise(part), spec.resolution) for part in batches(pixels, BATCH))
    return weights, inputs


def _check_pixels(pixels: np.ndarray, side: int) -> None:
    """Refuse what cannot be pixel values of 0 to 255."""
    if pixels.shape[1:] != (side, side, 3) or pixels.dtype.kind not in "uif":
        raise UsageError(
            f"images: need numbers of shape [n, {side}, {side}, 3], got {pixels.dtype} {list(pixels.shape)}."
        )
    if not len(pixels) or pixels.dtype == "uint8":
        return
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):  # NaN as well
        raise UsageError(f"images: need pixel values of 0 to 255, got {low:g} to {high:g}.")
    if high <= 1 and pixels.dtype.kind == "f":
        raise UsageError(f"images: need pixel values of 0 to 255, got {low:g} to {high:g}: multiply them by 255.")
