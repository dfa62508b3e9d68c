"""Search spaces and children: what is allowed, what the messages say, JSON both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from conftest import LAYERWISE, TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import SPACES, get_space
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.errors import NotFoundError, SpaceError
from bignas_zoo.files.store import json_bytes

# The paper's 242M model, a column of its Figure 9.
SMALL: dict[str, Any] = {
    "resolution": 192,
    "widths": [32, 16, 24, 40, 80, 112, 192, 320, 1280],
    "depths": [1, 2, 2, 2, 2, 3, 1],
    "kernels": [3, 3, 5, 3, 5, 5, 3],
}
ALL_SPACES = [*SPACES.values(), TINY, LAYERWISE]


def small(**changes: Any) -> ChildSpec:
    return BIGNAS.spec(**{**SMALL, **changes})


def put(values: list[Any], index: int, value: Any) -> list[Any]:
    return [*values[:index], value, *values[index + 1 :]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"widths": put(SMALL["widths"], 3, 44)},
            "stage 3: width 44 is not in space 'bignas'; allowed: 40, 48; nearest: 40.",
        ),
        (
            {"widths": put(SMALL["widths"], 3, 47)},
            "stage 3: width 47 is not in space 'bignas'; allowed: 40, 48; nearest: 48.",
        ),
        (
            {"widths": put(SMALL["widths"], 0, 64)},
            "stem: width 64 is not in space 'bignas'; allowed: 32, 40; nearest: 40.",
        ),
        (
            {"depths": put(SMALL["depths"], 4, 7)},
            "stage 5: depth 7 is not in space 'bignas'; allowed: 2, 3, 4, 5, 6; nearest: 6.",
        ),
        (
            {"kernels": put(SMALL["kernels"], 2, 7)},
            "stage 3, layer 1: kernel 7 is not in space 'bignas'; allowed: 3, 5; nearest: 5.",
        ),
        (
            {"kernels": put(SMALL["kernels"], 2, [3, 4])},
            "stage 3, layer 2: kernel 4 is not in space 'bignas'; allowed: 3, 5; nearest: 3.",
        ),
        (
            {"kernels": put(SMALL["kernels"], 1, 5)},
            "stage 2, layer 1: kernel 5 is not in space 'bignas'; allowed: 3; nearest: 3.",
        ),
        (
            {"expansions": [1, 6, 6, 4, 6, 6, 6]},
            "stage 4: expansion 4 is not in space 'bignas'; allowed: 6; nearest: 6.",
        ),
        (
            {"resolution": 200},
            "resolution 200 is not in space 'bignas'; allowed: 192, 208, 224, 240, 256, 272, 288, 304, 320, 336; "
            "nearest: 192.",
        ),
        (
            {"resolution": "192"},
            "resolution '192' is not in space 'bignas'; allowed: 192, 208, 224, 240, 256, 272, 288, 304, 320, 336.",
        ),
        ({"kernels": put(SMALL["kernels"], 2, [3])}, "stage 3: needs 2 kernels (one a layer), got 1."),
        ({"depths": [1, 2, 2]}, "depths: space 'bignas' needs 7 (one a stage) values, got 3."),
        (
            {"widths": [32, 16, 24, 40, 80, 112, 192, 320]},
            "widths: space 'bignas' needs 7 (one a stage) or 9 (stem, stages, head) values, got 8.",
        ),
        ({"kernels": []}, "kernels: space 'bignas' needs 7 (one a stage) values, got 0."),
        ({"expansions": [6]}, "expansions: space 'bignas' needs 7 (one a stage) values, got 1."),
        (
            {"stem_width": 32},
            "widths: 9 values already hold the stem and the head; leave out stem_width and head_width.",
        ),
    ],
)
def test_message_names_place_allowed_and_nearest(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        small(**changes)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [True, 1.0, 2.0, None, "2", [2], float("nan"), float("inf"), 10**12, -1])
def test_depth_of_a_wrong_type_or_size_is_a_space_error(value: Any) -> None:
    with pytest.raises(SpaceError, match=r"^stage 1: depth .* is not in space 'bignas'; allowed: 1, 2"):
        small(depths=put(SMALL["depths"], 0, value))


@pytest.mark.parametrize("value", [True, 3.0, None, "3", (3.0,), {3: 3}])
def test_kernel_of_a_wrong_type_is_a_space_error(value: Any) -> None:
    with pytest.raises(SpaceError, match=r"^stage 1"):
        small(kernels=put(SMALL["kernels"], 0, value))


@pytest.mark.parametrize(
    ("key", "index", "value", "what"),
    [
        ("widths", 1, 16.0, "stage 1: width 16.0"),
        ("widths", 8, 1280.0, "head: width 1280.0"),
        ("widths", 0, None, "stem: width None"),
        ("kernels", 0, [True], "stage 1, layer 1: kernel True"),
    ],
)
def test_floats_bools_and_none_are_rejected(key: str, index: int, value: Any, what: str) -> None:
    with pytest.raises(SpaceError) as caught:
        small(**{key: put(SMALL[key], index, value)})
    assert str(caught.value).startswith(f"{what} is not in space 'bignas'")


def test_float_resolution_is_rejected() -> None:
    with pytest.raises(SpaceError, match=r"^resolution 192\.0 is not in space"):
        small(resolution=192.0)


def test_nine_widths_hold_stem_and_head() -> None:
    spec = small(widths=[40, 24, 32, 48, 88, 128, 216, 352, 1408])
    assert (spec.stem_width, spec.head_width) == (40, 1408)
    assert [s.width for s in spec.stages] == [24, 32, 48, 88, 128, 216, 352]


def test_seven_widths_take_smallest_stem_and_head() -> None:
    spec = small(widths=[16, 24, 40, 80, 112, 192, 320])
    assert (spec.stem_width, spec.head_width) == (32, 1280)
    assert spec == small()


def test_seven_widths_with_stem_and_head() -> None:
    spec = small(widths=[16, 24, 40, 80, 112, 192, 320], stem_width=40, head_width=1336)
    assert (spec.stem_width, spec.head_width) == (40, 1336)


def test_kernels_may_differ_layer_by_layer() -> None:
    spec = small(depths=[1, 2, 2, 2, 4, 3, 1], kernels=[3, [3, 3], 5, [3, 5], [5, 3, 3, 5], 5, 3])
    assert [s.kernels for s in spec.stages] == [
        (3,),
        (3, 3),
        (5, 5),
        (3, 5),
        (5, 3, 3, 5),
        (5, 5, 5),
        (3,),
    ]


def test_expansions_are_asked_for_where_there_is_a_choice(tiny: SearchSpace) -> None:
    with pytest.raises(SpaceError, match="expansions: space 'tiny' leaves a choice, so give one a stage"):
        tiny.spec(resolution=12, depths=[1, 1, 2, 1], widths=[8, 16, 16, 24], kernels=[3, 3, 3, 3])


@pytest.mark.parametrize("resolution", [208, 240, 256, 272, 304, 336])
def test_unseen_resolutions_may_be_deployed(resolution: int) -> None:
    assert small(resolution=resolution).resolution == resolution
    assert resolution not in BIGNAS.resolutions


@pytest.mark.parametrize("resolution", [0, 191, 193, 200, 352, -192])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(SpaceError, match=f"^resolution {resolution} is not in space"):
        small(resolution=resolution)


def test_ranges_are_those_of_the_papers_table_1() -> None:
    assert BIGNAS.smallest == BIGNAS.spec(
        resolution=192,
        widths=[32, 16, 24, 40, 80, 112, 192, 320, 1280],
        depths=[1, 2, 2, 2, 2, 2, 1],
        kernels=[3] * 7,
    )
    assert BIGNAS.biggest == BIGNAS.spec(
        resolution=320,
        widths=[40, 24, 32, 48, 88, 128, 216, 352, 1408],
        depths=[2, 3, 3, 4, 6, 6, 2],
        kernels=[3, 3, 5, 5, 5, 5, 5],
    )


@pytest.mark.parametrize("space", ALL_SPACES, ids=lambda s: s.name)
def test_space_round_trip_byte_for_byte(space: SearchSpace) -> None:
    written = json_bytes(space.to_json())
    again = SearchSpace.from_json(json.loads(written))
    assert again == space
    assert json_bytes(again.to_json()) == written


@pytest.mark.parametrize("space", ALL_SPACES, ids=lambda s: s.name)
@given(number=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_child_round_trip_byte_for_byte(space: SearchSpace, number: int) -> None:
    child = uniform_child(space, ("round trip", number))
    written = json_bytes(child.to_json())
    again = ChildSpec.from_json(json.loads(written), space)
    assert again == child
    assert hash(again) == hash(child)
    assert json_bytes(again.to_json()) == written


def test_child_json_holds_every_choice() -> None:
    assert small().to_json() == {
        "space": "bignas",
        "resolution": 192,
        "depths": [1, 2, 2, 2, 2, 3, 1],
        "widths": [32, 16, 24, 40, 80, 112, 192, 320, 1280],
        "kernels": [[3], [3, 3], [5, 5], [3, 3], [5, 5], [5, 5, 5], [3]],
    }


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "bignas",
        {},
        {**SMALL},
        {**SMALL, "space": "bignas-cifar10"},
        {**SMALL, "space": "bignas", "extra": 1},
        {"space": "bignas", "resolution": 192},
        {**SMALL, "space": "bignas", "depths": 3},
        {**SMALL, "space": "bignas", "depths": [None] * 7},
        {**SMALL, "space": "bignas", "widths": None},
        {**SMALL, "space": "bignas", "kernels": [{}] * 7},
    ],
)
def test_child_from_damaged_json_is_a_space_error(data: Any) -> None:
    with pytest.raises(SpaceError):
        ChildSpec.from_json(data, BIGNAS)


@pytest.mark.parametrize("key", sorted({*BIGNAS.to_json()} - {"name", "source", "bn_epsilon"}))
@pytest.mark.parametrize("value", [None, True, -1, {}, [True], [2.5, 3.5]])
def test_space_json_with_a_wrong_value_never_passes_unseen(key: str, value: Any) -> None:
    with pytest.raises(SpaceError):
        SearchSpace.from_json({**BIGNAS.to_json(), key: value})


@pytest.mark.parametrize("key", ["name", "classes", "resolutions", "stages", "head_widths"])
def test_space_json_with_a_missing_key(key: str) -> None:
    data = BIGNAS.to_json()
    del data[key]
    with pytest.raises(SpaceError, match="not a valid description"):
        SearchSpace.from_json(data)


def test_space_json_with_an_unknown_key() -> None:
    with pytest.raises(SpaceError, match="surprise"):
        SearchSpace.from_json({**BIGNAS.to_json(), "surprise": 1})


GOOD_STAGE: dict[str, Any] = {"widths": (8, 16), "depths": (1, 2), "kernels": (3, 5), "stride": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (8, 12)}, "widths: must be multiples of 8, got [8, 12]."),
        ({"widths": (16, 8)}, "widths: must be ascending and not empty, got [16, 8]."),
        ({"widths": (8, 8)}, "widths: must be ascending and not empty, got [8, 8]."),
        ({"depths": ()}, "depths: must be ascending and not empty, got []."),
        ({"depths": (0, 1)}, "depths: must be a whole number of at least 1, got 0."),
        ({"depths": (1.0, 2)}, "depths: must be a whole number of at least 1, got 1.0."),
        ({"depths": (True, 2)}, "depths: must be a whole number of at least 1, got True."),
        ({"kernels": (3, 4)}, "kernels: must be odd, got [3, 4]."),
        ({"stride": 3}, "stride: must be one of 1, 2; got 3."),
        ({"stride": True}, "stride: must be one of 1, 2; got True."),
        ({"stride": 2.0}, "stride: must be one of 1, 2; got 2.0."),
        ({"layerwise_widths": 1}, "layerwise_widths: must be one of False, True; got 1."),
        ({"layerwise_widths": None}, "layerwise_widths: must be one of False, True; got None."),
        ({"expansions": (1, 6)}, "expansions: 1 (no expansion layer) cannot be mixed with others."),
    ],
)
def test_stage_space_rules(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        StageSpace(**{**GOOD_STAGE, **changes})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"source": "output"}, "squeeze_excite.source: must be one of input, expanded; got 'output'"),
        ({"activation": "gelu"}, "squeeze_excite.activation"),
        ({"gate": "tanh"}, "squeeze_excite.gate"),
        ({"divisor": 0}, "squeeze_excite.divisor: must be a whole number of at least 1, got 0"),
        ({"rounding": 0.5}, "squeeze_excite.rounding"),
    ],
)
def test_squeeze_excite_rules(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(SpaceError) as caught:
        SqueezeExcite(**changes)
    assert str(caught.value).startswith(what)


@pytest.mark.parametrize(
    ("form", "cin", "mid", "expected"),
    [
        (SqueezeExcite(), 24, 144, 6),
        (SqueezeExcite(divisor=5), 24, 144, 4),
        (SqueezeExcite(source="expanded"), 24, 144, 36),
        (SqueezeExcite(source="expanded", rounding=8), 24, 144, 40),  # 36 is half-way between 32 and 40: up
        (SqueezeExcite(source="expanded", rounding=8), 24, 140, 32),  # 35 goes down
    ],
)
def test_squeeze_excite_hidden_channels(form: SqueezeExcite, cin: int, mid: int, expected: int) -> None:
    assert form.hidden(cin, mid) == expected


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": 1}, "classes: must be a whole number of at least 2"),
        ({"classes": 2.0}, "classes: must be a whole number of at least 2"),
        ({"stages": ()}, "space 'tiny': needs at least one stage"),
        ({"stem_stride": 4}, "stem_stride: must be one of 1, 2"),
        ({"activation": "mish"}, "activation: must be one of swish"),
        ({"head_widths": (30,)}, "head_widths: must be multiples of 8"),
        ({"resolutions": (20, 12)}, "resolutions: must be ascending"),
    ],
)
def test_search_space_rules(tiny: SearchSpace, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(SpaceError) as caught:
        replace(tiny, **changes)
    assert str(caught.value).startswith(what)


def test_unknown_space_names_the_nearest() -> None:
    assert get_space("bignas") is BIGNAS
    with pytest.raises(NotFoundError, match="search space 'bignass': not known. Did you mean 'bignas'"):
        get_space("bignass")
