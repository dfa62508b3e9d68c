"""Proof that an exported file computes what the Keras child computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import IntegrityError, QualityError
from bignas_zoo.runtime.quiet import quiet_native

#: A child is sure of an image if its first class is so many times as probable as its second. Of others the first class
#: changes by a rounding: among 1,000 classes by that of int8 weights on one image in eight, at no loss of accuracy.
SURE = 2.0


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its Keras child.

    Attributes:
        max_abs: largest absolute difference of the logits. The file returns softmax scores, so both
            sides are compared as log-probabilities, which are the logits less their row's constant. None for int8
            throughout, whose scores are too coarse for a logarithm.
        mean_abs: the mean of the same.
        score_max_abs, score_mean_abs: the same of the scores.
        max_logit: largest absolute logit of the child, the scale of the tolerance.
        top1_agreement: part of the images with the same first class, 0 to 1.
        images: how many were compared.
        inputs: what they were.
        runtime: name and version of the runtime.
        sure_images: of how many of them the child is sure: its first class is at least `SURE` times as probable as its
            second.
        sure_agreement: part of those with the same first class; None without any.
    """

    max_abs: float | None
    mean_abs: float | None
    score_max_abs: float
    score_mean_abs: float
    max_logit: float
    top1_agreement: float
    images: int
    inputs: str
    runtime: str
    sure_images: int = 0
    sure_agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return asdict(self)


def compare(logits: np.ndarray, scores: np.ndarray, *, inputs: str, runtime: str, coarse: bool = False) -> Parity:
    """Compare a child's logits with the scores that its file gives for the same images.

    Args:
        logits: ``[n, classes]``.
        scores: ``[n, classes]``, softmax.
        inputs, runtime: for the report.
        coarse: whether scores are int8, so that only they are compared, and not their logarithms.

    Raises:
        QualityError: the file's scores have another shape than the child's.
    """
    if scores.shape != logits.shape:
        raise QualityError(f"export: the file gives scores {list(scores.shape)}, the Keras model {list(logits.shape)}.")
    expected = logits - _log_sum_exp(logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.abs(np.log(scores.astype(np.float64)) - expected)
    of_scores = np.abs(scores - np.exp(expected))
    same = scores.argmax(-1) == logits.argmax(-1)
    second, first = np.sort(expected, axis=-1)[:, -2:].T
    sure = first - second >= np.log(SURE)
    return Parity(
        max_abs=None if coarse else float(difference.max()),
        mean_abs=None if coarse else float(difference.mean()),
        score_max_abs=float(of_scores.max()),
        score_mean_abs=float(of_scores.mean()),
        max_logit=float(np.abs(logits).max()),
        top1_agreement=float(np.mean(same)),
        images=len(logits),
        inputs=inputs,
        runtime=runtime,
        sure_images=int(sure.sum()),
        sure_agreement=float(np.mean(same[sure])) if sure.any() else None,
    )


def run_tflite(data: bytes | Path, images: np.ndarray) -> np.ndarray:
    """Return the file's scores for each image, ``[n, classes]``.

    Raises:
        IntegrityError: the file is not one this runtime can load.
    """
    from ai_edge_litert.interpreter import Interpreter

    source = {"model_content": data} if isinstance(data, bytes) else {"model_path": str(data)}
    try:
        with quiet_native():
            interpreter = Interpreter(**source, num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise IntegrityError(f"TFLite file: cannot be loaded ({str(error)[:200]}).") from error
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(exit_["index"])[0])
    return np.stack(rows)


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(-1, keepdims=True)
    return np.asarray(top + np.log(np.exp((logits - top).astype(np.float64)).sum(-1, keepdims=True)))
