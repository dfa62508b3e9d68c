"""Ranges of a network's activations on real images, by percentiles: what every int8 file needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bignas_zoo.errors import UsageError

#: Fewer images than this say too little about the ranges.
LEAST_IMAGES = 64
#: Percent of a tensor's values that lie below the upper end of its range, and above the lower one.
COVER = 99.99
BINS = 8192
#: Normalised pixels are within a few units of zero; whatever goes beyond this was not normalised.
FARTHEST = 32.0
Ranges = dict[str, tuple[float, float]]

#: Gets the name of a tensor and some of its values, ``[...]`` float32.
Tell = Callable[[str, np.ndarray], None]


def check_images(images: np.ndarray, shape: tuple[int, ...], *, pixels: bool = False) -> None:
    """Refuse images that ranges cannot be found on.

    Args:
        images: ``[n, size, size, 3]`` float32.
        shape: of one image, as the file takes it before any change of layout.
        pixels: whether the file takes pixel values, 0 to 255.

    Raises:
        UsageError: too few, of another shape or type, not finite, all of one value, or not normalised.
    """
    if not isinstance(images, np.ndarray) or images.dtype not in (np.float32, np.float64):
        kind = f"an array of {images.dtype}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise UsageError(
            f"int8: images are {kind}; give a float32 array [n, size, size, 3] as the file takes it (normalised, or "
            "pixel values for one that normalises itself)."
        )
    if images.ndim != 4 or images.shape[1:] != shape:
        raise UsageError(
            f"int8: images have the shape {list(images.shape)}; this file takes [n, {', '.join(map(str, shape))}]. "
            "Resize them with the family's preprocess."
        )
    if len(images) < LEAST_IMAGES:
        raise UsageError(
            f"int8: {len(images)} images are too few to find the activations' ranges; give at least {LEAST_IMAGES} "
            "training images with --images."
        )
    if not np.isfinite(images).all():
        raise UsageError("int8: images hold values that are not finite; give real training images.")
    low, high = float(images.min()), float(images.max())
    if low == high:
        raise UsageError(f"int8: all values of the images are {low:g}; give real training images.")
    if not pixels and max(-low, high) > FARTHEST:
        raise UsageError(
            f"int8: the images' values go from {low:g} to {high:g}; this file takes normalised images: "
            "(pixel - mean) / std with the family's preprocess."
        )


def covered_ranges(each_tensor: Callable[[Tell], None], cover: float) -> Ranges:
    """Return the range of each tensor that leaves out ``100 - cover`` percent of its values at each end.

    Two passes: the first finds the ends, the second a histogram between them, so that memory does not grow with
    the number of images.

    Args:
        each_tensor: runs the network on all images and tells of every tensor, batch by batch; called twice.
        cover: percent of the values within a range at either end, 50 to 100; 100 takes them all, in one pass.

    Returns:
        The lower and upper end by tensor name.

    Raises:
        UsageError: no such cover.
    """
    if not 50 < cover <= 100:
        raise UsageError(f"int8: cover must be over 50 and at most 100 percent, got {cover}.")
    ends: Ranges = {}

    def widen(name: str, values: np.ndarray) -> None:
        low, high = ends.get(name, (np.inf, -np.inf))
        ends[name] = (min(low, float(values.min())), max(high, float(values.max())))

    each_tensor(widen)
    if cover == 100:
        return ends
    counts = {name: np.zeros(BINS, np.int64) for name in ends}

    def count(name: str, values: np.ndarray) -> None:
        low, high = ends[name]
        exact = values.astype(np.float64)  # float32 has no 8,192 steps in the range of a tensor that hardly changes
        counts[name] += np.histogram(exact, BINS, (low, high if high > low else low + 1))[0]

    each_tensor(count)
    return {name: _covered(counts[name], *ends[name], cover) for name in ends}


def _covered(counts: np.ndarray, low: float, high: float, cover: float) -> tuple[float, float]:
    """Return the range that leaves out ``100 - cover`` percent of the values at each end."""
    edges = np.linspace(low, high, BINS + 1)
    below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    out = (100 - cover) / 100
    return float(np.interp(out, below, edges)), float(np.interp(1 - out, below, edges))
