"""What a new user tripped over: odd folders, odd files, odd streams, and options that do not go together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.formats import Export
from bignas_zoo.recipes.data.dataset import is_tfrecords
from bignas_zoo.runtime import micro

NAME, CIFAR10 = "bignas-cifar10-s", "bignas-cifar10"


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "a [1] b*?"  # as a pattern it would be none of its files
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(70):
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def child(tmp_path: Path) -> Path:
    spec = json.loads(CliRunner().invoke(main, ["show", NAME, "--json"]).stdout)["child"]
    path = tmp_path / "child.json"
    path.write_text(json.dumps(spec))
    return path


def test_a_folder_is_a_folder_whatever_its_name_looks_like(images: Path, child: Path, tmp_path: Path) -> None:
    assert not is_tfrecords(images)
    code, _, err = run("get", CIFAR10, "--spec", child, "--images", images, "-o", tmp_path / "own")
    assert code == 0, err


@pytest.mark.parametrize("name", ["photo.jpg", "notes.json"])
def test_one_file_is_no_folder_of_images(name: str, child: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    code, _, err = run("get", CIFAR10, "--spec", child, "--images", tmp_path / name, "-o", tmp_path / "own")
    assert (code, "is one file" in err) == (2, True), err
    code, _, err = run("get", CIFAR10, "--spec", child, "--images", "", "-o", tmp_path / "own")
    assert (code, "is empty" in err) == (2, True), err
    assert not (tmp_path / "own").exists()


def test_the_folder_one_stands_in_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    (place / "inner").mkdir(parents=True)
    monkeypatch.chdir(place)
    before = os.stat(".").st_ino
    for output in (".", str(place), "inner/..", "..", str(tmp_path)):
        code, out, err = run("get", NAME, "--output", output, "--force")
        assert (code, out) == (7, ""), err
        assert "the folder you are in" in err
    assert os.stat(".").st_ino == before
    assert sorted(os.listdir()) == ["inner"]
    # A good slice in it stays, too.
    bz.get(NAME, output=place / "slice")
    monkeypatch.chdir(place / "slice")
    inode = os.stat(".").st_ino
    assert run("get", "bignas-cifar10-m", "--output", ".", "--force")[0] == 7
    assert os.stat(".").st_ino == inode
    assert bz.verify(".").passed


def test_a_folder_that_is_gone_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(LocalIOError, match="does not exist any more"):
        store.check_free(tmp_path / "new", force=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "2>/dev/full"])
def test_work_is_done_with_stderr_closed_or_full(closed: str, tmp_path: Path) -> None:
    if "full" in closed and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    command = f"{sys.executable} -m bignas_zoo.cli get {NAME} -q -o {tmp_path / 's'} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    if "full" in closed:  # what it says on the way cannot be written, which is no reason to stop
        assert done.returncode in (0, 7)
    else:
        assert done.returncode == 0, done.stderr
        assert bz.verify(tmp_path / "s").passed
    missing = f"{sys.executable} -m bignas_zoo.cli get no-such-slice {closed}"
    assert subprocess.run(["bash", "-c", missing], capture_output=True, check=False).returncode == 3


def test_special_files_are_not_read(tmp_path: Path, images: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, "/dev/zero"):
        code, _, err = run("get", CIFAR10, "--spec", place, "--images", images, "-o", tmp_path / "own")
        assert (code, "no regular file" in err) == (7, True), err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"space": "bignas", "depths": []}, "of space 'bignas', but the family has space 'bignas-cifar10'"),
        ({"depths": [1]}, "without a space"),
        ([1, 2], "holds no child"),
        (None, "holds no child"),
    ],
)
def test_a_child_that_is_none_says_of_what_space_it_is(
    content: object, words: str, images: Path, tmp_path: Path
) -> None:
    path = tmp_path / "child.json"
    path.write_text(json.dumps(content))
    code, _, err = run("get", CIFAR10, "--spec", path, "--images", images, "-o", tmp_path / "own")
    assert code in (2, 4)
    assert words in err
    assert "show SLICE --json" in err
    code, _, err = run("get", NAME, "--spec", path, "--images", images)
    assert code == 3
    assert f"name one, e.g. {CIFAR10}" in err


def test_the_same_child_again_is_no_error(child: Path, images: Path, tmp_path: Path) -> None:
    command = ("get", CIFAR10, "--spec", child, "--images", images, "-o", tmp_path / "own")
    assert run(*command)[0] == 0
    before = store.sha256(tmp_path / "own/slice.json")
    assert run(*command)[0] == 0
    assert store.sha256(tmp_path / "own/slice.json") == before
    (tmp_path / "own/notes.txt").write_text("mine")
    assert run(*command)[0] == 7
    assert (tmp_path / "own/notes.txt").read_text() == "mine"


def test_images_in_a_folder_of_another_name_are_the_same_images(child: Path, images: Path, tmp_path: Path) -> None:
    got = bz.get_child(CIFAR10, child, images, output=tmp_path / "own")
    moved = tmp_path / "another name"
    moved.mkdir()
    for path in images.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert bz.reproduce(got.path, images=moved).same


@pytest.mark.parametrize("value", [None, "text", ["a"], 3])
def test_reproduce_reads_provenance_with_care(value: object, tmp_path: Path) -> None:
    folder = bz.get(NAME, output=tmp_path / "s").path
    data = {k: v for k, v in store.read_json(folder / "slice.json").items() if k != store.SEAL}
    store.write_json(folder / "slice.json", store.sealed({**data, "provenance": value}))
    with pytest.raises(IntegrityError, match="provenance"):
        bz.reproduce(folder)
    with pytest.raises(UsageError, match="needs no images"):
        bz.reproduce(NAME, images=tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((64, 32, 32, 3), np.nan), "0 to 255"),
        (np.full((64, 32, 32, 3), 256.0), "0 to 255"),
        (np.full((64, 32, 32, 3), -1), "0 to 255"),
        (np.full((64, 32, 32, 3), 0.5, np.float32), "multiply them by 255"),
        (np.full((64, 32, 32, 3), "a"), "need numbers"),
    ],
    ids=("nan", "above", "below", "unit", "text"),
)
def test_pixels_that_are_none_are_refused(values: np.ndarray, words: str) -> None:
    space = bz.get_family(CIFAR10).space
    assert space
    with pytest.raises(UsageError, match=words):
        bz.cut_and_calibrate(CIFAR10, space.smallest, values)
    assert len(repr(bz.cut_and_calibrate(CIFAR10, space.smallest, np.zeros((64, 32, 32, 3), np.uint8)))) < 5_000


@pytest.mark.parametrize(
    "options", [("--io", "float32"), ("--batch", "2"), ("--layout", "nchw"), ("--normalize-in-graph",)]
)
def test_c_source_takes_no_option_in_silence(options: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = run("export", "efficientnet-lite0-128", "--format", "c", *options, "-o", tmp_path / "s")
    assert (code, out) == (2, ""), err
    assert not (tmp_path / "s").exists()


def test_bench_micro_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro", reason="no tflite-micro for this Python or machine")
    code, _, err = run("bench", "bignas-cifar10-m", "--micro")
    assert code == 2
    assert "bignas-zoo export bignas-cifar10-m --precision int8 --io int8 --images FOLDER" in err
    assert run("bench", "bignas-cifar10-m", "--micro", "--runs", "3")[0] == 2
    for content in (b"", b"text", b"\0" * 100):
        (tmp_path / "x.tflite").write_bytes(content)
        with pytest.raises(IntegrityError, match="is no TFLite file"):
            micro.measure(tmp_path / "x.tflite")


@pytest.mark.slow
def test_bench_micro_measures_the_array_of_a_c_source(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro", reason="no tflite-micro for this Python or machine")
    folder = bz.get("efficientnet-lite0-128", output=tmp_path / "s").path
    assert "no file with int8 ends" in run("bench", folder, "--micro")[2]
    bz.export_slice(folder, Export("c", "int8", io="int8"))
    code, out, _ = run("bench", folder, "--micro", "--json")
    assert code == 0
    (row,) = json.loads(out)["results"]
    assert row["arena"] == pytest.approx(row["predicted"], rel=0.01)


def test_a_family_s_name_is_no_slice_s() -> None:
    code, _, err = run("get", CIFAR10)
    assert (code, "is a family, not a slice" in err) == (3, True)
