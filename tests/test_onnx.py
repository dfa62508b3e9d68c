"""ONNX files: the same function by another runtime, folded, named, and the same bytes every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import LAYERWISE_CHILD, TINY

import bignas_zoo as bz
from bignas_zoo.errors import QualityError, UsageError
from bignas_zoo.export.fold import fold_batch_norms
from bignas_zoo.export.onnx import convert, to_onnx
from bignas_zoo.export.onnx_graph import finish
from bignas_zoo.models.child import build_child
from bignas_zoo.models.preprocess import Preprocess

CONTRACT = Preprocess(20, (120.0, 110.0, 100.0), (60.0, 50.0, 70.0))


def alive(spec):
    """A child whose every weight matters: gammas, statistics and biases of no special form."""
    import keras

    keras.utils.set_random_seed(0)
    child, generator = build_child(spec), np.random.default_rng(0)
    for weight in child.weights:
        if weight.path.endswith(("gamma", "variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith(("beta", "mean", "bias")):
            weight.assign(generator.normal(size=weight.shape) * 0.3)
    return child


@pytest.fixture(scope="module", params=[TINY.biggest, LAYERWISE_CHILD], ids=["biggest", "layerwise"])
def child(request: pytest.FixtureRequest):
    return alive(request.param)


@pytest.fixture(scope="module")
def files(child) -> dict[str, bytes]:
    """The child's files, by layout."""
    return {layout: convert(child, layout=layout) for layout in ("nhwc", "nchw")}


def images(child, count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *child.input_shape[1:])).astype("f4")


def log_scores(child, x: np.ndarray) -> np.ndarray:
    logits = np.asarray(child(x, training=False), np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    return np.log(onnxruntime.InferenceSession(data).run(["scores"], {"image": x})[0])


def test_folding_changes_nothing_but_the_operations(child) -> None:
    folded, x = fold_batch_norms(child), images(child)
    expected = np.asarray(child(x, training=False))
    np.testing.assert_allclose(np.asarray(folded(x, training=False)), expected, atol=2e-6 * np.abs(expected).max())
    assert any("BatchNorm" in type(layer).__name__ for layer in child.layers)
    assert not any("BatchNorm" in type(layer).__name__ for layer in folded.layers)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_onnxruntime_computes_what_keras_does(child, files: dict[str, bytes], layout: str) -> None:
    x = images(child)
    given = x.transpose(0, 3, 1, 2) if layout == "nchw" else x
    np.testing.assert_allclose(run(files[layout], given), log_scores(child, x), atol=1e-5)


def test_pixels_are_normalised_in_the_graph(child) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, *child.input_shape[1:])).astype("f4")
    x = ((pixels - np.array([120, 110, 100])) / np.array([60, 50, 70])).astype("f4")
    np.testing.assert_allclose(run(convert(child, preprocess=CONTRACT), pixels), log_scores(child, x), atol=1e-5)


def test_the_graph_is_clean_named_and_described(child, files: dict[str, bytes]) -> None:
    data = convert(child, properties={"labels": "a\nb", "version": "1"})
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Transpose") == 1
    assert kinds.index("Transpose") < kinds.index("Conv")
    assert "Transpose" not in [n.op_type for n in onnx.load_from_string(files["nchw"]).graph.node]
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", 17)]
    side = child.input_shape[1]
    for value, name, shape in (
        (model.graph.input[0], "image", [side, side, 3]),
        (model.graph.output[0], "scores", [5]),
    ):
        first, *rest = value.type.tensor_type.shape.dim
        assert (value.name, first.dim_param, [d.dim_value for d in rest]) == (name, "batch", shape)
    assert {p.key: p.value for p in model.metadata_props} == {"labels": "a\nb", "version": "1"}


def test_the_same_child_gives_the_same_bytes(child, files: dict[str, bytes]) -> None:
    assert convert(child) == files["nhwc"]


def test_what_should_be_gone_is_noticed() -> None:
    node = onnx.helper.make_node("Transpose", ["t"], ["scores"], perm=[0, 1])
    conv = onnx.helper.make_node("Conv", ["image", "w"], ["t"])
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1])
    model = onnx.helper.make_model(onnx.helper.make_graph([conv, node], "g", [value], []))
    with pytest.raises(QualityError, match="should be gone: Transpose"):
        finish(model, {}, "g")


def test_to_onnx_writes_a_file_and_refuses_other_layouts(child, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert to_onnx(child, path) == path.stat().st_size
    with pytest.raises(UsageError, match="layout is 'chwn'; allowed: nhwc, nchw"):
        to_onnx(child, tmp_path / "other.onnx", layout="chwn")
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    script = "import sys, bignas_zoo as bz; bz.to_onnx(bz.load('bignas-cifar10-s'), sys.argv[1])"
    file = tmp_path / "model.onnx"
    subprocess.run([sys.executable, "-c", script, str(file)], check=True, capture_output=True)
    assert file.read_bytes() == convert(bz.load("bignas-cifar10-s"))
