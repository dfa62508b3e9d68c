"""A batch norm folded into a convolution: numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bignas_zoo.models.folding import fold

GAMMA, BETA, MEAN, VARIANCE = (np.array(v, np.float32) for v in ([2, 3], [1, -1], [4, 6], [3, 8]))


@pytest.mark.parametrize(("bias", "expected"), [(None, [1 - 4, -1 - 6]), ([4.0, 8.0], [1, -1 + 2])])
def test_by_hand(bias: list[float] | None, expected: list[float]) -> None:
    # epsilon 1: the scales are 2 / sqrt(4) = 1 and 3 / sqrt(9) = 1; then doubled gammas
    kernel = np.arange(8, dtype=np.float32).reshape(1, 1, 4, 2)
    old = None if bias is None else np.array(bias, np.float32)
    same, shift = fold(kernel, old, (GAMMA, BETA, MEAN, VARIANCE), 1.0, depthwise=False)
    np.testing.assert_array_equal(same, kernel)
    np.testing.assert_array_equal(shift, np.array(expected, np.float32))
    twice, _ = fold(kernel, old, (GAMMA * [1, 2], BETA, MEAN, VARIANCE), 1.0, depthwise=False)
    np.testing.assert_array_equal(twice, kernel * [1, 2])
    assert (twice.dtype, shift.dtype) == (np.float32, np.float32)


def test_a_depthwise_kernel_is_scaled_by_its_own_channels() -> None:
    kernel = np.ones((3, 3, 2, 1), np.float32)
    folded, _ = fold(kernel, None, (GAMMA * [1, 2], BETA, MEAN, VARIANCE), 1.0, depthwise=True)
    np.testing.assert_array_equal(folded[..., 0, 0], np.full((3, 3), 1))
    np.testing.assert_array_equal(folded[..., 1, 0], np.full((3, 3), 2))
