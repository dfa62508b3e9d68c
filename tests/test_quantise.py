"""Smaller TFLite files: what is stored, how ranges are found, and what int8 costs on real images."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import TINY
from test_onnx import alive

import bignas_zoo as bz
from bignas_zoo.errors import UsageError
from bignas_zoo.export.fold import pool_by_convolution
from bignas_zoo.export.parity import run_tflite
from bignas_zoo.export.quantise import activation_ranges
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import Export
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.zoo import registry

CONTRACT = Preprocess(20, (120.0, 110.0, 100.0), (60.0, 50.0, 70.0))


@pytest.fixture(scope="module")
def child():
    return alive(TINY.smallest)


@pytest.fixture(scope="module")
def plain(child) -> bytes:
    """Its float32 file."""
    return convert(child)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 12, 12, 3)).astype("f4")


def normalised(count: int) -> np.ndarray:
    return np.asarray(CONTRACT.normalise(pixels(count)))


def scores(child, x: np.ndarray) -> np.ndarray:
    logits = np.asarray(child(x, training=False), np.float64)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def details(model: bytes) -> tuple[dict, dict, set[str]]:
    """Return what the runtime says of input and output, and the types of all tensors of activation size."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    return interpreter.get_input_details()[0], interpreter.get_output_details()[0], _types(interpreter)


def _types(interpreter) -> set[str]:
    return {op["op_name"] for op in interpreter._get_ops_details()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "dynamic"])
def test_smaller_weights_compute_almost_the_same(child, plain: bytes, precision: str) -> None:
    data = convert(child, Export(precision=precision))
    assert len(data) < len(plain)
    np.testing.assert_allclose(run_tflite(data, normalised(20)), scores(child, normalised(20)), atol=0.02)


def test_a_batch_is_what_it_says(child) -> None:
    entry, exit_, _ = details(convert(child, Export(batch=3)))
    assert entry["shape"].tolist() == [3, 12, 12, 3]
    assert exit_["shape"].tolist() == [3, 5]


def test_pixels_are_normalised_in_the_graph(child) -> None:
    data = convert(child, Export(normalize_in_graph=True), preprocess=CONTRACT)
    np.testing.assert_allclose(run_tflite(data, pixels(5)), scores(child, normalised(5)), atol=1e-5)


@pytest.mark.slow
def test_ranges_are_those_of_numpy(plain: bytes) -> None:
    x = normalised(80)
    ranges = activation_ranges(plain, x, 99.0)
    name = "image"
    width = (x.max() - x.min()) / 8192  # of a bin
    np.testing.assert_allclose(ranges[name], [np.percentile(x, 1), np.percentile(x, 99)], atol=2 * width)
    whole = activation_ranges(plain, x, 100)
    np.testing.assert_allclose(whole[name], [x.min(), x.max()], rtol=1e-6)
    assert all(low <= high for low, high in whole.values())


@pytest.mark.parametrize("size", [12, 14, 18, 20])
def test_averages_by_convolution_are_the_same_function(size: int) -> None:
    """Maps of every size occur: 14 px halves to 7, an odd map, whose average stays."""
    net = alive(TINY.spec(resolution=size, depths=[1, 2, 2, 1], widths=[8, 8, 24, 32, 32, 32], kernels=[3, 5, 3, 3],
                          expansions=[1, 2, 4, 2]))  # fmt: skip
    x = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype("f4")
    other = pool_by_convolution(net)
    kept = [layer for layer in other.layers if isinstance(layer, keras.layers.AveragePooling2D)]
    assert all(layer.input.shape[1] % 2 for layer in kept)
    assert len(kept) < sum(isinstance(layer, keras.layers.AveragePooling2D) for layer in net.layers)
    np.testing.assert_allclose(np.asarray(other(x)), np.asarray(net(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_int8_throughout_with_any_ends(child, io: str) -> None:
    raw = io == "uint8"
    given = pixels(100) if raw else normalised(100)
    data = convert(child, Export(precision="int8", io=io), preprocess=CONTRACT, images=given)
    entry, exit_, operations = details(data)
    assert entry["dtype"] == exit_["dtype"] == np.dtype(io)
    assert ("DEQUANTIZE" in operations) == (io == "float32")
    if raw:  # so that apps feed the bytes of the picture
        assert entry["quantization"] == (1.0, 0)
    x = given[:50]
    if io == "int8":
        scale, zero = entry["quantization"]
        x = np.clip(np.round(x / scale + zero), -128, 127)
    found = run_tflite(data, x.astype(io)).astype(np.float64)
    if io != "float32":
        scale, zero = exit_["quantization"]
        found = (found - zero) * scale
    assert np.abs(found - scores(child, normalised(100)[:50])).mean() < 0.03


def test_what_int8_needs(child) -> None:
    with pytest.raises(UsageError, match="int8 needs images"):
        convert(child, Export(precision="int8"))
    with pytest.raises(UsageError, match="63 images are too few .* at least 64"):
        convert(child, Export(precision="int8"), images=normalised(63))
    with pytest.raises(UsageError, match="needs the family's preprocess"):
        convert(child, Export(precision="int8", io="uint8"), images=pixels(64))
    for wrong, words in (
        (pixels(64).astype(np.uint8), "images are an array of uint8; give a float32 array"),
        (pixels(64).astype(np.float32), "takes normalised images"),
        (np.zeros_like(normalised(64)), "all values of the images are 0"),
        ([[1]], "images are a list"),
    ):
        with pytest.raises(UsageError, match=words):
            convert(child, Export(precision="int8"), images=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflit"}, "format is 'tflit'; allowed: tflite, onnx, keras, saved_model"),
        ({"format": "onnx", "precision": "float16"}, "onnx has no precision 'float16'; allowed: float32, int8"),
        ({"io": "uint8"}, "io 'uint8' is for --format tflite --precision int8 and --format c only"),
        ({"batch": 0}, "batch must be a whole number from 1 to 1024, got 0"),
        ({"format": "onnx", "batch": 2}, "batch is for --format tflite only"),
        ({"layout": "nchw"}, "layout 'nchw' is for --format onnx only"),
        ({"format": "keras", "normalize_in_graph": True}, "the keras format is the plain child"),
    ],
)
def test_options_that_do_not_go_together(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Export(**options)


def test_files_are_told_apart_by_their_names() -> None:
    names = [
        Export().file,
        Export(precision="int8", io="uint8").file,
        Export("onnx", layout="nchw").file,
        Export("saved_model", normalize_in_graph=True).file,
        Export(precision="float16", batch=4).file,
    ]
    assert names == [
        "model.tflite",
        "model-int8-uint8.tflite",
        "model-nchw.onnx",
        "saved_model-pixels",
        "model-float16-batch4.tflite",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bignas-cifar10-smallest", "bignas-cifar10-m", "bignas-cifar10-biggest"])
def test_int8_costs_at_most_a_point_of_accuracy(name: str, shared_data: Path) -> None:
    from bignas_zoo.recipes.data import cifar10

    preprocess = Preprocess.from_json(registry.get_family("bignas-cifar10").preprocess)
    child = bz.load(name)
    side = child.input_shape[1]
    some = np.asarray(preprocess.inputs(cifar10(shared_data, "train").pixels[:200], side))
    test = cifar10(shared_data, "test").take(slice(0, 2000))
    x = np.asarray(preprocess.inputs(test.pixels, side))
    exact = 100 * np.mean(child.predict(x, verbose=0).argmax(-1) == test.labels)
    found = run_tflite(convert(child, Export(precision="int8"), images=some), x)
    assert 100 * np.mean(found.argmax(-1) == test.labels) >= exact - 1.0
