"""The web page: its preprocessing against Pillow and Keras in Node, and the whole of it in Chromium.

The browser needs Node, `npm install` in examples/web, and Chromium (CHROMIUM names it; default /usr/bin/chromium).
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

WEB = ROOT / "examples" / "web"
REAL = 40
__all__ = ["exported"]  # a fixture

#: Reads RGBA pixels, writes what `toPixels` makes of them.
RESIZE = """
import { readFileSync, writeFileSync } from "node:fs";
const { toPixels } = await import(process.argv[1]);
const [folder, width, height, cropSize, resolution] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const data = new Uint8ClampedArray(readFileSync(`${folder}/in`));
writeFileSync(`${folder}/out`, toPixels({ width, height, data }, { cropSize, resolution }));
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
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium")
    for package in ("onnxruntime-web", "playwright-core"):
        if not (WEB / "node_modules" / package).is_dir():
            pytest.skip(f"{package} is not there: run `npm install` in examples/web")
    return {**os.environ, "CHROMIUM": chromium}


@pytest.mark.parametrize("size", [*SIZES, (32, 32)], ids=str)
@pytest.mark.parametrize(("crop", "resolution"), [(32, 32), (32, 24), (32, 20), (24, 40)])
def test_javascript_prepares_images_as_the_package_does(node, tmp_path, size, crop: int, resolution: int) -> None:
    picture = photograph(size, 5)
    (tmp_path / "in").write_bytes(picture.convert("RGBA").tobytes())
    command = [node, "--input-type=module", "-e", RESIZE, (WEB / "preprocess.js").as_uri(), str(tmp_path)]
    subprocess.run([*command, *map(str, (*size, crop, resolution))], check=True, timeout=60)
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
    assert "bignas-zoo get bignas-cifar10-s --output examples/web/model" in errors["noModel"]
    assert "There is no other.onnx in model/" in errors["noFile"]
    assert "Run `npm install` in examples/web" in errors["noRuntime"]
