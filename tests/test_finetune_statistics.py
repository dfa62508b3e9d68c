"""Fine-tuning with the parent's batch-norm statistics, as nets that were trained alone need it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_finetune import paint, parent, weights

import bignas_zoo as bz
from bignas_zoo.errors import UsageError
from bignas_zoo.tasks.finetune import FinetuneResult

__all__ = ["parent"]  # a fixture


def test_statistics_of_the_parent_stay(tiny_family: Path, parent: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 12)
    result = bz.finetune(
        "tiny-smallest", data, family=tiny_family, output=tmp_path / "o", epochs=2, statistics="original"
    )
    old, new = weights(parent), weights(result.path)
    for name in old.keys() - {"classifier.kernel", "classifier.bias"}:
        stays = name.endswith((".mean", ".variance")) or name.startswith(("stem.", "stage1.", "stage2."))
        assert np.array_equal(new[name], old[name]) == stays, name
    assert result.finetuned["settings"]["statistics"] == "original"
    assert "--statistics original" in result.finetuned["command"]
    assert result.finetuned["holdout_top1"] >= result.finetuned["holdout_top1_before"]
    again = bz.finetune(result.path, data, output=tmp_path / "again", epochs=1)
    assert again.finetuned["settings"]["statistics"] == "original"  # it is a net of the same kind
    with pytest.raises(UsageError, match="--statistics: must be one of batch, original"):
        bz.finetune("tiny-smallest", data, family=tiny_family, output=tmp_path / "x", statistics="mine")


def test_a_slice_at_another_resolution(tiny_family: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 12)

    def tuned(output: str, resolution: int | None) -> FinetuneResult:
        return bz.finetune(
            "tiny-smallest", data, family=tiny_family, output=tmp_path / output, epochs=1, freeze=True,
            resolution=resolution,
        )  # fmt: skip

    old, crop = tuned("o", None).slice, 19  # in no space
    assert old.spec.resolution != crop
    result = tuned("n", crop)
    assert (result.slice.spec.resolution, result.slice.name) == (crop, f"tiny-smallest-at-{crop}-data")
    assert result.slice.macs > old.macs
    assert f" --resolution {crop} " in result.finetuned["command"]
    assert bz.evaluate(result.path, data)["images"] == 36
    for wrong in (15, 21, 20.5, True):
        with pytest.raises(UsageError, match="--resolution: must be a whole number from 16 to"):
            tuned("x", wrong)  # type: ignore[arg-type]
