"""Layer-wise widths as data: children, messages, and JSON of spaces with and without them."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import LAYERWISE, TINY

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import SpaceError

LAYERS: dict[str, Any] = {
    "resolution": 12,
    "widths": [8, [8, 16], 24, [24, 16, 32], [24], 32],
    "depths": [2, 1, 3, 1],
    "kernels": [3, 5, 3, 3],
    "expansions": [1, 2, 4, 2],
}


def test_layerwise_child_json_holds_one_width_a_layer() -> None:
    spec = LAYERWISE.spec(**LAYERS)
    assert [s.widths for s in spec.stages] == [(8, 16), (24,), (24, 16, 32), (24,)]
    assert [s.width for s in spec.stages] == [16, 24, 32, 24]
    assert spec.to_json()["widths"] == [8, [8, 16], [24], [24, 16, 32], [24], 32]
    assert spec.to_json()["space"] == "tiny+layerwise"


@pytest.mark.parametrize(
    ("space", "index", "width", "message"),
    [
        (LAYERWISE, 1, [8], "stage 1: needs 2 widths (one a layer), got 1."),
        (LAYERWISE, 1, [], "stage 1: needs 2 widths (one a layer), got 0."),
        (
            LAYERWISE, 3, [16, 44, 16],
            "stage 3, layer 2: width 44 is not in space 'tiny+layerwise'; allowed: 16, 24, 32; nearest: 32.",
        ),
        (
            LAYERWISE, 1, [8, True],
            "stage 1, layer 2: width True is not in space 'tiny+layerwise'; allowed: 8, 16; nearest: 8.",
        ),
        (
            TINY, 3, [16, 24, 16],
            "stage 3: widths [16, 24, 16] differ, but space 'tiny' has one width a stage. "
            "Give one number, or take a space with layer-wise widths.",
        ),
        (TINY, 3, [16, 16], "stage 3: needs 3 widths (one a layer), got 2."),
        (TINY, 3, [16.0, 16, 16], "stage 3: width 16.0 is not in space 'tiny'; allowed: 16, 24, 32; nearest: 16."),
    ],
)  # fmt: skip
def test_layerwise_widths_that_do_not_fit(space: SearchSpace, index: int, width: Any, message: str) -> None:
    widths = [8, 8, 24, 16, 24, 32]
    widths[index] = width
    with pytest.raises(SpaceError) as caught:
        space.spec(**{**LAYERS, "widths": widths})
    assert str(caught.value) == message


def test_space_json_tells_of_layerwise_widths_only_where_there_are_any() -> None:
    assert not any("layerwise_widths" in stage for stage in TINY.to_json()["stages"])
    assert [stage["layerwise_widths"] for stage in LAYERWISE.to_json()["stages"]] == [True] * 4
    data = TINY.to_json()
    data["stages"][1]["layerwise_widths"] = False
    assert SearchSpace.from_json(data) == TINY
    data["stages"][1]["layerwise_widths"] = "no"
    with pytest.raises(SpaceError, match="layerwise_widths: must be one of False, True; got 'no'"):
        SearchSpace.from_json(data)
