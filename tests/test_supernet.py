"""One code path for every child: masked, sliced and plain Keras give the same numbers."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import equality
import numpy as np
import pytest
import quick_jax
from conftest import LAYERWISE, STAGEWISE_KERNELS, TINY

from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.supernet import forward, initial_weights

TOLERANCE = 1e-5  # of the largest logit


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return equality.random_weights(0)


@pytest.fixture(scope="module", autouse=True)
def _let_programs_go() -> Iterator[None]:
    yield
    equality.masked.cache_clear()


# All of one space in turn: its two masked programs are kept for the next child, and no other's.


@pytest.mark.parametrize("index", [pytest.param(i, marks=() if i < 4 else pytest.mark.slow) for i in range(12)])
def test_masked_sliced_and_child_agree(index: int, weights: dict[str, np.ndarray]) -> None:
    if index < 4:
        spec = equality.children(4)[index]
    else:
        spec = uniform_child(TINY, ("many", index - 4), TINY.all_resolutions[(index - 4) % len(TINY.all_resolutions)])
    errors, _ = equality.run(spec, weights, index, compile_=index < 4)
    assert {k: v for k, v in errors.items() if not v <= TOLERANCE} == {}


@pytest.mark.parametrize(
    ("space", "index"),
    [
        pytest.param(space, i, id=f"{space.name}-{i}", marks=() if i < 2 else pytest.mark.slow)
        for space in equality.SPACES[1:]
        for i in range(5)  # the others' forms are compared in test_forms.py
    ],
)
def test_variants_agree_as_well(space: SearchSpace, index: int) -> None:
    if index < 2:
        spec = equality.children(2, space)[index]
        assert any(len(set(values)) > 1 for stage in spec.stages for values in (stage.widths, stage.expansions))
    else:  # at three sizes, even and odd: each takes a program
        spec = uniform_child(space, ("many", index - 2), space.all_resolutions[index % 3])
    errors, _ = equality.run(spec, equality.random_weights(0, space), index, compile_=index < 2)
    assert {k: v for k, v in errors.items() if not v <= TOLERANCE} == {}


@pytest.mark.parametrize("space", equality.SPACES[1:3], ids=lambda s: s.name)
def test_equality_children_cover_every_change_of_width(space: SearchSpace) -> None:
    stages = [stage.widths for spec in equality.children(2, space) for stage in spec.stages]
    assert {np.sign(b - a) for widths in stages for a, b in itertools.pairwise(widths)} == {-1, 0, 1}


@pytest.mark.parametrize("space", equality.SPACES[3:], ids=lambda s: s.name)
def test_equality_children_cover_expansions_that_rise_and_fall(space: SearchSpace) -> None:
    stages = [stage.expansions for spec in equality.children(2, space) for stage in spec.stages]
    assert {np.sign(b - a) for expansions in stages for a, b in itertools.pairwise(expansions)} == {-1, 0, 1}


def test_equality_children_cover_every_kind_of_choice() -> None:
    specs = [*equality.children(4), *(uniform_child(TINY, ("many", i)) for i in range(20))]
    assert {k for s in specs for stage in s.stages for k in stage.kernels} == {3, 5}
    for i, stage in enumerate(TINY.stages):
        assert {s.stages[i].depth for s in specs} == set(stage.depths)
        assert {s.stages[i].width for s in specs} == set(stage.widths)
        assert {s.stages[i].expansion for s in specs} == set(stage.expansions)


@pytest.mark.slow
def test_jax_gives_the_same_as_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="JAX is not installed: pip install 'bignas-zoo[test]'")
    out = tmp_path / "jax.npz"
    here = Path(__file__).parent
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": quick_jax.FLAGS}
    done = subprocess.run(
        [sys.executable, "equality.py", "3", str(out)],
        cwd=here, env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    errors = json.loads(done.stdout.splitlines()[-1])
    assert errors.pop("backend") == "jax"
    assert errors.pop("children") == 4
    assert {k: v for k, v in errors.items() if not v <= TOLERANCE} == {}
    stored = np.load(out)
    for space, some in ((TINY, 3), (LAYERWISE, 1)):
        weights = equality.random_weights(0, space)
        for i, spec in enumerate(equality.children(some, space)):
            _, logits = equality.run(spec, weights, i)
            assert equality.error(stored[f"{space.name}.child{i}"], logits) <= TOLERANCE


def _gradients(
    spec: ChildSpec, weights: dict[str, np.ndarray], how: Execution, *, static: bool = False
) -> dict[str, np.ndarray]:
    import tensorflow as tf

    variables = {k: tf.Variable(v) for k, v in weights.items()}
    x = tf.constant(np.random.default_rng(3).normal(size=(8, spec.resolution, spec.resolution, 3)), tf.float32)

    @tf.function(autograph=False)
    def run(vector):
        child = ActiveChild.of(spec) if static else ActiveChild.from_vector(spec.space, vector)
        with tf.GradientTape() as tape:
            logits = forward(spec.space, variables, x, child, how=how)
            loss = tf.reduce_mean(tf.square(logits - 1.0))
        return tape.gradient(loss, variables, unconnected_gradients="zero")

    return {k: np.asarray(tf.convert_to_tensor(g)) for k, g in run(ActiveChild.of(spec).vector()).items()}


@pytest.fixture(scope="module", params=[TINY, LAYERWISE], ids=lambda s: s.name)
def sliced_gradients(request: pytest.FixtureRequest, weights: dict[str, np.ndarray]):
    """A child and the gradients of its static program."""
    spec = uniform_child(request.param, ("gradient", 1), 13)
    return spec, _gradients(spec, weights, Execution(), static=True)


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["where", "cond"])
@pytest.mark.parametrize(
    ("batch_norm", "depthwise"), [("fused", "native"), ("two_pass", "shifted"), ("one_pass", "native")]
)
def test_masked_gradients_equal_sliced_gradients(
    batch_norm: str, depthwise: str, branch: str, sliced_gradients, weights: dict[str, np.ndarray]
) -> None:
    spec, sliced = sliced_gradients
    masked = _gradients(spec, weights, Execution(batch_norm, depthwise, branch))
    scale = max(float(np.abs(g).max()) for g in sliced.values())
    assert max(float(np.abs(sliced[k] - masked[k]).max()) for k in sliced) <= TOLERANCE * scale
    # A weight the child does not have gets exactly no gradient.
    unused = [k for k in sliced if not sliced[k].any()]
    assert unused
    assert all(not masked[k].any() for k in unused)


@pytest.mark.parametrize("branch", ["where", "cond"])
@pytest.mark.parametrize(
    "space", [LAYERWISE, variant(BIGNAS_CIFAR10, layerwise_widths=True)], ids=lambda s: s.name
)  # the second has stages without a choice of width: static ints among traced ones
def test_width_after_a_stage_is_that_of_the_last_active_layer(space: SearchSpace, branch: str) -> None:
    import tensorflow as tf

    weights = equality.random_weights(0, space)
    for n in range(3):
        spec = uniform_child(space, ("absent", n), space.resolutions[0])
        child = ActiveChild.of(spec)
        # The widths of absent layers say nothing: put one that is not the last active layer's.
        absent = {
            ("width", i, j): next((w for w in a.widths if w != stage.width), a.widths[0])
            for i, (stage, a) in enumerate(zip(spec.stages, space.stages, strict=True))
            for j in range(stage.depth, a.depths[-1])
        }
        vector = ActiveChild({**child.entries, **absent}).vector()
        assert n or vector.tolist() != child.vector().tolist()
        x = np.random.default_rng(n).normal(size=(8, spec.resolution, spec.resolution, 3)).astype("f4")
        expected = forward(space, weights, x, child)
        traced = ActiveChild.from_vector(space, tf.constant(vector))
        masked = forward(space, weights, x, traced, how=Execution(branch=branch))
        assert equality.error(masked, np.asarray(expected)) <= TOLERANCE


def test_different_children_give_different_logits(weights: dict[str, np.ndarray]) -> None:
    x = np.random.default_rng(0).normal(size=(8, 14, 14, 3)).astype("f4")
    outputs = [
        np.asarray(forward(TINY, weights, x, ActiveChild.of(uniform_child(TINY, ("differ", i), 14)))) for i in range(4)
    ]
    for i in range(4):
        for j in range(i):
            assert np.abs(outputs[i] - outputs[j]).max() > 1e-3


@pytest.mark.parametrize(
    ("space", "length"),
    [(TINY, 2 + 3 * 4 + 10), (LAYERWISE, 2 + 2 * 4 + 2 * 10), (STAGEWISE_KERNELS, 2 + 3 * 4 + 10)],
)
def test_vector_round_trip(space: SearchSpace, length: int) -> None:
    # Stem and head; depths of 4 stages; one a stage, or one for each of 2 + 3 + 3 + 2 layers, of widths, expansions
    # and kernels: tiny has kernels, layer-wise also widths, and stage-wise kernels only expansions one a layer.
    spec = uniform_child(space, ("vector",))
    child = ActiveChild.of(spec)
    assert child.vector().shape == (length,)
    again = ActiveChild.from_vector(space, child.vector())
    assert again.entries == child.entries
    assert again.vector().tolist() == child.vector().tolist()


def test_vector_order_by_hand() -> None:
    """Stem, head; depths; widths; expansions; kernels: each stage by stage, absent layers repeating the last one."""
    spec = LAYERWISE.spec(
        resolution=12, depths=[1, 2, 3, 1], widths=[8, 16, [16, 24], [16, 24, 32], 24, 40],
        kernels=[3, [3, 5], [5, 3, 3], 5], expansions=[1, 3, 4, 2],
    )  # fmt: skip
    widths, kernels = [16, 16, 16, 24, 24, 16, 24, 32, 24, 24], [3, 3, 3, 5, 5, 5, 3, 3, 5, 5]
    assert ActiveChild.of(spec).vector().tolist() == [8, 40, 1, 2, 3, 1, *widths, 1, 3, 4, 2, *kernels]


def test_last_gamma_zero_makes_every_residual_block_an_identity() -> None:
    # BigNAS section 3.1: at the start the output of a stage is its shortcut's alone, so optional layers
    # change nothing: the deepest and the shallowest child agree (same widths, same resolution).
    weights = initial_weights(TINY, 0, last_gamma=0.0)
    big = TINY.biggest
    shallow = TINY.spec(
        resolution=big.resolution,
        depths=[s.depths[0] for s in TINY.stages],
        widths=[big.stem_width, *(s.width for s in big.stages), big.head_width],
        kernels=[s.kernels[-1] for s in TINY.stages],
        expansions=[s.expansion for s in big.stages],
    )
    x = np.random.default_rng(0).normal(size=(8, big.resolution, big.resolution, 3)).astype("f4")
    deep_logits = forward(TINY, weights, x, ActiveChild.of(big))
    shallow_logits = forward(TINY, weights, x, ActiveChild.of(shallow))
    assert np.abs(np.asarray(deep_logits)).max() > 0
    np.testing.assert_allclose(deep_logits, shallow_logits, rtol=0, atol=1e-7)
    he = initial_weights(TINY, 0, last_gamma=1.0)
    differs = np.asarray(forward(TINY, he, x, ActiveChild.of(big))) - forward(TINY, he, x, ActiveChild.of(shallow))
    assert np.abs(differs).max() > 1e-4


def test_initial_kernels_have_the_variance_of_their_fan_out() -> None:
    weights = initial_weights(TINY, 0)
    kernel = weights["stage3.layer2.expand.kernel"]  # 1x1, fan-out = its output channels
    assert kernel.std() == pytest.approx((2 / kernel.shape[-1]) ** 0.5, rel=0.05)
    depthwise = weights["stage3.layer2.depthwise.kernel"]  # fan-out = its area
    assert depthwise.std() == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert not np.array_equal(weights["stage3.layer2.expand.kernel"], weights["stage3.layer3.expand.kernel"])
