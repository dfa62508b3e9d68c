"""A finished training run as a value: what a family is made from, and what a search measures children with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.measure.evaluate import BATCH
from bignas_zoo.models.backend import keras
from bignas_zoo.models.calibration import calibrate
from bignas_zoo.models.child import build_child, set_weights
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.recipes.data import LabelledImages, batches
from bignas_zoo.recipes.data.dataset import TrainingImages
from bignas_zoo.recipes.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """A finished training run: everything a family is made from.

    Attributes:
        recipe: the recipe.
        weights: the supernet's, float16 as they ship.
        calibration: ``[n, crop, crop, 3]`` uint8 training images.
        images: those trained on.
        holdout, test: the other splits.
        metrics: the run's ``metrics.jsonl``.
        notes: what else there is to say about the run, from its ``notes.txt``.
        license, source: of the weights, see `zoo.family.Family`.
        statistics: of children whose batch norms keep those that they were trained with; others are calibrated.
    """

    recipe: Recipe
    weights: dict[str, np.ndarray]
    calibration: np.ndarray
    images: TrainingImages
    holdout: LabelledImages
    test: LabelledImages
    metrics: bytes
    notes: str = ""
    license: str = UNKNOWN
    source: str = ""
    statistics: Mapping[ChildSpec, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def preprocess(self) -> Preprocess:
        """The input contract."""
        return Preprocess(self.recipe.crop_size, self.recipe.mean, self.recipe.std)

    @property
    def rounded(self) -> dict[str, np.ndarray]:
        """The shipped weights as float32: what is calibrated and measured."""
        return {name: value.astype(np.float32) for name, value in self.weights.items()}

    def child(self, spec: ChildSpec) -> keras.Model:
        """Cut and calibrate one child, or give it the statistics that it was trained with."""
        child = build_child(spec)
        if spec in self.statistics:
            set_weights(child, spec, {**slice_weights(self.rounded, spec), **self.statistics[spec]})
            return child
        set_weights(child, spec, slice_weights(self.rounded, spec), calibrated=False)
        inputs = (self.preprocess.inputs(b, spec.resolution) for b in batches(self.calibration, BATCH))
        calibrate(child, (np.asarray(x) for x in inputs), variance=spec.bn_variance)
        return child
