"""What an exported file must pass before it gets its final name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bignas_zoo.errors import QualityError
from bignas_zoo.export.parity import Parity, compare, run_tflite
from bignas_zoo.files.formats import AGREEMENT_WITHOUT_LABELS
from bignas_zoo.models.weighted import WeightedNetwork

if TYPE_CHECKING:
    import keras

#: Largest difference of a logit, as part of the largest logit, by precision. Half precision keeps 11 bits of each
#: weight, which ten layers turn into about a thousandth.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2}
#: Part of the images whose first class must be the child's.
AGREEMENTS = {"float32": 0.99, "float16": 0.99}
#: Points of top-1 accuracy that quantising may cost.
LOSS = 1.0
#: Images that an accuracy needs to say anything about a point.
LEAST_LABELLED = 200
#: Images that the child is sure of, at least, if they are to speak for the others; and normal deviations of chance.
LEAST_SURE, SURE_AGREEMENT, DEVIATIONS = 10, 0.95, 1.645


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of a child and of its file on the same images.

    Attributes:
        float_top1: of the Keras child, in percent.
        top1: of the file.
        images: how many.
        source: which ones.
    """

    float_top1: float
    top1: float
    images: int
    source: str

    @property
    def loss(self) -> float:
        """Points lost."""
        return self.float_top1 - self.top1

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {**asdict(self), "loss": round(self.loss, 4)}


def check_tflite(child: keras.Model | WeightedNetwork, data: bytes | Path, images: np.ndarray, inputs: str) -> Parity:
    """Run a TFLite file and its child on the same images and compare.

    Args:
        child: the Keras child the file was made from; or its network and weights, computed by numpy.
        data: the file's bytes, or its path.
        images: ``[n, size, size, 3]`` float32, normalised.
        inputs: what the images are, for the report.

    Returns:
        The report.

    Raises:
        QualityError: the difference is over 1e-4 of the largest logit, or not a number.
        IntegrityError: the file cannot be loaded.
    """
    from ai_edge_litert import __version__ as version

    logits = _logits(child, images)
    report = compare(logits, run_tflite(data, images), inputs=inputs, runtime=f"ai-edge-litert {version}")
    check("float32", report)
    return report


def _logits(child: Any, images: np.ndarray) -> np.ndarray:
    if isinstance(child, WeightedNetwork):
        return child.logits(images)
    return np.asarray(child(images, training=False))


def check(precision: str, parity: Parity, accuracy: Accuracy | None = None, *, noise: bool = False) -> None:
    """Hold a file against the gates of its precision.

    float32 may differ by 1e-4 of the largest logit, float16 by 1e-2, both with 99 % of first classes equal. Files
    with int8 weights or activations may lose one point of accuracy; where fewer than 200 labelled images are given,
    90 % of first classes must be equal, or 95 % of those that the child is sure of (see `parity.SURE`), chance allowed
    for: with 1,000 classes the others change without any loss. On noise the logits of float files alone are compared: a
    network is so unsure of it that first classes change within what logits may differ by.

    Args:
        precision: "float32", "float16", "dynamic" or "int8".
        parity: on real images, where there are some.
        accuracy: on labelled images.
        noise: whether `parity` is on random inputs.

    Raises:
        QualityError: a gate is missed, or a score is not a number; the message has figure and gate.
    """
    scores = parity.score_max_abs, parity.score_mean_abs
    if not np.isfinite(scores).all():
        raise QualityError(f"{precision} export: scores are not numbers.")
    if precision in TOLERANCES:
        allowed = TOLERANCES[precision] * parity.max_logit
        largest = np.nan if parity.max_abs is None else parity.max_abs
        if not largest <= allowed:
            raise QualityError(
                f"{precision} export: log-probabilities differ from the network's by up to {largest:.2e} "
                f"(allowed {allowed:.2e}) on {parity.images} {parity.inputs}."
            )
        if not noise:
            _check_agreement(precision, parity, AGREEMENTS[precision])
        return
    if accuracy is None or accuracy.images < LEAST_LABELLED:
        if not _sure_ones_agree(parity):
            _check_agreement(precision, parity, AGREEMENT_WITHOUT_LABELS)
    elif accuracy.loss > LOSS:
        raise QualityError(
            f"{precision} export: top-1 falls from {accuracy.float_top1:.2f} to {accuracy.top1:.2f} % on "
            f"{accuracy.images:,} {accuracy.source} (allowed loss {LOSS} points). Give more or "
            "more typical training images with --images, or take --precision float16."
        )


def _sure_ones_agree(parity: Parity) -> bool:
    """Return whether the images that the child is sure of agree well enough, by the upper end of Wilson's interval."""
    n, share = parity.sure_images, parity.sure_agreement
    if share is None or n < LEAST_SURE:
        return False
    z2 = DEVIATIONS**2
    spread = DEVIATIONS * (share * (1 - share) / n + z2 / (4 * n**2)) ** 0.5
    return bool((share + z2 / (2 * n) + spread) / (1 + z2 / n) >= SURE_AGREEMENT)


def _check_agreement(precision: str, parity: Parity, least: float) -> None:
    if parity.top1_agreement < least:
        raise QualityError(
            f"{precision} export: only {parity.top1_agreement:.1%} of {parity.images} {parity.inputs} get the "
            f"network's first class (at least {least:.0%} must)."
        )
