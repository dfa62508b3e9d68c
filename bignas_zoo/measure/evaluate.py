"""Accuracy of many children of one supernet, through one compiled graph a resolution.

A child is given to the graph as a choice vector, so nothing is traced again for the next one. Its
batch norms are calibrated on all calibration images at once (population moments, exactly those of
`models.calibration`), then it classifies images the calibration has not seen.

Reference: BigNAS (arXiv 2003.11142) section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bignas_zoo.models.elastic import Execution, Moments
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.supernet import Choice, forward
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.space import ChildSpec, SearchSpace

BATCH = 500


class Evaluator:
    """Accuracies of children with fixed weights.

    Args:
        space: the search space.
        weights: the supernet's, name to array.
        preprocess: the input contract.
        calibration: ``[n, crop, crop, 3]`` uint8 training images; all of them form one batch.
    """

    def __init__(
        self,
        space: SearchSpace,
        weights: dict[str, np.ndarray],
        preprocess: Preprocess,
        calibration: np.ndarray,
    ) -> None:
        self.space, self.preprocess = space, preprocess
        self.weights = {name: tf.constant(value, tf.float32) for name, value in weights.items()}
        self.calibration = calibration
        self._graphs: dict[int, tuple[Any, Callable[..., Any], Callable[..., Any]]] = {}

    def top1(self, spec: ChildSpec, images: LabelledImages) -> float:
        """Return the child's top-1 accuracy on labelled images, in percent."""
        prepared, calibrate, classify = self._graph(spec.resolution)
        choice = tf.constant(Choice.of(spec).vector())
        moments = calibrate(prepared, choice)
        right = 0
        for start in range(0, len(images), BATCH):
            part = images.take(slice(start, start + BATCH))
            x = self.preprocess.inputs(part.pixels, spec.resolution)
            right += int(np.sum(classify(x, choice, moments).numpy() == part.labels))
        return 100.0 * right / len(images)

    def _graph(self, resolution: int) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
        if resolution not in self._graphs:
            self._graphs[resolution] = (
                self.preprocess.inputs(self.calibration, resolution),
                self._calibrate(),
                self._classify(),
            )
        return self._graphs[resolution]

    def _calibrate(self) -> Callable[..., Any]:
        @tf.function(jit_compile=False, autograph=False, reduce_retracing=True)  # type: ignore[untyped-decorator]
        def run(x: Any, vector: Any) -> Any:
            choice = Choice.from_vector(self.space, vector)
            _, moments = forward(self.space, self.weights, x, choice, how=Execution(branch="where"))
            return {name: (m.mean, m.variance) for name, m in moments.items()}

        return run  # type: ignore[no-any-return]

    def _classify(self) -> Callable[..., Any]:
        @tf.function(jit_compile=False, autograph=False, reduce_retracing=True)  # type: ignore[untyped-decorator]
        def run(x: Any, vector: Any, moments: Any) -> Any:
            given = {name: Moments(*pair) for name, pair in moments.items()}
            choice = Choice.from_vector(self.space, vector)
            logits, _ = forward(self.space, self.weights, x, choice, moments=given, how=Execution(branch="cond"))
            return tf.argmax(logits, -1, output_type=tf.int32)

        return run  # type: ignore[no-any-return]


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
    classify = tf.function(
        lambda x: tf.argmax(child(x, training=False), -1, output_type=tf.int32),
        jit_compile=False,
        autograph=False,
        reduce_retracing=True,
    )
    right = 0
    for start in range(0, len(images), BATCH):
        part = images.take(slice(start, start + BATCH))
        predicted = classify(preprocess.inputs(part.pixels, resolution)).numpy()
        right += int(np.sum(predicted == part.labels))
        report(min(start + BATCH, len(images)), len(images))
    return 100.0 * right / len(images)
