"""What ONNX files say of themselves: made, written, read back, and not believed when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.export.onnx_graph import finish
from bignas_zoo.export.properties import properties, read_properties
from bignas_zoo.models.preprocess import Preprocess

CONTRACT = Preprocess(32, (120.0, 110.5, 100.0), (60.0, 50.0, 70.0))
GIVEN = {
    "name": "bignas-cifar10-m", "description": "a slice", "version": "1", "author": "Zoë", "license": "Apache-2.0",
    "class_names": ["cat", "dog, with \"quotes\"\n"], "preprocess": CONTRACT, "resolution": 24,
}  # fmt: skip


def file(entries: dict[str, str], classes: int = 2) -> bytes:
    node = onnx.helper.make_node("Softmax", ["image"], ["scores"])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", classes])
        for name in ("image", "scores")
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return finish(model, entries, "g")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = properties(**GIVEN, provenance={"supernet_sha256": "ab", "images": 3})
    assert all(isinstance(value, str) for value in entries.values())
    path = tmp_path / "model.onnx"
    path.write_bytes(file(entries))
    assert read_properties(path) == read_properties(str(path)) == read_properties(path.read_bytes())
    assert read_properties(path) == {
        "name": "bignas-cifar10-m",
        "description": "a slice",
        "version": "1",
        "author": "Zoë",
        "license": "Apache-2.0",
        "labels": ["cat", "dog, with \"quotes\"\n"],
        "preprocess": {
            "channels": "RGB",
            "range": [0, 255],
            "mean": [120.0, 110.5, 100.0],
            "std": [60.0, 50.0, 70.0],
            "resize": "bicubic, antialias",
            "crop_size": 32,
            "resolution": 24,
        },
        "provenance": {"supernet_sha256": "ab", "images": 3},
    }  # fmt: skip


def test_normalised_in_the_graph() -> None:
    found = read_properties(file(properties(**GIVEN, normalised_in_graph=True)))["preprocess"]
    assert (found["mean"], found["std"], found["range"]) == ("in the graph", "in the graph", [0, 255])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": 3}, "'name' is missing or no text"),
        ({"class_names": []}, "'labels' has not the form"),
        ({"resolution": 0}, "'preprocess' has not the form"),
        ({"provenance": {"a": float("nan")}}, "not JSON compliant"),
        ({"provenance": {"a": object()}}, "not JSON serializable"),
    ],
)
def test_values_that_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        properties(**{**GIVEN, **changed})


GOOD = properties(**GIVEN)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("author", None, "'author' is missing"),
        ("labels", "cat, dog", "'labels' is not valid JSON"),
        ("labels", '["cat", 3]', "'labels' has not the form"),
        ("labels", '["cat"]', "1 labels for 2 scores"),
        ("provenance", "[]", "'provenance' has not the form"),
        ("provenance", '{"a": NaN}', "'provenance' is not valid JSON"),
        ("provenance", "[" * 100_000, "'provenance' is not valid JSON"),
        ("preprocess", json.dumps({**json.loads(GOOD["preprocess"]), "std": [1, 1, 0]}), "'preprocess' has not"),
        ("preprocess", json.dumps({**json.loads(GOOD["preprocess"]), "mean": "in the graph"}), "'preprocess' has not"),
        ("preprocess", json.dumps({**json.loads(GOOD["preprocess"]), "crop_size": True}), "'preprocess' has not"),
    ],
)
def test_files_that_say_something_else(key: str, value: str | None, message: str) -> None:
    entries = {k: v for k, v in {**GOOD, key: value}.items() if v is not None}
    with pytest.raises(IntegrityError, match=message):
        read_properties(file(entries))


def test_a_property_that_is_there_twice() -> None:
    model = onnx.load_from_string(file(GOOD))
    model.metadata_props.add(key="author", value="another")
    with pytest.raises(IntegrityError, match="the property 'author' is there twice"):
        read_properties(model.SerializeToString())


def test_files_that_are_not_there_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="cannot be read"):
        read_properties(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello, I am no model at all")
    with pytest.raises(IntegrityError, match=r"text\.onnx: no ONNX file of an image classifier, or damaged"):
        read_properties(tmp_path / "text.onnx")
    with pytest.raises(IntegrityError, match="ONNX file: no ONNX file"):
        read_properties(b"")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(file(GOOD)) - 1), st.integers(0, 255), st.booleans())
def test_damage_is_an_integrity_error_or_harmless(place: int, byte: int, cut: bool) -> None:
    data = bytearray(file(GOOD))
    data[place] = byte
    try:
        found = read_properties(bytes(data[:place] if cut else data))
    except IntegrityError:
        return
    assert found.keys() == GOOD.keys()
