"""`reproduce`: the same bytes again, and which step differs first."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, NotFoundError, UsageError
from bignas_zoo.files import store
from bignas_zoo.models.weights import read_weights, write_weights
from bignas_zoo.tasks.reproduce import Reproduction

NAME = "bignas-cifar10-s"


def reseal(folder: Path, **changes: object) -> None:
    """Change slice.json, and let it know the files as they are."""
    description = {**store.read_json(folder / "slice.json"), **changes}
    description["files"] = {name: store.record(folder / name) for name in description["files"]}
    store.write_json(folder / "slice.json", store.sealed(description))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bz.get(NAME, output=tmp_path / "slice").path


def first(report: Reproduction) -> tuple[str, str]:
    assert report.first
    return report.first.file, report.first.detail


def test_every_shipped_kind_comes_out_again(tmp_path: Path) -> None:
    for name in (NAME, "efficientnet-lite0-128"):
        report = bz.reproduce(name)
        assert report.same
        assert report.first is None
        assert report.versions == {}
        assert {"model.tflite", "model.safetensors", "labels.txt", "slice.json", "README.md"} <= {
            file.file for file in report.files
        }
    result = CliRunner().invoke(main, ["reproduce", NAME])
    assert result.exit_code == 0, result.output
    assert "DIFFERS" not in result.stdout


def test_a_folder_with_a_prediction_and_exports_is_the_same(tmp_path: Path) -> None:
    got = bz.get("bignas-cifar10-m", budget="99ms@xeon-amx-litert", output=tmp_path / "m")
    assert store.read_json(got.path / "slice.json")["latency"]
    bz.export_slice(got.path, bz.Export("onnx"))
    assert bz.reproduce(got.path).same


def test_the_first_step_that_differs_is_named(folder: Path) -> None:
    weights = dict(read_weights(folder / "model.safetensors"))
    names = [name for name in weights if name.endswith("kernel")]
    weights[names[3]] = weights[names[3]] + np.float32(0.25)
    write_weights(folder / "model.safetensors", weights, {"slice": NAME})
    data = (folder / "model.tflite").read_bytes()
    (folder / "model.tflite").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    reseal(folder)
    report = bz.reproduce(folder)
    name, detail = first(report)
    assert name == "model.safetensors"
    assert f"the first '{names[3]}'" in detail
    assert detail.endswith("by at most 2.5e-01")
    tflite = next(file for file in report.files if file.file == "model.tflite")
    assert tflite.detail == f"from byte {len(data) - 1:,} on; {len(data):,} bytes, {len(data):,} made again"
    result = CliRunner().invoke(main, ["reproduce", str(folder), "--json"])
    assert result.exit_code == 9
    assert json.loads(result.stdout)["first"] == "model.safetensors"
    assert "first model.safetensors (cut and calibrated weights)" in result.stderr


def test_a_description_that_was_changed(folder: Path) -> None:
    reseal(folder, top1=99.0, versions={"numpy": "1.0"})
    report = bz.reproduce(folder)
    assert first(report) == ("slice.json", "other top1, versions")
    assert report.versions["numpy"][0] == "1.0"


def test_other_weights_and_other_families(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="of other weights than those of family 'efficientnet-lite'"):
        bz.reproduce(folder, family="efficientnet-lite")
    reseal(folder, provenance={"supernet_sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="the first step differs"):
        bz.reproduce(folder)
    reseal(folder, family="somebody-s")
    with pytest.raises(NotFoundError, match="Name the folder of its family with --family"):
        bz.reproduce(folder)
    reseal(folder, provenance={"finetuned": {"parent": {}}})
    with pytest.raises(UsageError, match="was fine-tuned"):
        bz.reproduce(folder)
    (folder / "labels.txt").write_text("damaged")
    with pytest.raises(IntegrityError, match="labels.txt"):
        bz.reproduce(folder)
    with pytest.raises(NotFoundError):
        bz.reproduce("no-such-slice")


def test_a_child_of_one_s_own_needs_its_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3)).astype(np.uint8)):
        Image.fromarray(pixels).save(images / f"{i:02}.png")
    family = bz.get_family("bignas-cifar10")
    assert family.space
    child = dataclasses.replace(family.space.smallest, resolution=24)
    got = bz.get_child("bignas-cifar10", child, images, output=tmp_path / "own")
    assert bz.reproduce(got.path, images=images).same
    with pytest.raises(UsageError, match="calibrated on 70 images of images; name them with --images"):
        bz.reproduce(got.path)
    for path in list(images.iterdir())[:3]:
        path.unlink()
    name, detail = first(bz.reproduce(got.path, images=images))
    assert (name, "tensors, the first 'stem.bn.mean'" in detail) == ("model.safetensors", True)


def test_a_family_in_a_folder_is_named(tmp_path: Path) -> None:
    home = bz.get_family("bignas-cifar10")
    assert home.folder
    shutil.copytree(home.folder, tmp_path / "family")
    got = bz.get("s", family=tmp_path / "family", output=tmp_path / "s")
    assert bz.reproduce(got.path, family=tmp_path / "family").same
