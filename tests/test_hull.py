"""The space around networks made one by one."""

from __future__ import annotations

import dataclasses

import pytest

from bignas_zoo.architecture.hull import hull
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.errors import SpaceError
from bignas_zoo.latency import BlockKey
from bignas_zoo.latency.coverage import space_blocks
from bignas_zoo.zoo.registry import get_family


def test_a_hull_holds_its_networks_and_what_lies_between() -> None:
    specs = [s.spec for s in get_family("efficientnet-lite").slices if s.spec]
    space = hull("efficientnet-lite", specs)
    assert space.resolutions == (128, 144, 160, 176, 192, 208, 224, 240, 260)
    # EfficientNet-Lite0 to 2: depths of 1, 2, 2, 3, 3, 4, 1 and one more but for the ends; two widths from stage 3 on.
    assert [stage.depths for stage in space.stages] == [(1,), (2, 3), (2, 3), (3, 4), (3, 4), (4, 5), (1,)]
    widths = [(16,), (24,), (40, 48), (80, 88), (112, 120), (192, 208), (320, 352)]
    assert [stage.widths for stage in space.stages] == widths
    children = [
        space.spec(
            resolution=spec.resolution,
            depths=[s.depth for s in spec.stages],
            widths=[spec.stem_width, *(s.width for s in spec.stages), spec.head_width],
            kernels=[s.kernels[0] for s in spec.stages],
        )
        for spec in specs
    ]
    assert [plan(child) for child in children] == [plan(spec) for spec in specs]
    known = space_blocks(space)
    assert all(BlockKey.of(block) in known for spec in specs for block in plan(spec))


def test_depths_between_are_children_too() -> None:
    space = get_space("bignas-micro")
    wide = dataclasses.replace(
        space, stages=tuple(dataclasses.replace(stage, depths=(1, 2, 3, 4)) for stage in space.stages)
    )
    assert all(stage.depths == (1, 2, 3, 4) for stage in hull("both", [wide.smallest, wide.biggest]).stages)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "relu"}, "they differ in activation"),
        ({"classes": 10}, "they differ in classes"),
        ({"bn_epsilon": 1e-5}, "they differ in bn_epsilon"),
    ],
)
def test_networks_of_other_forms_have_no_hull(change: dict[str, object], words: str) -> None:
    spec = get_space("efficientnet-lite0").biggest
    other = dataclasses.replace(spec.space, name="other", **change)  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match=words):
        hull("both", [spec, other.biggest])


def test_other_stages_are_named() -> None:
    spec = get_space("efficientnet-lite0").biggest
    first = spec.space.stages[0]
    with pytest.raises(SpaceError, match="number of stages"):
        hull("both", [spec, dataclasses.replace(spec.space, stages=spec.space.stages[:-1]).biggest])
    strided = (dataclasses.replace(first, stride=2), *spec.space.stages[1:])
    with pytest.raises(SpaceError, match="stride of stage 1"):
        hull("both", [spec, dataclasses.replace(spec.space, stages=strided).biggest])
