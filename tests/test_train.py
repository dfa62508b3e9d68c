"""Training: the sandwich's losses, and runs that survive interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY

from bignas_zoo.architecture import spaces
from bignas_zoo.cli.main import main
from bignas_zoo.errors import PreemptedError, RecipeError, TrainingStoppedError
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.recipes import train as loop
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.recipes.engines.tensorflow import TensorFlowEngine
from bignas_zoo.recipes.methods import losses
from bignas_zoo.recipes.methods.bits import uniform
from bignas_zoo.recipes.methods.method import Examples, total
from bignas_zoo.recipes.methods.sandwich import Sandwich, children, control, loss
from bignas_zoo.recipes.recipe import Recipe, find_recipe
from bignas_zoo.recipes.runs import checkpoint


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    return Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0, 128.0, 128.0), std=(64.0, 64.0, 64.0),
        steps=6, holdout=10, batch_size=8, learning_rate=0.01, learning_rate_batch=8,
        crop_padding=2, evaluate_every=3, checkpoint_every=2, warmup_steps=2, dropout=0.2, decay="exponential",
        method=Sandwich(biggest_only_steps=2),
    )  # fmt: skip


@pytest.fixture
def images() -> LabelledImages:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 40).astype(np.int32)
    pixels = generator.integers(0, 256, (40, 20, 20, 3)).astype(np.uint8)
    pixels[..., 0] = (labels * 50)[:, None, None]
    return LabelledImages(pixels, labels, tuple("abcde"), "synthetic (40 images)")


def contract(recipe: Recipe) -> Preprocess:
    return Preprocess(recipe.crop_size, recipe.mean, recipe.std)


def no_evaluation(weights: dict[str, np.ndarray]) -> dict[str, float]:
    return {}


def _loss_gradients(recipe: Recipe, images: LabelledImages, labels: np.ndarray, step: int = 0):
    import tensorflow as tf

    engine = TensorFlowEngine(recipe, contract(recipe))
    rng = np.random.default_rng(1)
    # Gammas away from zero, so that gradients reach every layer.
    weights = {
        k: tf.Variable(v + rng.normal(size=v.shape).astype("f4") * 0.3 * ("gamma" in k))
        for k, v in engine.weights().items()
    }
    given = control(recipe, step, {})
    steering = {k: tf.constant(v) for k, v in given.steering.items()}
    pixels = contract(recipe).normalise(images.pixels[:8])

    @tf.function(autograph=False)
    def run(labels):
        with tf.GradientTape() as tape:
            examples = Examples(pixels, labels, tf.range(8))
            value, figures = total(loss(recipe, given.phase), weights, examples, steering, Execution(branch="cond"))
        return value, figures, tape.gradient(value, weights, unconnected_gradients="zero")

    value, figures, gradients = run(tf.constant(labels))
    dense = {k: np.asarray(tf.convert_to_tensor(g)) for k, g in gradients.items()}
    return float(value), {k: float(v) for k, v in figures.items()}, dense


def test_children_never_see_the_labels(recipe: Recipe, images: LabelledImages) -> None:
    # The smallest child's loss depends on the biggest one's predictions only: other labels change
    # nothing in it, though they change the biggest one's loss.
    recipe = recipe.with_fields(biggest_only_steps=0)
    labels = images.labels[:8]
    _, one, _ = _loss_gradients(recipe, images, labels)
    _, other, _ = _loss_gradients(recipe, images, (labels + 1) % 5)
    assert one["smallest"] == pytest.approx(other["smallest"], abs=1e-7)
    assert one["biggest"] != pytest.approx(other["biggest"], abs=1e-4)


def test_no_gradient_flows_through_the_soft_labels(recipe: Recipe, images: LabelledImages) -> None:
    # With one child besides the biggest and no label loss left (its gradient subtracted), a weight that
    # only the biggest has must get no gradient.
    alone = recipe.with_fields(random_children=0, weight_decay=0.0, dropout=0.0, biggest_only_steps=0)
    labels = images.labels[:8]
    _, _, both = _loss_gradients(alone, images, labels)
    _, _, biggest = _loss_gradients(alone.with_fields(biggest_only_steps=1), images, labels)
    only_biggest = [k for k in both if k.startswith("stage2.layer3")]
    assert only_biggest
    for name in only_biggest:
        np.testing.assert_allclose(both[name], biggest[name], atol=1e-6)
    shared = "stem.kernel"
    assert np.abs(both[shared] - np.asarray(biggest[shared])).max() > 1e-5


def test_weight_decay_is_half_the_squares_of_kernels_once(recipe: Recipe, images: LabelledImages) -> None:
    labels = images.labels[:8]
    plain = recipe.with_fields(weight_decay=0.0)
    decayed = recipe.with_fields(weight_decay=0.1)
    loss, _, _ = _loss_gradients(plain, images, labels)
    more, _, _ = _loss_gradients(decayed, images, labels)
    kernels = [v for k, v in TensorFlowEngine(recipe, contract(recipe)).weights().items() if k.endswith("kernel")]
    expected = 0.1 * sum(float((k.astype("f8") ** 2).sum()) for k in kernels) / 2
    assert more - loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("index", range(4))
def test_a_childs_weight_decay_is_that_of_its_own_kernels(recipe: Recipe, index: int) -> None:
    everyone = recipe.with_fields(regularise="all", biggest_only_steps=0)
    steering, spec = control(everyone, 3, {}).steering, children(everyone, 3)[index]
    generator = np.random.default_rng(0)
    weights = {k: generator.normal(size=v.shape).astype("f4") for k, v in initial_weights(TINY, 0).items()}
    kernels = [v for k, v in slice_weights(weights, spec).items() if k.endswith("kernel")]
    expected = sum(float((k.astype("f8") ** 2).sum()) for k in kernels) / 2
    for order in (weights, dict(sorted(weights.items())), dict(reversed(weights.items()))):
        assert float(losses.l2_of(order, steering["extents"][index])) == pytest.approx(expected, rel=1e-5)


def test_dropout_depends_on_the_row_and_not_on_the_shard() -> None:
    key = control_key()
    whole = np.asarray(uniform(key, np.arange(3000), 40))
    assert whole.mean() == pytest.approx(0.5, abs=0.005)
    assert whole.var() == pytest.approx(1 / 12, rel=0.02)
    assert whole.min() >= 0
    assert whole.max() < 1
    assert np.abs(np.corrcoef(whole.T) - np.eye(40)).max() < 0.1  # 40 columns of 3,000: about 5 deviations
    np.testing.assert_array_equal(uniform(key, np.arange(1000, 1010), 40), whole[1000:1010])
    assert not np.array_equal(uniform(key + np.uint32(1), np.arange(3000), 40), whole)


def control_key() -> np.ndarray:
    from bignas_zoo.recipes.randomness import key_of

    assert key_of(0, 1, 2) != key_of(0, 2, 1)
    return key_of(0, 1, 2)


def test_rmsprop_against_numpy(recipe: Recipe) -> None:
    import keras

    from bignas_zoo.recipes.engines.optimizer import make_optimizer

    engine = TensorFlowEngine(recipe, contract(recipe))
    velocities = [v for v in engine.optimizer.variables if "velocity" in v.path]
    assert velocities
    assert all(np.array_equal(v, np.ones(v.shape)) for v in velocities)  # as TensorFlow 1's, the paper's
    w = keras.Variable(np.array([1.0, -2.0], "f4"))
    optimizer = make_optimizer(recipe, [w])
    mean_square, momentum, expected = np.ones(2), np.zeros(2), np.array([1.0, -2.0])
    for g in (np.array([0.5, -1.0]), np.array([0.1, 2.0])):
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32")], [w])
        mean_square = 0.9 * mean_square + 0.1 * g**2
        momentum = 0.9 * momentum + recipe.learning_rate * g / np.sqrt(mean_square + 1e-3)
        expected = expected - momentum
    np.testing.assert_allclose(w, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_run_learns(recipe: Recipe, images: LabelledImages, tmp_path: Path) -> None:
    longer = recipe.with_fields(steps=60, biggest_only_steps=10, dropout=0.0, warmup_steps=5)
    loop.train(longer, images, tmp_path, no_evaluation)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [r["biggest"] for r in records if "biggest" in r]
    assert losses[-1] < np.log(5) * 0.9  # better than guessing among five classes


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(recipe: Recipe, images: LabelledImages, tmp_path: Path) -> None:
    import signal

    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    whole = loop.train(recipe, images, tmp_path / "whole", no_evaluation)
    for stop_at in (1, 4):  # one run, stopped twice: while the biggest is alone, and in the sandwich phase

        def stop(progress: loop.Progress, stop_at: int = stop_at) -> None:
            if progress.step == stop_at:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(PreemptedError, match="Run the same command again"):
            loop.train(recipe, images, tmp_path / "cut", no_evaluation, stop)
    resumed = loop.train(recipe, images, tmp_path / "cut", no_evaluation)
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 6]


def test_a_changed_recipe_is_refused_by_name(recipe: Recipe, images: LabelledImages, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, recipe, 2, {"a": np.zeros(3, "f4")})
    changed = recipe.with_fields(learning_rate=0.5, dropout=0.0)
    with pytest.raises(RecipeError, match="dropout, learning_rate"):
        loop.train(changed, images, tmp_path, no_evaluation)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    recipe: Recipe, images: LabelledImages, tmp_path: Path
) -> None:
    wild = recipe.with_fields(learning_rate=1e30, warmup_steps=0, biggest_only_steps=6, steps=6)
    with pytest.raises(TrainingStoppedError, match="the loss is") as caught:
        loop.train(wild, images, tmp_path, no_evaluation)
    assert caught.value.exit_code == 8
    done = checkpoint.newest(tmp_path, wild)
    if done:
        assert all(np.isfinite(v).all() for v in done.state.values())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".bignas-tmp")]


def test_a_batch_of_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(60):
            pixels = generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    text = find_recipe("image_folder").read_text("utf-8").replace("batch_size: 64", "batch_size: 100000")
    (tmp_path / "r.yaml").write_text(text)
    arguments = ["train", str(tmp_path / "r.yaml"), "--data", str(tmp_path / "data"), "--classes-from-folders"]
    done = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "run")])
    assert done.exit_code == 2, done.output
    assert "batch_size: 100,000 is more than the 87 images" in done.stderr  # 120 less 18 to test and 15 held out
    assert not (tmp_path / "run").exists()
