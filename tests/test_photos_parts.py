"""What training on one's own photographs is made of: frozen statistics, sorted channels, matched moments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import TINY
from test_writers import weights_of

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.forms import Shortcut
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.errors import SpaceError
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.importance import input_deviations, sorted_channels
from bignas_zoo.models.matching import LIMIT, matched_statistics
from bignas_zoo.models.numpy_forward import numpy_forward, numpy_operations
from bignas_zoo.models.slicing import child_shapes, slice_weights
from bignas_zoo.models.supernet import forward
from bignas_zoo.zoo.registry import get_family

#: As the space of photographs, in small: identities between equal widths, no squeeze-excite, elastic in everything.
SMALL = SearchSpace(
    name="small-photos",
    source="tests",
    classes=5,
    resolutions=(16, 19, 24),
    stem_widths=(8,),
    stages=(
        StageSpace((8,), (1,), (3,), 1, (1,), squeeze_excite=None),
        StageSpace((8, 16), (1, 3), (5,), 2, (2, 3), squeeze_excite=None),
        StageSpace((16, 24), (2, 3), (3,), 2, (2, 4), squeeze_excite=None),
    ),
    head_widths=(32,),
    activation="relu6",
    shortcut=Shortcut("identity_unchanged"),
)


def images_of(side: int, count: int = 8) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, side, side, 3)).astype(np.float32)


def statistics_of(child: ChildSpec, seed: int = 3) -> dict[str, np.ndarray]:
    """Return statistics that are none of any images."""
    return {k: v for k, v in weights_of(child, seed).items() if k.endswith((".mean", ".variance"))}


@pytest.mark.parametrize("space", [SMALL, TINY], ids=lambda s: s.name)
@pytest.mark.parametrize("number", range(3))
def test_frozen_statistics_are_those_of_the_plain_child(space: SearchSpace, number: int) -> None:
    child = uniform_child(space, ("frozen", number))
    weights = {k: v for k, v in weights_of(space.biggest).items() if not k.endswith((".mean", ".variance"))}
    statistics = statistics_of(child)
    images = images_of(child.resolution)
    expected = numpy_forward(child, {**slice_weights(weights, child), **statistics}, images.astype(np.float64))
    for how in (Execution(branch="cond"), Execution(pack=4), Execution(depthwise="shifted")):
        folded = forward(space, weights, images, ActiveChild.of(child), how=how, statistics=statistics)
        np.testing.assert_allclose(folded, expected, atol=2e-5 * np.abs(expected).max())
    seen = []

    def look(op, x, y):
        seen.append((op.name, tuple(x.shape), tuple(y.shape)))
        return statistics[f"{op.name}.bn.mean"], statistics[f"{op.name}.bn.variance"]

    looked = forward(space, weights, images, ActiveChild.of(child), statistics=look)
    np.testing.assert_allclose(looked, expected, atol=2e-5 * np.abs(expected).max())
    wanted = [op for op in cost.ops(child) if op.batch_norm]
    assert sorted(seen) == sorted((op.name, (8, *_map(child, op)), (8, op.size, op.size, op.cout)) for op in wanted)


def _map(child: ChildSpec, op) -> tuple[int, int, int]:
    """Return the shape of the map that an operation reads."""
    size = child.resolution if op.name == "stem" else op.size * op.stride
    block = next(b for b in plan(child) if op in b.ops)
    side = size if op.stride == 1 and op.name != "stem" else block.size_in
    return (side, side, op.cin)


@pytest.mark.parametrize("relevance", ["random", "reversed"])
def test_sorting_channels_keeps_what_the_network_computes(relevance: str) -> None:
    child = SMALL.biggest
    weights, images = weights_of(child), images_of(24)
    deviations = input_deviations(child, weights, images)
    if relevance == "reversed":
        deviations = {name: values[::-1] for name, values in deviations.items()}
    done = sorted_channels(child, weights, deviations)
    assert done.keys() == weights.keys()
    before = numpy_forward(child, weights, images.astype(np.float64))
    after = numpy_forward(child, done, images.astype(np.float64))
    np.testing.assert_allclose(after, before, atol=1e-9 * np.abs(before).max())
    assert any(not np.array_equal(done[name], weights[name]) for name in weights)


def test_deviations_are_those_of_what_operations_read() -> None:
    child = SMALL.biggest
    weights, images = weights_of(child), images_of(24)
    found = input_deviations(child, weights, images)
    np.testing.assert_allclose(found["stem"], images.std((0, 1, 2)), rtol=1e-4)
    # What the first depthwise reads is the stem's output, computed here by numpy.
    stem = plan(child)[0].ops[0]
    y = numpy_operations(weights, SMALL.bn_epsilon).conv(images.astype(np.float64), stem, "relu6")
    np.testing.assert_allclose(found["stage1.layer1.depthwise"], y.std((0, 1, 2)), rtol=1e-4)


def test_the_most_important_channels_come_first() -> None:
    child = SMALL.biggest
    weights, images = weights_of(child), images_of(24)
    deviations = input_deviations(child, weights, images)
    done = sorted_channels(child, weights, deviations)
    again = input_deviations(child, done, images)

    def importance(name: str) -> np.ndarray:
        kernel = done[f"{name}.kernel"]
        return np.abs(kernel).sum((0, 1, 3)) * again[name]

    for block in plan(child):
        if block.expands:
            inside = importance(f"{block.name}.project")
            assert (np.diff(inside) <= 1e-4 * inside.max()).all()
    # Between layers: all that read a stage's channels count together.
    for stage, readers in (("stage3", ("stage3.layer2.expand", "stage3.layer3.expand", "head")),):
        together = sum(map(importance, readers))
        assert (np.diff(together) <= 1e-4 * together.max()).all(), stage


def test_other_networks_cannot_be_sorted() -> None:
    child = TINY.biggest
    with pytest.raises(SpaceError, match="identity shortcuts only"):
        sorted_channels(child, weights_of(child), {op.name: np.ones(op.cin) for op in cost.ops(child)})


def normalised(child: ChildSpec, weights, statistics, images) -> dict[str, np.ndarray]:
    """Return what each batch norm makes of its input before gamma and beta, by numpy."""
    seen: dict[str, np.ndarray] = {}

    def look(op, x):
        mean, variance = (statistics[f"{op.name}.bn.{key}"] for key in ("mean", "variance"))
        seen[op.name] = (x - mean) / np.sqrt(variance + child.space.bn_epsilon)

    operations = numpy_operations({**weights, **statistics}, child.space.bn_epsilon, look)
    from bignas_zoo.architecture.bodies import run_block

    x = images.astype(np.float64)
    for block in plan(child):
        x = run_block(operations, x, block)
    return seen


@pytest.mark.parametrize("number", range(4))
def test_matched_channels_have_the_moments_of_the_whole_network(number: int) -> None:
    child = uniform_child(SMALL, ("matched", number))
    whole = dataclasses.replace(SMALL.biggest, resolution=child.resolution)
    weights, images = weights_of(SMALL.biggest), images_of(child.resolution, 16)
    matched = matched_statistics(weights, weights, child, images)
    wanted = {k for k in child_shapes(child, statistics=True) if k.endswith((".mean", ".variance"))}
    assert matched.keys() == wanted
    trainable = {k: v for k, v in weights.items() if k not in wanted}
    theirs = normalised(whole, weights, weights, images)
    ours = normalised(child, slice_weights(trainable, child), matched, images)
    for name, values in ours.items():
        n = values.shape[-1]
        mean, deviation = theirs[name].mean((0, 1, 2))[:n], theirs[name].std((0, 1, 2))[:n]
        ours_mean, ours_deviation = values.mean((0, 1, 2)), values.std((0, 1, 2))
        raw = ours_deviation * np.sqrt(matched[f"{name}.bn.variance"] + child.space.bn_epsilon)
        whole_raw = deviation * np.sqrt(weights[f"{name}.bn.variance"][:n] + child.space.bn_epsilon)
        ratio = whole_raw / np.maximum(raw, 1e-9)
        free = (ratio > 1 / LIMIT) & (ratio < LIMIT) & (raw > 1e-3)  # all but silent channels
        assert free.mean() > 0.6, name
        np.testing.assert_allclose(ours_deviation[free], deviation[free], rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(ours_mean[free], mean[free], atol=2e-3 * (1 + np.abs(mean).max()))


def test_the_whole_network_keeps_its_statistics() -> None:
    weights = weights_of(SMALL.biggest)
    for size in SMALL.resolutions:
        child = dataclasses.replace(SMALL.biggest, resolution=size)
        matched = matched_statistics(weights, weights, child, images_of(size))
        for name, array in matched.items():
            np.testing.assert_allclose(array, weights[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_biggest_child_of_the_space_is_efficientnet_lite0() -> None:
    space, family = get_space("photos"), get_family("efficientnet-lite")
    lite = family.find("efficientnet-lite0-160").network
    assert child_shapes(space.biggest, statistics=True) == child_shapes(lite, statistics=True)
    assert cost.macs(space.biggest) == cost.macs(lite) == 197_151_200
    assert [b.__dict__ for b in plan(space.biggest)] == [b.__dict__ for b in plan(lite)]
    assert {64, 80} <= set(space.resolutions)
    assert max(space.all_resolutions) == 192
