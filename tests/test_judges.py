"""What libraries that are not ours make of files with our metadata: Task Library, MediaPipe, tflite-support.

The slow tests need a Python with the library: named in BIGNAS_ZOO_TASK_LIBRARY_PYTHON and
BIGNAS_ZOO_MEDIAPIPE_PYTHON, that of .judges (README, "Two commands"), or this one.
"""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from conftest import ROOT
from PIL import Image
from tiny_tflite import INFO, KINDS, build_all

import bignas_zoo as bz
from bignas_zoo.errors import BigNASError, LocalIOError, QualityError, UsageError
from bignas_zoo.export.judges import ask_mediapipe, ask_task_library, read_with_tflite_support
from bignas_zoo.export.metadata import read_metadata, with_metadata
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import Export
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.tasks.export import export_slice
from bignas_zoo.tasks.verify import verify
from bignas_zoo.zoo.photographs import folder


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return build_all()


def fake(folder: Path, script: str) -> str:
    """Make a stand-in for a Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (
            "kill -SEGV $$",
            BigNASError,
            r"the TensorFlow Lite Task Library crashed \(SIGSEGV\), run by .*python: it said",
        ),
        ("echo no >&2; exit 3", BigNASError, r"crashed \(exit code 3\), run by .*: no$"),
        ("cat >/dev/null; echo hello", BigNASError, r"crashed \(exit code 0\)"),
        ("exec sleep 60", BigNASError, "no answer within 0.5 seconds. Give it fewer images"),
        (
            """cat >/dev/null; echo '{"error": "refused", "message": "Bad file."}'""",
            QualityError,
            r"m.tflite: refused by the TensorFlow Lite Task Library: Bad file.",
        ),
        (
            """cat >/dev/null; echo '{"error": "missing", "message": "No module named x"}'""",
            UsageError,
            r"cannot be loaded by .*python \(No module named x\): pip install 'bignas-zoo\[task-library\]' "
            r"\(Python 3.11 or older\), or name the Python of an environment that has it.",
        ),
    ],
)
def test_a_judge_that_fails_is_an_error_in_words(tmp_path: Path, script: str, error: type, message: str) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    seconds = 0.5 if "sleep" in script else 60
    with pytest.raises(error, match=message):
        ask_task_library(tmp_path / "m.tflite", (), python=fake(tmp_path, script), timeout=seconds)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="m.tflite: no such file"):
        ask_mediapipe(tmp_path / "m.tflite", ())
    (tmp_path / "m.tflite").write_bytes(b"x")
    with pytest.raises(LocalIOError, match="1.png: no such file"):
        ask_mediapipe(tmp_path / "m.tflite", [tmp_path / "1.png"])
    with pytest.raises(UsageError, match="nothing: cannot be run .*Name a Python that has MediaPipe Tasks"):
        ask_mediapipe(tmp_path / "m.tflite", (), python=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("ask", "module", "message"),
    [
        (ask_task_library, "tflite_support", r"pip install 'bignas-zoo\[task-library\]'"),
        (ask_mediapipe, "mediapipe", r"pip install 'bignas-zoo\[mediapipe\]', or name the Python"),
    ],
)
def test_a_python_without_the_library_says_what_to_install(tmp_path: Path, ask, module: str, message: str) -> None:
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    (tmp_path / "m.tflite").write_bytes(b"x")
    with pytest.raises(UsageError, match=message):
        ask(tmp_path / "m.tflite", ())


def python_with(variable: str, module: str) -> str:
    """Return a Python that has a library, or skip the test."""
    own = ROOT / ".judges" / "bin" / "python"  # what the README's command makes
    python = os.environ.get(variable) or (str(own) if own.is_file() else None)
    python = python or (sys.executable if importlib.util.find_spec(module) else None)
    if not python:
        pytest.skip(f"no {module} here: name a Python that has it in {variable}")
    return python


@pytest.fixture(scope="module")
def task_python() -> str:
    return python_with("BIGNAS_ZOO_TASK_LIBRARY_PYTHON", "tflite_support")


@pytest.fixture(scope="module")
def mediapipe_python() -> str:
    return python_with("BIGNAS_ZOO_MEDIAPIPE_PYTHON", "mediapipe")


RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_tflite_support_reads_what_was_written(
    models: dict[str, bytes], kind: str, task_python: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(models[kind], INFO))
    found = read_with_tflite_support(path, python=task_python)
    assert found["files"] == {"labels.txt": "great grey owl\ncrane, bird\n猫\nÄhre\n"}
    metadata = found["metadata"]
    (graph,) = metadata.pop("subgraph_metadata")
    assert metadata == {
        "name": "tiny", "description": "Four classes.\nTwo lines.", "version": "1.2", "author": "BigNAS Zoo",
        "license": "Apache-2.0", "min_parser_version": "1.0.0",
    }  # fmt: skip
    (image,), (scores,) = graph.pop("input_tensor_metadata"), graph.pop("output_tensor_metadata")
    assert graph == {}
    (unit,) = image["process_units"]
    assert image["name"] == "image"
    assert image["content"]["content_properties_type"] == "ImageProperties"
    assert image["content"]["content_properties"] == {"color_space": "RGB"}
    assert unit["options_type"] == "NormalizationOptions"
    assert unit["options"]["mean"] == pytest.approx([125.3, 123.0, 113.9])
    assert unit["options"]["std"] == pytest.approx([63.0, 62.1, 66.7])
    # (0 - mean) / std and (255 - mean) / std by hand where the input is float, the type's range elsewhere
    least, greatest = RANGES.get(kind, ([-1.98889, -1.98068, -1.70765], [2.05873, 2.12560, 2.11544]))
    assert image["stats"]["min"] == pytest.approx(least if isinstance(least, list) else [least], abs=1e-5)
    assert image["stats"]["max"] == pytest.approx(greatest if isinstance(greatest, list) else [greatest], abs=1e-5)
    least, greatest = RANGES.get(kind, (0, 1))
    assert scores["name"] == "scores"
    assert scores["content"]["content_properties_type"] == "FeatureProperties"
    assert scores["stats"] == {"min": [least], "max": [greatest]}
    (file,) = scores["associated_files"]
    assert (file["name"], file["type"]) == ("labels.txt", "TENSOR_AXIS_LABELS")


WRITE_WITH_TFLITE_SUPPORT = """
import ctypes, sys
sys.modules["tensorflow"] = None
try:
    ctypes.CDLL("libusb-1.0.so.0", mode=ctypes.RTLD_GLOBAL)
except OSError:
    import libusb_package
    ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
from tensorflow_lite_support.metadata.python.metadata_writers import image_classifier, writer_utils
model, labels, out, *mean = sys.argv[1:]
writer = image_classifier.MetadataWriter.create_for_inference(
    writer_utils.load_file(model), [float(m) for m in mean], [50.5] * len(mean), [labels])
writer_utils.save_file(writer.populate(), out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mean", [(127.5,), (1.5, 2.5, 3.5)])
def test_what_tflite_support_wrote_is_read(
    models: dict[str, bytes], task_python: str, tmp_path: Path, mean: tuple
) -> None:
    model, labels, out = tmp_path / "m.tflite", tmp_path / "names.txt", tmp_path / "out.tflite"
    model.write_bytes(models["float32"])
    labels.write_text("".join(f"{name}\n" for name in INFO.class_names), "utf-8")
    command = [task_python, "-c", WRITE_WITH_TFLITE_SUPPORT, str(model), str(labels), str(out), *map(str, mean)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    info = read_metadata(out.read_bytes())
    assert info.class_names == INFO.class_names
    assert info.mean == (mean * 3 if len(mean) == 1 else mean)
    assert info.std == (50.5, 50.5, 50.5)
    assert info.name == "ImageClassifier"  # what tflite-support calls a model
    assert info.min_parser_version == "1.0.0"


class Judged:
    """A trained slice, real images at its resolution, and what Keras says of them."""

    def __init__(self, shared_data: Path, folder: Path) -> None:
        import keras

        family = bz.get_family("bignas-cifar10")
        child = bz.load("bignas-cifar10-s")
        preprocess = Preprocess.from_json(family.preprocess)
        size = child.input_shape[1]
        archive = np.load(shared_data / "cifar10_test.npz", allow_pickle=False)
        sheet = np.asarray(Image.open(io.BytesIO(archive["webp"].tobytes())).convert("RGB"))
        tiles = sheet.reshape(-1, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)[:300]
        images = [Image.fromarray(tile).resize((size, size), Image.Resampling.BICUBIC) for tile in tiles]
        self.paths = [folder / f"{i}.png" for i in range(len(images))]
        for image, path in zip(images, self.paths, strict=True):
            image.save(path)
        pixels = np.stack([np.asarray(image) for image in images])
        logits = np.asarray(child(preprocess.inputs(pixels, size), training=False))
        self.scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        self.names = [family.class_names[k] for k in logits.argmax(-1)]
        self.accuracy = float(np.mean(logits.argmax(-1) == archive["labels"][:300]))
        self.info = replace(INFO, class_names=family.class_names, mean=preprocess.mean, std=preprocess.std)
        self.plain = convert(child)
        pixels_in = keras.Input(child.input_shape[1:])
        mean, std = np.array(preprocess.mean), np.array(preprocess.std)
        normalised = keras.layers.Rescaling((1 / std).tolist(), (-mean / std).tolist())(pixels_in)
        self.takes_pixels = convert(keras.Model(pixels_in, child(normalised)))

    def agreement(self, verdict: Any) -> float:
        """Return the part of the images with the same first class."""
        assert len(verdict.classes) == len(self.names)
        return float(np.mean([best[0][0] == name for best, name in zip(verdict.classes, self.names, strict=True)]))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Judged:
    return Judged(shared_data, tmp_path_factory.mktemp("images"))


AS_IT_IS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}


@pytest.mark.slow
def test_the_task_library_sees_what_keras_sees(judged: Judged, task_python: str, tmp_path: Path) -> None:
    assert judged.accuracy > 0.8  # the classes are not agreed on by chance
    path = tmp_path / "m.tflite"
    for model, info in ((judged.plain, judged.info), (judged.takes_pixels, replace(judged.info, **AS_IT_IS))):
        path.write_bytes(with_metadata(model, info))
        verdict = ask_task_library(path, judged.paths, top=3, python=task_python)
        assert verdict.judge == "tflite-support 0.4.4"
        assert judged.agreement(verdict) >= 0.99
        best = [image[0][1] for image in verdict.classes]
        np.testing.assert_allclose(best, judged.scores.max(-1), atol=1e-3)
        assert {len(image) for image in verdict.classes} == {3}


@pytest.mark.slow
def test_mediapipe_sees_what_keras_sees(judged: Judged, mediapipe_python: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(judged.takes_pixels, replace(judged.info, **AS_IT_IS)))
    verdict = ask_mediapipe(path, judged.paths, top=3, python=mediapipe_python)
    assert verdict.judge.startswith("mediapipe ")
    assert judged.agreement(verdict) >= 0.99
    np.testing.assert_allclose([image[0][1] for image in verdict.classes], judged.scores.max(-1), atol=1e-3)


@pytest.mark.slow
def test_judges_notice_wrong_normalisation(
    judged: Judged, task_python: str, mediapipe_python: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(judged.plain, replace(judged.info, **AS_IT_IS)))
    assert judged.agreement(ask_task_library(path, judged.paths, python=task_python)) < 0.5
    assert judged.agreement(ask_mediapipe(path, judged.paths, python=mediapipe_python)) < 0.5
    path.write_bytes(with_metadata(judged.takes_pixels, replace(judged.info, **HALF)))
    assert judged.agreement(ask_mediapipe(path, judged.paths, python=mediapipe_python)) < 0.5


@pytest.mark.slow
def test_judges_refuse_a_file_without_metadata(
    judged: Judged, task_python: str, mediapipe_python: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(judged.plain)
    for ask, python in ((ask_task_library, task_python), (ask_mediapipe, mediapipe_python)):
        with pytest.raises(QualityError, match="m.tflite: refused by .*requires specifying NormalizationOptions"):
            ask(path, judged.paths[:1], python=python)
    with pytest.raises(QualityError, match="refused by tflite-support: The model does not have metadata"):
        read_with_tflite_support(path, python=task_python)


@pytest.mark.slow
def test_mediapipe_refuses_channels_that_differ(judged: Judged, mediapipe_python: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(judged.plain, judged.info))
    with pytest.raises(QualityError, match="Per-channel image normalization is not available"):
        ask_mediapipe(path, judged.paths[:1], python=mediapipe_python)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uint8", "buffers outside"])
def test_judges_take_other_kinds_of_files(
    models: dict[str, bytes], kind: str, task_python: str, mediapipe_python: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    pixels[::2] //= 4
    paths = [tmp_path / f"{i}.png" for i in range(len(pixels))]
    for image, png in zip(pixels, paths, strict=True):
        Image.fromarray(image).save(png)
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(models[kind], replace(INFO, **AS_IT_IS)))
    interpreter = Interpreter(model_content=models[kind])
    interpreter.allocate_tensors()
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    expected = []
    for image in pixels:
        interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
        interpreter.invoke()
        expected.append(interpreter.get_tensor(exit_["index"])[0])
    asked = [(ask_task_library, task_python), (ask_mediapipe, mediapipe_python)]
    if kind == "buffers outside":  # later than the runtime that is in tflite-support 0.4.4
        asked.pop(0)
    for ask, python in asked:
        found = [image[0][0] for image in ask(path, paths, python=python).classes]
        # Scores of eight bits tie: any class with the greatest score is right.
        assert all(
            scores[INFO.class_names.index(name)] == scores.max() for name, scores in zip(found, expected, strict=True)
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "batch of 2"])
def test_judges_refuse_what_metadata_do_not_help(
    models: dict[str, bytes], kind: str, task_python: str, mediapipe_python: str, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "m.tflite").write_bytes(with_metadata(models[kind], replace(INFO, **AS_IT_IS)))
    for ask, python in ((ask_task_library, task_python), (ask_mediapipe, mediapipe_python)):
        with pytest.raises(QualityError, match="m.tflite: refused by"):
            ask(tmp_path / "m.tflite", [tmp_path / "0.png"], python=python)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "judges"),
    [
        (Export(), ("task-library",)),
        (Export(normalize_in_graph=True), ("task-library", "mediapipe")),
        (Export(precision="int8", io="uint8"), ("task-library", "mediapipe")),
    ],
    ids=["float", "pixels", "uint8"],
)
def test_verify_asks_them_about_exported_files(
    tmp_path: Path, shared_data: Path, task_python: str, mediapipe_python: str, option: Export, judges: tuple[str, ...]
) -> None:
    (made,) = export_slice("bignas-cifar10-s", [option], output=tmp_path / "s", images=shared_data)
    report = verify(
        made.path, judges=judges, images=shared_data,
        pythons={"task-library": task_python, "mediapipe": mediapipe_python},
    )  # fmt: skip
    assert report.passed, report.to_json()
    for check in report.checks[-len(judges) :]:
        assert check.name in judges
        assert check.figures["images"] >= 200
        assert check.figures["agreement"] >= (0.9 if option.io == "uint8" else 0.99)


@pytest.mark.slow
def test_verify_says_how_to_satisfy_mediapipe(tmp_path: Path, shared_data: Path, mediapipe_python: str) -> None:
    (made,) = export_slice("bignas-cifar10-s", output=tmp_path / "s")
    report = verify(made.path, judges=["mediapipe"], images=shared_data, pythons={"mediapipe": mediapipe_python})
    assert not report.passed
    assert "--normalize-in-graph" in report.checks[-1].detail


@pytest.mark.slow
@pytest.mark.parametrize("option", [Export(), Export(precision="int8", io="uint8")], ids=["float", "uint8"])
def test_both_read_the_nets_of_a_thousand_classes(
    tmp_path: Path, task_python: str, mediapipe_python: str, option: Export
) -> None:
    """One mean for all channels, so that MediaPipe takes the plain file, too."""
    (made,) = export_slice("efficientnet-lite0-128", [option], output=tmp_path / "s")
    judges = ("task-library", "mediapipe")
    report = verify(
        made.path, judges=judges, images=folder("photographs"),
        pythons={"task-library": task_python, "mediapipe": mediapipe_python},
    )  # fmt: skip
    assert report.passed, report.to_json()
    agreements = [check.figures["agreement"] for check in report.checks[-2:]]
    assert min(agreements) >= (0.9 if option.io == "uint8" else 0.99), agreements
    assert [check.figures["unknown_labels"] for check in report.checks[-2:]] == [[], []]
