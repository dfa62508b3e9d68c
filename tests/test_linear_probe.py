"""The classifier fitted to features: the minimum that its definition asks for, by numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from bignas_zoo.models import linear_probe
from bignas_zoo.models.linear_probe import LABEL_SMOOTHING, fit_classifier


def clouds(count: int, seed: int, classes: int = 3, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return points around a centre a class, and which."""
    centres = np.random.default_rng(0).normal(size=(classes, width)) * 2
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    return (centres[labels] + generator.normal(size=(count, width))).astype(np.float32), labels


def loss(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    """Return what is minimised, of features with a mean square of one."""
    logits = x @ kernel + bias
    log_scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.eye(kernel.shape[1])[labels] * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / kernel.shape[1]
    return float(-(targets * log_scores).sum(-1).mean() + penalty / 2 * (kernel**2).sum())


@pytest.mark.parametrize("penalty", [1.0, 0.03])
def test_no_other_classifier_near_it_has_a_lower_loss(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "PENALTIES", (penalty,))
    (features, labels), (held, held_labels) = clouds(200, 1), clouds(100, 2)
    fitted = fit_classifier(7 * features, labels, 3, 7 * held, held_labels)
    scale = np.sqrt(np.mean(np.square(7.0 * features)))
    kernel, bias, x = fitted.kernel * scale, fitted.bias.astype(float), 7.0 * features / scale
    least, generator = loss(kernel, bias, x, labels, penalty), np.random.default_rng(3)
    for _ in range(50):
        other = kernel + 0.02 * generator.normal(size=kernel.shape), bias + 0.02 * generator.normal(size=3)
        assert loss(*other, x, labels, penalty) > least
    right = 100 * np.mean((7 * held @ fitted.kernel + fitted.bias).argmax(-1) == held_labels)
    assert fitted.top1 == pytest.approx(right)


def test_held_out_images_choose_the_penalty() -> None:
    """Where labels say nothing the strongest penalty is best; where they say all, weaker ones are."""
    generator = np.random.default_rng(4)
    noise, held = (generator.normal(size=(60, 40)).astype(np.float32) for _ in range(2))
    labels, held_labels = (generator.integers(0, 3, 60) for _ in range(2))
    assert fit_classifier(noise, labels, 3, held, held_labels).penalty == 1.0
    (features, labels), (held, held_labels) = clouds(400, 5), clouds(400, 6)
    fitted = fit_classifier(features, labels, 3, held, held_labels)
    assert fitted.penalty < 1.0
    assert fitted.top1 > 90
