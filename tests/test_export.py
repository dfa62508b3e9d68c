"""The parity check catches exports that went wrong silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import LAYERWISE, LAYERWISE_CHILD, TINY

from bignas_zoo.errors import IntegrityError, QualityError
from bignas_zoo.export.gates import check_tflite
from bignas_zoo.export.parity import run_tflite
from bignas_zoo.export.tflite import convert, to_tflite
from bignas_zoo.models.calibration import calibrate
from bignas_zoo.models.child import build_child, set_weights
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.tasks import slice_files
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice


@pytest.fixture(scope="module")
def child():
    import keras

    keras.utils.set_random_seed(0)
    model = build_child(TINY.smallest)
    for layer in model.layers:
        if layer.name.endswith(".bn"):  # some statistics of its own, as after calibration
            layer.moving_mean.assign(np.random.default_rng(1).normal(size=layer.moving_mean.shape) * 0.1)
    return model


@pytest.fixture(scope="module")
def exported(child) -> bytes:
    return convert(child)


def images(count: int = 8) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 12, 12, 3)).astype("f4")


def test_a_good_export_passes(child, exported: bytes) -> None:
    report = check_tflite(child, exported, images(), "normal")
    assert report.max_abs <= 1e-4 * report.max_logit
    assert report.images == 8
    assert report.top1_agreement == 1.0


def test_scores_are_a_distribution(exported: bytes) -> None:
    scores = run_tflite(exported, images())
    assert scores.shape == (8, 5)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-6)
    assert scores.min() >= 0


def operation_names(exported: bytes) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    return [op["op_name"] for op in Interpreter(model_content=exported)._get_ops_details()]


@pytest.mark.parametrize("planted", ["shift", "scale", "swapped", "nan"])
def test_a_wrong_export_is_refused(child, exported: bytes, planted: str) -> None:
    # The child is changed after the export, which is the same to the check as a wrong file.
    layer = child.get_layer("classifier")
    kernel, bias = layer.get_weights()
    wrong = {
        "shift": (kernel, bias + np.float32([0.01, 0, 0, 0, 0])),
        "scale": (kernel * 1.01, bias),
        "swapped": (kernel[:, [1, 0, 2, 3, 4]], bias),
        "nan": (kernel * np.nan, bias),
    }[planted]
    layer.set_weights(wrong)
    try:
        with pytest.raises(QualityError, match="differ from the network|not numbers"):
            check_tflite(child, exported, images(), "normal")
    finally:
        layer.set_weights([kernel, bias])


def test_to_tflite_writes_what_convert_gives(child, exported: bytes, tmp_path: Path) -> None:
    size = to_tflite(child, tmp_path / "m.tflite")
    assert size == (tmp_path / "m.tflite").stat().st_size
    np.testing.assert_array_equal(run_tflite(tmp_path / "m.tflite", images()), run_tflite(exported, images()))


def test_no_batch_norm_and_no_flex_operation_is_left(exported: bytes) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=exported)
    names = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not any(name.startswith("Flex") for name in names)
    # A folded batch norm leaves no constant multiplication: MUL only in swish and squeeze-excite.
    operations = [op["op_name"] for op in interpreter._get_ops_details()]
    assert operations.count("DEPTHWISE_CONV_2D") == sum(s.depth for s in TINY.smallest.stages)
    assert list(interpreter.get_signature_list()) == ["classify"]


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 100, b"not a model at all"])
def test_a_foreign_file_is_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        run_tflite(data, images())


def test_layerwise_child_exports_and_reads_back(tmp_path: Path) -> None:
    spec = LAYERWISE_CHILD
    child = build_child(spec)
    set_weights(child, spec, slice_weights(initial_weights(LAYERWISE, 0, last_gamma=1.0), spec), calibrated=False)
    calibrate(child, [np.random.default_rng(0).normal(size=(80, 12, 12, 3)).astype("f4")])
    preprocess = {"crop_size": 12, "mean": [128.0] * 3, "std": [64.0] * 3}
    chosen = Slice("layers-s", "layers", spec, None, None, "")
    family = Family("layers", "tests", LAYERWISE, tuple("abcde"), preprocess, (chosen,))
    slice_files.write(tmp_path, family, chosen, child)  # fails if the file's parity with Keras does
    again, description, loaded = slice_files.read(tmp_path)
    assert again == spec
    assert description["parity"]["max_abs"] <= 1e-4 * description["parity"]["max_logit"]
    np.testing.assert_array_equal(loaded(images()), child(images()))
    card = (tmp_path / "README.md").read_text()
    assert "| stage2.layer1 | 12 px | 16 -> 32 -> 24 |" in card
    assert "| stage2.layer2 | 6 px | 24 -> 48 -> 16 |" in card
    operations = operation_names((tmp_path / "model.tflite").read_bytes())
    assert operations.count("PAD") == 1
    assert operations.count("STRIDED_SLICE") + operations.count("SLICE") == 2
    assert not any(name.startswith("Flex") for name in operations)
