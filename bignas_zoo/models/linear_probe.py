"""A classifier fitted to features that stay as they are: multinomial logistic regression.

The problem is convex, so there is no learning rate to choose and no seed: L-BFGS finds its minimum, and images apart
choose how strongly the weights are held back. It is what training a network on new classes begins with, since the
gradients of a classifier that knows nothing undo what the features know (arXiv 2202.10054).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Factors of the squared norm of the kernel, from the strongest; features have a mean square of one. Ten classes of
#: clothing, 2,000 photographs, 372 others: 1 gives 83.3 %, 0.3 86.8, 0.1 86.8, 0.03 87.4, 0.01 85.8, 0.001 81.5.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
#: Steps of L-BFGS a penalty: each begins where the one before ended. 300 give the same accuracy to half a point.
ITERATIONS = 60
#: As training's, so that the classifier's scores are those that training goes on from.
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class Fitted:
    """A classifier.

    Attributes:
        kernel: ``[features, classes]`` float32.
        bias: ``[classes]`` float32.
        penalty: which of `PENALTIES` the held-out images chose.
        top1: percent of the held-out images that it is right on.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    top1: float


def fit_classifier(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    held_features: np.ndarray,
    held_labels: np.ndarray,
) -> Fitted:
    """Fit a classifier.

    Args:
        features: ``[n, features]`` float32.
        labels: ``[n]`` whole numbers below `classes`.
        classes: how many there are.
        held_features, held_labels: of other images; penalties are lowered until cross entropy on them rises.

    Returns:
        The classifier.
    """
    scale = float(np.sqrt(np.mean(np.square(features), dtype=np.float64))) or 1.0
    inputs, held = (x.astype(np.float32) / np.float32(scale) for x in (features, held_features))
    targets = np.full((len(labels), classes), LABEL_SMOOTHING / classes, np.float32)
    targets[np.arange(len(labels)), labels] += 1 - LABEL_SMOOTHING
    weights = np.zeros((inputs.shape[1] + 1) * classes)
    best: tuple[float, Fitted] | None = None
    for penalty in PENALTIES:
        weights = _minimum(weights, inputs, targets, penalty)
        kernel, bias = _split(weights.astype(np.float32), classes)
        log_scores = _log_softmax(held @ kernel + bias)
        entropy = -float(np.mean(log_scores[np.arange(len(held_labels)), held_labels]))
        if best is None or entropy < best[0]:
            top1 = 100.0 * float(np.mean(log_scores.argmax(-1) == held_labels))
            best = entropy, Fitted(kernel / np.float32(scale), bias, penalty, top1)
        if entropy > best[0]:  # it does not fall again
            break
    assert best
    return best[1]


def _minimum(start: np.ndarray, inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Return where the mean cross entropy plus half the penalty times the kernel's squared norm is least."""
    from scipy.optimize import minimize

    classes = targets.shape[1]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = _split(weights.astype(np.float32), classes)
        log_scores = _log_softmax(inputs @ kernel + bias)
        entropy = -float(np.sum(targets * log_scores, dtype=np.float64)) / len(inputs)
        error = (np.exp(log_scores) - targets) / np.float32(len(inputs))
        gradient = np.concatenate([(inputs.T @ error + np.float32(penalty) * kernel).ravel(), error.sum(0)])
        return entropy + penalty / 2 * float(np.sum(np.square(kernel, dtype=np.float64))), gradient.astype(np.float64)

    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return np.asarray(result.x)


def _split(weights: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    return weights[:-classes].reshape(-1, classes), weights[-classes:]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
