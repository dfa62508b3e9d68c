"""Least squares with a penalty on each unknown.

The one file of this room that needs numpy, when something is fitted: reading tables and predicting do without.
"""

from __future__ import annotations

from collections.abc import Sequence


def least_squares(
    rows: Sequence[Sequence[float]], right: Sequence[float], penalties: Sequence[float] | None = None
) -> list[float]:
    """Solve a ridge regression: minimise ``|rows x - right|^2 + sum(penalties * x^2)``.

    Args:
        rows: ``[equations, unknowns]``.
        right: ``[equations]``.
        penalties: ``[unknowns]``, none below zero [no penalties].

    Returns:
        ``[unknowns]``; the smallest solution where there are several.
    """
    import numpy as np

    unknowns = len(rows[0])
    # A penalty is one more equation: sqrt(penalty) * x = 0.
    weights = np.sqrt(np.zeros(unknowns) if penalties is None else np.asarray(penalties, np.float64))
    matrix = np.vstack([np.asarray(rows, np.float64), np.diag(weights)])
    solution = np.linalg.lstsq(matrix, np.concatenate([np.asarray(right, np.float64), np.zeros(unknowns)]))[0]
    return [float(x) for x in solution]
