"""Published spaces written down as tables: MACs and parameters of published networks, to the last digit."""

from __future__ import annotations

import json

import pytest

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan, plan_supernet
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import SPACES, get_space, published
from bignas_zoo.architecture.spaces.attentivenas import ATTENTIVENAS, PAPER_MODELS
from bignas_zoo.architecture.spaces.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2
from bignas_zoo.architecture.spaces.nss import NSS, RESNET20
from bignas_zoo.architecture.spaces.once_for_all import ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE

ALL = (ATTENTIVENAS, ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE, EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2, NSS)

#: What the projects' own counter gives, run on their code: million MACs, trainable parameters that are used.
ATTENTIVE = {
    "a0": ("203.390", 8_954_184),
    "a1": ("279.239", 9_452_872),
    "a2": ("316.730", 11_149_824),
    "a3": ("356.518", 12_784_928),
    "a4": ("443.531", 11_809_640),
    "a5": ("490.520", 12_597_464),
    "alphanet-a5-small": ("491.481", 12_970_512),
    "alphanet-a5-base": ("594.786", 12_404_424),
    "a6": ("709.007", 15_154_792),
}


def trainable(network: Network) -> int:
    """Parameters without the two moving statistics of each batch norm's channel."""
    return cost.parameters(network) - 2 * sum(op.cout for op in cost.ops(network) if op.batch_norm)


@pytest.mark.parametrize("name", sorted(ATTENTIVE))
def test_networks_of_attentivenas_and_alphanet(name: str) -> None:
    child = PAPER_MODELS[name]
    assert (f"{cost.macs(child) / 1e6:.3f}", trainable(child)) == ATTENTIVE[name]


def test_corners_of_attentivenas() -> None:
    assert ATTENTIVENAS.smallest == PAPER_MODELS["a0"]
    biggest = ATTENTIVENAS.biggest
    assert (f"{cost.macs(biggest) / 1e6:.3f}", trainable(biggest)) == ("1939.336", 23_404_080)
    assert sum(block.of_stage for block in plan(biggest)) == 37


def test_the_supernet_has_shortcuts_that_its_biggest_child_lacks() -> None:
    # 24 channels of the stem to 24 of the first stage: the identity; 24 to 16 and 16 to 24 need a convolution.
    assert plan(ATTENTIVENAS.biggest)[1].shortcut == "identity"
    assert plan_supernet(ATTENTIVENAS)[1].shortcut == "project"
    lacking = [b.name for b, c in zip(plan_supernet(ATTENTIVENAS), plan(ATTENTIVENAS.biggest), strict=True) if b != c]
    assert lacking == ["stage1.layer1"]


#: Depths, kernels, expansions of stages 1 to 5; MACs at 128 and 224 px; parameters, with and without statistics.
SUBNETS = [
    (ONCE_FOR_ALL, "22222", "33/33/33/33/33", "33/33/33/33/33", 41_476_224, 121_278_672, 3_410_792, 3_422_728),
    (ONCE_FOR_ALL, "44444", "7777/" * 5, "6666/" * 5, 188_248_320, 566_170_656, 7_664_760, 7_706_584),
    (ONCE_FOR_ALL, "23423", "73/773/3333/77/533", "34/346/3643/34/643", 72_989_056, 216_861_664, 4_412_528, 4_433_952),
    (ONCE_FOR_ALL, "24323", "33/5535/755/55/757", "34/3663/343/33/646", 71_713_920, 212_275_968, 4_867_944, 4_889_640),
    (ONCE_FOR_ALL, "22324", "75/35/335/57/7773", "63/63/664/46/3364", 81_324_288, 241_537_968, 5_139_824, 5_163_824),
    (ONCE_FOR_ALL, "33223", "735/573/53/35/773", "443/443/64/36/644", 76_769_280, 228_040_224, 4_628_704, 4_648_960),
    (ONCE_FOR_ALL_WIDE, "22222", "33/33/33/33/33", "33/33/33/33/33", 65_536_896, 193_078_200, 4_602_456, 4_617_000),
    (ONCE_FOR_ALL_WIDE, "44444", "7777/" * 5, "6666/" * 5, 279_987_456, 843_101_040, 10_701_632, 10_752_464),
    (
        ONCE_FOR_ALL_WIDE, "23423", "73/773/3333/77/533", "34/346/3643/34/643",
        110_346_496, 328_944_304, 6_045_776, 6_071_744,
    ),
    (
        ONCE_FOR_ALL_WIDE, "33223", "735/573/53/35/773", "443/443/64/36/644",
        118_452_736, 353_162_992, 6_371_000, 6_395_656,
    ),
]  # fmt: skip


def once_for_all(space: SearchSpace, resolution: int, depths: str, kernels: str, expansions: str) -> Network:
    def numbers(text: str) -> list[list[int]]:
        return [[int(digit) for digit in part] for part in text.strip("/").split("/")]

    return space.spec(
        resolution=resolution, depths=[1, *map(int, depths)], widths=[stage.widths[0] for stage in space.stages],
        kernels=[[3], *numbers(kernels)], expansions=[[1], *numbers(expansions)],
    )  # fmt: skip


@pytest.mark.parametrize("row", SUBNETS, ids=lambda row: f"{row[0].name}-{row[1]}")
def test_subnets_of_once_for_all(row: tuple) -> None:
    space, depths, kernels, expansions, small, large, learned, whole = row
    for resolution, macs in ((128, small), (224, large)):
        child = once_for_all(space, resolution, depths, kernels, expansions)
        assert (cost.macs(child), trainable(child), cost.parameters(child)) == (macs, learned, whole)


#: Specialised networks, at sizes that are not among those of the training: MACs.
SPECIALISED = [
    (ONCE_FOR_ALL, 220, "23334", "33/753/555/375/5733", "33/433/643/443/6664", 229_846_296),  # Pixel 1, 58 ms
    (ONCE_FOR_ALL, 140, "22222", "33/55/73/53/37", "33/33/43/34/66", 67_196_888),  # Note 8, 22 ms
    (ONCE_FOR_ALL_WIDE, 224, "23344", "33/553/553/5533/3373", "33/363/443/6444/6663", 389_487_856),  # "389M"
    (ONCE_FOR_ALL_WIDE, 236, "34444", "353/5535/7535/3573/3353", "343/4463/6634/6664/6663", 595_189_032),  # "595M"
    (ONCE_FOR_ALL_WIDE, 260, "34444", "333/5335/5537/5333/3353", "363/4633/6644/6664/6663", 743_131_000),
]


@pytest.mark.parametrize("row", SPECIALISED, ids=lambda row: f"{row[0].name}-{row[1]}px")
def test_specialised_networks_of_once_for_all(row: tuple) -> None:
    space, resolution, depths, kernels, expansions, macs = row
    assert cost.macs(once_for_all(space, resolution, depths, kernels, expansions)) == macs


@pytest.mark.parametrize(
    ("space", "macs", "parameters"),
    [
        (EFFICIENTNET_LITE0, 385_187_552, 4_694_024),
        (EFFICIENTNET_LITE1, 600_185_232, 5_470_344),
        (EFFICIENTNET_LITE2, 859_736_272, 6_150_168),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_efficientnet_lite(space: SearchSpace, macs: int, parameters: int) -> None:
    (resolution,) = space.resolutions
    assert (resolution, cost.macs(space.biggest)) == ({0: 224, 1: 240, 2: 260}[int(space.name[-1])], macs)
    assert cost.parameters(space.biggest) == parameters
    assert space.biggest == space.smallest


def test_resnet20_by_hand() -> None:
    # A stem, three stages of three blocks of two convolutions on maps of 32, 16 and 8 px, a dense layer.
    stem = 32**2 * 27 * 16
    first = 6 * 32**2 * 9 * 16 * 16
    second = 16**2 * 9 * (16 * 32 + 5 * 32 * 32)
    third = 8**2 * 9 * (32 * 64 + 5 * 64 * 64)
    assert cost.macs(RESNET20) == stem + first + second + third + 64 * 10 == 40_551_040
    kernels = 27 * 16 + 9 * (6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64) + 64 * 10
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert trainable(RESNET20) == kernels + norms + 10 == 269_722
    assert {block.shortcut for block in plan(RESNET20) if block.of_stage} == {"identity"}


@pytest.mark.parametrize("space", ALL, ids=lambda space: space.name)
def test_json_round_trip_byte_for_byte(space: SearchSpace) -> None:
    text = json.dumps(space.to_json())
    again = SearchSpace.from_json(json.loads(text))
    assert again == space
    assert json.dumps(again.to_json()) == text


def test_forms_as_usual_are_left_out_of_the_json() -> None:
    from bignas_zoo.architecture.spaces.bignas import BIGNAS

    data = BIGNAS.to_json()
    assert not {"shortcut", "padding", "head"} & data.keys()
    assert not {"block", "activation", "layerwise_widths"} & data["stages"][0].keys()
    assert "make_divisible" not in data["stages"][1]["squeeze_excite"]
    assert {"shortcut", "padding", "head"} <= ATTENTIVENAS.to_json().keys()


@pytest.mark.parametrize("name", sorted(published()))
def test_published_spaces_go_by_name_and_to_json_and_back(name: str) -> None:
    space = get_space(name)
    assert space.name == name
    assert SearchSpace.from_json(json.loads(json.dumps(space.to_json()))) == space
    assert name not in SPACES
