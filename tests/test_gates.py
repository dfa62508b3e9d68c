"""Exports that went wrong, planted one by one: every one must miss its gate, and the sound file must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

import bignas_zoo as bz
from bignas_zoo.errors import BigNASError, QualityError
from bignas_zoo.export.gates import Accuracy, check, check_tflite
from bignas_zoo.export.parity import Parity, compare
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import Export
from bignas_zoo.models.preprocess import Preprocess, resize
from bignas_zoo.recipes.data.sample import Sample, read_sample
from bignas_zoo.runtime.runner import run_file
from bignas_zoo.zoo.registry import get_family

NAME = "bignas-cifar10-smallest"
CONTRACT = Preprocess.from_json(get_family("bignas-cifar10").preprocess)


@pytest.fixture(scope="module")
def child() -> keras.Model:
    return bz.load(NAME)


@pytest.fixture(scope="module")
def pixels(child) -> np.ndarray:
    """Soft random pictures: noise alone drives the net to one class."""
    coarse = np.random.default_rng(3).integers(0, 256, (64, 4, 4, 3)).astype(np.float32)
    return np.clip(np.asarray(resize(coarse, child.input_shape[1])), 0, 255)


def around(child, before=lambda x: x, after=lambda y: y) -> keras.Model:
    entry = keras.Input(child.input_shape[1:])
    return keras.Model(entry, after(child(before(entry))))


def damaged(child, change: Callable[[str, np.ndarray], np.ndarray]) -> keras.Model:
    copy = keras.models.clone_model(child)
    copy.set_weights([change(v.path, np.array(v)) for v in child.weights])
    return copy


def swapped_channels(child) -> bytes:
    return convert(around(child, lambda x: keras.ops.flip(x, -1)))


def normalised_twice(child) -> bytes:
    return convert(around(child, lambda x: (x * 255 - 120) / 60))


def shifted_mean(child) -> bytes:
    return convert(around(child, lambda x: x + 4 / 60))


def classes_in_another_order(child) -> bytes:
    return convert(around(child, after=lambda y: keras.ops.roll(y, 1, axis=-1)))


def two_classes_swapped(child) -> bytes:
    return convert(around(child, after=lambda y: keras.ops.take(y, [1, 0, *range(2, 10)], axis=-1)))


def statistics_never_calibrated(child) -> bytes:
    return convert(
        damaged(child, lambda p, v: np.zeros_like(v) if "moving_mean" in p else np.ones_like(v) if "moving" in p else v)
    )


def one_kernel_scaled(child) -> bytes:
    first = next(v.path for v in child.weights if "kernel" in v.path)
    return convert(damaged(child, lambda p, v: v * 1.01 if p == first else v))


def one_weight_lost(child) -> bytes:
    last = [v.path for v in child.weights if "kernel" in v.path][-1]

    def change(path: str, value: np.ndarray) -> np.ndarray:
        if path == last:
            value.flat[np.abs(value).argmax()] = 0
        return value

    return convert(damaged(child, change))


def epsilon_of_batch_norms(child) -> bytes:
    return convert(damaged(child, lambda p, v: v + 0.01 if "moving_variance" in p else v))


def softmax_twice(child) -> bytes:
    return convert(around(child, after=keras.ops.softmax))


def not_a_number(child) -> bytes:
    return convert(damaged(child, lambda p, v: v * np.nan if "kernel" in p else v))


def unfrozen_variables(child) -> bytes:
    """What the converter makes, without a word, of a function when it is given the model to track."""
    shape = tf.TensorSpec((1, *child.input_shape[1:]), tf.float32)

    @tf.function(input_signature=[shape])
    def classify(image):
        return tf.nn.softmax(child(image, training=False))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([classify.get_concrete_function()], child)
    return bytes(converter.convert())


COLLAPSES = (
    swapped_channels,
    normalised_twice,
    shifted_mean,
    classes_in_another_order,
    two_classes_swapped,
    statistics_never_calibrated,
    one_kernel_scaled,
    one_weight_lost,
    epsilon_of_batch_norms,
    softmax_twice,
    not_a_number,
    unfrozen_variables,
)


def test_the_sound_file_passes(child, pixels) -> None:
    report = check_tflite(child, convert(child), np.asarray(CONTRACT.normalise(pixels)), "pictures")
    assert report.max_abs is not None
    assert report.max_abs < 1e-4 * report.max_logit
    assert report.top1_agreement == 1


FAST = (swapped_channels, shifted_mean, unfrozen_variables)


@pytest.mark.parametrize(
    "collapse",
    [pytest.param(f, id=f.__name__, marks=() if f in FAST else pytest.mark.slow) for f in COLLAPSES],
)
def test_a_collapse_is_caught(child, pixels, collapse: Callable[[keras.Model], bytes]) -> None:
    data = collapse(child)
    with pytest.raises(QualityError, match="differ|not numbers|first class"):
        check_tflite(child, data, np.asarray(CONTRACT.normalise(pixels)), "pictures")


def figures(**changes: object) -> Parity:
    sound = {
        "max_abs": 1e-5, "mean_abs": 1e-6, "score_max_abs": 1e-6, "score_mean_abs": 1e-7, "max_logit": 8.0,
        "top1_agreement": 1.0, "images": 100, "inputs": "images", "runtime": "r",
    }  # fmt: skip
    return Parity(**{**sound, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "parity", "accuracy", "words"),
    [
        ("float32", figures(max_abs=8.1e-4), None, "8.10e-04 .allowed 8.00e-04"),
        ("float32", figures(max_abs=float("inf")), None, "inf"),
        ("float16", figures(max_abs=8.1e-2), None, "allowed 8.00e-02"),
        ("float16", figures(top1_agreement=0.98), None, "98.0% of 100 images"),
        ("int8", figures(max_abs=None, top1_agreement=0.89), None, "89.0% of 100 images"),
        ("int8", figures(max_abs=None, score_max_abs=float("nan")), Accuracy(90, 90, 500, "test"), "not numbers"),
        ("int8", figures(max_abs=None), Accuracy(90.0, 88.9, 500, "test"), "from 90.00 to 88.90 % on 500 test"),
        ("dynamic", figures(), Accuracy(90.0, 88.9, 500, "test"), "allowed loss 1.0 points"),
        ("dynamic", figures(top1_agreement=0.5), Accuracy(90.0, 90.0, 199, "test"), "50.0% of 100 images"),
        # 90 of 100: the upper end of Wilson's interval is 0.940; of 9 images none may speak for the others.
        ("int8", figures(top1_agreement=0.8, sure_images=100, sure_agreement=0.9), None, "80.0% of 100 images"),
        ("int8", figures(top1_agreement=0.8, sure_images=9, sure_agreement=1.0), None, "80.0% of 100 images"),
    ],
)
def test_gates_are_where_they_are_said_to_be(precision, parity, accuracy, words: str) -> None:
    with pytest.raises(QualityError, match=words):
        check(precision, parity, accuracy)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_first_classes_of_noise_say_nothing_of_float_files(precision: str) -> None:
    check(precision, figures(top1_agreement=0.9), noise=True)
    with pytest.raises(QualityError, match="log-probabilities differ"):
        check(precision, figures(max_abs=1.0, top1_agreement=0.9), noise=True)


@pytest.mark.parametrize(
    ("precision", "parity", "accuracy"),
    [
        ("float32", figures(max_abs=7.9e-4), None),
        ("float16", figures(max_abs=7.9e-2, top1_agreement=0.99), None),
        ("int8", figures(max_abs=None, top1_agreement=0.9), None),
        ("int8", figures(max_abs=None, top1_agreement=0.5), Accuracy(90.0, 89.0, 200, "test")),
        # 92 of 100: 0.955. 18 of 20: 0.968.
        ("int8", figures(top1_agreement=0.8, sure_images=100, sure_agreement=0.92), None),
        ("int8", figures(top1_agreement=0.8, sure_images=20, sure_agreement=0.9), None),
    ],
)
def test_what_is_just_good_enough_passes(precision, parity, accuracy) -> None:
    check(precision, parity, accuracy)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(QualityError, match=r"scores \[4, 3\], the Keras model \[4, 5\]"):
        compare(np.zeros((4, 5)), np.ones((4, 3)), inputs="x", runtime="r")


# int8: what the converter's numbers mean, on real images.


@pytest.fixture(scope="module")
def sample(shared_data: Path) -> Sample:
    names = get_family("bignas-cifar10").class_names
    return read_sample(shared_data, None, CONTRACT, names, training=300, tests=600)


def inputs(child, crops: np.ndarray) -> np.ndarray:
    return np.asarray(CONTRACT.inputs(crops, child.input_shape[1]))


@pytest.fixture(scope="module")
def quantised(child, sample: Sample) -> bytes:
    return convert(child, Export(precision="int8", io="int8"), images=inputs(child, sample.training))


def verdict(child, sample: Sample, data: bytes, tmp_path: Path, test: bool = True) -> None:
    """Hold an int8 file against its gate, as `export` does."""
    (tmp_path / "m.tflite").write_bytes(data)
    assert sample.test
    crops = sample.test.pixels if test else sample.training[:256]
    x = inputs(child, crops)
    logits, scores = np.asarray(child(x, training=False)), run_file(tmp_path / "m.tflite", x)
    labels = sample.test.labels
    accuracy = None
    if test:
        right, ours = (100 * float(np.mean(s.argmax(-1) == labels)) for s in (logits, scores))
        accuracy = Accuracy(right, ours, len(labels), "test images")
    check("int8", compare(logits, scores, inputs="images", runtime="r", coarse=True), accuracy)


def tensor_of(model, word: str):
    """Return the input, the output, or the weights of the stem."""
    graph = model.subgraphs[0]
    if word in ("input", "output"):
        return graph.tensors[(graph.inputs if word == "input" else graph.outputs)[0]]
    return next(tensor for tensor in graph.tensors if tensor.name == b"stem.kernel")


def altered(data: bytes, word: str, *, scale: float = 1, zero_point: int = 0) -> bytes:
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    numbers = tensor_of(model, word).quantization
    numbers.scale = np.asarray(numbers.scale, np.float32) * np.float32(scale)
    numbers.zeroPoint = np.asarray(numbers.zeroPoint, np.int64) + zero_point
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def test_the_sound_int8_file_passes(child, sample: Sample, quantised: bytes, tmp_path: Path) -> None:
    verdict(child, sample, quantised, tmp_path)
    verdict(child, sample, quantised, tmp_path, test=False)
    verdict(child, sample, altered(quantised, "input"), tmp_path)  # read and written again, unchanged


@pytest.mark.parametrize("test", [True, False], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("input", {"scale": 2.0}),
        ("input", {"scale": 0.5}),
        ("input", {"zero_point": 110}),  # consistent, but half of the brightness is cut off
        ("weights", {"scale": 4.0}),
    ],
)
def test_wrong_quantisation_numbers_are_caught(child, sample, quantised, tmp_path, word, change, test) -> None:
    with pytest.raises(BigNASError):
        verdict(child, sample, altered(quantised, word, **change), tmp_path, test)


def test_ranges_from_useless_images_are_caught(child, sample: Sample, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).uniform(0.1, 0.101, (64, *child.input_shape[1:])).astype(np.float32)
    with pytest.raises(QualityError, match="int8 export"):
        verdict(child, sample, convert(child, Export(precision="int8"), images=grey), tmp_path)
