"""Recipes are strict; the learning rate and the losses do what the paper's formulas say."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT

from bignas_zoo.errors import LocalIOError, RecipeError
from bignas_zoo.recipes.methods import METHODS, losses
from bignas_zoo.recipes.methods.sandwich import Sandwich
from bignas_zoo.recipes.recipe import Recipe, parse_recipe, read_recipe
from bignas_zoo.recipes.schedule import learning_rate
from bignas_zoo.recipes.strict_yaml import MAX_BYTES

MINIMAL = """\
name: toy
space: bignas-cifar10
crop_size: 32
mean: [125.3, 123, 113.9]
std: [63.0, 62.1, 66.7]
steps: 1000
holdout: 100
"""
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))


def recipe(**changes: Any) -> Recipe:
    return replace(parse_recipe(MINIMAL), **changes)


def without(key: str) -> str:
    return "".join(line for line in MINIMAL.splitlines(True) if not line.startswith(f"{key}:"))


def test_a_minimal_recipe_takes_the_papers_values() -> None:
    parsed = parse_recipe(MINIMAL)
    assert (parsed.name, parsed.crop_size, parsed.steps) == ("toy", 32, 1000)
    assert parsed.mean == (125.3, 123.0, 113.9)
    assert isinstance(parsed.mean[1], float)
    assert parsed.search_space.name == "bignas-cifar10"
    # BigNAS, section 4.1 and appendix.
    assert (parsed.optimizer, parsed.momentum, parsed.rho) == ("rmsprop", 0.9, 0.9)
    assert (parsed.batch_size, parsed.learning_rate, parsed.decay, parsed.ending) == (
        4096,
        0.256,
        "staircase",
        0.05,
    )
    assert (parsed.weight_decay, parsed.dropout, parsed.label_smoothing) == (1e-5, 0.2, 0.1)
    assert vars(parsed.method) == {
        "biggest_only_steps": 0, "random_children": 2, "smallest_child": True, "distillation": True,
        "distillation_temperature": 1.0, "regularise": "biggest", "loss_reduction": "sum",
        "divergence": "cross_entropy", "alpha_min": -1.0, "alpha_max": 1.0, "alpha_clip": 5.0,  # AlphaNet's
        "candidates": 1, "candidate": "best",
    }  # fmt: skip
    assert parsed.last_gamma == 0


def test_recipes_are_shipped() -> None:
    assert "cifar10_cpu" in [p.stem for p in SHIPPED]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_parse(path: Path) -> None:
    parsed = read_recipe(path)
    written = yaml.safe_load(path.read_text("utf-8"))
    section = written.pop("method")
    assert METHODS[section.pop("name")].settings is type(parsed.method)
    for key, value in (*written.items(), *section.items()):
        got = {**asdict(parsed), **asdict(parsed.method)}[key]
        assert (list(got) if isinstance(got, tuple) else got) == value
    rates = [learning_rate(parsed, step) for step in range(0, parsed.steps, max(1, parsed.steps // 500))]
    assert min(rates) > 0
    assert max(rates) <= parsed.learning_rate * parsed.batch_size / parsed.learning_rate_batch * (1 + 1e-9)


def test_to_json_goes_back_to_the_same_recipe() -> None:
    parsed = recipe(flip=False, learning_rate=0.5, decay="linear")
    assert parse_recipe(yaml.safe_dump(parsed.to_json())) == parsed
    names = [f.name for f in fields(Recipe) if f.name != "clip"]  # which version 0.1.0 did not have, and is 0 here
    place = names.index("method")
    assert list(parsed.to_json()) == [
        *names[:place],
        *(f.name for f in fields(Sandwich) if f.name not in Sandwich.later),
        *names[place + 1 :],
    ]
    clipped = dataclasses.replace(parsed, clip=2.5)
    assert clipped.to_json()["clip"] == 2.5
    assert parse_recipe(yaml.safe_dump(clipped.to_json())) == clipped


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("learning_rat: 0.1\n", "r.yaml: unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        ("warmup: 5\n", "r.yaml: unknown key 'warmup'. Did you mean 'warmup_steps'?"),
        ("1: 2\n", "r.yaml: unknown key '1'. Known: "),
        ("null: 2\n", "r.yaml: unknown key 'None'. "),
        ("steps: 5\n", "r.yaml: key 'steps' stands twice."),
        ("'steps': 1000\n", "r.yaml: key 'steps' stands twice."),
        ("momentum: &m 0.9\n", "r.yaml: line 8: anchors, aliases and tags are not allowed."),
        ("momentum: &m 0.9\nrho: *m\n", "r.yaml: line 8: anchors, aliases and tags are not allowed."),
        ("rho: *m\n", "r.yaml: line 8: anchors, aliases and tags are not allowed."),
        ("momentum: !!float 1\n", "r.yaml: line 8: anchors, aliases and tags are not allowed."),
        (
            "momentum: !!python/object/apply:os.system [id]\n",
            "r.yaml: line 8: anchors, aliases and tags are not allowed.",
        ),
        ("seed: !mine 5\n", "r.yaml: line 8: anchors, aliases and tags are not allowed."),
        ("? !!str seed\n: 5\n", "r.yaml: line 8: anchors, aliases and tags are not allowed."),
        ("batch_size: 64.0\n", "r.yaml: batch_size: must be of type int, got 64.0."),
        ("batch_size: '64'\n", "r.yaml: batch_size: must be of type int, got '64'."),
        ("batch_size: true\n", "r.yaml: batch_size: must be of type int, got True."),
        ("batch_size: null\n", "r.yaml: batch_size: must be of type int, got None."),
        ("batch_size: [64]\n", "r.yaml: batch_size: must be of type int, got [64]."),
        ("flip: 1\n", "r.yaml: flip: must be of type bool, got 1."),
        ("flip: 'yes'\n", "r.yaml: flip: must be of type bool, got 'yes'."),
        ("optimizer: 3\n", "r.yaml: optimizer: must be of type str, got 3."),
        ("momentum: true\n", "r.yaml: momentum: must be of type float, got True."),
        ("momentum: fast\n", "r.yaml: momentum: must be of type float, got 'fast'."),
        ("momentum: .nan\n", "r.yaml: momentum: must be a finite number, got nan."),
        ("momentum: 'nan'\n", "r.yaml: momentum: must be a finite number, got nan."),
        ("learning_rate: .inf\n", "r.yaml: learning_rate: must be a finite number, got inf."),
        ("learning_rate: -.inf\n", "r.yaml: learning_rate: must be a finite number, got -inf."),
        (f"learning_rate: {'9' * 400}\n", "r.yaml: learning_rate: must be a finite number, got "),
        ("optimizer: adam\n", "recipe 'toy': optimizer: must be one of rmsprop, sgd, adamw, got 'adam'."),
        (
            "decay: quadratic\n",
            "recipe 'toy': decay: must be one of staircase, exponential, cosine, linear, got 'quadratic'.",
        ),
        ("loss_reduction: max\n", "recipe 'toy': loss_reduction: must be one of sum, mean, got 'max'."),
        ("batch_size: 0\n", "recipe 'toy': batch_size: must be a whole number within 1 and 1,048,576, got 0."),
        ("learning_rate: -0.1\n", "recipe 'toy': learning_rate: must be above 0, got -0.1."),
        ("learning_rate: 0\n", "recipe 'toy': learning_rate: must be above 0, got 0.0."),
        ("seed: -1\n", "recipe 'toy': seed: must be at least 0, got -1."),
        ("dropout: 1.0\n", "recipe 'toy': dropout: must be within 0 and 0.999, got 1.0."),
        ("label_smoothing: -0.1\n", "recipe 'toy': label_smoothing: must be within 0 and 0.999, got -0.1."),
        ("ending: 1.5\n", "recipe 'toy': ending: must be within 0 and 1, got 1.5."),
        ("decay_until: 0.0\n", "recipe 'toy': decay_until: must be within 0.01 and 1, got 0.0."),
        (
            "calibration_images: 10\n",
            "recipe 'toy': calibration_images: must be a whole number within 64 and 1,000,000, got 10.",
        ),
        ("biggest_only_steps: 1001\n", "recipe 'toy': biggest_only_steps: more than steps (1000)."),
    ],
)
def test_strict_messages(extra: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(MINIMAL + extra, "r.yaml")
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mean", "[1, 2]", "must be a list of 3 numbers, got [1, 2]"),
        ("mean", "125", "must be a list of 3 numbers, got 125"),
        ("mean", "[1, 2, .nan]", "must be a finite number, got nan"),
        ("mean", "[1, 2, x]", "must be of type float, got 'x'"),
        ("std", "[1, 0, 1]", "must be three values within 1e-06 and 1000, got (1.0, 0.0, 1.0)"),
        ("std", "[1.0e-300, 1, 1]", "must be three values within 1e-06 and 1000"),
        ("mean", "[1.0e+300, 2, 3]", "must be three values within -1000 and 1000"),
        ("space", "bignas-cifar", "search space 'bignas-cifar': not known. Did you mean 'bignas-cifar10'"),
        ("crop_size", "8", "8 px would be enlarged more than twice for the space's 32 px"),
        ("steps", "0", "must be a whole number within 1 and 1,000,000,000, got 0"),
        ("learning_rate_batch", "9" * 330, "must be within 1e+30, got 999"),
        ("steps", "9" * 26, "must be a whole number within 1 and 1,000,000,000"),
        ("crop_size", "1000000000", "must be a whole number within 4 and 4,096"),
        ("holdout", "0", "must be a whole number, or a part between 0 and 1, got 0"),
        ("holdout", "10.5", "must be a whole number, or a part between 0 and 1, got 10.5"),
        ("name", "null", "must be of type str, got None"),
    ],
)
def test_wrong_values_of_required_keys(key: str, value: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"{without(key)}{key}: {value}\n")
    assert f"{key}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["name", "space", "crop_size", "mean", "std", "steps", "holdout"])
def test_a_missing_key(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"^r\.yaml: missing key\(s\) {key}\.$"):
        parse_recipe(without(key), "r.yaml")


def test_all_missing_keys_are_named() -> None:
    with pytest.raises(RecipeError, match=r"missing key\(s\) crop_size, mean, std, steps, holdout\."):
        parse_recipe("name: a\nspace: bignas-cifar10\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "- a\n- b\n",
        "text",
        "5",
        "null",
        "a: [1\n",
        "a: b: c\n",
        "\tname: x\n",
        "name: x\n---\nname: y\n",
        "? [a]\n: 1\n",
        "name: \x00\n",
        "steps: 2020-99-99\n",
        "steps: " + "9" * 10_000,
    ],
)
def test_what_is_no_recipe_at_all(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{b: " * 20_000])
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    with pytest.raises(RecipeError, match="line 1: nested too deeply for a recipe"):
        parse_recipe(text)


def test_numbers_as_people_write_them() -> None:
    assert parse_recipe(MINIMAL + "weight_decay: 1e-5\n").weight_decay == 0.00001
    assert parse_recipe(MINIMAL + "learning_rate: 1\n").learning_rate == 1.0


def test_read_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(MINIMAL)
    assert read_recipe(path) == parse_recipe(MINIMAL)
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(RecipeError, match=r"r\.yaml: not a text file"):
        read_recipe(path)
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="larger than 64 KiB; not a recipe"):
        read_recipe(path)
    with pytest.raises(LocalIOError, match=r"absent\.yaml: cannot be read \(No such file"):
        read_recipe(tmp_path / "absent.yaml")


#: Peak 0.256 * 2048 / 4096 = 0.128; warm-up over 100 steps; decay over steps 100 to 800 of 1000.
PAPERS = {"decay": "exponential", "batch_size": 2048, "warmup_steps": 100, "decay_until": 0.8, "ending": 0.05}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.128 / 100),
        (24, 0.032),
        (49, 0.064),
        (99, 0.128),
        (100, 0.128),
        (275, 0.128 * 0.05**0.25),
        (450, 0.128 * 0.22360679775),  # half-way: the square root of 0.05
        (800, 0.0064),
        (801, 0.0064),
        (999, 0.0064),
        (10**6, 0.0064),
    ],
)
def test_exponential_decay_with_constant_ending(step: int, expected: float) -> None:
    assert learning_rate(recipe(**PAPERS), step) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("step", "expected"), [(49, 0.064), (100, 0.128), (275, 0.096), (450, 0.064), (800, 0.0), (999, 0.0)]
)
def test_linear_decay_to_zero(step: int, expected: float) -> None:
    rate = learning_rate(recipe(**{**PAPERS, "decay": "linear", "ending": 0.0}), step)
    assert rate == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.256), (750, 0.256), (751, 0.24832), (1502, 0.2408704), (75100, 0.0128)]
)
def test_the_papers_staircase(step: int, expected: float) -> None:
    # 0.256 times 0.97 every 2.4 epochs (751 steps of 4,096 images), never below 5 %.
    assert learning_rate(recipe(), step) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("step", "expected"), [(100, 0.128), (450, 0.064), (625, 0.018745166), (800, 0.0), (999, 0)])
def test_cosine_decay_to_zero(step: int, expected: float) -> None:
    rate = learning_rate(recipe(**{**PAPERS, "decay": "cosine", "ending": 0.0}), step)
    assert rate == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("decay", ["linear", "cosine", "exponential"])
def test_the_ending_is_constant_and_the_decay_never_rises(decay: str) -> None:
    decaying = recipe(**{**PAPERS, "decay": decay})
    rates = [learning_rate(decaying, step) for step in range(1000)]
    assert rates[:100] == sorted(rates[:100])
    assert rates[99:] == sorted(rates[99:], reverse=True)
    assert rates[800:] == pytest.approx([0.05 * 0.128] * 200, rel=1e-9)
    assert max(abs(a - b) for a, b in itertools.pairwise(rates[100:])) < 0.001


def test_the_rate_scales_with_the_batch() -> None:
    for batch in (1, 256, 8192):
        assert learning_rate(recipe(batch_size=batch), 0) == pytest.approx(0.256 * batch / 4096)


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(recipe(), 0) == pytest.approx(0.256)


def test_warmup_longer_than_the_decay_is_no_division_by_zero() -> None:
    odd = recipe(warmup_steps=900, decay_until=0.5, decay="exponential")
    assert learning_rate(odd, 899) == pytest.approx(0.256)
    assert learning_rate(odd, 950) == pytest.approx(0.05 * 0.256)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]], np.float32))
    targets = np.array([[1, 0, 0], [0, 0.5, 0.5]], np.float32)
    by_hand = (np.log(2) + 0.5 * np.log(8) + 0.5 * np.log(4 / 3)) / 2
    assert float(losses.cross_entropy(logits, targets)) == pytest.approx(by_hand, rel=1e-6)


def test_cross_entropy_against_numpy_and_with_large_logits() -> None:
    rng = np.random.default_rng(0)
    for scale in (1.0, 1000.0):
        logits = rng.normal(scale=scale, size=(16, 10)).astype(np.float32)
        targets = rng.dirichlet(np.ones(10), 16).astype(np.float32)
        expected = -(targets.astype(np.float64) * log_softmax(logits.astype(np.float64))).sum(-1).mean()
        assert float(losses.cross_entropy(logits, targets)) == pytest.approx(expected, rel=1e-5)


def test_smooth_labels_by_hand() -> None:
    smoothed = np.asarray(losses.smooth_labels(np.array([0, 3], np.int32), 4, 0.1))
    assert smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed, [[0.925, 0.025, 0.025, 0.025], [0.025, 0.025, 0.025, 0.925]], rtol=1e-6)
    plain = np.asarray(losses.smooth_labels(np.array([2], np.int32), 3, 0.0))
    np.testing.assert_array_equal(plain, [[0, 0, 1]])


def test_soft_labels_are_probabilities() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(losses.soft_labels(logits)), np.exp(log_softmax(logits)), rtol=1e-5)


def test_soft_labels_stop_the_gradient() -> None:
    tf = pytest.importorskip("tensorflow")
    assert keras.backend.backend() == "tensorflow"
    teacher, student = tf.Variable([[1.0, 2.0, 4.0]]), tf.Variable([[0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = losses.cross_entropy(student, losses.soft_labels(teacher))
    to_teacher, to_student = tape.gradient(loss, [teacher, student])
    assert to_teacher is None
    # The gradient of a softmax cross entropy: predicted minus target probabilities.
    expected = np.exp(log_softmax(student.numpy())) - np.exp(log_softmax(teacher.numpy()))
    np.testing.assert_allclose(to_student.numpy(), expected, atol=1e-6)


def test_l2_counts_kernels_only() -> None:
    weights = {
        "stem.kernel": np.array([[1.0, 2.0]], np.float32),
        "stem.bn.gamma": np.array([10.0], np.float32),
        "classifier.kernel": np.array([3.0], np.float32),
        "classifier.bias": np.array([100.0], np.float32),
    }
    assert float(losses.l2(weights)) == 7.0  # (1 + 4 + 9) / 2
