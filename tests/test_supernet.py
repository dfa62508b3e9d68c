"""One code path for every child: masked, sliced and plain Keras give the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import equality
import numpy as np
import pytest
from conftest import TINY

from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.supernet import Choice, forward, initial_weights
from bignas_zoo.sampling import uniform_child
from bignas_zoo.space import ChildSpec

TOLERANCE = 1e-5  # of the largest logit


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return equality.random_weights(0)


@pytest.mark.parametrize("index", range(4))
def test_masked_sliced_and_child_agree(index: int, weights: dict[str, np.ndarray]) -> None:
    errors, _ = equality.run(equality.children(4)[index], weights, index)
    assert {k: v for k, v in errors.items() if not v <= TOLERANCE} == {}


@pytest.mark.slow
@pytest.mark.parametrize("index", range(20))
def test_masked_sliced_and_child_agree_on_many(index: int, weights: dict[str, np.ndarray]) -> None:
    spec = uniform_child(TINY, ("many", index), TINY.all_resolutions[index % len(TINY.all_resolutions)])
    errors, _ = equality.run(spec, weights, index)
    assert {k: v for k, v in errors.items() if not v <= TOLERANCE} == {}


def test_equality_children_cover_every_kind_of_choice() -> None:
    specs = [*equality.children(4), *(uniform_child(TINY, ("many", i)) for i in range(20))]
    assert {k for s in specs for stage in s.stages for k in stage.kernels} == {3, 5}
    for i, stage in enumerate(TINY.stages):
        assert {s.stages[i].depth for s in specs} == set(stage.depths)
        assert {s.stages[i].width for s in specs} == set(stage.widths)
        assert {s.stages[i].expansion for s in specs} == set(stage.expansions)


@pytest.mark.slow
def test_jax_gives_the_same_as_tensorflow(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    pytest.importorskip("jax", reason="JAX is not installed: pip install 'bignas-zoo[test]'")
    out = tmp_path / "jax.npz"
    here = Path(__file__).parent
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "equality.py", "3", str(out)],
        cwd=here, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    errors = json.loads(done.stdout.splitlines()[-1])
    assert errors.pop("backend") == "jax"
    assert errors.pop("children") == 3
    assert {k: v for k, v in errors.items() if not v <= TOLERANCE} == {}
    stored = np.load(out)
    for i, spec in enumerate(equality.children(3)):
        _, logits = equality.run(spec, weights, i)
        assert equality.error(stored[f"child{i}"], logits) <= TOLERANCE


def _gradients(
    spec: ChildSpec, weights: dict[str, np.ndarray], how: Execution, *, static: bool = False
) -> dict[str, np.ndarray]:
    import tensorflow as tf

    variables = {k: tf.Variable(v) for k, v in weights.items()}
    x = tf.constant(np.random.default_rng(3).normal(size=(8, spec.resolution, spec.resolution, 3)), tf.float32)

    @tf.function(autograph=False)
    def run(vector):
        chosen = Choice.of(spec) if static else Choice.from_vector(TINY, vector)
        with tf.GradientTape() as tape:
            logits, _ = forward(TINY, variables, x, chosen, how=how)
            loss = tf.reduce_mean(tf.square(logits - 1.0))
        return tape.gradient(loss, variables, unconnected_gradients="zero")

    return {k: np.asarray(tf.convert_to_tensor(g)) for k, g in run(Choice.of(spec).vector()).items()}


@pytest.mark.parametrize("branch", ["where", "cond"])
@pytest.mark.parametrize(
    ("batch_norm", "depthwise"), [("fused", "native"), ("two_pass", "shifted"), ("one_pass", "native")]
)
def test_masked_gradients_equal_sliced_gradients(
    batch_norm: str, depthwise: str, branch: str, weights: dict[str, np.ndarray]
) -> None:
    spec = uniform_child(TINY, ("gradient", 1), 13)
    sliced = _gradients(spec, weights, Execution(), static=True)
    masked = _gradients(spec, weights, Execution(batch_norm, depthwise, branch))
    scale = max(float(np.abs(g).max()) for g in sliced.values())
    assert max(float(np.abs(sliced[k] - masked[k]).max()) for k in sliced) <= TOLERANCE * scale
    # A weight the child does not have gets exactly no gradient.
    unused = [k for k in sliced if not sliced[k].any()]
    assert unused
    assert all(not masked[k].any() for k in unused)


def test_different_children_give_different_logits(weights: dict[str, np.ndarray]) -> None:
    x = np.random.default_rng(0).normal(size=(8, 14, 14, 3)).astype("f4")
    outputs = [
        np.asarray(forward(TINY, weights, x, Choice.of(uniform_child(TINY, ("differ", i), 14)))[0]) for i in range(4)
    ]
    for i in range(4):
        for j in range(i):
            assert np.abs(outputs[i] - outputs[j]).max() > 1e-3


def test_choice_vector_round_trip() -> None:
    spec = uniform_child(TINY, ("vector",))
    choice = Choice.of(spec)
    again = Choice.from_vector(TINY, choice.vector())
    assert again.vector().tolist() == choice.vector().tolist()
    assert again.depths == choice.depths


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
    deep_logits, _ = forward(TINY, weights, x, Choice.of(big))
    shallow_logits, _ = forward(TINY, weights, x, Choice.of(shallow))
    assert np.abs(np.asarray(deep_logits)).max() > 0
    np.testing.assert_allclose(deep_logits, shallow_logits, rtol=0, atol=1e-7)
    he = initial_weights(TINY, 0, last_gamma=1.0)
    differs = np.asarray(forward(TINY, he, x, Choice.of(big))[0]) - forward(TINY, he, x, Choice.of(shallow))[0]
    assert np.abs(differs).max() > 1e-4


def test_initial_kernels_have_the_variance_of_their_fan_out() -> None:
    weights = initial_weights(TINY, 0)
    kernel = weights["stage3.layer2.expand.kernel"]  # 1x1, fan-out = its output channels
    assert kernel.std() == pytest.approx((2 / kernel.shape[-1]) ** 0.5, rel=0.05)
    depthwise = weights["stage3.layer2.depthwise.kernel"]  # fan-out = its area
    assert depthwise.std() == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert not np.array_equal(weights["stage3.layer2.expand.kernel"], weights["stage3.layer3.expand.kernel"])
