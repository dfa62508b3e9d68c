"""Forms of shortcut, padding, head, squeeze-excite and block: each way to run a network gives the same numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import equality
import numpy as np
import pytest

from bignas_zoo.architecture.forms import Head, Shortcut, SqueezeExcite
from bignas_zoo.architecture.network import BlockList
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces.attentivenas import ATTENTIVENAS
from bignas_zoo.architecture.spaces.efficientnet_lite import EFFICIENTNET_LITE0
from bignas_zoo.architecture.spaces.nss import NSS
from bignas_zoo.architecture.spaces.once_for_all import ONCE_FOR_ALL
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.errors import SpaceError

SE = SqueezeExcite(source="expanded", rounding=8, activation="relu", gate="hard_sigmoid", make_divisible=True)
#: After the stem: even maps of 8 px, odd ones of 9, then 4 and 5.
SIZES = {"resolutions": (16, 18), "unseen_resolutions": (), "classes": 5}


def stage(widths, depths, kernels, stride, expansions=(1,), gate=None, **forms) -> StageSpace:
    return StageSpace(widths, depths, kernels, stride, expansions, gate, **forms)


SMALL = {
    space.name: space
    for space in (
        replace(
            ATTENTIVENAS,
            **SIZES,
            name="small-attentivenas",
            stem_widths=(8, 16),
            head_widths=(24, 32),
            stages=(
                stage((8, 16), (1, 2), (3, 5), 1, stagewise_kernels=True),
                stage((8, 16), (1, 2), (3, 5), 2, (2, 3), SE, stagewise_kernels=True),
                stage((16, 24), (1, 2), (3, 5), 1, (2,), stagewise_kernels=True),
            ),
        ),
        replace(
            ONCE_FOR_ALL,
            **SIZES,
            name="small-once-for-all",
            stem_widths=(8,),
            head_widths=(24,),
            stages=(
                stage((8,), (1,), (3,), 1, activation="relu"),
                stage((16,), (1, 2), (3, 5, 7), 2, (2, 3), SE, layerwise_expansions=True, activation="relu"),
                stage((24,), (1, 2), (3, 5), 1, (2, 3), SE, layerwise_expansions=True),
            ),
        ),
        replace(
            EFFICIENTNET_LITE0,
            **SIZES,
            name="small-efficientnet-lite",
            stem_widths=(8,),
            head_widths=(24,),
            stages=(
                stage((8,), (1,), (3,), 1),
                stage((16,), (2,), (5,), 2, (6,)),
                stage((24,), (2,), (3,), 1, (6,)),
            ),
        ),
        # Elastic widths where a shortcut stands or falls with them.
        replace(
            EFFICIENTNET_LITE0,
            **SIZES,
            name="small-mobilenet",
            stem_widths=(8, 16),
            head_widths=(24,),
            padding="symmetric",
            stages=(
                stage((8, 16), (1, 2), (3,), 1),
                stage((8, 16, 24), (1, 2), (3, 5), 1, (2,), layerwise_widths=True),
            ),
        ),
        replace(
            NSS,
            **SIZES,
            name="small-nss",
            stem_widths=(8,),
            stages=tuple(stage((8, 16, 24), (1, 2), (3,), stride, block="basic") for stride in (1, 2)),
        ),
        replace(
            NSS,
            **SIZES,
            name="small-resnet-b",
            stem_widths=(8,),
            head_widths=(16, 24),
            activation="swish",
            shortcut=Shortcut("project_changed", "average"),
            padding="same",
            head=Head("pooled", expansion=2, bias=True),
            stages=tuple(stage((8, 16), (1, 2), (3,), stride, block="basic") for stride in (1, 2)),
        ),
    )
}


@pytest.mark.parametrize(("name", "size"), list(product(SMALL, (16, 18))), ids=lambda value: str(value))
def test_supernet_child_blocks_and_numpy_agree(name: str, size: int) -> None:
    space = SMALL[name]
    spec = uniform_child(space, ("forms", size), size)
    errors, _ = equality.run(spec, equality.random_weights(1, space), size, compile_=False)
    assert {"batch where", "batch cond", "batch shifted", "calibrated blockwise"} <= errors.keys()
    assert "calibrated numpy" in errors
    assert max(errors.values()) < 1e-5, errors


def test_a_literal_list_of_blocks_runs_as_the_child_it_was_taken_from() -> None:
    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.numpy_forward import numpy_forward
    from bignas_zoo.models.slicing import child_shapes

    space = SMALL["small-once-for-all"]
    spec = uniform_child(space, ("list",), 18)
    net = BlockList("copy", 18, 5, plan(spec), spec.bn_epsilon)
    generator = np.random.default_rng(0)
    weights = {
        name: generator.uniform(0.1, 0.5, shape).astype(np.float32) * (1 if name.endswith("variance") else 0.5)
        for name, shape in child_shapes(net, statistics=True).items()
    }
    images = generator.normal(size=(2, 18, 18, 3)).astype(np.float32)
    expected = numpy_forward(spec, weights, images)
    np.testing.assert_array_equal(numpy_forward(net, weights, images), expected)
    model = build_child(net)
    set_weights(model, net, weights)
    assert equality.error(model(images), expected) < 1e-5


@pytest.mark.parametrize(
    ("channels", "hidden"),
    [(72, 24), (128, 32), (240, 64), (560, 144), (720, 184), (1296, 328), (1344, 336)],
)
def test_hidden_channels_by_mobilenets_rounding(channels: int, hidden: int) -> None:
    # 72 / 4 = 18 would go down to 16, which is less than nine tenths of it; the others are AttentiveNAS's and OFA's.
    assert SE.hidden(8, channels) == hidden
    assert int(SE.hidden(np.int32(8), np.int32(channels))) == hidden


@pytest.mark.parametrize("pooling", ["average", "average_padded", "subsample"])
@pytest.mark.parametrize("size", [4, 5])
def test_halved_shortcuts_by_hand(pooling: str, size: int) -> None:
    from bignas_zoo.models import elastic

    x = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    halved = np.asarray(elastic.halve(x, pooling, odd=size % 2 == 1))[0, :, :, 0]
    if pooling == "subsample":
        expected = x[0, ::2, ::2, 0]
    elif size == 4:  # means of 0 1 4 5, 2 3 6 7, ...
        expected = [[2.5, 4.5], [10.5, 12.5]]
    elif pooling == "average":  # the last row and column alone: 4 9 and 20 21; 24
        expected = [[3, 5, 6.5], [13, 15, 16.5], [20.5, 22.5, 24]]
    else:  # a rim of zeros in front: the corner is a quarter, the first row and column are halves
        expected = [[0, 0.75, 1.75], [3.75, 9, 11], [8.75, 19, 21]]
    np.testing.assert_array_equal(halved, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shortcut("sometimes"), "shortcut.rule"),
        (lambda: Shortcut(pooling="max"), "shortcut.pooling"),
        (lambda: Head("two"), "head.form"),
        (lambda: Head("pooled", expansion=0), "head.expansion"),
        (lambda: replace(NSS, padding="valid"), "padding"),
        (lambda: replace(NSS, head_widths=(8,)), r"must be \(0,\) without a head"),
        (lambda: replace(NSS, head=Head()), "head_widths"),
        (lambda: stage((8,), (1,), (3, 5), 1, block="basic"), "'basic' has one kernel size"),
        (lambda: stage((8,), (1,), (3,), 1, (2,), block="basic"), "expansion 1"),
        (lambda: stage((8,), (1,), (3,), 1, block="dense"), "block"),
        (lambda: stage((8,), (1,), (3,), 1, activation="gelu"), "activation"),
        (lambda: SearchSpace.from_json({**NSS.to_json(), "head": {"form": "none", "colour": 1}}), "not a valid"),
        (lambda: SearchSpace.from_json({**NSS.to_json(), "shortcut": "identity"}), "not a valid"),
    ],
)
def test_wrong_forms_are_refused(make, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()
