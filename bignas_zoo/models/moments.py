"""Mean and variance of values that come in parts, to the last digit that float64 has."""

from __future__ import annotations

from typing import Any

import numpy as np

from bignas_zoo.errors import UsageError

#: Images that calibrating needs at least.
MIN_IMAGES = 64


def too_few(count: int) -> UsageError:
    """Return the error that says how many images there should be."""
    return UsageError(f"calibration: {count} images are too few; give at least {MIN_IMAGES}, better 1,000 or more.")


class Moments:
    """Mean and population variance over all but the last axis of all parts together.

    Moments of parts are merged in float64 by the pairwise formula of Chan, Golub and LeVeque (1983), which does not
    cancel as a difference of sums of squares would.
    """

    def __init__(self) -> None:
        self.total, self.mean, self.spread = 0, np.zeros(()), np.zeros(())

    def add(self, values: np.ndarray) -> None:
        """Add values ``[..., channels]``."""
        flat = values.reshape(-1, values.shape[-1])
        mean = flat.mean(0, dtype=np.float64)
        self.add_part(len(flat), mean, np.square(flat - mean).mean(0, dtype=np.float64))

    def add_part(self, count: int, mean: Any, variance: Any) -> None:
        """Add a part by its number of values a channel, its mean and its population variance, ``[channels]`` each."""
        mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
        delta, grown = mean - self.mean, self.total + count
        self.mean = self.mean + delta * (count / grown)
        self.spread = self.spread + variance * count + delta**2 * (self.total * count / grown)
        self.total = grown

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance, ``[channels]`` float32."""
        return self.mean.astype(np.float32), (self.spread / self.total).astype(np.float32)
