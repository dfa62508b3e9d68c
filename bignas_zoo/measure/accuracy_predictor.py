"""A small predictor of accuracy, trained on the children measured so far: it orders candidates and decides nothing.

Ridge regression on each choice, ordinal and one-hot, and the logarithm of MACs. The penalty is the one with the least
leave-one-out error; how well the predictor ranks is said by the rank correlation of leave-one-out predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.search.children import Candidate, Measured

PENALTIES = tuple(10.0**e for e in np.arange(-3, 3.5, 0.5))
#: With fewer children than this, candidates keep their order.
LEAST_CHILDREN = 24


def features(spec: ChildSpec) -> np.ndarray:
    """Return a child as numbers: each choice by its place among the options and one-hot, and log MACs.

    What a layer that a child does not have would choose counts with place -1.
    """
    rows: list[float] = [float(np.log(cost.macs(spec)))]

    for choice in sorted(spec.space.choices, key=lambda choice: choice.stage):  # those of the network first
        value, options = choice.value(spec), choice.allowed
        rows.append(-1.0 if value is None else options.index(value) / max(1, len(options) - 1))
        if len(options) > 2:
            rows.extend(float(value == option) for option in options)
    return np.array(rows)


@dataclass(frozen=True)
class AccuracyPredictor:
    """A fitted predictor.

    Attributes:
        children: how many it was fitted to.
        spearman, kendall: rank correlations of leave-one-out predictions with measured accuracies (Kendall's tau-b).
    """

    children: int
    spearman: float
    kendall: float
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offset: float

    def top1(self, specs: Sequence[ChildSpec]) -> np.ndarray:
        """Return predicted accuracies in percent, ``[n]``."""
        x = (np.stack([features(s) for s in specs]) - self.mean) / self.scale
        return np.asarray(x @ self.weights + self.offset)

    def to_json(self) -> dict[str, float]:
        """Return what is reported of it."""
        return {"children": self.children, "spearman": round(self.spearman, 4), "kendall": round(self.kendall, 4)}


def fit(measured: Sequence[Measured]) -> AccuracyPredictor:
    """Fit a predictor to measured children, at least three."""
    raw = np.stack([features(m.spec) for m in measured])
    y = np.array([m.top1 for m in measured])
    mean, scale = raw.mean(0), np.where(raw.std(0) > 0, raw.std(0), 1.0)
    x, offset = (raw - mean) / scale, float(y.mean())
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ (y - offset)
    guesses = []
    for penalty in PENALTIES:
        shrink = s**2 / (s**2 + penalty)
        leverage = (u**2 * shrink).sum(1) + 1 / len(y)  # of the mean as well
        left_out = y - (y - offset - u @ (shrink * projected)) / np.maximum(1 - leverage, 1e-6)
        guesses.append((float(((left_out - y) ** 2).mean()), penalty, left_out))
    _, penalty, left_out = min(guesses, key=lambda guess: guess[:2])
    weights = vt.T @ (s / (s**2 + penalty) * projected)
    return AccuracyPredictor(len(y), spearman(left_out, y), kendall(left_out, y), mean, scale, weights, offset)


def order(measured: Sequence[Measured], candidates: Sequence[Candidate]) -> Sequence[float]:
    """Rank candidates (see `search.rounds.Order`): by predicted accuracy for a budget; else by predicted gain.

    The gain is over the most accurate measured child with no more MACs.
    """
    if len(measured) < LEAST_CHILDREN:
        return [0.0] * len(candidates)
    predicted = fit(measured).top1([c.spec for c in candidates])
    return [float(p) - (0.0 if c.budget else _reached(measured, c)) for p, c in zip(predicted, candidates, strict=True)]


def _reached(measured: Sequence[Measured], candidate: Candidate) -> float:
    most = cost.macs(candidate.spec)
    return max((m.top1 for m in measured if m.macs <= most), default=0.0)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation, ties sharing their mean rank; 0 where one side is constant."""
    x, y = _ranks(a), _ranks(b)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Return Kendall's tau-b; 0 where one side is constant."""
    pairs = np.triu_indices(len(a), 1)
    x, y = (np.sign(np.subtract.outer(v, v))[pairs] for v in (np.asarray(a), np.asarray(b)))
    spread = float(np.sqrt(np.abs(x).sum() * np.abs(y).sum()))
    return float((x * y).sum()) / spread if spread else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])
