"""`train photos`: a folder of photographs to a family, the remarks on it, and folders that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.architecture import cost
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.cli.main import main
from bignas_zoo.errors import UsageError
from bignas_zoo.measure import photos, photos_images, photos_start
from bignas_zoo.measure.photos_start import children_of, space_of
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data import LabelledImages, unlabelled_images
from bignas_zoo.recipes.data.class_folders import class_names, read_splits
from bignas_zoo.recipes.recipe import find_recipe, read_recipe
from bignas_zoo.tasks.bundle import make
from bignas_zoo.zoo.registry import get_family

CONTRACT = Preprocess(160, (127.0,) * 3, (128.0,) * 3)


def photograph(hue: int, seed: int) -> Image.Image:
    """Return a picture that its colour gives away."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 90, (24, 32, 3))
    pixels[..., hue] += 150
    return Image.fromarray(pixels.astype(np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)


def write_folder(folder: Path, counts: dict[str, int], classes: tuple[str, ...] = ("red", "green", "blue")) -> Path:
    for part, count in counts.items():
        for hue, name in enumerate(classes):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                photograph(hue, len(part) * 1_000 + i).save(place / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "My Colours (2)", {"train": 24, "val": 6, "test": 8})


def test_children_are_of_the_space_and_both_ends_are_among_them() -> None:
    space = space_of(3)
    children = children_of(space)
    macs = [cost.macs(child) for child in children.values()]
    assert macs == sorted(macs)
    specs = list(children.values())
    assert (specs[0], specs[-1]) == (space.smallest, space.biggest)
    assert {64, 80} <= {child.resolution for child in specs}
    whole = [child for name, child in children.items() if name.startswith("whole")]
    assert [child.resolution for child in whole] == list(get_space("photos").resolutions)


def images(labels: list[int], seed: int = 0, classes: int = 2) -> LabelledImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3)).astype(np.uint8)
    return LabelledImages(pixels, np.array(labels, np.int32), tuple("abc"[:classes]), "x")


def test_remarks_say_what_is_odd() -> None:
    plain = photos_images.Photographs("x", images([0, 1] * 6), images([0, 1], 1), images([0, 1], 2))
    assert photos_images.remarks(plain) == [
        "12 images of 2 classes to train on, 2 held out, 2 to test on",
        "Warning: fewer than 10 images to train on: a (6), b (6); expect little of them",
    ]
    untested = photos_images.Photographs("x", images([0, 1] * 6), images([0, 1], 1), None)
    assert "no test images: accuracies are those of the held-out ones" in photos_images.remarks(untested)[0]
    uneven = photos_images.Photographs("x", images([0] * 40 + [1] * 3), images([0, 1], 1), None)
    assert photos_images.remarks(uneven)[2] == "Warning: uneven classes: 40 images of a, 3 of b"
    train = images([0, 1] * 6)
    train.pixels[3], train.pixels[4] = train.pixels[1], train.pixels[7]
    test = images([0, 0, 0], 2)
    test.pixels[0], test.pixels[1] = train.pixels[0], train.pixels[5]
    odd = photos_images.remarks(photos_images.Photographs("x", train, images([0, 1], 1), test))
    assert odd[2:] == [
        "Warning: 2 training images are copies of others",
        "Warning: 1 images stand in more than one class, such as a and b",
        "Warning: no test images of b",
        "Warning: 2 of 3 test images are training images as well: accuracy on them says too much",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clothing", "clothing"),
        ("My Colours (2)", "my-colours-2"),
        ("日本", "photos"),
        ("-", "photos"),
        ("a" * 99, "a" * 48),
    ],
)
def test_families_are_called_like_their_folder(name: str, expected: str) -> None:
    assert photos.family_name(name) == expected


def fails(code: int, words: str, *arguments: str | Path) -> None:
    result = CliRunner().invoke(main, ["train", "photos", *map(str, arguments)])
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_folders_and_options_that_cannot_be(tmp_path: Path, folder: Path) -> None:
    run = ("-o", tmp_path / "run")
    few = write_folder(tmp_path / "few", {"train": 1})
    fails(2, "class 'blue' has 1 image", "--data", few, *run)
    one = write_folder(tmp_path / "one", {"train": 12}, classes=("only",))
    fails(2, "at least two classes", "--data", one, *run)
    fails(7, "no such folder", "--data", tmp_path / "nowhere", *run)
    (tmp_path / "file").write_text("x")
    fails(7, "file: is a file; --output is a folder", "--data", folder, "-o", tmp_path / "file")
    flat = write_folder(tmp_path / "flat", {".": 2})
    for inside in (flat, flat / "run", flat / "red"):
        fails(2, "lies in", "--data", flat, "-o", inside)
    (tmp_path / "few/train/red/0.jpg").write_bytes(b"no picture")
    fails(4, "0.jpg", "--data", few, *run)
    for minutes in ("0", "-1", "nan", "1e9"):
        fails(2, "--minutes: must be from 1", "--data", folder, "--minutes", minutes, *run)
    fails(2, "--seed: must be a whole number", "--data", folder, "--seed", "-1", *run)
    fails(2, "--test-data does not go with", "--data", folder, "--test-data", folder, *run)
    assert not (tmp_path / "run").exists()
    other = CliRunner().invoke(main, ["train", "cifar10_cpu", "--data", str(folder), "--minutes", "3", *map(str, run)])
    assert other.exit_code == 2
    assert "--minutes and --seed go with" in other.stderr


def test_what_systems_leave_beside_photographs_is_no_photograph(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", {".": 2})
    (folder / "red/._0.jpg").write_bytes(b"a Mac's note on 0.jpg")
    for name in ("__MACOSX", "@eaDir", "$RECYCLE.BIN", ".trash"):
        (folder / name).mkdir()
        (folder / name / "0.jpg").write_bytes(b"no picture")
    for name in ("a.heic", "b.heic", ".DS_Store", "notes"):
        (folder / "red" / name).write_bytes(b"x")
    said = photos_images.remarks(photos_images.read_photographs(folder, read_recipe(find_recipe("photos")), 0))
    assert "Warning: 3 files are not read, which are no png, jpg, jpeg, webp, bmp: .heic (2), notes (1)" in said
    assert class_names(folder) == ("blue", "green", "red")
    assert len(read_splits(folder, 16)["train"]) == 6
    assert len(unlabelled_images(folder / "red", 16, 100)) == 2


@pytest.mark.slow
def test_a_folder_becomes_a_family_in_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    some = {"narrow-64", "whole-64", "whole-160"}  # each more is ten seconds of compiling
    monkeypatch.setattr(
        photos_start, "children_of", lambda space: {k: v for k, v in children_of(space).items() if k in some}
    )
    result = CliRunner().invoke(main, ["train", "photos", "--data", str(folder), "--minutes", "1", "-o", str(run)])
    assert result.exit_code == 0, result.output
    family = get_family(run / "family")
    assert family.name == "my-colours-2"
    assert family.class_names == ("blue", "green", "red")
    assert family.license == "Apache-2.0"
    assert family.slices[-1].top1 == 100.0  # colours are easy
    assert {s.name.removeprefix("my-colours-2-") for s in family.slices} >= {"smallest", "biggest"}
    assert family.training["recipe"]["start_from"] == "efficientnet-lite0"
    assert str(tmp_path) not in (run / "family/family.json").read_text()
    # No slice is beaten by another one that is cheaper.
    inner = [s for s in family.slices if not s.name.endswith(("smallest", "biggest"))]
    assert [s.holdout_top1 for s in inner] == sorted(s.holdout_top1 or 0 for s in inner)
    got = bz.get(budget="40MMACs", family=run / "family", output=tmp_path / "slice")
    assert (got.path / "NOTICE").is_file()
    assert bz.evaluate(got.path, folder / "test")["top1"] == pytest.approx(got.slice.top1, abs=1e-4)
    assert bz.reproduce(got.path, family=run / "family").same
    exported = bz.export_slice(got.path, [bz.Export("onnx"), bz.Export(precision="int8")])
    assert exported[0].entry["parity"]["max_abs"] < 1e-3
    assert exported[1].entry["ranges"]["source"].startswith("images of my-colours-2's training")
    assert got.parity["inputs"] == "training images"
    checks = bz.verify(got.path).checks
    assert all(check.passed is not False for check in checks), checks
    bundle = make(got.path, "org/colours", tmp_path / "place")
    assert not [path for path in bundle.files if "training_images" in path]
    assert "training_images.npz" in bundle.left_out
    pushed = json.loads(bundle.files["slice.json"].read_text())
    assert "calibration" not in pushed
    assert "training_images.npz" not in pushed["files"]
    # Its statistics are matched: nothing may calibrate them anew.
    assert family.space
    with pytest.raises(UsageError, match="keep statistics matched to the network"):
        bz.cut_and_calibrate(run / "family", family.space.smallest, folder)
    with pytest.raises(UsageError, match="keep statistics matched to the network"):
        bz.search_family(run / "family", folder, output=tmp_path / "search")
    # The same again: nothing is trained anew.
    before = json.loads((run / "family/family.json").read_text())["weights"]
    again = CliRunner().invoke(main, ["train", "photos", "--data", str(folder), "--minutes", "1", "-o", str(run)])
    assert again.exit_code == 0, again.output
    assert json.loads((run / "family/family.json").read_text())["weights"] == before
    page = (run / "report.html").read_text()
    assert "my-colours-2-biggest" in page
    assert page.count("data:image/png;base64,") == 2
    other = write_folder(tmp_path / "others", {"train": 12}, classes=("x", "y"))
    refused = CliRunner().invoke(main, ["train", "photos", "--data", str(other), "-o", str(run)])
    assert refused.exit_code == 2
    assert "an earlier run was of other classes" in refused.stderr
