"""Literal lists of blocks: what may be one, and JSON both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.network import BlockList
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.spaces import SPACES, get_space
from bignas_zoo.errors import SpaceError

GATE = SqueezeExcite(source="expanded", rounding=8, activation="relu", gate="hard_sigmoid")
BLOCKS = (
    Block("stem", "stem", 8, 4, 3, 3, 8, 3, 2, activation="relu"),
    Block("mbconv", "first", 4, 2, 8, 24, 16, 3, 2, expands=True, squeeze_excite=GATE, activation="relu"),
    Block("head", "head", 2, 2, 16, 16, 32, activation="hard_swish"),
    Block("classifier", "classifier", 1, 1, 32, 32, 5, activation="softmax"),
)
NET = BlockList("hand", 8, 5, BLOCKS, bn_epsilon=1e-5)


def test_a_list_of_blocks_is_its_own_plan_and_costs_what_a_child_would() -> None:
    assert plan(NET) == BLOCKS
    # stem; expand, depthwise, gate (72 / 4 = 6, rounded to 8), project; head; classifier
    by_hand = 16 * 27 * 8 + 16 * 8 * 24 + 4 * 9 * 24 + 2 * 24 * 8 + 4 * 24 * 16 + 4 * 16 * 32 + 32 * 5
    assert cost.macs(NET) == by_hand
    child = uniform_child(get_space("bignas-micro"), ("list",))
    copy = BlockList("copy", child.resolution, child.classes, plan(child), child.bn_epsilon)
    for count in (cost.macs, cost.parameters, cost.weight_bytes, cost.peak_activation_bytes):
        assert count(copy) == count(child)


def test_the_input_is_not_kept_alive_without_a_shortcut() -> None:
    # stem 8x8x3 + 4x4x8; expand 4x4x8 + 4x4x24; depthwise 4x4x24 + 2x2x24
    assert cost.peak_activation_bytes(NET) == 4 * max(192 + 128, 128 + 384, 384 + 96)
    linked = replace(NET, blocks=(BLOCKS[0], replace(BLOCKS[1], shortcut="project"), *BLOCKS[2:]))
    assert cost.peak_activation_bytes(linked) == 4 * (384 + 96 + 128)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_json_round_trip_of_the_biggest_child_of_every_space(name: str) -> None:
    child = SPACES[name].biggest
    net = BlockList("copy", child.resolution, child.classes, plan(child), child.bn_epsilon)
    text = json.dumps(net.to_json())
    assert BlockList.from_json(json.loads(text)) == net
    assert json.dumps(BlockList.from_json(json.loads(text)).to_json()) == text


def test_json_leaves_out_what_is_usual() -> None:
    data = NET.to_json()
    assert data["blocks"][3] == {
        "kind": "classifier", "name": "classifier", "size_in": 1, "size_out": 1, "cin": 32, "mid": 32, "cout": 5,
        "activation": "softmax",
    }  # fmt: skip
    assert BlockList.from_json(json.loads(json.dumps(data))) == NET


def changed(index: int, **values: Any) -> dict[str, Any]:
    data = NET.to_json()
    data["blocks"][index] |= values
    return data


def huge() -> dict[str, Any]:
    data = changed(2, cout=1 << 20)
    data["blocks"][3] |= {"cin": 1 << 20, "mid": 1 << 20}
    data["blocks"][1] |= {"cout": 1 << 15}
    data["blocks"][2] |= {"cin": 1 << 15, "mid": 1 << 15}
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(0, cin=1, mid=1), "its first block must take 3 channels of 8 px"),
        (changed(1, cin=16), "block 'first' does not take what the one before gives"),
        (changed(1, size_out=4), "4 px with stride 2 do not make 4 px"),
        (changed(1, kind="attention"), "kind: must be one of stem"),
        (changed(1, name="stem"), "two blocks have one name"),
        (changed(1, name="../x"), "lower-case words"),
        (changed(1, activation="gelu"), "activation: must be one of"),
        (changed(1, kernel=0), "kernel: must be a whole number of at least 1"),
        (changed(1, cout=1 << 30), "cout: must be at most"),
        (changed(1, squeeze_excite={"divisor": 0}), "squeeze_excite.divisor"),
        (changed(1, colour="red"), "not a valid list of blocks"),
        (changed(1, kernel=2), "kernel: must be odd and at most 31"),
        (changed(1, kernel=1 << 19), "kernel: must be odd and at most 31"),
        (changed(1, expands=False), "mid: without an expansion it must be cin"),
        (changed(1, kind="classifier", expands=False, mid=8, activation="softmax"), "activation|squeeze-excite"),
        (changed(1, activation="softmax"), "activation: must be one of"),
        (changed(0, shortcut="project"), "shortcut: must be one of none"),
        (changed(2, kind="stem"), "must be a stem, blocks of kind mbconv or basic"),
        (changed(2, squeeze_excite={}) | {"name": "a\nb"}, "its name must be 1 to 100 letters"),
        ({**NET.to_json(), "name": 5}, "its name must be 1 to 100 letters"),
        ({**NET.to_json(), "name": "../x"}, "its name must be 1 to 100 letters"),
        (huge(), "parameters; it may have"),
        (changed(3, cout=4), "must be a classifier of 5 classes"),
        ({**NET.to_json(), "blocks": NET.to_json()["blocks"] * 400}, "1,600 blocks"),
        ({**NET.to_json(), "bn_epsilon": 0}, "bn_epsilon"),
        ({"blocks": []}, "not a valid list of blocks"),
        ([], "not a valid list of blocks"),
    ],
)
def test_a_wrong_list_is_refused(data: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message.replace("(", r"\(")):
        BlockList.from_json(data)
