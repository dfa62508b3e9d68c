"""`slice_and_calibrate`: any child of a family's space, with batch norms of one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError
from bignas_zoo.tasks.cutting import supernet_weights
from bignas_zoo.zoo import registry

if TYPE_CHECKING:
    import keras
    import numpy as np


def slice_and_calibrate(
    family: str | Path, spec: ChildSpec, images: np.ndarray | str | Path, *, limit: int = 2_000
) -> keras.Model:
    """Cut any child of a family's space and calibrate its batch norms on one's own images.

    Args:
        family: name or folder of a family with weights.
        spec: any point of its space, e.g. ``get_space("bignas-cifar10").spec(...)``.
        images: ``[n, crop, crop, 3]`` pixel values 0 to 255 (RGB; crop as the family says), or a
            folder of images. At least 64; training images, not those accuracy is reported on.
        limit: how many images of a folder to use.

    Returns:
        The calibrated child: normalised images to logits.

    Raises:
        UsageError: the spec is of another space, or the images are too few or misshapen.
        NotFoundError: no such family, or it has no weights.
        LocalIOError, IntegrityError: images or weights cannot be read or are damaged.
    """
    import numpy as np

    from bignas_zoo.models.calibration import calibrate
    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.models.slicing import slice_weights
    from bignas_zoo.recipes.data import batches, unlabelled_images

    home = registry.get_family(family)
    space, _ = home.supernet("slice_and_calibrate")
    if spec.space != space:
        raise UsageError(f"spec: is of space '{spec.space.name}', but family '{home.name}' has space '{space.name}'.")
    supernet = supernet_weights(home, "slice_and_calibrate")
    preprocess = Preprocess.from_json(home.preprocess)
    side = preprocess.crop_size
    if isinstance(images, str | Path):
        images = unlabelled_images(Path(images), side, limit, preprocess.crop_fraction)
    pixels = np.asarray(images)
    if pixels.shape[1:] != (side, side, 3):
        raise UsageError(f"images: need shape [n, {side}, {side}, 3], got {list(pixels.shape)}.")
    child = build_child(spec)
    set_weights(child, spec, slice_weights(supernet, spec), calibrated=False)
    calibrate(child, (np.asarray(preprocess.inputs(b, spec.resolution)) for b in batches(pixels, 250)))
    return child
