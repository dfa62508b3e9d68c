"""Proof that an exported file computes what the Keras child computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bignas_zoo.errors import IntegrityError, QualityError
from bignas_zoo.quiet import quiet_native

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its Keras child.

    Attributes:
        max_abs: largest absolute difference of the logits. The file returns softmax scores, so both
            sides are compared as log-probabilities, which are the logits less their row's constant.
        mean_abs: the mean of the same.
        max_logit: largest absolute logit of the child, the scale of the tolerance.
        top1_agreement: part of the images with the same first class, 0 to 1.
        images: how many were compared.
        inputs: what they were.
        runtime: name and version of the runtime.
    """

    max_abs: float
    mean_abs: float
    max_logit: float
    top1_agreement: float
    images: int
    inputs: str
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return asdict(self)


def check_tflite(child: keras.Model, data: bytes | Path, images: np.ndarray, inputs: str) -> Parity:
    """Run a TFLite file and its child on the same images and compare.

    Args:
        child: the Keras child the file was made from.
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

    logits = np.asarray(child(images, training=False))
    expected = logits - _log_sum_exp(logits)
    with np.errstate(divide="ignore"):
        actual = np.log(run_tflite(data, images).astype(np.float64))
    difference = np.abs(actual - expected)
    scale = float(np.abs(logits).max())
    report = Parity(
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        max_logit=scale,
        top1_agreement=float(np.mean(actual.argmax(-1) == logits.argmax(-1))),
        images=len(images),
        inputs=inputs,
        runtime=f"ai-edge-litert {version}",
    )
    if not report.max_abs <= TOLERANCE * scale:
        raise QualityError(
            f"export: the file differs from the Keras model by {report.max_abs:.2e} "
            f"(allowed {TOLERANCE * scale:.2e}); it was not kept."
        )
    return report


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
