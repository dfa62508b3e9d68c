"""Int8 ONNX files: what is stored in which type, how ranges are found, and what int8 costs on real images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import LAYERWISE_CHILD, TINY
from test_onnx import CONTRACT, alive

import bignas_zoo as bz
from bignas_zoo.errors import QualityError, UsageError
from bignas_zoo.export.onnx import convert
from bignas_zoo.export.onnx_int8 import activation_ranges, quantise
from bignas_zoo.export.ranges import covered_ranges
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.zoo import registry


@pytest.fixture(scope="module", params=[TINY.smallest, LAYERWISE_CHILD], ids=["smallest", "layerwise"])
def child(request: pytest.FixtureRequest):
    return alive(request.param)


@pytest.fixture(scope="module")
def small():
    return alive(TINY.smallest)


@pytest.fixture(scope="module")
def plain(small) -> bytes:
    """Its float32 file."""
    return convert(small)


@pytest.fixture(scope="module")
def integer(child) -> bytes:
    """An int8 file of a child, of 100 images."""
    return convert(child, precision="int8", images=normalised(100), properties={"version": "1"})


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 12, 12, 3)).astype("f4")


def normalised(count: int) -> np.ndarray:
    return np.asarray(CONTRACT.normalise(pixels(count)))


def scores(child, x: np.ndarray) -> np.ndarray:
    logits = np.asarray(child(x, training=False), np.float64)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options).run(["scores"], {"image": x})[0]


def test_every_convolution_is_integer_and_the_softmax_is_not(child, integer: bytes) -> None:
    model = onnx.load_from_string(integer)
    onnx.checker.check_model(model, full_check=True)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    heavy = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert len(heavy) == sum(node.op_type in ("Conv", "MatMul", "Gemm") for node in float_nodes(child))
    for node in heavy:
        given, weight, *bias = (makers[name] for name in node.input)
        assert {source.op_type for source in (given, weight, *bias)} == {"DequantizeLinear"}
        assert makers[given.input[0]].op_type in ("QuantizeLinear", "Reshape", "Squeeze", "Transpose", "AveragePool")
        stored = constants[weight.input[0]]
        assert stored.data_type == onnx.TensorProto.INT8
        channels = stored.dims[0] if node.op_type == "Conv" else stored.dims[1]
        assert list(constants[weight.input[1]].dims) == [channels]
        assert [constants[source.input[0]].data_type for source in bias] == [onnx.TensorProto.INT32] * len(bias)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    assert makers[softmax.input[0]].op_type in ("Add", "Gemm")  # the logits stay float
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", 17)]
    for value, name in ((model.graph.input[0], "image"), (model.graph.output[0], "scores")):
        tensor = value.type.tensor_type
        assert (value.name, tensor.shape.dim[0].dim_param, tensor.elem_type) == (name, "batch", onnx.TensorProto.FLOAT)
    assert {p.key: p.value for p in model.metadata_props} == {"version": "1"}


def float_nodes(child) -> list:
    return list(onnx.load_from_string(convert(child)).graph.node)


def test_weights_are_within_half_a_step(small, plain: bytes) -> None:
    weight = np.asarray(small.layers[-1].kernel)  # of the classifier: no batch norm is folded into it
    data = onnx.load_from_string(quantise(plain, normalised(64)))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in data.graph.initializer}
    makers = {name: node for node in data.graph.node for name in node.output}
    (product,) = (node for node in data.graph.node if node.op_type in ("MatMul", "Gemm"))
    stored, step, zero = (constants[name] for name in makers[product.input[1]].input)
    assert not zero.any()
    np.testing.assert_allclose(step, np.abs(weight).max(0) * 2 / 128, rtol=1e-5)  # 7 bits, -64 to 64
    assert np.abs(stored * step - weight).max() <= step.max() * 0.501


def test_it_computes_almost_the_same_in_either_layout(child, integer: bytes) -> None:
    given = normalised(100)
    exact = scores(child, given)
    nhwc = run(integer, given)
    nchw = run(convert(child, layout="nchw", precision="int8", images=given), given.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(nhwc, nchw, atol=1e-6)
    assert np.abs(nhwc - exact).mean() < 0.03
    np.testing.assert_allclose(nhwc.sum(-1), 1, rtol=1e-6)


def test_pixels_are_normalised_in_the_graph(small) -> None:
    data = convert(small, precision="int8", preprocess=CONTRACT, images=pixels(100))
    assert np.abs(run(data, pixels(100)) - scores(small, normalised(100))).mean() < 0.03
    kinds = [node.op_type for node in onnx.load_from_string(data).graph.node]
    assert "QuantizeLinear" not in kinds[: kinds.index("Sub")]


def test_ranges_are_those_of_numpy(small, plain: bytes) -> None:
    x = normalised(80)
    width = (x.max() - x.min()) / 8192  # of a bin
    found = activation_ranges(plain, x, 99.0)
    np.testing.assert_allclose(found["image"], [np.percentile(x, 1), np.percentile(x, 99)], atol=2 * width)
    whole = activation_ranges(plain, x, 100)
    np.testing.assert_allclose(whole["image"], [x.min(), x.max()], rtol=1e-6)
    expected = scores(small, x)
    np.testing.assert_allclose(whole["scores"], [expected.min(), expected.max()], rtol=1e-4)
    assert found.keys() == whole.keys()


def test_tensors_that_hardly_change_have_ranges() -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    values = {
        "same": np.ones(100, "f4"),
        "almost": np.array([1.0] * 50 + [above] * 50, "f4"),
        "none": np.zeros(9, "f4"),
    }

    def each_tensor(tell) -> None:
        for name, array in values.items():
            tell(name, array)

    found = covered_ranges(each_tensor, 99.0)
    for name, array in values.items():
        low, high = found[name]
        assert abs(low - array.min()) <= 2e-4, name  # a bin, where a range of nothing is taken for one of 1
        assert abs(high - array.max()) <= 2e-4, name


def test_the_same_images_give_the_same_bytes(plain: bytes) -> None:
    assert quantise(plain, normalised(64)) == quantise(plain, normalised(64))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (lambda: normalised(63), "63 images are too few .* at least 64 training images"),
        (lambda: normalised(64)[:, :8], r"images have the shape \[64, 8, 12, 3\]; this file takes \[n, 12, 12, 3\]"),
        (lambda: normalised(64)[0], r"images have the shape \[12, 12, 3\]"),
        (lambda: normalised(64) * np.nan, "not finite"),
    ],
)
def test_images_that_do_not_do(small, images: Callable[[], np.ndarray], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert(small, precision="int8", images=images())


def test_what_int8_needs(small, plain: bytes) -> None:
    with pytest.raises(UsageError, match="int8 needs images"):
        convert(small, precision="int8")
    with pytest.raises(UsageError, match="onnx has no precision 'float16'; allowed: float32, int8"):
        convert(small, precision="float16")
    with pytest.raises(UsageError, match="cover must be over 50 and at most 100 percent, got 101"):
        quantise(plain, normalised(64), cover=101)
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 12, 12, 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Softmax", ["image"], ["s"])], "g", [value], [])
    with pytest.raises(QualityError, match="cannot be quantised: it has no convolution"):
        quantise(onnx.helper.make_model(graph).SerializeToString(), normalised(64))


def real(name: str, shared_data: Path, train: int, test: int) -> tuple:
    """Return a slice, its calibration images, its test images and their labels."""
    from bignas_zoo.recipes.data import cifar10

    preprocess = Preprocess.from_json(registry.get_family("bignas-cifar10").preprocess)
    child = bz.load(name)
    side = child.input_shape[1]
    some = np.asarray(preprocess.inputs(cifar10(shared_data, "train").pixels[:train], side))
    held = cifar10(shared_data, "test").take(slice(0, test))
    return child, some, np.asarray(preprocess.inputs(held.pixels, side)), held.labels


def test_int8_keeps_what_a_real_slice_sees(shared_data: Path) -> None:
    child, some, x, _ = real("bignas-cifar10-smallest", shared_data, 100, 300)
    model = convert(child)
    data = quantise(model, some)
    assert len(data) < 0.4 * len(model)
    assert np.mean(run(data, x).argmax(-1) == run(model, x).argmax(-1)) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bignas-cifar10-smallest", "bignas-cifar10-m", "bignas-cifar10-biggest"])
def test_int8_costs_at_most_a_point_of_accuracy(name: str, shared_data: Path) -> None:
    child, some, x, labels = real(name, shared_data, 1000, 2000)
    model = convert(child)
    exact, found = (
        100 * np.mean(np.concatenate([run(data, x[i : i + 250]) for i in range(0, 2000, 250)]).argmax(-1) == labels)
        for data in (model, quantise(model, some))
    )
    assert found >= exact - 1.0


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, bignas_zoo as bz; child = bz.load('bignas-cifar10-smallest');"
        "bz.to_onnx(child, sys.argv[1], precision='int8', images=np.load(sys.argv[2]))"
    )
    there, images, here = (tmp_path / name for name in ("there.onnx", "images.npy", "here.onnx"))
    child = bz.load("bignas-cifar10-smallest")
    np.save(images, np.random.default_rng(0).normal(size=(64, *child.input_shape[1:])).astype("f4"))
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # this process has another
    subprocess.run([sys.executable, "-c", script, there, images], check=True, capture_output=True, env=environment)
    bz.to_onnx(child, here, precision="int8", images=np.load(images))
    assert there.read_bytes() == here.read_bytes()
