"""The web page: its preprocessing against Pillow and Keras in Node, and the whole of it in Chromium.

The browser needs Node, `npm install` in examples/web, and Chromium (CHROMIUM names it; default /usr/bin/chromium).
With BIGNAS_ZOO_BROWSER=required, as in continuous integration, the tests fail without them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_examples import SIZES, exported, keras_scores, photograph, real_images

import bignas_zoo as bz

WEB = ROOT / "examples" / "web"
REAL = 40
__all__ = ["exported"]  # a fixture

#: Reads RGBA pixels, writes what `toPixels` makes of them.
RESIZE = """
import { readFileSync, writeFileSync } from "node:fs";
const { toPixels } = await import(process.argv[1]);
const [folder, width, height, cropSize, resolution, cropFraction] =
  [process.argv[2], ...process.argv.slice(3).map(Number)];
const data = new Uint8ClampedArray(readFileSync(`${folder}/in`));
writeFileSync(`${folder}/out`, toPixels({ width, height, data }, { cropSize, resolution, cropFraction }));
"""


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if not found:
        pytest.skip("no node")
    return found


@pytest.fixture(scope="module")
def browser(node: str) -> dict[str, str]:
    """The environment of the test in a browser."""
    missing = pytest.fail if os.environ.get("BIGNAS_ZOO_BROWSER") == "required" else pytest.skip
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        missing("no chromium")
    for package in ("onnxruntime-web", "playwright-core"):
        if not (WEB / "node_modules" / package).is_dir():
            missing(f"{package} is not there: run `npm install` in examples/web")
    return {**os.environ, "CHROMIUM": chromium}


@pytest.mark.parametrize("size", [*SIZES, (32, 32)], ids=str)
@pytest.mark.parametrize(("crop", "resolution"), [(32, 32), (32, 24), (32, 20), (24, 40)])
def test_javascript_prepares_images_as_the_package_does(node, tmp_path, size, crop: int, resolution: int) -> None:
    picture = photograph(size, 5)
    (tmp_path / "in").write_bytes(picture.convert("RGBA").tobytes())
    command = [node, "--input-type=module", "-e", RESIZE, (WEB / "preprocess.js").as_uri(), str(tmp_path)]
    subprocess.run([*command, *map(str, (*size, crop, resolution, 1))], check=True, timeout=60)
    got = np.fromfile(tmp_path / "out", np.float32).reshape(resolution, resolution, 3)

    # Pillow alone: whole numbers to the crop, float32 to the resolution.
    scale = crop / min(size)
    whole = [max(crop, round(n * scale)) for n in size]
    # Across, then down: Pillow 13 begins with the height where that shrinks most, which rounds differently.
    across = picture.resize((whole[0], size[1]), Image.Resampling.BICUBIC)
    square = across.resize((whole[0], whole[1]), Image.Resampling.BICUBIC)
    left, top = (whole[0] - crop) // 2, (whole[1] - crop) // 2
    square = square.crop((left, top, left + crop, top + crop))
    channels = [np.asarray(square, np.float32)[..., c].copy() for c in range(3)]
    bicubic = [Image.fromarray(c).resize((resolution, resolution), Image.Resampling.BICUBIC) for c in channels]
    expected = np.stack([np.asarray(c) for c in bicubic], -1)
    # Pillow's weights are whole numbers of 2**-22, so that a value close to a half may be rounded the other way.
    assert np.abs(got - expected).max() < 1.2
    assert np.abs(got - expected).mean() < 0.002


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("fraction", [0.875, 0.8, 0.5])
def test_javascript_cuts_a_part_of_the_shorter_side_as_the_package_does(node, tmp_path, size, fraction: float) -> None:
    crop, picture = 24, photograph(size, 7)
    (tmp_path / "in").write_bytes(picture.convert("RGBA").tobytes())
    command = [node, "--input-type=module", "-e", RESIZE, (WEB / "preprocess.js").as_uri(), str(tmp_path)]
    subprocess.run([*command, *map(str, (*size, crop, crop, fraction))], check=True, timeout=60)
    got = np.fromfile(tmp_path / "out", np.float32).reshape(crop, crop, 3)

    side = fraction * min(size)  # Pillow alone, across, then down: see above
    left, top = ((n - side) / 2 for n in size)
    bicubic = Image.Resampling.BICUBIC
    across = picture.resize((crop, size[1]), bicubic, box=(left, 0, left + side, size[1]))
    expected = np.asarray(across.resize((crop, crop), bicubic, box=(0, top, crop, top + side)), np.float32)
    assert np.abs(got - expected).max() < 1.2
    assert np.abs(got - expected).mean() < 0.002


def test_the_runtime_is_pinned_and_no_address_but_ours_is_in_the_page() -> None:
    package = json.loads((WEB / "package.json").read_text("utf-8"))
    for version in (*package["dependencies"].values(), *package["devDependencies"].values()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert not re.search(r"https?://", (WEB / "index.html").read_text("utf-8"))


def in_browser(environment: dict[str, str], *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "test.mjs", *map(str, arguments)],
        cwd=WEB, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["problems"] == []
    return report


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.onnx", "model-nchw-pixels.onnx"])
def test_the_page_says_what_keras_does_and_mends_what_fails(
    browser, exported, shared_data: Path, tmp_path, file: str
) -> None:
    images, shots = tmp_path / "images", tmp_path / "shots"
    images.mkdir()
    shots.mkdir()
    paths = real_images(shared_data, images, REAL)
    for i, size in enumerate(SIZES):
        paths.append(images / f"size{i}.png")
        photograph(size, i).save(paths[-1])
    report = in_browser(browser, "--model", exported, "--file", file, "--images", images, "--screenshots", shots)
    labels = (exported / "labels.txt").read_text().splitlines()
    got = np.array([[report["images"][path.name][label] for label in labels] for path in paths])
    expected = keras_scores(exported, paths)
    assert np.mean(got.argmax(-1) == expected.argmax(-1)) >= 0.99
    np.testing.assert_allclose(got, expected, atol=1e-2)  # roundings of the first step
    np.testing.assert_allclose(got[:REAL], expected[:REAL], atol=1e-3)

    shown = [re.fullmatch(r"(\D+)([\d.]+) %", row) for row in report["shown"]]
    assert [found[1] for found in shown if found] == [entry["label"] for entry in report["sample"][:5]]
    assert [float(found[2]) for found in shown if found] == pytest.approx(
        [100 * entry["score"] for entry in report["sample"][:5]], abs=0.051
    )
    assert report["recovered"] == report["sample"][0]["label"]
    assert {name.split("/")[2].split(":")[0] for name in report["runtime"]} == {"127.0.0.1"}
    assert len(list(shots.glob("*.png"))) == 9

    errors = report["errors"]
    for name in ("notAnImage", "damaged"):
        assert "is not an image this browser can read. Choose a PNG, JPEG, WebP or BMP file." in errors[name]
    assert "none/slice.json was not found" in errors["noModel"]
    assert "bignas-zoo get --budget 130MFLOPs --output examples/web/model" in errors["noModel"]
    assert "There is no other.onnx in model/" in errors["noFile"]
    assert "Run `npm install` in examples/web" in errors["noRuntime"]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slice folder that the page's own message makes."""
    folder = tmp_path_factory.mktemp("imagenet") / "model"
    bz.get(budget="130MFLOPs", output=folder)
    bz.export_slice(folder, [bz.Export("onnx", "int8")])
    return folder


@pytest.mark.slow
def test_the_page_tells_a_thousand_classes_apart(browser, imagenet: Path, tmp_path) -> None:
    """In six megabytes: photographs of the package, by onnxruntime in Python and by the page."""
    import onnxruntime

    from bignas_zoo.models.preprocess import Preprocess, read_image
    from bignas_zoo.zoo.photographs import files

    assert (imagenet / "model-int8.onnx").stat().st_size <= 6_000_000
    paths = files("photographs")[:REAL]
    for path in paths:
        (tmp_path / path.name).symlink_to(path)
    report = in_browser(browser, "--model", imagenet, "--images", tmp_path)
    labels = (imagenet / "labels.txt").read_text("utf-8").splitlines()
    assert len(set(labels)) == 1000
    got = np.array([[report["images"][path.name][label] for label in labels] for path in paths])

    contract = Preprocess.from_json(json.loads((imagenet / "slice.json").read_text("utf-8"))["preprocess"])
    assert contract.crop_fraction == 0.875
    session = onnxruntime.InferenceSession(imagenet / "model-int8.onnx")
    crops = np.stack([read_image(path, contract.crop_size, contract.crop_fraction) for path in paths])
    x = (crops - np.float32(contract.mean)) / np.float32(contract.std)
    expected = session.run(["scores"], {"image": x.astype(np.float32)})[0]
    # Browser and Python decode JPEGs by different libraries: a value of the picture differs by one here and there.
    assert np.mean(got.argmax(-1) == expected.argmax(-1)) >= 0.9
    assert np.abs(got - expected).mean() <= 5e-4
    assert report["sample"][0]["label"] == "oystercatcher"
    assert report["recovered"] == "oystercatcher"
