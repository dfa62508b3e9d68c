"""Variants of a space: what changes, what stays, and what they are called."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.forms import ACTIVATIONS, SqueezeExcite
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.architecture.spaces.bignas import BIGNAS, PAPER_MODELS
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10
from bignas_zoo.errors import SpaceError


@pytest.mark.parametrize(
    ("knobs", "name"),
    [
        ({"activation": "hard_swish"}, "bignas+hard-swish"),
        ({"activation": "relu6", "squeeze_excite": False}, "bignas+no-se+relu6"),
        ({"layerwise_widths": True}, "bignas+layerwise"),
        ({"classes": 37}, "bignas+37-classes"),
        (
            {"layerwise_widths": True, "squeeze_excite": False, "activation": "hard_swish", "classes": 37},
            "bignas+layerwise+no-se+hard-swish+37-classes",
        ),
    ],
)
def test_name_tells_what_was_changed(knobs: dict[str, Any], name: str) -> None:
    changed = variant(BIGNAS, **knobs)
    assert changed.name == name
    assert changed.source == f"{BIGNAS.source}; changed: {', '.join(name.split('+')[1:])}"
    assert changed.smallest.to_json()["space"] == name


@pytest.mark.parametrize(
    "knobs",
    [{}, {"layerwise_widths": False, "squeeze_excite": True, "activation": "swish", "classes": 1000}],
)
def test_the_papers_values_give_the_papers_space(knobs: dict[str, Any]) -> None:
    assert variant(BIGNAS, **knobs) is BIGNAS


def test_knobs_turned_back_give_the_same_networks() -> None:
    there = variant(BIGNAS, layerwise_widths=True, squeeze_excite=False, classes=37)
    back = variant(there, layerwise_widths=False, squeeze_excite=True, classes=1000)
    assert back.name == "bignas+layerwise+no-se+37-classes+stagewise+se+1000-classes"
    assert replace(back, name=BIGNAS.name, source=BIGNAS.source) == BIGNAS


def test_squeeze_excite_follows_the_activation() -> None:
    hard = variant(BIGNAS, activation="hard_swish")
    assert {s.squeeze_excite for s in hard.stages} == {SqueezeExcite(activation="hard_swish", gate="hard_sigmoid")}
    relu = variant(BIGNAS, activation="relu6")
    assert {s.squeeze_excite for s in relu.stages} == {SqueezeExcite(activation="relu6")}
    assert {b.activation for b in plan(hard.biggest)} == {"hard_swish", "softmax"}
    # A form with an activation of its own keeps it: stage 3 of the tiny space has relu inside.
    tiny = variant(TINY, activation="relu6")
    assert tiny.stages[2].squeeze_excite == TINY.stages[2].squeeze_excite
    assert tiny.stages[3].squeeze_excite is None


def test_squeeze_excite_comes_where_there_was_none() -> None:
    everywhere = variant(variant(TINY, activation="hard_swish"), squeeze_excite=True)
    assert everywhere.name == "tiny+hard-swish+se"
    assert everywhere.stages[2].squeeze_excite == TINY.stages[2].squeeze_excite
    assert everywhere.stages[3].squeeze_excite == SqueezeExcite(activation="hard_swish", gate="hard_sigmoid")
    assert variant(TINY, activation="hard_swish", squeeze_excite=True).stages == everywhere.stages


def test_costs_change_by_what_was_taken_away() -> None:
    """Without squeeze-excite the smallest of the paper's models loses two dense layers a block; by hand."""
    small = PAPER_MODELS["bignas-s"]

    def moved(space: SearchSpace) -> ChildSpec:
        return ChildSpec.from_json({**small.to_json(), "space": space.name}, space)

    inputs = [32, 16, 24, 24, 40, 40, 80, 80, 112, 112, 192, 192, 192]  # channels into each block
    expanded = [32, *(6 * c for c in inputs[1:])]
    gates = sum(2 * e * (c // 4) for c, e in zip(inputs, expanded, strict=True))
    biases = sum(e + c // 4 for c, e in zip(inputs, expanded, strict=True))
    bare = moved(variant(BIGNAS, squeeze_excite=False))
    assert cost.macs(bare) == cost.macs(small) - gates
    assert cost.parameters(bare) == cost.parameters(small) - gates - biases
    fewer = moved(variant(BIGNAS, classes=37))
    assert cost.parameters(fewer) == cost.parameters(small) - (1280 + 1) * (1000 - 37)
    hard = moved(variant(BIGNAS, activation="hard_swish"))
    assert (cost.macs(hard), cost.parameters(hard)) == (cost.macs(small), cost.parameters(small))
    layers = moved(variant(BIGNAS, layerwise_widths=True))
    assert (cost.macs(layers), cost.parameters(layers)) == (cost.macs(small), cost.parameters(small))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"activation": "gelu"}, "activation: must be one of swish, hard_swish, relu, relu6; got 'gelu'."),
        ({"classes": 1}, "classes: must be a whole number of at least 2, got 1."),
        ({"layerwise_widths": "yes"}, "layerwise_widths: must be one of False, True; got 'yes'."),
    ],
)
def test_knobs_that_do_not_exist(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        variant(BIGNAS, **knobs)
    assert str(caught.value) == message


@given(
    space=st.sampled_from([BIGNAS, BIGNAS_CIFAR10, TINY]),
    layerwise_widths=st.sampled_from([None, False, True]),
    squeeze_excite=st.sampled_from([None, False, True]),
    activation=st.sampled_from([None, *ACTIVATIONS]),
    classes=st.sampled_from([None, 2, 10, 1000]),
    number=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_variants_and_their_children_go_to_json_and_back(space: SearchSpace, number: int, **knobs: Any) -> None:
    changed = variant(space, **knobs)
    assert SearchSpace.from_json(json.loads(json.dumps(changed.to_json()))) == changed
    assert (changed.name == space.name) == (changed == space)
    assert variant(changed, **knobs) is changed
    child = uniform_child(changed, ("variant", number))
    assert ChildSpec.from_json(json.loads(json.dumps(child.to_json())), changed) == child
