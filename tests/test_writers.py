"""Files written from the plan: judged by numpy, by Keras, and operator by operator by TensorFlow's converter."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from test_forms import SMALL, stage

from bignas_zoo.architecture.forms import Head, Shortcut, SqueezeExcite
from bignas_zoo.architecture.lowering import SCORES, lower, same_padding
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.export import keras_onnx, keras_tflite
from bignas_zoo.export import onnx as onnx_export
from bignas_zoo.export import tflite as tflite_export
from bignas_zoo.export.onnx_writer import write_onnx
from bignas_zoo.export.tflite_writer import write_tflite
from bignas_zoo.files.formats import Export
from bignas_zoo.models.backend import keras
from bignas_zoo.models.child import build_child, get_weights, network_of, set_weights
from bignas_zoo.models.folding import folded
from bignas_zoo.models.numpy_forward import numpy_forward
from bignas_zoo.models.preprocess import Preprocess, resize, resize_arrays
from bignas_zoo.models.slicing import child_shapes

GATES = {
    "none": None,
    "bignas": SqueezeExcite(),
    "mobilenet": SqueezeExcite(
        source="expanded", rounding=8, activation="relu", gate="hard_sigmoid", make_divisible=True
    ),
    "mnasnet": SqueezeExcite(activation="relu6", gate="sigmoid"),
    "hard": SqueezeExcite(activation="hard_swish", gate="hard_sigmoid"),
}


def space_of(activation: str, gate: str, shortcut: Shortcut, padding: str, head: str) -> SearchSpace:
    """Return a space with strides, kernels, widths that change, and layers without expansion."""
    form = GATES[gate]
    return SearchSpace(
        name="crossed",
        source="a test",
        classes=5,
        resolutions=(16, 18, 19),
        stem_widths=(8,),
        head_widths=(0,) if head == "none" else (16,),
        stages=(
            stage((8,), (2,), (3,), 1, (1,), form),
            stage((16,), (2,), (5,), 2, (2,), form),
            stage((8, 24), (3,), (3, 7), 2, (3,), form, layerwise_widths=True),
        ),
        activation=activation,
        shortcut=shortcut,
        padding=padding,
        head=Head(head, expansion=2, bias=True) if head == "pooled" else Head(head),
    )


SHORTCUTS = (
    Shortcut("project_first"),
    Shortcut("project_changed", "average_padded"),
    Shortcut("identity", "subsample"),
    Shortcut("identity"),
    Shortcut("identity_unchanged"),
)
#: Each pair of the other axes with every activation and gate, at a size in turn: 16 and 18 have even maps, 19 odd ones.
CROSSED = [
    (
        activation,
        gate,
        SHORTCUTS[(i + i // 5 + i // 20) % 5],
        ("same", "symmetric")[i % 2],
        ("conv", "pooled", "none")[i % 3],
        (16, 18, 19)[i % 3],
    )
    for i, (activation, gate) in enumerate([*product(("swish", "hard_swish", "relu", "relu6"), GATES)] * 3)
]


def weights_of(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random weights under which values neither vanish nor explode."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in child_shapes(network, statistics=True).items():
        if name.endswith("kernel"):
            fan = np.prod(shape[:2]) if shape[-1] == 1 else np.prod(shape[:-1])
            weights[name] = generator.normal(0, (1.5 / fan) ** 0.5, shape)
        elif name.endswith(("gamma", "variance")):
            weights[name] = generator.uniform(0.6, 1.4, shape)
        else:
            weights[name] = generator.normal(0, 0.2, shape)
        weights[name] = weights[name].astype(np.float32)
    return weights


def log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits - logits.max(-1, keepdims=True)
    return np.asarray(top - np.log(np.exp(top).sum(-1, keepdims=True)))


def run_tflite(data: bytes, images: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    classify = interpreter.get_signature_runner("classify")
    return np.concatenate([classify(image=image[None])["scores"] for image in images])


def run_onnx(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(["scores"], {"image": images})[0])


def check_written(network: Network, seed: int = 0) -> None:
    """Compare every float form of a network's files with the numpy forward of its unfolded weights."""
    weights = weights_of(network, seed)
    plain = folded(network, weights)
    images = np.random.default_rng(1).normal(0, 1, (2, network.resolution, network.resolution, 3)).astype(np.float32)
    logits = numpy_forward(network, weights, images.astype(np.float64))
    expected, allowed = log_softmax(logits), 1e-5 * max(1.0, float(np.abs(logits).max()))
    nodes = lower(network)
    quarters = lower(network, quarters=True)
    for scores in (
        run_tflite(write_tflite(nodes, plain), images),
        run_tflite(write_tflite(quarters, plain), images),
        run_onnx(write_onnx(nodes, plain), images),
        run_onnx(write_onnx(quarters, plain, layout="nchw"), np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
    ):
        assert np.abs(np.log(scores) - expected).max() <= allowed
    half = run_tflite(write_tflite(nodes, plain, precision="float16"), images)
    assert np.abs(np.log(half) - expected).max() <= 1e-2 * max(1.0, float(np.abs(logits).max()))


@pytest.mark.parametrize(
    "case", CROSSED, ids=lambda c: "-".join((c[0], c[1], c[2].rule, c[2].pooling, *map(str, c[3:])))
)
def test_files_compute_what_the_plan_does(case: tuple[Any, ...]) -> None:
    *forms, size = case
    check_written(
        uniform_child(dataclasses.replace(space_of(*forms), resolutions=(size,)), ("writers", *map(str, case)))
    )


@pytest.mark.parametrize(("name", "size"), list(product(SMALL, (16, 18))), ids=str)
def test_published_forms_do_too(name: str, size: int) -> None:
    check_written(uniform_child(dataclasses.replace(SMALL[name], resolutions=(size,)), ("writers", size)))


def test_padding_by_hand() -> None:
    # Of 8 pixels by a 3x3 with stride 2: outputs at 0, 2, 4, 6, and the last reads pixel 8: one zero after the map.
    assert same_padding(8, 3, 2) == (0, 1)
    assert same_padding(9, 3, 2) == (1, 1)
    assert same_padding(8, 5, 2) == (1, 2)
    assert same_padding(8, 3, 1) == (1, 1)
    assert same_padding(8, 1, 2) == (0, 0)


def test_nodes_are_in_order_and_named_once() -> None:
    for space in SMALL.values():
        nodes = lower(space.biggest)
        known = {"image"}
        for node in nodes:
            assert {value.name for value in node.inputs} <= known
            assert node.name not in known
            known.add(node.name)
        assert nodes[-1].name == SCORES


def test_shortcuts_run_before_their_branch() -> None:
    names = [node.name for node in lower(get_space("bignas-micro").biggest)]
    first = ["stage1.layer1.shortcut.average", "stage1.layer1.shortcut", "stage1.layer1.depthwise"]
    assert [name for name in names if name in first] == first


# The converter of TensorFlow, operator by operator.


def operators(data: bytes) -> list[tuple[Any, ...]]:
    """Return kind, version, output shape and options of each operator."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    graph = model.subgraphs[0]
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    rows = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        options = op.builtinOptions
        stride = getattr(options, "strideW", None)
        activation = getattr(options, "fusedActivationFunction", None)
        # The converter has Keras' padding, which may add a row that no kernel reads; ours adds none.
        shape = None if kind == "PAD" else tuple(graph.tensors[op.outputs[0]].shape)
        rows.append((kind, shape, stride, activation))
    return rows


#: In the order that a network runs; the converter writes shortcuts where Keras was asked for them, after the branch.
LIKE_CONVERTER = [
    ("swish", "bignas", Shortcut("project_first"), "same", "conv", 16),
    ("swish", "none", Shortcut("project_first"), "same", "conv", 19),
    ("hard_swish", "mobilenet", Shortcut("identity_unchanged"), "symmetric", "conv", 18),
    ("relu6", "none", Shortcut("identity_unchanged"), "same", "conv", 16),
    ("relu", "mnasnet", Shortcut("identity"), "same", "none", 16),
    ("hard_swish", "hard", Shortcut("project_changed", "average_padded"), "same", "conv", 18),
]


def child_of(case: tuple[Any, ...]) -> tuple[keras.Model, Network]:
    *forms, size = case
    network = uniform_child(dataclasses.replace(space_of(*forms), resolutions=(size,)), ("like", size))
    child = build_child(network)
    set_weights(child, network, weights_of(network))
    return child, network


@pytest.mark.slow
@pytest.mark.parametrize("case", LIKE_CONVERTER, ids=str)
def test_operators_are_those_of_the_converter(case: tuple[Any, ...]) -> None:
    child, _ = child_of(case)
    for options in (Export(), Export(precision="dynamic")):
        ours = operators(tflite_export.convert(child, options))
        theirs = operators(keras_tflite.converted(child, options, None))
        assert Counter(ours) == Counter(theirs)
        if case[2].rule == "identity_unchanged":  # nothing runs beside a branch
            assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("case", LIKE_CONVERTER[:4:3], ids=str)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_scores_are_those_of_tf2onnx(case: tuple[Any, ...], layout: str) -> None:
    child, network = child_of(case)
    images = np.random.default_rng(2).normal(0, 1, (3, network.resolution, network.resolution, 3)).astype(np.float32)
    images = images if layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    ours, theirs = (
        run_onnx(onnx.load_from_string(data), images)
        for data in (onnx_export.convert(child, layout=layout), keras_onnx.converted(child, layout, None, {}))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [20, 24, 31, 40])
def test_arrays_are_resized_as_keras_does(size: int) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_arrays(images, size), np.asarray(resize(images, size)), atol=2e-3)


@pytest.mark.parametrize("file", ["tflite", "onnx"])
def test_pixels_are_normalised_outside_the_stem(file: str) -> None:
    """Black pixels at the rim are not zeros: folded into the stem they would be."""
    child, network = child_of(LIKE_CONVERTER[0])
    contract = Preprocess(network.resolution, (120.0, 110.0, 90.0), (60.0, 50.0, 70.0))
    size = network.resolution
    pixels = np.random.default_rng(3).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    expected = log_softmax(np.asarray(child(contract.normalise(pixels), training=False), np.float64))
    if file == "tflite":
        options = Export(normalize_in_graph=True)
        scores = run_tflite(tflite_export.convert(child, options, preprocess=contract), pixels)
    else:
        scores = run_onnx(onnx.load_from_string(onnx_export.convert(child, preprocess=contract)), pixels)
    np.testing.assert_allclose(np.log(scores), expected, atol=1e-4)


def test_several_images_a_call_and_the_same_bytes_twice() -> None:
    child, network = child_of(LIKE_CONVERTER[3])
    plain = folded(network, get_weights(child, network))
    nodes = lower(network)
    images = np.random.default_rng(4).normal(0, 1, (3, network.resolution, network.resolution, 3)).astype(np.float32)
    data = write_tflite(nodes, plain, batch=3)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    scores = interpreter.get_signature_runner("classify")(image=images)["scores"]
    np.testing.assert_allclose(scores, run_tflite(write_tflite(nodes, plain), images), rtol=1e-5)
    assert data == write_tflite(nodes, plain, batch=3)
    assert write_onnx(nodes, plain) == write_onnx(nodes, plain)


def test_buffers_lie_where_the_schema_wants_them() -> None:
    network = SMALL["small-mobilenet"].biggest
    data = write_tflite(lower(network), folded(network, weights_of(network)))
    model = schema.Model.GetRootAs(data, 0)
    places = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            table = buffer._tab
            places.append(table.Vector(table.Offset(4)))
    assert places
    assert all(place % 16 == 0 for place in places)


def test_a_model_with_other_layers_is_no_child_any_more() -> None:
    child, network = child_of(LIKE_CONVERTER[3])
    assert network_of(child) == network
    assert network_of(keras.models.clone_model(child)) is None
    assert network_of(keras.Model(child.input, child.layers[-2].output)) is None
    child.get_layer("stem.relu6").activation = keras.activations.relu
    assert network_of(child) is None


@pytest.mark.slow
def test_a_model_that_is_no_child_is_converted_as_before() -> None:
    child, network = child_of(LIKE_CONVERTER[3])
    other = keras.Model(child.input, keras.layers.Dense(3)(child.layers[-2].output))
    images = np.random.default_rng(5).normal(0, 1, (2, network.resolution, network.resolution, 3)).astype(np.float32)
    expected = log_softmax(np.asarray(other(images, training=False), np.float64))
    np.testing.assert_allclose(np.log(run_tflite(tflite_export.convert(other), images)), expected, atol=1e-4)
    scores = run_onnx(onnx.load_from_string(onnx_export.convert(other)), images)
    np.testing.assert_allclose(np.log(scores), expected, atol=1e-4)


def test_a_file_says_which_way_it_was_made() -> None:
    child = get_space("bignas-micro").smallest
    model = build_child(child)
    set_weights(model, child, weights_of(child))
    x = keras.Input(model.input_shape[1:])
    other = keras.Model(x, keras.layers.Dense(3)(model(x)))  # no child any more
    pairs = {ours: onnx.load_from_string(onnx_export.convert(ours)).producer_name for ours in (model, other)}
    assert pairs[model] == "bignas-zoo"
    assert pairs[other].startswith("tf2onnx 1.")
    images = np.random.default_rng(0).normal(size=(64, *model.input_shape[1:])).astype(np.float32)
    int8 = onnx.load_from_string(onnx_export.convert(other, precision="int8", images=images))
    assert int8.producer_name == pairs[other]
    said = [schema.ModelT.InitFromPackedBuf(bytearray(tflite_export.convert(m)), 0).description for m in (model, other)]
    assert said == [b"bignas-zoo", b"MLIR Converted."]
