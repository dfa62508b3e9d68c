"""Files of anyone's: what they compute, and that no file of any content harms the process that asks."""

from __future__ import annotations

import os
import random
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY
from onnx import TensorProto, helper

from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError, UsageError
from bignas_zoo.runtime import runner
from bignas_zoo.runtime.quiet import quiet_native
from bignas_zoo.runtime.runner import LoadedFile, describe_file, run_file, time_file
from bignas_zoo.runtime.runner_process import FileError, refuse_external_data

FLOAT = TensorProto.FLOAT


def channel_means(kind: str = "float32", batch: int | None = 1) -> bytes:
    """A TFLite file whose scores are the mean of each channel: what numpy knows as well."""
    import keras
    import tensorflow as tf

    image = keras.Input((4, 4, 3), batch_size=batch)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with quiet_native(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([p] for p in pixels(20)[:, None].astype("f4"))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = getattr(tf, kind)
        return bytes(converter.convert())


def onnx_model(nodes: list, tensors: list | tuple = (), image: tuple = ("batch", 4, 4, 3), scores: tuple = ("b", 3)):
    """Put nodes between "image" and "scores"."""
    ends = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (("image", image), ("scores", scores))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mean_node() -> onnx.NodeProto:
    return helper.make_node("ReduceMean", ["image"], ["scores"], axes=[1, 2], keepdims=0)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)


def put(folder: Path, data: bytes, name: str = "m.tflite") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.fixture(scope="module")
def exported() -> bytes:
    from bignas_zoo.export.tflite import convert
    from bignas_zoo.models.child import build_child

    return convert(build_child(TINY.smallest))


@pytest.mark.parametrize("batch", [1, 3, None])
def test_tflite_scores_of_any_batch(batch: int | None, tmp_path: Path) -> None:
    path, x = put(tmp_path, channel_means(batch=batch)), np.random.default_rng(0).normal(size=(7, 4, 4, 3))
    found = run_file(path, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x.mean((1, 2)), atol=1e-6)
    ends = describe_file(path)
    assert (ends.format, ends.batch, ends.input.shape, ends.output.shape) == (
        "tflite", batch, (batch, 4, 4, 3), (batch, 3)
    )  # fmt: skip
    assert (ends.input.dtype, ends.input.scale, ends.signatures) == ("float32", None, ("serving_default",))
    assert ends.runtime.startswith("ai-edge-litert ")


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantised_ends_are_given_and_give_real_values(kind: str, tmp_path: Path) -> None:
    path = put(tmp_path, channel_means(kind))
    ends = describe_file(path)
    assert (ends.input.dtype, ends.output.dtype) == (kind, kind)
    assert ends.input.scale == pytest.approx(1, abs=0.01)
    assert ends.input.zero_point == {"int8": -128, "uint8": 0}[kind]
    for given in (pixels(5), pixels(5).astype(float)):
        step = 1.5 * (ends.output.scale or 0) + 0.5
        np.testing.assert_allclose(run_file(path, given), pixels(5).mean((1, 2)), atol=step)
    wild, tame = np.full((1, 4, 4, 3), 1e9), np.full((1, 4, 4, 3), 255)  # too much is taken for the most there is
    wild[0, 0, 0], tame[0, 0, 0] = np.nan, 0
    np.testing.assert_array_equal(run_file(path, wild), run_file(path, tame))


@pytest.mark.parametrize("batch", ["batch", 2])
def test_onnx_scores(batch: str | int, tmp_path: Path) -> None:
    model = onnx_model([mean_node()], image=(batch, 4, 4, 3), scores=(batch, 3))
    path = put(tmp_path, model.SerializeToString(), "any.name")
    for x in (pixels(67), np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("f4")):
        np.testing.assert_allclose(run_file(path, x, threads=2), x.mean((1, 2)), rtol=1e-4, atol=1e-6)
    ends = describe_file(path)
    assert (ends.format, ends.batch, ends.output.name) == ("onnx", None if batch == "batch" else 2, "scores")
    assert ends.to_json()["input"]["shape"][1:] == (4, 4, 3)


def test_calls_are_timed_where_they_happen(tmp_path: Path) -> None:
    path = put(tmp_path, onnx_model([mean_node()]).SerializeToString())
    found = time_file(path, runs=4, batch=5)
    assert [len(clock) for clock in (found.wall, found.thread, found.process)] == [4, 4, 4]
    assert all(ns > 0 for ns in found.wall)
    with LoadedFile(put(tmp_path, channel_means(batch=3))) as file:
        assert file.batch(None) == 3
        assert 0 < file.peak_memory() < 1 << 30
        with pytest.raises(UsageError, match="takes 3 images a call, not 2. Leave the batch out"):
            file.time(1, batch=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 5, 4, 3)), r"takes images \[any, 4, 4, 3\], got \[2, 5, 4, 3\]"),
        (np.zeros((4, 4, 3)), r"got \[4, 4, 3\]"),
        (np.zeros((0, 4, 4, 3)), "no images were given"),
        (np.full((1, 4, 4, 3), "x"), "must be real numbers or uint8 pixels, got <U1"),
        (np.full((1, 4, 4, 3), None), "got object"),
    ],
)
def test_wrong_images_are_named(given: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        run_file(put(tmp_path, onnx_model([mean_node()]).SerializeToString()), given)


def test_what_is_no_file_of_a_model(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (9, 9)).save(tmp_path / "m.png")
    os.mkfifo(tmp_path / "pipe")
    put(tmp_path, b"", "empty")
    put(tmp_path, b"a text about nothing\n" * 9, "text")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((2 << 30) + 1)
    neither = 'neither a TFLite file \\("TFL3" at bytes 4 to 8\\) nor a whole ONNX model'
    for name, error, message in (
        ("m.png", IntegrityError, neither),
        ("text", IntegrityError, neither),
        ("empty", IntegrityError, "is empty"),
        ("huge", IntegrityError, "2,147,483,649 bytes; more than 2,147,483,648 are not taken"),
        ("pipe", LocalIOError, "no regular file; a .tflite or .onnx file is expected"),
        (".", LocalIOError, "is a folder"),
        ("missing", LocalIOError, "No such file"),
        ("a\0b", LocalIOError, "embedded null"),
        ("/dev/zero", LocalIOError, "no regular file"),
    ):
        with pytest.raises(error, match=message):
            describe_file(tmp_path / name)


def test_what_is_no_image_classifier_is_told_what_it_has(tmp_path: Path) -> None:
    rank3 = onnx_model([helper.make_node("Identity", ["image"], ["scores"])], scores=("batch", 4, 4, 3))
    two = onnx_model([mean_node(), helper.make_node("Identity", ["image"], ["other"])])
    two.graph.output.append(helper.make_tensor_value_info("other\x1b[31m", FLOAT, None))
    two.graph.node[1].output[0] = "other\x1b[31m"
    with pytest.raises(UsageError, match=r"of another shape\). It has 1 inputs: image float32 \[any, 4, 4, 3\]"):
        describe_file(put(tmp_path, rank3.SerializeToString()))
    with pytest.raises(UsageError, match=r"one input and one output .* 2 outputs: scores .*, other \[31m float32"):
        describe_file(put(tmp_path, two.SerializeToString()))


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_cut_off_files_are_errors(exported: bytes, part: float, tmp_path: Path) -> None:
    network = onnx_model(
        [helper.make_node("MatMul", ["m", "w"], ["scores"]), helper.make_node("Identity", ["image"], ["m"])],
        [helper.make_tensor("w", FLOAT, [40, 40], np.zeros(1600, "f4").tobytes(), raw=True)],
    ).SerializeToString()
    for data in (exported, network):
        with pytest.raises(BigNASError):
            run_file(put(tmp_path, data[: int(len(data) * part)]), np.zeros((1, 12, 12, 3)))


def outcome(path: Path) -> str:
    """Run a file; return what came of it. Any other error than ours, or a crash of this process, is a failure."""
    try:
        ends = describe_file(path, timeout=60)
        shape = [2 if d is None else d for d in ends.input.shape]
        if np.prod(shape, dtype=float) > 1e7:
            return "big"
        scores = run_file(path, np.zeros(shape, "f4"), timeout=60)
        return "answer" if scores.ndim == 2 else "nonsense"
    except BigNASError as error:
        return "several lines" if "\n" in str(error) else type(error).__name__


def flipped(data: bytes, seed: int) -> bytes:
    """Change one byte to eight of a file, near its beginning and end where the structure is."""
    generator, changed = random.Random(seed), bytearray(data)
    for _ in range(generator.choice((1, 2, 4, 8))):
        place = min(len(data), generator.choice((len(data), 200, 200)))
        at = generator.randrange(place)
        changed[at if generator.random() < 0.5 else -1 - at] = generator.randrange(256)
    return bytes(changed)


def fuzz(data: bytes, folder: Path, seeds: range) -> set[str]:
    paths = [put(folder, flipped(data, seed), f"{seed}.tflite") for seed in seeds]
    with ThreadPoolExecutor(2) as pool:
        return set(pool.map(outcome, paths))


def test_changed_bytes_are_answered_or_refused(exported: bytes, tmp_path: Path) -> None:
    model = onnx_model([mean_node()]).SerializeToString()
    assert fuzz(exported, tmp_path, range(14)) <= {"answer", "IntegrityError", "UsageError", "BigNASError", "big"}
    assert fuzz(model, tmp_path, range(6)) <= {"answer", "IntegrityError", "UsageError", "BigNASError", "big"}
    for seed in range(3):
        noise = random.Random(seed).randbytes(3000)
        assert outcome(put(tmp_path, noise[:4] + b"TFL3" + noise[8:])) == "IntegrityError"


@pytest.mark.slow
def test_many_changed_bytes_are_answered_or_refused(exported: bytes, tmp_path: Path) -> None:
    found = fuzz(exported, tmp_path, range(100, 160)) | fuzz(
        onnx_model([mean_node()]).SerializeToString(), tmp_path, range(100, 130)
    )
    assert {"answer", "IntegrityError"} <= found <= {"answer", "IntegrityError", "UsageError", "BigNASError", "big"}


@pytest.mark.parametrize("elements", [1 << 42, 3 << 30])  # float32: 16 TiB, and what many machines would give
@pytest.mark.skipif(sys.platform != "linux", reason="no limit of the address space")
def test_tensors_over_the_limit_of_memory_are_refused(elements: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["n"], value=helper.make_tensor("n", TensorProto.INT64, [1], [elements])),
        helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["image"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["m", "sum"], ["scores"]),
    ]
    with pytest.raises(IntegrityError, match="refused by onnxruntime|more than 8 GiB"):
        run_file(put(tmp_path, onnx_model(nodes).SerializeToString()), np.zeros((1, 4, 4, 3)))


def outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def hidden() -> list[onnx.ModelProto]:
    """Every place where a tensor can name another file."""
    add = helper.make_node("Add", ["m", "w"], ["scores"])
    mean = helper.make_node("ReduceMean", ["image"], ["m"], axes=[1, 2], keepdims=0)
    constant = helper.make_node("Constant", [], ["w"], value=outside())
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("w", FLOAT, [3])])
    choice = helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    function = helper.make_function("f", "F", [], ["w"], [constant], [helper.make_opsetid("", 17)])
    models = [onnx_model([mean, add], [outside()]), onnx_model([constant, mean, add]), onnx_model([choice, mean, add])]
    models += [onnx_model([mean_node()]) for _ in range(3)]
    models[3].functions.append(function)
    models[4].graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside(), dims=[3]))
    models[5].training_info.add().algorithm.initializer.append(outside())
    return models


@pytest.mark.parametrize("place", range(6))
def test_tensors_in_other_files_are_refused_wherever_they_are(place: int, tmp_path: Path) -> None:
    path = put(tmp_path, hidden()[place].SerializeToString())
    with pytest.raises(FileError, match="its tensors lie in other files"):
        refuse_external_data(str(path))
    if place == 0:
        with pytest.raises(IntegrityError, match="refused by onnxruntime: its tensors lie in other files; they must"):
            describe_file(path)


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", IntegrityError, r"ai-edge-litert crashed over it \(SIGSEGV\)"),
        ("os.abort()", IntegrityError, r"\(SIGABRT\). The file is damaged, hostile, or needs more than 8 GiB"),
        ("sys.exit(3)", IntegrityError, r"crashed over it \(exit code 3\)"),
        ("time.sleep(60)", BigNASError, "no answer within 0.5 seconds"),
        ("print('hello', flush=True); time.sleep(60)", IntegrityError, "crashed over it"),
        (
            """print('{"error": "missing", "message": "No module"}')""",
            UsageError,
            r"cannot be loaded by .* \(No module\): pip install ai-edge-litert",
        ),
        ("""print('{"error": "memory", "message": ""}')""", IntegrityError, "needs more than 8 GiB of memory"),
        (
            r"""print('{"error": "refused", "message": "Bad\\nfile\\u001b[1m."}')""",
            IntegrityError,
            r"refused by ai-edge-litert: Bad file \[1m. Export",
        ),
    ],
)
def test_a_process_that_fails_is_an_error_in_words(
    script: str, error: type, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = put(tmp_path, f"import os, signal, sys, time\nsys.stdin.readline()\n{script}\n".encode(), "p.py")
    monkeypatch.setattr(runner, "SCRIPT", planted)
    path = put(tmp_path, b"0000TFL3")
    with pytest.raises(error, match=message):
        describe_file(path, timeout=0.5 if "sleep(60)" in script and "hello" not in script else 60)
    assert planted == runner.SCRIPT


def test_the_process_loads_no_tensorflow_and_says_nothing(
    exported: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorflow", "keras"):
        put(tmp_path, b"import os; os.abort()", f"{name}.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run_file(put(tmp_path, exported), np.zeros((1, 12, 12, 3)))
    run_file(put(tmp_path, onnx_model([mean_node()]).SerializeToString()), pixels(1))
    assert capfd.readouterr() == ("", "")
