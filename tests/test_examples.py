"""The Python examples, as a user runs them: a process that has LiteRT or onnxruntime, and nothing of ours."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

EXAMPLES = ROOT / "examples"
SLICE = "bignas-cifar10-f02"
REAL = 60
#: What an example must not need.
BLOCKED = ("tensorflow", "keras", "jax", "bignas_zoo")
#: Sizes of images that have to be shrunk, enlarged, cut, or hardly anything.
SIZES = [(64, 40), (37, 91), (500, 333), (20, 17), (32, 33), (1200, 32)]


@pytest.fixture(scope="session")
def blockers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the blocked packages cannot be imported."""
    folder = tmp_path_factory.mktemp("blockers")
    for name in BLOCKED:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is blocked')\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What slice.json and labels.txt hold that the examples read, without a model."""
    folder = tmp_path_factory.mktemp("described") / "slice"
    folder.mkdir()
    contract = {"crop_size": 32, "mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 70.0]}
    (folder / "slice.json").write_text(json.dumps({"resolution": 24, "preprocess": contract}))
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    return folder


def run(runtime: str, environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{runtime}_classify.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """A picture with coarse and fine detail."""
    generator = np.random.default_rng(seed)
    width, height = size
    coarse = generator.integers(0, 256, (max(2, height // 9), max(2, width // 9), 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size), np.int32)
    return Image.fromarray((smooth + generator.integers(-25, 26, smooth.shape)).clip(0, 255).astype(np.uint8))


def real_images(data: Path, folder: Path, count: int) -> list[Path]:
    """Write CIFAR-10 test images as PNG files, as they are tiled in the data set's one picture."""
    with np.load(data / "cifar10_test.npz") as archive:
        tiles = np.asarray(Image.open(io.BytesIO(archive["webp"].tobytes())).convert("RGB"))
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        top, left = 32 * (i // 100), 32 * (i % 100)
        Image.fromarray(tiles[top : top + 32, left : left + 32]).save(path)
    return paths


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice folder with all files that the examples take."""
    import bignas_zoo as bz
    from bignas_zoo.export.metadata import FileInfo, with_metadata
    from bignas_zoo.export.tflite import convert
    from bignas_zoo.models.preprocess import Preprocess

    folder = tmp_path_factory.mktemp("exported") / "slice"
    bz.get(SLICE, output=folder)
    child, contract = bz.load(folder), Preprocess.from_json(bz.get_family("bignas-cifar10").preprocess)
    for layout, stem in (("nhwc", "model"), ("nchw", "model-nchw")):
        bz.to_onnx(child, folder / f"{stem}.onnx", layout=layout)
        bz.to_onnx(child, folder / f"{stem}-pixels.onnx", layout=layout, preprocess=contract)
    bz.to_tflite(child, folder / "model-pixels.tflite", preprocess=contract)
    bz.to_tflite(child, folder / "model-batch4.tflite", batch=4)
    info = FileInfo(
        SLICE, "", "1", "", "", bz.get_family("bignas-cifar10").class_names, mean=contract.mean, std=contract.std
    )
    (folder / "described.tflite").write_bytes(with_metadata(convert(child), info))
    return folder


def keras_scores(folder: Path, paths: list[Path]) -> np.ndarray:
    """What the package's own reading of images and the Keras child give: ``[n, classes]``."""
    import bignas_zoo as bz
    from bignas_zoo.models.preprocess import Preprocess, read_image

    contract = Preprocess.from_json(bz.get_family("bignas-cifar10").preprocess)
    child = bz.load(folder)
    crops = np.stack([read_image(path, contract.crop_size) for path in paths])
    logits = np.asarray(child(contract.inputs(crops, child.input_shape[1]), training=False), np.float64)
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def agree(found: dict[str, list], folder: Path, paths: list[Path], atol: float = 1e-3) -> None:
    labels = (folder / "labels.txt").read_text().splitlines()
    got = np.array([[dict(found[str(path)])[label] for label in labels] for path in paths])
    expected = keras_scores(folder, paths)
    assert np.mean(got.argmax(-1) == expected.argmax(-1)) >= 0.99
    np.testing.assert_allclose(got, expected, atol=atol)


def test_the_blockers_block(blockers, tmp_path) -> None:
    for name in BLOCKED:
        command = [sys.executable, "-c", f"import {name}"]
        done = subprocess.run(command, env=blockers, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert f"{name} is blocked" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "model"),
    [
        ("litert", "model.tflite"),
        ("litert", "model-pixels.tflite"),
        ("litert", "model-batch4.tflite"),
        ("litert", "described.tflite"),
        ("onnxruntime", "model.onnx"),
        ("onnxruntime", "model-pixels.onnx"),
        ("onnxruntime", "model-nchw.onnx"),
        ("onnxruntime", "model-nchw-pixels.onnx"),
    ],
)
def test_real_images_get_the_scores_of_keras(shared_data, exported, blockers, tmp_path, runtime, model) -> None:
    paths = real_images(shared_data, tmp_path, REAL)
    done = run(runtime, blockers, exported, *paths, "--json", "--model", exported / model)
    assert done.returncode == 0, done.stderr
    agree(json.loads(done.stdout), exported, paths)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_images_of_any_size_and_mode_are_read_as_the_package_does(exported, blockers, tmp_path, runtime) -> None:
    paths = []
    for i, size in enumerate(SIZES):
        paths.append(tmp_path / f"{i}.png")
        photograph(size, i).save(paths[-1])
    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF orientation: lying on its side
    for name, picture, options in (
        ("photo.jpg", photograph((300, 200), 20), {"exif": turned}),
        ("grey.png", photograph((90, 70), 21).convert("L"), {}),
        ("palette.png", photograph((90, 70), 22).convert("P"), {}),
        ("clear.webp", photograph((90, 70), 23).convert("RGBA"), {"lossless": True}),
    ):
        paths.append(tmp_path / name)
        picture.save(paths[-1], **options)
    done = run(runtime, blockers, exported, *paths, "--json")
    assert done.returncode == 0, done.stderr
    agree(json.loads(done.stdout), exported, paths)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_int8_files_of_every_input_type(shared_data, exported, blockers, tmp_path, io) -> None:
    import bignas_zoo as bz
    from bignas_zoo.models.preprocess import Preprocess, resize

    paths = real_images(shared_data, tmp_path, 200)
    contract = Preprocess.from_json(bz.get_family("bignas-cifar10").preprocess)
    child, model = bz.load(exported), tmp_path / f"model-int8-{io}.tflite"
    crops = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32)
    pixels = np.asarray(resize(crops, child.input_shape[1]))
    takes = pixels if io == "uint8" else np.asarray(contract.normalise(pixels))
    bz.to_tflite(child, model, precision="int8", io=io, images=takes, preprocess=contract if io == "uint8" else None)
    done = run("litert", blockers, exported, *paths[:REAL], "--json", "--model", model)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), keras_scores(exported, paths[:REAL])
    labels = (exported / "labels.txt").read_text().splitlines()
    got = np.array([[dict(found[str(path)])[label] for label in labels] for path in paths[:REAL]])
    # int8 costs some scores; a wrong scale, zero point or normalisation costs nearly all of them.
    assert np.mean(got.argmax(-1) == expected.argmax(-1)) >= 0.9
    assert np.abs(got - expected).mean() < 0.03


@pytest.mark.slow
def test_what_is_printed(exported, blockers, tmp_path) -> None:
    photograph((50, 40), 0).save(tmp_path / "photo.png")
    done = run("litert", blockers, exported, tmp_path / "photo.png", "--top", "2")
    assert done.returncode == 0, done.stderr
    name, top = done.stdout.rstrip("\n").rsplit(": ", 1)
    assert name == str(tmp_path / "photo.png")
    labels = (exported / "labels.txt").read_text().splitlines()
    (first, a, _), (second, b, _) = (part.split(" ") for part in top.split(", "))
    assert {first, second} <= set(labels)
    assert 100 >= float(a) >= float(b) > 0


@pytest.mark.slow
def test_a_model_of_another_slice_is_refused(exported, described, blockers, tmp_path) -> None:
    photograph((50, 40), 0).save(tmp_path / "photo.png")
    (tmp_path / "slice.json").write_bytes((described / "slice.json").read_bytes())
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    for runtime, name in (("litert", "model.tflite"), ("onnxruntime", "model.onnx")):
        done = run(runtime, blockers, tmp_path, tmp_path / "photo.png", "--model", exported / name)
        assert done.returncode == 4
        assert "takes 24 x 24 px and gives 10 scores" in done.stderr
        assert "has 2 labels. Give the model that was exported from this slice." in done.stderr


@pytest.mark.parametrize(
    ("runtime", "model", "text", "code", "message"),
    [
        ("litert", "model.tflite", None, 7, "no such file. Make it with `bignas-zoo export"),
        ("onnxruntime", "model.onnx", None, 7, "--format onnx`"),
        ("litert", "model.tflite", "no model", 4, "not a classifier made by bignas-zoo (no TFLite identifier"),
        ("litert", "model.tflite", "....TFL3" + "x" * 400, 4, "not a classifier made by bignas-zoo ("),
        ("onnxruntime", "model.onnx", "no model", 4, "not a classifier made by bignas-zoo ("),
    ],
)
def test_a_wrong_model_is_an_error_in_words(
    described, blockers, tmp_path, runtime: str, model: str, text: str | None, code: int, message: str
) -> None:
    for name in ("slice.json", "labels.txt"):
        (tmp_path / name).write_bytes((described / name).read_bytes())
    if text is not None:
        (tmp_path / model).write_text(text)
    photograph((50, 40), 0).save(tmp_path / "photo.png")
    done = run(runtime, blockers, tmp_path, tmp_path / "photo.png")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, 7, "slice.json: cannot be read (No such file or directory)."),
        ("{}", 4, "slice.json: not a slice's description (KeyError: 'preprocess')."),
        ("[1", 4, "slice.json: not a slice's description (JSONDecodeError"),
        (
            '{"resolution": 8, "preprocess": {"crop_size": 8, "mean": [1, 2, 3], "std": [1, 0, 1]}}',
            4,
            "std, resolution and crop_size must be above zero",
        ),
    ],
)
def test_a_wrong_folder_is_an_error_in_words(blockers, tmp_path, content: str | None, code: int, message: str) -> None:
    if content is not None:
        (tmp_path / "slice.json").write_text(content)
    done = run("litert", blockers, tmp_path, "photo.png")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "code"), [("missing.png", 7), ("notes.txt", 4), ("cut.png", 4), (".", 7)])
def test_a_wrong_image_is_an_error_in_words(described, tmp_path, monkeypatch, name: str, code: int) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from slice_files import SliceFiles, UserError

    (tmp_path / "notes.txt").write_text("no image")
    photograph((50, 40), 0).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(UserError, match="cannot be read|not a readable image|damaged image") as caught:
        SliceFiles.read(described).pixels(tmp_path / name)
    assert caught.value.exit_code == code
    assert str(tmp_path / name) in str(caught.value)


def test_top_below_one_is_refused(described, blockers) -> None:
    done = run("onnxruntime", blockers, described, "photo.png", "--top", "0")
    assert done.returncode == 2
    assert done.stderr == "Error: --top is 0; give 1 or more.\n"


DEPLOY = ROOT / "docs" / "DEPLOY.md"


def test_what_the_page_on_deploying_links_to_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", DEPLOY.read_text("utf-8")):
        assert (DEPLOY.parent / link).exists(), link


@pytest.mark.slow
def test_the_table_of_resize_filters_is_what_is_measured(shared_data, exported) -> None:
    import onnxruntime
    from keras import ops

    rows = re.findall(
        r"^\| ([a-z]+)((?:, [^|]*)?) \| ([\d.]+) \| ([\d.]+) \|$", DEPLOY.read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) == 5
    with np.load(shared_data / "cifar10_test.npz") as archive:
        tiles = np.asarray(Image.open(io.BytesIO(archive["webp"].tobytes())).convert("RGB"), np.float32)
        labels = archive["labels"]
    images = tiles.reshape(-1, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)[: len(labels)]
    session = onnxruntime.InferenceSession(exported / "model-pixels.onnx")
    first = None
    for kind, how, top1, same in rows:
        classes = []
        for start in range(0, len(images), 500):
            batch, antialias = images[start : start + 500], "antialias" in how and "no antialias" not in how
            pixels = np.asarray(ops.image.resize(batch, (24, 24), interpolation=kind, antialias=antialias))
            pixels = pixels.round().clip(0, 255) if "rounded" in how else pixels
            classes.append(session.run(["scores"], {"image": pixels})[0].argmax(-1))
        found = np.concatenate(classes)
        first = found if first is None else first
        # Another version of a library may tip an image or two.
        assert 100 * np.mean(found == labels) == pytest.approx(float(top1), abs=0.05)
        assert 100 * np.mean(found == first) == pytest.approx(float(same), abs=0.1)
