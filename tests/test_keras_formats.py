"""Keras and SavedModel files: what a process without this package computes with them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LAYERWISE_CHILD, TINY
from test_onnx import CONTRACT, alive

import bignas_zoo as bz
from bignas_zoo.errors import LocalIOError, UsageError
from bignas_zoo.export.keras_formats import to_keras, to_saved_model

#: Programs of somebody who has Keras or TensorFlow, and not this package.
READ_KERAS = """
import sys, numpy as np
sys.modules["bignas_zoo"] = None
import keras
x = np.load(sys.argv[2], allow_pickle=False)
np.save(sys.argv[3], np.asarray(keras.models.load_model(sys.argv[1])(x, training=False)))
"""
READ_SAVED_MODEL = """
import sys, numpy as np
sys.modules["bignas_zoo"] = sys.modules["keras"] = None
import tensorflow as tf
x = np.load(sys.argv[2], allow_pickle=False)
model = tf.saved_model.load(sys.argv[1])
for name in ("classify", "serving_default"):
    scores = model.signatures[name](image=tf.constant(x))
    assert list(scores) == ["scores"]
assert model.signatures["classify"](image=tf.constant(x[:1]))["scores"].shape[0] == 1
np.save(sys.argv[3], scores["scores"].numpy())
"""


@pytest.fixture(scope="module")
def child():
    return alive(LAYERWISE_CHILD)


def images(child, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *child.input_shape[1:])).astype("f4")


def elsewhere(program: str, file: Path, x: np.ndarray) -> np.ndarray:
    """Return what another process makes of a file and images."""
    given, made = file.parent / "x.npy", file.parent / "y.npy"
    np.save(given, x)
    result = subprocess.run(
        [sys.executable, "-c", program, str(file), str(given), str(made)],
        capture_output=True, text=True, check=False, cwd=file.parent, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return np.load(made, allow_pickle=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def test_a_slice_computes_the_same_where_only_keras_is(tmp_path: Path) -> None:
    slice_ = bz.load("bignas-cifar10-smallest")
    path, x = tmp_path / "model.keras", images(slice_)
    assert to_keras(slice_, path) == path.stat().st_size
    np.testing.assert_allclose(elsewhere(READ_KERAS, path, x), np.asarray(slice_(x, training=False)), atol=1e-6)


def test_a_slice_computes_the_same_where_only_tensorflow_is(tmp_path: Path) -> None:
    slice_ = bz.load("bignas-cifar10-smallest")
    folder, x = tmp_path / "model", images(slice_)
    size = to_saved_model(slice_, folder)
    assert size == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    expected = softmax(np.asarray(slice_(x, training=False)))
    np.testing.assert_allclose(elsewhere(READ_SAVED_MODEL, folder, x), expected, atol=1e-6)


def test_a_saved_model_that_takes_pixels(child, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, *child.input_shape[1:])).astype("f4")
    x = ((pixels - np.array(CONTRACT.mean)) / np.array(CONTRACT.std)).astype("f4")
    to_saved_model(child, tmp_path / "model", preprocess=CONTRACT)
    classify = tf.saved_model.load(tmp_path / "model").signatures["classify"]
    found = classify(image=tf.constant(pixels))["scores"].numpy()
    np.testing.assert_allclose(found, softmax(np.asarray(child(x, training=False))), atol=1e-6)


def test_the_same_child_gives_the_same_file_at_any_time(child, tmp_path: Path) -> None:
    to_keras(child, tmp_path / "one.keras")
    time.sleep(2.1)  # archives count in steps of two seconds
    again = keras.models.clone_model(child)  # other objects at other addresses
    again.set_weights(child.get_weights())
    again.compile("adam", "mse")
    to_keras(again, tmp_path / "two.keras")
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


def test_the_file_names_nothing_but_keras(child, tmp_path: Path) -> None:
    to_keras(child, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert archive.testzip() is None
        config, metadata = (json.loads(archive.read(f"{name}.json")) for name in ("config", "metadata"))
    assert "bignas_zoo." not in json.dumps(config)
    assert not config.get("compile_config")
    assert {layer["module"] for layer in config["config"]["layers"]} == {"keras.layers"}
    assert metadata == {"keras_version": keras.__version__, "date_saved": "1980-01-01@00:00:00"}


@keras.saving.register_keras_serializable("mine")
class Own(keras.layers.Layer):
    def call(self, x):
        return x


def test_what_keras_alone_cannot_load_is_refused(tmp_path: Path) -> None:
    x = keras.Input((4, 4, 3))
    with pytest.raises(UsageError, match="parts that Keras alone cannot load: Own. Build it of keras.layers"):
        to_keras(keras.Model(x, Own()(x)), tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(child, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names end in .keras. Name it model.keras"):
        to_keras(child, tmp_path / "model.h5")
    with pytest.raises(LocalIOError, match="cannot be written"):
        to_keras(child, tmp_path / "nowhere" / "model.keras")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").touch()
    with pytest.raises(LocalIOError, match=r"no saved_model.pb in it"):
        to_saved_model(child, tmp_path / "mine", force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


def test_a_saved_model_is_replaced_when_asked(tmp_path: Path) -> None:
    child = alive(TINY.smallest)
    to_saved_model(child, tmp_path / "model")
    with pytest.raises(LocalIOError, match="exists already and is not overwritten"):
        to_saved_model(child, tmp_path / "model")
    to_saved_model(child, tmp_path / "model", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
