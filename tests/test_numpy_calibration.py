"""Calibration without Keras: the same statistics as with it, and children of one's own by the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import LAYERWISE_CHILD, TINY
from PIL import Image
from test_writers import CROSSED, space_of, weights_of

import bignas_zoo as bz
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.cli.main import main
from bignas_zoo.errors import UsageError
from bignas_zoo.models.calibration import calibrate
from bignas_zoo.models.child import build_child, get_weights, set_weights
from bignas_zoo.models.moments import Moments
from bignas_zoo.models.numpy_calibration import calibrate_arrays
from bignas_zoo.zoo import registry

CIFAR10 = "bignas-cifar10"


def images_of(side: int, count: int = 64) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, side, side, 3)).astype(np.float32)


def test_moments_of_parts_are_those_of_all() -> None:
    values = np.random.default_rng(0).normal(1e4, 1, (300, 7))  # a mean that cancels in a difference of squares
    moments = Moments()
    for part in np.split(values, (1, 50, 51, 200)):
        moments.add(part)
    mean, variance = moments.result()
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-7)
    np.testing.assert_allclose(variance, values.var(0), rtol=1e-6)


@pytest.mark.parametrize("case", CROSSED[2::7], ids=lambda c: "-".join((c[0], c[1], c[2].rule, *map(str, c[3:]))))
def test_statistics_are_those_of_keras(case: tuple) -> None:
    *forms, size = case
    child = uniform_child(dataclasses.replace(space_of(*forms), resolutions=(size,)), ("calibrate", *map(str, case)))
    check_same_statistics(child)


def test_statistics_of_a_layerwise_child_are_those_of_keras() -> None:
    check_same_statistics(LAYERWISE_CHILD)


def check_same_statistics(child: bz.ChildSpec) -> None:
    weights, images = weights_of(child), images_of(child.resolution)
    model = build_child(child)
    set_weights(model, child, weights)
    calibrate(model, [images[:40], images[40:]])
    expected = get_weights(model, child)
    found = calibrate_arrays(child, weights, [images[:7], images[7:]])
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max(), name
    # The weights are what they were.
    np.testing.assert_array_equal(found["stem.kernel"], weights["stem.kernel"])


def test_too_few_or_misshapen_images() -> None:
    child = TINY.smallest
    weights = weights_of(child)
    with pytest.raises(UsageError, match="63 images are too few"):
        calibrate_arrays(child, weights, [images_of(child.resolution, 63)])
    with pytest.raises(UsageError, match="images of shape"):
        calibrate_arrays(child, weights, [images_of(child.resolution + 1)])


def test_both_ways_give_the_same_child() -> None:
    family = registry.get_family(CIFAR10)
    assert family.space
    child = family.space.smallest
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    plain = bz.cut_and_calibrate(CIFAR10, child, pixels)
    model = bz.slice_and_calibrate(CIFAR10, child, pixels)
    for name, array in get_weights(model, child).items():
        assert np.abs(plain.weights[name] - array).max() <= 1e-5 * np.abs(array).max(), name
    with pytest.raises(UsageError, match="is of space"):
        bz.cut_and_calibrate(CIFAR10, TINY.smallest, pixels)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3)).astype(np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_get_cuts_a_child_of_one_s_own(photographs: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["show", "bignas-cifar10-s", "--json"]).stdout
    data = json.loads(shown)
    data["child"]["resolution"] = 24  # no slice of the family has it
    spec = tmp_path / "child.json"
    for content in (data, data["child"]):  # as it is printed, or the child alone
        spec.write_text(json.dumps(content))
        command = ["get", CIFAR10, "--spec", str(spec), "--images", str(photographs), "-o", str(tmp_path / "own")]
        result = CliRunner().invoke(main, [*command, "--force"])
        assert result.exit_code == 0, result.output
        assert "top-1         not measured" in result.output
    description = json.loads((tmp_path / "own/slice.json").read_text())
    assert description["resolution"] == 24
    assert description["provenance"]["calibration"]["images"] == 70
    assert "were calibrated on 70 images of photographs" in (tmp_path / "own/README.md").read_text()
    checked = CliRunner().invoke(main, ["verify", str(tmp_path / "own")])
    assert checked.exit_code == 0, checked.output
    again = CliRunner().invoke(main, [*command, "--json", "--force"])
    assert json.loads(again.stdout)["top1"] is None


def test_a_child_of_one_s_own_that_cannot_be(photographs: Path, tmp_path: Path) -> None:
    spec = tmp_path / "child.json"
    child = json.loads(CliRunner().invoke(main, ["show", "bignas-cifar10-s", "--json"]).stdout)["child"]
    images = ["--images", str(photographs)]
    output = ["-o", str(tmp_path / "own")]

    def fails(code: int, words: str, *arguments: str) -> None:
        result = CliRunner().invoke(main, ["get", *arguments, *output])
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert words in result.stderr
        assert not (tmp_path / "own").exists()

    spec.write_text(json.dumps({**child, "resolution": 25}))
    fails(2, "resolution", CIFAR10, "--spec", str(spec), *images)
    spec.write_text("{")
    fails(4, "child.json", CIFAR10, "--spec", str(spec), *images)
    spec.write_text("[1]")
    fails(4, "child.json", CIFAR10, "--spec", str(spec), *images)
    spec.write_text(json.dumps(child))
    fails(7, "no-such.json", CIFAR10, "--spec", str(tmp_path / "no-such.json"), *images)
    fails(2, "--spec needs the name", CIFAR10, "--spec", str(spec))
    fails(2, "no supernet", "efficientnet-lite", "--spec", str(spec), *images)
    fails(3, "no-such", "no-such", "--spec", str(spec), *images)
    fails(3, "does not meet", CIFAR10, "--spec", str(spec), *images, "--budget", "1MMACs")
    fails(2, "top1", CIFAR10, "--spec", str(spec), *images, "--budget", "top1>=80")
    fails(2, "--family does not go with --spec", CIFAR10, "--spec", str(spec), *images, "--family", CIFAR10)
    for path in list(photographs.iterdir())[:10]:
        path.unlink()
    fails(2, "too few", CIFAR10, "--spec", str(spec), *images)
