"""What AlphaNet, AttentiveNAS and Once-for-all train by: losses by numpy in double precision, children by stage."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from test_forms import SMALL

from bignas_zoo.architecture import cost, spaces
from bignas_zoo.errors import RecipeError
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.backend import keras, ops
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import resize
from bignas_zoo.models.supernet import forward, initial_weights
from bignas_zoo.recipes.methods import losses, method_of
from bignas_zoo.recipes.methods.method import Examples, total
from bignas_zoo.recipes.methods.progressive import STAGES, Progressive, options
from bignas_zoo.recipes.methods.sandwich import Sandwich
from bignas_zoo.recipes.recipe import Recipe

ALPHAS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
DRAW = np.random.default_rng(3)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray, alpha: float, clip: float = np.inf) -> np.ndarray:
    """Equation 3 of AlphaNet's paper, row by row, in double precision; its limits at 0 and 1."""
    ratio = p / q
    if alpha == 1:
        return (p * np.log(ratio)).sum(-1)
    if alpha == 0:
        return -(q * np.log(np.minimum(ratio, clip))).sum(-1)
    return (q * (np.minimum(ratio**alpha, clip) - 1)).sum(-1) / (alpha * (alpha - 1))


def ours(logits: np.ndarray, teacher: np.ndarray, alphas: tuple[float, float], clip: float) -> tuple[float, np.ndarray]:
    """The value and the gradient with respect to the student's logits."""
    import tensorflow as tf

    student = tf.Variable(logits.astype("f4"))
    with tf.GradientTape() as tape:
        value = losses.alpha_divergence(
            student, losses.log_labels(ops.convert_to_tensor(teacher, "float32")), alphas, clip
        )
    return float(value), np.asarray(tape.gradient(value, student))


def slope(function: Any, logits: np.ndarray) -> np.ndarray:
    """Numerical gradient by central differences in double precision."""
    gradient = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        gradient[place] = (function(logits + step) - function(logits - step)) / 2e-5
    return gradient


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_divergence_and_its_gradient_where_nothing_is_clipped(alpha: float) -> None:
    student, teacher = DRAW.normal(size=(3, 7)), DRAW.normal(size=(3, 7))
    p = softmax(teacher)
    value, gradient = ours(student, teacher, (alpha, alpha), 1e6)
    assert value == pytest.approx(divergence(p, softmax(student), alpha).mean(), rel=1e-5)
    expected = slope(lambda logits: divergence(p, softmax(logits), alpha).mean(), student)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 0.5), (0.0, 1.0)])
def test_the_larger_divergence_counts_image_by_image_and_clipped(low: float, high: float) -> None:
    student, teacher = 2 * DRAW.normal(size=(200, 5)), 2 * DRAW.normal(size=(200, 5))
    p, q = softmax(teacher), softmax(student)
    both = np.stack([divergence(p, q, alpha, 5.0) for alpha in (low, high)])
    assert 5 < (both[0] > both[1]).sum() < 195  # each wins on some
    assert (p / q > 5).any()
    value, gradient = ours(student, teacher, (low, high), 5.0)
    assert value == pytest.approx(both.max(0).mean(), rel=1e-5)
    # What is differentiated is -sum(q rho log q) with q rho held fast: q_i sum(q rho) - q_i rho_i.
    weights = np.zeros_like(q)
    for row, alpha in enumerate(np.where(both[0] > both[1], low, high)):
        ratio, own = p[row] / q[row], q[row]
        if alpha == 1:
            weights[row] = own * ratio
        elif alpha == 0:
            weights[row] = own * (np.log(np.minimum(ratio, 5)) - 1)
        else:
            weights[row] = own * (np.minimum(ratio**alpha, 5) / alpha + 1 / (alpha * (alpha - 1)))
    np.testing.assert_allclose(gradient, (q * weights.sum(-1, keepdims=True) - weights) / 200, atol=1e-5)


@pytest.mark.parametrize("alphas", [(-1.0, 1.0), (0.0, 0.5), (-2.0, 2.0)])
def test_probabilities_of_zero_give_numbers(alphas: tuple[float, float]) -> None:
    sure = np.array([[200.0, 0, 0], [0, 300.0, 0], [0, 0, 0]])
    assert (softmax(sure.astype("f4")) == 0).any()  # a division would give infinity, and 0 times it no number
    for student, teacher in (
        (sure, sure[::-1].copy()),
        (sure, sure),
        (np.zeros((3, 3)), sure),
        (sure, np.zeros((3, 3))),
    ):
        value, gradient = ours(student, teacher, alphas, 5.0)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert ours(sure, sure, alphas, 5.0)[0] == pytest.approx(0, abs=1e-5)


# ----------------------------------------------------------------------------------------- steps of the methods


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    name = "small-once-for-all"
    monkeypatch.setitem(spaces.SPACES, name, SMALL[name])
    monkeypatch.setitem(spaces.SPACES, TINY.name, TINY)
    return name


def recipe_of(space: str, method: Any, **changes: Any) -> Recipe:
    fields = {
        "name": "toy", "space": space, "crop_size": 20, "mean": (128.0,) * 3, "std": (64.0,) * 3, "steps": 590,
        "holdout": 1, "batch_size": 8, "dropout": 0.0, "weight_decay": 0.0, "label_smoothing": 0.1, "method": method,
    }  # fmt: skip
    return Recipe(**{**fields, **changes})


def examples_of(classes: int = 5) -> Examples:
    draw = np.random.default_rng(1)
    images = draw.normal(size=(8, 20, 20, 3)).astype("f4")
    return Examples(
        ops.convert_to_tensor(images), ops.convert_to_tensor(draw.integers(0, classes, 8).astype("i4")), ops.arange(8)
    )


def weights_of(recipe: Recipe) -> dict[str, Any]:
    draw = np.random.default_rng(2)
    weights = initial_weights(recipe.search_space, 0, last_gamma=1.0)
    return {k: ops.convert_to_tensor(v + 0.1 * draw.normal(size=v.shape).astype("f4")) for k, v in weights.items()}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.log(softmax(np.asarray(logits, np.float64)))


def smooth(labels: Any, classes: int = 5) -> np.ndarray:
    return np.eye(classes)[np.asarray(labels)] * 0.9 + 0.1 / classes


def logits_of(
    recipe: Recipe, weights: dict[str, Any], examples: Examples, vector: np.ndarray | None, size: int
) -> np.ndarray:
    space = recipe.search_space
    child = (
        ActiveChild.of(space.biggest)
        if vector is None
        else ActiveChild.from_vector(space, ops.convert_to_tensor(vector))
    )
    return np.asarray(forward(space, weights, resize(examples.images, size), child))


def test_a_step_of_alphanet_by_numpy(small: str) -> None:
    recipe = recipe_of(TINY.name, Sandwich(divergence="alpha", random_children=1))
    weights, examples = weights_of(recipe), examples_of()
    method = method_of(recipe)
    control = method.control(recipe, 3, {})
    value, figures = total(method.loss(recipe, control.phase), weights, examples, control.steering, Execution())
    space = recipe.search_space
    middle = space.resolutions[1:-1] or space.resolutions
    teacher = log_softmax(logits_of(recipe, weights, examples, None, space.biggest.resolution))
    expected = -(smooth(examples.labels) * teacher).sum(-1).mean()
    smallest = ActiveChild.of(space.smallest).vector()
    for vector, size in ((control.steering["choices"][0], middle[0]), (smallest, space.smallest.resolution)):
        student = softmax(np.asarray(logits_of(recipe, weights, examples, vector, size), np.float64))
        both = [divergence(np.exp(teacher), student, alpha, 5.0) for alpha in (-1.0, 1.0)]
        expected += np.maximum(*both).mean()
    assert float(value) == pytest.approx(expected, rel=1e-4)
    assert figures.keys() == {"biggest", "smallest", "accuracy"}


@pytest.mark.parametrize("which", ["best", "worst"])
def test_bestup_and_worstup_train_the_candidate_that_the_images_choose(small: str, which: str) -> None:
    recipe = recipe_of(TINY.name, Sandwich(candidates=3, candidate=which, random_children=1, smallest_child=True))
    weights, examples, method = weights_of(recipe), examples_of(), method_of(recipe)
    control = method.control(recipe, 5, {})
    vectors = control.steering["choices"][0]
    assert vectors.shape == (3, ActiveChild.of(TINY.biggest).vector().size)
    value, _ = total(method.loss(recipe, control.phase), weights, examples, control.steering, Execution())
    size = (TINY.resolutions[1:-1] or TINY.resolutions)[0]
    logits = [logits_of(recipe, weights, examples, vector, size) for vector in vectors]
    entropies = [-(smooth(examples.labels) * log_softmax(each)).sum(-1).mean() for each in logits]
    assert len({round(e, 4) for e in entropies}) == 3
    picked = int(np.argmin(entropies) if which == "best" else np.argmax(entropies))
    alone = recipe_of(TINY.name, Sandwich(random_children=1))
    steering = {**control.steering, "choices": vectors[picked : picked + 1]}
    expected, _ = total(method_of(alone).loss(alone, control.phase), weights, examples, steering, Execution())
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_candidates_have_about_the_macs_of_one_draw(small: str) -> None:
    recipe = recipe_of(TINY.name, Sandwich(candidates=4, random_children=1))
    plain = recipe_of(TINY.name, Sandwich(random_children=1))
    method, gaps, spans = method_of(recipe), [], []
    from bignas_zoo.recipes.methods import sandwich

    for step in range(20):
        (_, drawn, _) = sandwich.children(recipe, step)
        assert drawn == sandwich.children(plain, step)[1]
        candidates = sandwich._candidates(recipe, step, 0, drawn)
        assert [tuple(ActiveChild.of(c).vector()) for c in candidates] == [
            tuple(v) for v in method.control(recipe, step, {}).steering["choices"][0]
        ]
        gaps += [abs(cost.macs(c) - cost.macs(drawn)) for c in candidates]
        spans.append(cost.macs(drawn))
    assert np.mean(gaps) < 0.5 * np.std(spans)  # of children drawn at random it would be about the deviation itself


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"alpha_min": 2.0}, "alpha_min: above alpha_max"),
        ({"divergence": "beta"}, "divergence: must be one of cross_entropy, alpha"),
        ({"divergence": "alpha", "distillation": False}, "it needs distillation"),
        ({"divergence": "alpha", "distillation_temperature": 2.0}, "it needs distillation"),
        ({"candidates": 3, "regularise": "all"}, "regularise must be 'biggest'"),
        ({"candidates": 0}, "candidates: must be a whole number"),
    ],
)
def test_fields_that_do_not_go_together(small: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipe_of(TINY.name, Sandwich(**fields))


def test_stages_of_progressive_shrinking(small: str) -> None:
    settings = Progressive()
    # Once-for-all's epochs: 180 alone, 120 kernels, 25 and 120 depths, 25 and 120 widths; 590 in all.
    counted = Counter(settings.stage(step, 590) for step in range(590))
    assert counted == dict(zip(STAGES, (180, 120, 25, 120, 25, 120), strict=True))
    assert [settings.stage(step, 5900) for step in (1799, 1800, 5899)] == ["largest", "kernel", "width"]
    assert [settings.children(stage) for stage in STAGES] == [0, 1, 2, 2, 4, 4]


def test_each_stage_lets_children_choose_more(small: str) -> None:
    space = SMALL[small]
    by_name = {(c.name, c.stage): c for c in space.choices}
    kernel, depth, expansion = (by_name[name, 1] for name in ("kernel", "depth", "expansion"))
    table = {stage: [options(choice, stage) for choice in (kernel, depth, expansion)] for stage in STAGES}
    assert table == {
        "largest": [(7,), (2,), (3,)],
        "kernel": [(3, 5, 7), (2,), (3,)],
        "depth-start": [(3, 5, 7), (1, 2), (3,)],
        "depth": [(3, 5, 7), (1, 2), (3,)],
        "width-start": [(3, 5, 7), (1, 2), (2, 3)],
        "width": [(3, 5, 7), (1, 2), (2, 3)],
    }


def test_a_step_of_progressive_shrinking_by_numpy(small: str) -> None:
    recipe = recipe_of(small, Progressive(width_children=2, distillation=3.0))
    weights, examples, method = weights_of(recipe), examples_of(), method_of(recipe)
    assert any(name.endswith(".to3") for name in weights)
    control = method.control(recipe, 589, {})
    assert control.phase == "width"
    value, _ = total(method.loss(recipe, control.phase), weights, examples, control.steering, Execution())
    largest = log_softmax(logits_of(recipe, weights, examples, None, 18))
    labels = smooth(examples.labels)
    expected = -(labels * largest).sum(-1).mean()
    for vector, size in zip(control.steering["choices"], (16, 18), strict=True):
        student = log_softmax(logits_of(recipe, weights, examples, vector, size))
        hard, soft = (-(targets * student).sum(-1).mean() for targets in (labels, np.exp(largest)))
        expected += (hard + 3 * soft) * 2 / 4
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_every_matrix_learns(small: str) -> None:
    """A child of the smallest kernels moves both matrices of each layer that has them."""
    import tensorflow as tf

    assert keras.backend.backend() == "tensorflow"
    recipe = recipe_of(small, Progressive())
    weights = {name: tf.Variable(value) for name, value in weights_of(recipe).items()}
    method, examples = method_of(recipe), examples_of()
    moved: set[str] = set()
    for step in range(470, 480):
        control = method.control(recipe, step, {})
        with tf.GradientTape() as tape:
            value, _ = total(method.loss(recipe, control.phase), weights, examples, control.steering, Execution())
        gradients = tape.gradient(value, weights)
        moved |= {n for n, g in gradients.items() if ".to" in n and g is not None and np.abs(np.asarray(g)).max() > 0}
    assert moved == {name for name in weights if ".to" in name}
