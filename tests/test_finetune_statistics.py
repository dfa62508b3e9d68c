"""Fine-tuning with the parent's batch-norm statistics, as nets that were trained alone need it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_finetune import paint, parent, weights

import bignas_zoo as bz
from bignas_zoo.errors import UsageError

__all__ = ["parent"]  # a fixture


def test_statistics_of_the_parent_stay(tiny_family: Path, parent: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 12)
    result = bz.finetune(
        "tiny-smallest", data, family=tiny_family, output=tmp_path / "o", epochs=2, statistics="original"
    )
    old, new = weights(parent), weights(result.path)
    for name in old.keys() - {"classifier.kernel", "classifier.bias"}:
        assert np.array_equal(new[name], old[name]) == name.endswith((".mean", ".variance")), name
    assert result.finetuned["settings"]["statistics"] == "original"
    assert "--statistics original" in result.finetuned["command"]
    assert result.finetuned["holdout_top1"] >= result.finetuned["holdout_top1_before"]
    again = bz.finetune(result.path, data, output=tmp_path / "again", epochs=1)
    assert again.finetuned["settings"]["statistics"] == "original"  # it is a net of the same kind
    with pytest.raises(UsageError, match="--statistics: must be one of batch, original"):
        bz.finetune("tiny-smallest", data, family=tiny_family, output=tmp_path / "x", statistics="mine")
