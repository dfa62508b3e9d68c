"""Some of many, evenly spread: what is ordered by class or by file is left out nowhere."""

from __future__ import annotations

import numpy as np


def evenly(total: int, count: int) -> np.ndarray:
    """Return ``[min(count, total)]`` positions among `total`, evenly spread, both ends among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)
