"""The one list of a space's choices: how many there are, what they are, and children as values of them."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from conftest import LAYERWISE, LAYERWISE_CHILD, LAYERWISE_EXPANSIONS, STAGEWISE_KERNELS, TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_zoo.architecture.choices import Choice
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import crossover, mutate, uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.errors import SpaceError

SPACES = (BIGNAS, TINY, LAYERWISE, STAGEWISE_KERNELS, LAYERWISE_EXPANSIONS)

#: Small enough to count its children: 2 sizes, 1 stem, 2 heads; stages of 2 and 1 layers at most.
COUNTED = SearchSpace(
    name="counted",
    source="tests",
    classes=2,
    resolutions=(8, 16),
    unseen_resolutions=(12,),
    stem_widths=(8,),
    stages=(
        StageSpace(widths=(8, 16), depths=(1, 2), kernels=(3, 5), stride=1, expansions=(2, 3, 4)),
        StageSpace(widths=(8, 16, 24), depths=(1,), kernels=(3,), stride=2),
    ),
    head_widths=(8, 16),
)


def stagewise(stage: StageSpace, **forms: bool) -> SearchSpace:
    return replace(COUNTED, stages=(replace(stage, **forms), COUNTED.stages[1]))


def test_choices_of_bignas_by_hand() -> None:
    """Resolution, stem, head; of 7 stages depth, width, expansion; a kernel for each of 2+3+3+4+6+6+2 layers."""
    assert Counter(c.name for c in BIGNAS.choices) == {
        "resolution": 1, "stem width": 1, "head width": 1, "depth": 7, "width": 7, "expansion": 7, "kernel": 26,
    }  # fmt: skip


def test_choices_go_from_the_input_to_the_logits() -> None:
    assert COUNTED.choices == (
        Choice("resolution", (8, 16), unseen=(12,)),
        Choice("stem width", (8,)),
        Choice("depth", (1, 2), 0),
        Choice("expansion", (2, 3, 4), 0),
        Choice("kernel", (3, 5), 0, 0),
        Choice("kernel", (3, 5), 0, 1),
        Choice("width", (8, 16), 0),
        Choice("depth", (1,), 1),
        Choice("expansion", (6,), 1),
        Choice("kernel", (3,), 1, 0),
        Choice("width", (8, 16, 24), 1),
        Choice("head width", (8, 16)),
    )


@pytest.mark.parametrize(
    ("forms", "children", "product"),
    [
        # Children: 2 sizes x 2 heads x 3 widths of the second stage x what the first has at depth 1 and at depth 2.
        # Product of options: both depths, with the choices of two layers.
        ({}, 12 * (3 * 2 * 2 + 3 * 2 * 2**2), 12 * 2 * 3 * 2 * 2**2),
        ({"layerwise_widths": True}, 12 * (3 * 2 * 2 + 3 * 2**2 * 2**2), 12 * 2 * 3 * 2**2 * 2**2),
        ({"layerwise_expansions": True}, 12 * (3 * 2 * 2 + 3**2 * 2 * 2**2), 12 * 2 * 3**2 * 2 * 2**2),
        ({"stagewise_kernels": True}, 12 * (3 * 2 * 2 + 3 * 2 * 2), 12 * 2 * 3 * 2 * 2),
    ],
    ids=str,
)
def test_size_of_a_space_by_hand(forms: dict[str, bool], children: int, product: int) -> None:
    space = stagewise(COUNTED.stages[0], **forms)
    places, options = zip(*((c.place, c.options) for c in space.choices), strict=True)
    everything = list(itertools.product(*options))
    assert len(everything) == product
    assert len({space.child(dict(zip(places, values, strict=True))) for values in everything}) == children


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
@given(number=st.integers(0, 2**40))
@settings(max_examples=25, deadline=None)
def test_values_of_a_child_give_the_child(space: SearchSpace, number: int) -> None:
    spec = uniform_child(space, ("values", number))
    values = spec.values
    assert list(values) == [c.place for c in space.choices]
    assert space.child(values) == spec
    assert all(values[c.place] in c.options for c in space.choices)


def test_values_of_absent_layers_repeat_the_last_one_and_are_not_read() -> None:
    values = LAYERWISE_CHILD.values  # third of the stages: 2 of 3 layers, 32 and 16 channels
    assert [values["width", 2, j] for j in range(3)] == [32, 16, 16]
    assert LAYERWISE.child({**values, ("width", 2, 2): 24}) == LAYERWISE_CHILD
    assert LAYERWISE.child({**values, ("depth", 2, -1): 3}).stages[2].widths == (32, 16, 16)


def test_value_of_a_choice_by_hand() -> None:
    by_place = {c.place: c for c in LAYERWISE.choices}
    expected: dict[tuple[str, int, int], int | None] = {
        ("resolution", -1, -1): 12, ("stem width", -1, -1): 8, ("head width", -1, -1): 32, ("depth", 1, -1): 3,
        ("kernel", 1, 1): 5, ("width", 2, 0): 32, ("width", 2, 2): None, ("kernel", 3, 1): None,
        ("expansion", 2, -1): 4,
    }  # fmt: skip
    assert {place: by_place[place].value(LAYERWISE_CHILD) for place in expected} == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({("depth", 0, -1): 3}, "stage 1: depth 3 is not in space 'counted'; allowed: 1, 2; nearest: 2."),
        ({("depth", 0, -1): None}, "stage 1: depth None is not in space 'counted'; allowed: 1, 2."),
        ({("width", 1, -1): 12}, "stage 2: width 12 is not in space 'counted'; allowed: 8, 16, 24; nearest: 8."),
        ({("kernel", 0, 1): 4}, "stage 1, layer 2: kernel 4 is not in space 'counted'; allowed: 3, 5; nearest: 3."),
        ({("head width", -1, -1): 9}, "head: width 9 is not in space 'counted'; allowed: 8, 16; nearest: 8."),
        ({("resolution", -1, -1): 13}, "resolution 13 is not in space 'counted'; allowed: 8, 12, 16; nearest: 12."),
    ],
)
def test_values_that_are_no_options(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        COUNTED.child({**COUNTED.biggest.values, **change})
    assert str(caught.value) == message


def test_a_choice_without_a_value() -> None:
    values = dict(COUNTED.biggest.values)
    del values["kernel", 0, 1]
    with pytest.raises(SpaceError, match=r"space 'counted': no value for the choice \('kernel', 0, 1\)"):
        COUNTED.child(values)


def test_children_of_expansions_one_a_layer_and_kernels_one_a_stage_as_json() -> None:
    spec = STAGEWISE_KERNELS.spec(
        resolution=12, depths=[2, 3, 2, 1], widths=[8, 8, 24, 16, 24, 32], kernels=[3, 5, 3, 5],
        expansions=[1, [2, 3, 2], [4, 3], 2],
    )  # fmt: skip
    data = spec.to_json()
    assert (data["kernels"], data["expansions"]) == ([3, 5, 3, 5], [[1, 1], [2, 3, 2], [4, 3], [2]])
    assert ChildSpec.from_json(data, STAGEWISE_KERNELS) == spec
    assert [s.kernels for s in spec.stages] == [(3, 3), (5, 5, 5), (3, 3), (5,)]
    # Expanded channels are the layer's own multiple of what goes in, by hand.
    mbconvs = [block for block in plan(spec) if block.kind == "mbconv"]
    assert [(b.cin, b.mid) for b in mbconvs] == [
        (8, 8), (8, 8), (8, 16), (24, 72), (24, 48), (24, 96), (16, 48), (16, 32),
    ]  # fmt: skip
    assert spec.stages[3].expansion == 2
    with pytest.raises(SpaceError, match=r"expansions \[2, 3, 2\] differ"):
        _ = spec.stages[1].expansion


@pytest.mark.parametrize(
    ("space", "change", "message"),
    [
        (
            STAGEWISE_KERNELS, {"kernels": [3, [3, 5, 3], 3, 3]},
            "stage 2: kernels [3, 5, 3] differ, but space 'tiny+stagewise-kernels' has one kernel a stage. "
            "Give one number, or take a space with layer-wise kernels.",
        ),
        (
            TINY, {"expansions": [1, [2, 3, 2], 4, 2]},
            "stage 2: expansions [2, 3, 2] differ, but space 'tiny' has one expansion a stage. "
            "Give one number, or take a space with layer-wise expansions.",
        ),
        (
            STAGEWISE_KERNELS, {"expansions": [1, [2, 3], 4, 2]},
            "stage 2: needs 3 expansions (one a layer), got 2.",
        ),
        (
            STAGEWISE_KERNELS, {"expansions": [1, [2, 3, 4], 4, 2]},
            "stage 2, layer 3: expansion 4 is not in space 'tiny+stagewise-kernels'; allowed: 2, 3; nearest: 3.",
        ),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit(space: SearchSpace, change: dict[str, Any], message: str) -> None:
    fits = {
        "resolution": 12, "depths": [1, 3, 2, 1], "widths": [8, 8, 24, 16, 24, 32],
        "kernels": [3, 3, 3, 3], "expansions": [1, 2, 4, 2],
    }  # fmt: skip
    space.spec(**fits)
    with pytest.raises(SpaceError) as caught:
        space.spec(**{**fits, **change})
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["layerwise_widths", "layerwise_expansions", "stagewise_kernels"])
def test_json_of_a_space_tells_of_axes_only_where_they_are_not_the_papers(key: str) -> None:
    assert not any(key in stage for stage in TINY.to_json()["stages"])
    space = stagewise(COUNTED.stages[0], **{key: True})
    data = space.to_json()
    assert [stage.get(key) for stage in data["stages"]] == [True, None]
    assert SearchSpace.from_json(data) == space
    data["stages"][0][key] = "no"
    with pytest.raises(SpaceError, match=f"{key}: must be one of False, True; got 'no'"):
        SearchSpace.from_json(data)


@pytest.mark.parametrize("space", [STAGEWISE_KERNELS, LAYERWISE_EXPANSIONS], ids=lambda s: s.name)
def test_mutants_and_mixtures_of_layerwise_expansions(space: SearchSpace) -> None:
    """Expansions of a stage's layers are redrawn one by one, and a stage comes whole from one parent."""
    mutants = [mutate(space.biggest, ("layers", n), 0.5) for n in range(400)]
    second = Counter(m.stages[1].expansions for m in mutants if m.stages[1].depth == 3)
    assert len(second) == 2**3
    for n in range(20):
        first, other = (uniform_child(space, (who, n)) for who in ("first", "second"))
        mixed = crossover(first, other, ("mix", n))
        assert ChildSpec.from_json(mixed.to_json(), space) == mixed
        assert all(stage in pair for stage, *pair in zip(mixed.stages, first.stages, other.stages, strict=True))


def test_a_child_of_a_depth_that_is_not_there_is_told_so_first() -> None:
    big = COUNTED.biggest
    for depth in (3, None, True):
        with pytest.raises(SpaceError, match=f"^stage 1: depth {depth} is not in space 'counted'"):
            replace(big, stages=(replace(big.stages[0], depth=depth), big.stages[1]))  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match=r"^stage 1: needs 1 expansions \(one a layer\), got 2"):
        replace(big, stages=(replace(big.stages[0], depth=1), big.stages[1]))
