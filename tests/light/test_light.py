"""The light installation: what works without TensorFlow, Keras and tf2onnx, and what is said where it does not.

Run alone, `pytest --confcutdir tests/light tests/light`, it needs pytest beside the light installation, nothing else.
Where the heavy packages are installed, the processes that are started here are kept from finding them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HEAVY = ("keras", "tensorflow", "tf2onnx", "onnxslim", "jax")
#: Python reads it before anything else; a module that is None in sys.modules is one that is not there.
BLOCKER = f"import sys\nsys.modules.update(dict.fromkeys({HEAVY!r}))\n"
CIFAR10, LITE = "bignas-cifar10", "efficientnet-lite0-128"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the blocker, a cache, a child's description and images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("light")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for i in range(80):
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        small.resize((40, 32), Image.Resampling.BICUBIC).save(folder / "images" / f"{i}.png")
    shown = run(folder, "show", "bignas-cifar10-s", "--json")
    (folder / "child.json").write_text(shown.stdout)
    return folder


def environment(folder: Path) -> dict[str, str]:
    more = {
        "PYTHONPATH": str(folder),
        "BIGNAS_ZOO_CACHE": str(folder / "cache"),
        "BIGNAS_ZOO_DATA": str(folder / "data"),
        "OMP_NUM_THREADS": "2",
    }
    more["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there
    return {**os.environ, **more}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bignas_zoo.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)


def works(folder: Path, *arguments: str) -> str:
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_heavy_packages_are_not_found(place: Path) -> None:
    program = f"""
import importlib.util
for name in {HEAVY!r}:
    assert importlib.util.find_spec(name) is None, name
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(name)
"""
    subprocess.run([sys.executable, "-c", program], cwd=place, env=environment(place), check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("list",),
        ("list", "--device", "xeon-amx-litert"),
        ("show", CIFAR10 + "-m"),
        ("devices",),
        ("latency", LITE, "--device", "pixel-1-spnas"),
        ("cache", "list"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_only_reads(place: Path, arguments: tuple[str, ...]) -> None:
    assert works(place, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("slice_", [CIFAR10 + "-m", LITE])
def test_a_slice_in_every_form_of_tflite_and_onnx(place: Path, slice_: str) -> None:
    works(place, "get", slice_, "--output", f"all-{slice_}")
    for options in (
        ("--format", "tflite", "--format", "onnx", "--precision", "float32"),
        ("--precision", "float16", "--precision", "dynamic", "--precision", "int8"),
        ("--format", "onnx", "--precision", "int8"),
        ("--format", "tflite", "--format", "onnx", "--normalize-in-graph", "--layout", "nchw", "--batch", "2"),
        ("--format", "c",),
        ("--precision", "int8", "--io", "uint8"),
    ):  # fmt: skip
        images = () if slice_ == LITE else ("--images", "images")
        done = run(place, "export", f"all-{slice_}", *options, *images)
        # On images that are noise, first classes are near ties: a file may miss its gate, and is kept beside.
        assert done.returncode == 0 or (slice_ != LITE and done.returncode == 9), done.stderr
    checked = run(place, "verify", f"all-{slice_}")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "parity" in checked.stdout
    assert works(place, "card", f"all-{slice_}").startswith("---")


def test_a_budget_bench_and_a_child_of_one_s_own(place: Path) -> None:
    works(place, "get", "--budget", "400MFLOPs", "--output", "best")
    assert "ms/100 MMACs" in works(place, "bench", "best", "--runs", "3")
    works(place, "get", CIFAR10, "--spec", "child.json", "--images", "images", "--output", "own")
    assert json.loads((place / "own/slice.json").read_text())["top1"] is None


def test_push_prepares_without_them(place: Path) -> None:
    works(place, "get", CIFAR10 + "-s", "--output", "pushed")
    done = run(place, "push", "pushed", "--repo", "someone/something", "--dry-run")
    assert done.returncode in (5, 6), done.stderr  # it ends at the Hub: no token, or no network


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("train", "cifar10_cpu", "--data", ".", "--output", "run"), "train"),
        (("finetune", LITE, "--data", "images"), "finetune"),
        (("search", CIFAR10, "--data", "."), "search"),
        (("get", "--budget", "4MMACs", "--search", "--data", "."), "search"),
        (("family", "run", "--data", "."), "family"),
        (("evaluate", LITE, "--data", "images"), "evaluate"),
        (("profile", "mine"), "profile"),
        (("export", CIFAR10 + "-s", "--format", "keras", "--output", "k"), "export to keras"),
        (("export", CIFAR10 + "-s", "--format", "saved_model", "--output", "k"), "export to saved_model"),
        (("get", CIFAR10 + "-s", "--format", "keras", "--output", "k"), "export to keras"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_needs_them_says_what_to_type(place: Path, arguments: tuple[str, ...], what: str) -> None:
    done = run(place, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"Error: {what}: needs Keras, which is not installed. Install it with pip install 'bignas-zoo[train]'\n"
    )
    assert not (place / "k").exists()


def test_python_functions_say_it_too(place: Path) -> None:
    program = """
import bignas_zoo as bz
family = bz.get_family("bignas-cifar10")
assert bz.get("bignas-cifar10-s", output="in-python").parity["max_abs"] < 1e-3
plain = bz.cut_and_calibrate(family.folder, family.space.smallest, "images")
assert bz.to_tflite(plain, "plain.tflite") > 100_000 and bz.to_onnx(plain, "plain.onnx") > 100_000
for call in (
    lambda: bz.load("bignas-cifar10-s"),
    lambda: bz.slice_and_calibrate("bignas-cifar10", family.space.smallest, "images"),
    lambda: bz.evaluate("bignas-cifar10-s", "images"),
):
    try:
        call()
    except bz.BigNASError as error:
        assert "pip install 'bignas-zoo[train]'" in str(error)
    else:
        raise SystemExit("no error")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, env=environment(place), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_files_of_children_below_their_familys_crop_are_proven_without_keras(place: Path) -> None:
    """As those of imported supernets are: 192 pixels from a crop of 224."""
    code = """
import dataclasses, pathlib
import bignas_zoo as bz
from bignas_zoo.tasks.slice_files import _parity_inputs
known = bz.list_slices("efficientnet-lite")[0]
contract = {**known.preprocess, "crop_size": 224}
inputs, source = _parity_inputs(dataclasses.replace(known, preprocess=contract), (192, 192, 3), pathlib.Path())
print(inputs.shape, inputs.dtype, source)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(place)},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(16, 192, 192, 3) float32 photographs of the package")
