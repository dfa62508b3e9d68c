"""Accuracy of many children of one supernet, without a graph of its own for each.

A child runs block by block through graphs that serve all children (`models.blockwise`). Its batch norms are calibrated
on all calibration images at once (population moments, exactly those of `models.calibration`) or, where their
activations would not fit, on chunks whose moments are averaged; then it classifies images the calibration has not seen.
Where it begins as an earlier child did, both go on from there (`models.prefixes`).

Reference: BigNAS (arXiv 2003.11142) section 3.2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_zoo.architecture.cost import FLOAT32_BYTES
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.errors import UsageError
from bignas_zoo.models.backend import ops
from bignas_zoo.models.blockwise import CutChild, Statistics
from bignas_zoo.models.compiled import compiled
from bignas_zoo.models.prefixes import Prefixes
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data import LabelledImages

BATCH = 500
#: Pixels of a calibration batch: 2,000 images of 32 px, or 64 of 179 px.
CALIBRATION_PIXELS = 2_048_000
LEAST_IMAGES = 64
#: Resized images that are kept between children, over all resolutions; at least those of the last one are.
CACHE_BYTES = 1 << 30
#: Outputs of blocks that are kept for children that begin alike.
PREFIX_BYTES = 512 << 20


class Evaluator:
    """Accuracies of children with fixed weights.

    Args:
        space: the search space.
        weights: the supernet's, name to array.
        preprocess: the input contract.
        calibration: ``[n, crop, crop, 3]`` uint8 training images.
        cache_bytes: bound on resized calibration images kept; with more, those of the resolution that was not wanted
            for longest are made again.
        prefix_bytes: bound on outputs of blocks kept.
    """

    def __init__(
        self,
        space: SearchSpace,
        weights: dict[str, np.ndarray],
        preprocess: Preprocess,
        calibration: np.ndarray,
        cache_bytes: int = CACHE_BYTES,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        self.space, self.preprocess = space, preprocess
        self.weights = {name: np.asarray(value, np.float32) for name, value in weights.items()}
        self.calibration = calibration
        self._cache_bytes = cache_bytes
        self._chunks: dict[int, list[Any]] = {}  # by resolution, the one wanted last at the end
        self._prefixes = Prefixes(prefix_bytes)
        self._images: LabelledImages | None = None

    def top1(self, spec: ChildSpec, images: LabelledImages) -> float:
        """Return the child's top-1 accuracy on labelled images, in percent.

        Raises:
            UsageError: the child is of another space: other activations would compute something else in silence.
        """
        if spec.space != self.space:
            raise UsageError(f"a child of space '{spec.space.name}' cannot be measured with weights of another space.")
        if images is not self._images:  # batches are named by their place
            self._prefixes.forget()
            self._images = images
        child = CutChild(spec, self.weights, self._prefixes)
        statistics = self._statistics(child, spec.resolution)
        right, batch = 0, batch_for(spec.resolution)
        for start in range(0, len(images), batch):
            part = images.take(slice(start, start + batch))
            resized = functools.partial(self.preprocess.inputs, part.pixels, spec.resolution)
            logits = child.logits(resized, statistics, start)
            right += int(np.sum(np.argmax(ops.convert_to_numpy(logits), -1) == part.labels))
        return 100.0 * right / len(images)

    def _statistics(self, child: CutChild, resolution: int) -> Statistics:
        by_chunk = [child.moments(chunk, i) for i, chunk in enumerate(self._inputs(resolution))]
        return by_chunk[0] if len(by_chunk) == 1 else _average(by_chunk)

    def _inputs(self, resolution: int) -> list[Any]:
        """Return the calibration images at a resolution, in chunks of one size, none smaller than the least."""
        chunks = self._chunks.pop(resolution, None)
        if chunks is None:
            size = max(LEAST_IMAGES, CALIBRATION_PIXELS // resolution**2)
            whole = max(1, len(self.calibration) // size)
            room = self._cache_bytes // (FLOAT32_BYTES * 3 * len(self.calibration)) - resolution**2
            while self._chunks and sum(r**2 for r in self._chunks) > room:
                del self._chunks[next(iter(self._chunks))]
            chunks = [self.preprocess.inputs(part, resolution) for part in np.array_split(self.calibration, whole)]
        self._chunks[resolution] = chunks
        return chunks


def batch_for(resolution: int) -> int:
    """Return how many images of a size are classified at once, so that their activations fit."""
    return int(max(25, min(BATCH, CALIBRATION_PIXELS // resolution**2)))


def _average(chunks: list[Statistics]) -> Statistics:
    """Merge the moments of equal chunks: the mean of means; variances with what the means differ by."""
    merged: Statistics = {}
    for name in chunks[0]:
        means, variances = (
            np.stack([np.asarray(ops.convert_to_numpy(part[name][i]), np.float64) for part in chunks]) for i in (0, 1)
        )
        variance = variances.mean(0) + means.var(0)
        merged[name] = (means.mean(0).astype(np.float32), variance.astype(np.float32))
    return merged


def child_top1(
    child: Any,
    resolution: int,
    preprocess: Preprocess,
    images: LabelledImages,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Return the top-1 accuracy of a plain, calibrated child, in percent.

    Args:
        child: Keras model from normalised images to logits.
        resolution: its input size in pixels.
        preprocess: the input contract.
        images: labelled images of the contract's crop size.
        report: told images done and in all.
    """
    classify = compiled(lambda x: ops.argmax(child(x, training=False), -1))
    right, batch = 0, batch_for(resolution)
    for start in range(0, len(images), batch):
        part = images.take(slice(start, start + batch))
        predicted = np.asarray(classify(preprocess.inputs(part.pixels, resolution)))
        right += int(np.sum(predicted == part.labels))
        report(min(start + batch, len(images)), len(images))
    return 100.0 * right / len(images)
