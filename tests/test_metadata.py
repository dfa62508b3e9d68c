"""TFLite metadata: written so that others read them, read so that nothing harms."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_tflite import INFO, KINDS, build_all

from bignas_zoo.errors import IntegrityError, QualityError, UsageError
from bignas_zoo.export.metadata import read_metadata, with_metadata
from bignas_zoo.runtime.quiet import quiet_native


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return build_all()


@pytest.fixture(scope="module")
def plain(models: dict[str, bytes]) -> bytes:
    return models["float32"]


def run(model: bytes) -> np.ndarray:
    """Run a file on noise of its input's type."""
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    noise = np.random.default_rng(1).integers(0, 128, entry["shape"])
    interpreter.set_tensor(entry["index"], noise.astype(entry["dtype"]))
    interpreter.invoke()
    return np.array(interpreter.get_tensor(exit_["index"]))


def parsed(model: bytes) -> Any:
    """Read a model with the reader that comes with LiteRT."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))


def data_of(model: bytes, buffer: Any) -> bytes:
    if buffer.offset > 1:
        return model[buffer.offset : buffer.offset + buffer.size]
    return b"" if buffer.data is None else bytes(buffer.data)


# Writing.


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_and_the_model_computes_the_same(models: dict[str, bytes], kind: str) -> None:
    result = with_metadata(models[kind], INFO)
    assert read_metadata(result) == INFO
    np.testing.assert_array_equal(run(result), run(models[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_another_reader_finds_the_old_model_and_one_more_buffer(models: dict[str, bytes], kind: str) -> None:
    before, result = models[kind], with_metadata(models[kind], INFO)
    old, new = parsed(before), parsed(result)
    assert any(buffer.offset > 1 for buffer in old.buffers) == (kind == "buffers outside")
    assert [data_of(result, b) for b in new.buffers[:-1]] == [data_of(before, b) for b in old.buffers]
    names = [entry.name for entry in old.metadata]
    assert b"min_runtime_version" in names
    assert (b"CONVERSION_METADATA" in names) == (kind != "buffers outside")
    assert [entry.name for entry in new.metadata] == [*names, b"TFLITE_METADATA"]
    assert [entry.buffer for entry in new.metadata] == [*(e.buffer for e in old.metadata), len(old.buffers)]
    assert bytes(new.buffers[-1].data)[4:8] == b"M001"
    assert (new.version, new.description) == (old.version, old.description)
    for part in ("operatorCodes", "subgraphs", "signatureDefs"):
        assert _plain(getattr(new, part)) == _plain(getattr(old, part))


def _plain(value: Any) -> Any:
    """Turn generated objects into what can be compared."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return {k: _plain(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else value


def test_the_old_file_is_in_the_new_one_as_it_was_at_a_multiple_of_its_alignment(plain: bytes) -> None:
    at = with_metadata(plain, INFO).index(plain)
    assert at % 64 == 0
    assert at > 0


def test_any_zip_reader_finds_the_labels(plain: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(with_metadata(plain, INFO))) as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(entry).decode() == "great grey owl\ncrane, bird\n猫\nÄhre\n"


def test_the_same_input_gives_the_same_bytes(plain: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    first = with_metadata(plain, INFO)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert with_metadata(plain, INFO) == first


def test_the_widest_numbers_are_written(plain: bytes) -> None:
    info = replace(INFO, mean=(-1e6, 1e6, 0), std=(1e-6, 1e6, 1))
    assert read_metadata(with_metadata(plain, info)) == info


def test_empty_text_and_numbers_beyond_float32_come_back(plain: bytes) -> None:
    info = replace(INFO, name="", author="", mean=(1 / 3, 0.0, -1.5), std=(1e-3, 1.0, 2.0))
    again = read_metadata(with_metadata(plain, info))
    assert again == replace(info, mean=(0.33333334, 0.0, -1.5))  # float32 of 1/3, by hand


def test_text_of_any_length_is_kept(plain: bytes) -> None:
    info = replace(INFO, description="ß" * 100_000, class_names=tuple(f"c{i}" * 50 for i in range(4)))
    assert read_metadata(with_metadata(plain, info)) == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "a\0b"},
            r"name is 'a\\x00b'; it must be text without control characters, of at most 1,048,576",
        ),
        ({"license": None}, "license is None; it must be text"),
        ({"author": "\ud800"}, "author is '.*ud800'; it must be text"),
        ({"description": "x" * 1_048_577}, "description is 'x+"),
        ({"class_names": ()}, r"class_names is \(\); it must be a tuple of at least one name"),
        ({"class_names": ["a"]}, "class_names is .*; it must be a tuple"),
        ({"class_names": ("a", "b\nc")}, r"class 1 is named 'b\\nc'; a name is one line of text that is not empty"),
        ({"class_names": ("a", " ")}, "class 1 is named ' '"),
        ({"class_names": ("a\u2028",)}, "class 0 is named"),
        ({"mean": (0.0, 0.0)}, r"mean is \(0.0, 0.0\); it must be three numbers and at most 1e\+06"),
        ({"mean": (0.0, 0.0, float("nan"))}, r"mean is .*; it must be three numbers and at most 1e\+06"),
        ({"mean": (0.0, 0.0, 1.1e6)}, r"mean is .*; it must be three numbers and at most 1e\+06"),
        ({"std": (1.0, 1.0, 0.0)}, r"std is .*; it must be three numbers, of at least 1e-06 and at most 1e\+06"),
        ({"std": (1.0, True, 1.0)}, r"std is .*; it must be three numbers, of at least 1e-06 and at most 1e\+06"),
    ],
)
def test_values_that_a_file_cannot_hold_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^TFLite metadata: {message}"):
        replace(INFO, **change)


def test_another_number_of_names_is_refused(plain: bytes) -> None:
    with pytest.raises(UsageError, match="^TFLite metadata: 2 class names for 4 scores. Give one a score.$"):
        with_metadata(plain, replace(INFO, class_names=("a", "b")))


def test_metadata_are_not_written_twice(plain: bytes) -> None:
    with pytest.raises(UsageError, match="has metadata already. Add them to the file as the converter wrote it"):
        with_metadata(with_metadata(plain, INFO), INFO)


@pytest.mark.parametrize(
    ("shape", "dtype", "outputs", "message"),
    [
        ((8, 8, 1), "float32", 1, r"input \[1, 8, 8, 1\] and output \[1, 8, 8, 1\]. An image classifier takes \[batch"),
        ((8, 8, 3), "int32", 1, "input"),
        ((8, 8, 3), "float32", 2, "1 inputs and 2 outputs. Metadata can be written for an image classifier of one"),
    ],
)
def test_a_model_that_is_no_image_classifier_is_refused(shape, dtype, outputs, message) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, *shape), dtype)])
    def model(x):
        return {f"out{i}": x + i + 1 for i in range(outputs)}

    with quiet_native():
        data = tf.lite.TFLiteConverter.from_concrete_functions([model.get_concrete_function()]).convert()
    with pytest.raises(UsageError, match=message):
        with_metadata(bytes(data), INFO)


# Reading what may be anything.


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 100, b"\xff" * 4 + b"TFL3" + b"\xff" * 90])
def test_foreign_bytes_are_an_integrity_error(data: bytes) -> None:
    for attempt in (read_metadata, lambda model: with_metadata(model, INFO)):
        with pytest.raises(IntegrityError, match="^TFLite file: damaged, or not such a file: .* Make the file again.$"):
            attempt(data)


def test_a_model_without_metadata_says_so(plain: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"it holds no metadata \(no entry TFLITE_METADATA\)"):
        read_metadata(plain)


def test_a_file_cut_off_anywhere_is_an_integrity_error(plain: bytes) -> None:
    whole = with_metadata(plain, INFO)
    for size in range(len(whole)):
        with pytest.raises(IntegrityError):
            read_metadata(whole[:size])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("猫".encode(), b"\xff\xfe\xfd", "Bad CRC-32"),
        (b"M001", b"M002", "metadata: damaged, or not such a file: it does not begin as one"),
        (b"crane, bird\n", b"crane, bird!", "Bad CRC-32"),
        (b"PK\x05\x06", b"PK\x05\x07", "no zip archive"),
    ],
)
def test_damage_is_named(plain: bytes, old: bytes, new: bytes, message: str) -> None:
    whole = with_metadata(plain, INFO)
    assert whole.count(old) == 1
    with pytest.raises(IntegrityError, match=message):
        read_metadata(whole.replace(old, new))


def test_other_labels_than_scores_are_an_integrity_error(plain: bytes) -> None:
    whole = with_metadata(plain, INFO)
    cut = whole[: whole.index(b"PK\x03\x04")]
    file = io.BytesIO(cut)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "a\nb\nc\n")
    with pytest.raises(IntegrityError, match="3 labels for 4 scores"):
        read_metadata(file.getvalue())


def test_a_bomb_of_labels_is_not_unpacked(plain: bytes) -> None:
    whole = with_metadata(plain, INFO)
    file = io.BytesIO(whole[: whole.index(b"PK\x03\x04")])
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", "a\n" * 50_000_000)
    bomb = bytearray(file.getvalue())
    tracemalloc.start()
    for claimed in (100_000_000, 10):  # the true size, and a lie
        struct.pack_into("<I", bomb, bomb.rindex(b"PK\x01\x02") + 24, claimed)
        with pytest.raises(IntegrityError, match="labels 'labels.txt' cannot be read"):
            read_metadata(bytes(bomb))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_name_repeated_in_many_entries_costs_no_time(plain: bytes) -> None:
    # One string of half a megabyte, and 100,000 entries of metadata that all have it as their name.
    from bignas_zoo.export.flatbuffer import Writer

    writer = Writer()
    entry = writer.table({0: writer.text("n" * 500_000)})
    model = writer.finish(writer.table({6: writer.refs(*[entry] * 100_000)}), b"TFL3")
    with pytest.raises(IntegrityError, match="elements at byte"):
        read_metadata(model)


def survives(data: bytes) -> None:
    """Read and extend bytes: each must succeed or end in an error of ours, without much memory."""
    tracemalloc.start()
    try:
        for attempt in (read_metadata, lambda model: with_metadata(model, INFO)):
            with contextlib.suppress(IntegrityError, UsageError, QualityError):
                attempt(data)
        assert tracemalloc.get_traced_memory()[1] < 5e6 + 10 * len(data)
    finally:
        tracemalloc.stop()


FUZZ = settings(max_examples=300, deadline=5000, suppress_health_check=list(HealthCheck), derandomize=True)


@FUZZ
@given(data=st.data())
def test_flipped_bytes_never_do_harm(models: dict[str, bytes], data: st.DataObject) -> None:
    source = models[data.draw(st.sampled_from(KINDS))]
    file = bytearray(with_metadata(source, INFO) if data.draw(st.booleans()) else source)
    # The begin has the tables, the end the archive; what lies between are mostly weights.
    places = st.integers(0, len(file) - 1) | st.integers(0, 1500) | st.integers(len(file) - 300, len(file) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(places)
        file[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    survives(bytes(file[: data.draw(st.just(len(file)) | st.integers(0, len(file)))]))


@FUZZ
@given(body=st.binary(max_size=200))
@example(body=b"\x08\0\0\0TFL3\x04\0\x04\0")
def test_random_bytes_never_do_harm(body: bytes) -> None:
    survives(struct.pack("<I", 8) + b"TFL3" + body)
    survives(body)
