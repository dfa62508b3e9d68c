"""Exports into a slice folder: names, records, gates, what is refused and what stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.cli.export import chosen_exports
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError, QualityError, UsageError
from bignas_zoo.export import tflite
from bignas_zoo.export.keras_formats import to_keras, to_saved_model
from bignas_zoo.export.metadata import read_metadata
from bignas_zoo.files import store
from bignas_zoo.files.formats import EXPORT_NAME, FORMATS, Export
from bignas_zoo.files.store import sealed, sha256, write_json
from bignas_zoo.tasks import proving
from bignas_zoo.tasks.export import export_slice
from bignas_zoo.tasks.verify import verify
from bignas_zoo.zoo import slice_folder

NAME = "bignas-cifar10-smallest"
F16 = Export(precision="float16")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def one_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(cache))


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice folder with one export, made once; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("made") / "slice"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGNAS_ZOO_CACHE", str(cache))
        export_slice(NAME, [F16], output=folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "slice"))


def entries(folder: Path) -> dict[str, dict]:
    return {e["file"]: e for e in json.loads((folder / "exports.json").read_text())["exports"]}


def cli(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def test_an_export_lies_beside_the_files_of_get_with_its_record(made: Path) -> None:
    names = {p.name for p in made.iterdir()}
    assert names == {
        "model.tflite", "model.safetensors", "labels.txt", "slice.json", "README.md",
        "model-float16.tflite", "exports.json",
    }  # fmt: skip
    entry = entries(made)["model-float16.tflite"]
    path = made / "model-float16.tflite"
    assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256(path))
    assert entry["bytes"] < 0.7 * (made / "model.tflite").stat().st_size
    assert entry["input"]["shape"] == [1, 20, 20, 3]
    assert entry["input"]["values"] == "(pixel - mean) / std"
    assert entry["input"]["mean"] == [125.3, 123.0, 113.9]
    assert entry["parity"]["inputs"] == "random inputs (seed 0)"
    assert entry["accuracy"] is None
    assert "ai-edge-litert" in entry["parity"]["runtime"]


def test_files_say_what_they_are(made: Path) -> None:
    for name in ("model.tflite", "model-float16.tflite"):
        info = read_metadata((made / name).read_bytes())
        assert info.name == NAME
        assert info.class_names == tuple((made / "labels.txt").read_text().split())
        np.testing.assert_allclose(info.mean, (125.3, 123.0, 113.9), rtol=1e-6)


def test_what_is_there_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "convert", None)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    found = export_slice(folder, [F16, Export()])
    assert [(e.path.name, e.cached) for e in found] == [("model-float16.tflite", True), ("model.tflite", True)]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_damaged_export_is_made_again(folder: Path) -> None:
    good = (folder / F16.file).read_bytes()
    (folder / F16.file).write_bytes(good[:-1] + b"?")
    (found,) = export_slice(folder, [F16])
    assert not found.cached
    assert (folder / F16.file).read_bytes() == good  # the same slice, the same bytes


def test_get_leaves_a_folder_with_exports_as_it_is_and_replaces_it_only_by_force(folder: Path) -> None:
    assert bz.get(NAME, output=folder).path == folder
    assert (folder / F16.file).is_file()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(LocalIOError, match="exists already"):
        bz.get(NAME, output=folder)
    with pytest.raises(LocalIOError, match="such as 'notes.txt'"):
        bz.get(NAME, output=folder, force=True)
    (folder / "notes.txt").unlink()
    (folder / "labels.txt").write_text("x")
    bz.get(NAME, output=folder, force=True)
    assert not (folder / F16.file).exists()


@pytest.mark.slow
def test_a_file_that_misses_its_gate_never_gets_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = (folder / F16.file).read_bytes()
    honest = tflite.convert
    other = bz.load("bignas-cifar10-smallest")
    other.set_weights([w * (1.3 if w.ndim == 4 else 1) for w in other.get_weights()])
    monkeypatch.setattr(tflite, "convert", lambda child, *a, **k: honest(other, *a, **k))
    text = cli("export", folder, "--precision", "float16", "--force", code=9)
    assert "model-float16.tflite: float16 export: log-probabilities differ from the network's" in text
    assert "It is kept as" in text
    assert (folder / F16.file).read_bytes() == good
    assert (folder / f"{F16.file}.rejected").is_file()
    assert entries(folder)[F16.file]["sha256"] == sha256(folder / F16.file)
    monkeypatch.undo()
    export_slice(folder, [F16], force=True)  # a sound one clears the rejected one away
    assert not (folder / f"{F16.file}.rejected").exists()


@pytest.mark.slow
def test_the_others_are_made_though_one_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = tflite.convert

    def convert(child, option, **rest):
        data = honest(child, option, **rest)
        return honest(bz.load(NAME.replace("smallest", "s")), option, **rest) if option.batch == 2 else data

    monkeypatch.setattr(tflite, "convert", convert)
    with pytest.raises((QualityError, UsageError)):
        export_slice(folder, [Export(batch=2), Export(batch=3)])
    assert not (folder / "model-batch2.tflite").exists()


@pytest.mark.parametrize("precision", ["int8", "dynamic"])
def test_integers_need_images(folder: Path, precision: str) -> None:
    text = cli("export", folder, "--precision", precision, code=2)
    assert f"{precision} needs real images" in text
    assert "--images" in text


def test_missing_images_are_refused_before_a_slice_is_made(tmp_path: Path) -> None:
    budget = ("get", "--budget", "5MMACs", "--classes", "bignas-cifar10", "--precision", "int8")
    for command, code, says in (
        (budget, 2, "int8 needs real images"),
        (("get", NAME, "--precision", "int8", "--images", tmp_path / "none"), 7, "no such folder or file of images"),
        (("export", NAME, "--precision", "dynamic"), 2, "dynamic needs real images"),
    ):
        assert says in cli(*command, "--output", tmp_path / "out", code=code)
        assert not (tmp_path / "out").exists()


def test_what_remakes_a_damaged_folder_is_said(folder: Path) -> None:
    (folder / "labels.txt").write_text("changed")
    text = cli("verify", folder, code=9)
    assert "`bignas-zoo get` or `bignas-zoo finetune`, and --force" in text.splitlines()[-1]


def test_a_place_that_is_no_folder_is_refused_before_a_slice_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    text = cli("get", "bignas-cifar10-f01", "--output", tmp_path / "file" / "out", code=7)
    assert "file is no folder" in text
    assert "cutting" not in text


def test_too_few_images_are_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for i in range(63):
        Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(tmp_path / "few" / f"{i}.png")
    text = cli("export", folder, "--precision", "int8", "--images", tmp_path / "few", code=2)
    assert "63 different images are too few" in text
    assert {p.name for p in folder.iterdir()} == {p.name for p in folder.iterdir() if "int8" not in p.name}


def test_somebodys_file_is_not_overwritten(folder: Path) -> None:
    (folder / "model-float16-pixels.tflite").write_bytes(b"mine")
    text = cli("export", folder, "--precision", "float16", "--normalize-in-graph", "--force", code=7)
    assert "was not made by this command" in text
    assert (folder / "model-float16-pixels.tflite").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema": "bignas-zoo/exports/9", "exports": []}',
        '{"schema": "bignas-zoo/exports/2", "exports": [{"file": "../../etc/passwd", "bytes": 1, "sha256": "x"}]}',
        '{"schema": "bignas-zoo/exports/2", "exports": [{"file": "model.onnx"}]}',
    ],
)
def test_a_damaged_list_of_exports_is_an_error_in_words(folder: Path, text: str) -> None:
    (folder / "exports.json").write_text(text)
    assert "exports.json" in cli("export", folder, code=4)


def test_names_and_places_that_are_not_there() -> None:
    with pytest.raises(NotFoundError, match="bignas-cifar10-smallest"):
        export_slice("bignas-cifar10-smalest", [F16])
    assert "never published" in cli("export", "bignas-s", code=3)


def test_options_go_to_the_exports_they_fit() -> None:
    files = [e.file for e in chosen_exports(["tflite", "onnx"], ["float32", "int8"], False, io="uint8", layout="nchw")]
    assert files == ["model.tflite", "model-int8-uint8.tflite", "model-nchw.onnx", "model-int8-nchw.onnx"]
    assert [e.file for e in chosen_exports([], [], True, batch=4)] == ["model-pixels-batch4.tflite"]
    with pytest.raises(UsageError, match="io 'int8' is for --format tflite --precision int8"):
        chosen_exports(["tflite"], ["float32"], False, io="int8")
    with pytest.raises(UsageError, match="onnx has no precision 'float16'"):
        chosen_exports(["tflite", "onnx"], ["float16"], False)


def test_every_name_that_an_export_can_have_is_known_as_one() -> None:
    for name, precisions in FORMATS.items():
        for precision in precisions:
            needed = {"io": "int8"} if name == "c" else {}
            for changes in (needed, {**needed, "normalize_in_graph": name not in ("keras", "c")}):
                assert EXPORT_NAME.fullmatch(Export(name, precision, **changes).file)
    for option in (Export(precision="int8", io="uint8", batch=2), Export("onnx", layout="nchw")):
        assert EXPORT_NAME.fullmatch(option.file)
        assert EXPORT_NAME.fullmatch(option.file + ".rejected")
    for other in ("model.py", "model.tflite.bak", "mymodel.tflite", "saved_model2", "model-x.onnx"):
        assert not EXPORT_NAME.fullmatch(other)


@pytest.mark.slow
def test_get_exports_too(tmp_path: Path) -> None:
    text = cli("get", NAME, "--output", tmp_path / "s", "--precision", "float16", "--json")
    data = json.loads(text)
    assert data["schema"] == "bignas-zoo/get/1"
    assert [Path(e["path"]).name for e in data["exports"]] == ["model-float16.tflite"]
    assert (tmp_path / "s" / "model-float16.tflite").is_file()


# verify


def checks(path: Path, **options) -> dict[str, bool | None]:
    return {c.name: c.passed for c in verify(path, **options).checks}


def test_sound_files_pass(made: Path) -> None:
    good = {"record": True, "runs": True, "metadata": True, "contract": True, "parity": True}
    assert checks(made / "model.tflite") == good
    assert checks(made / F16.file) == good


def test_a_file_alone_is_run_and_read(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / F16.file, tmp_path / "anything.tflite")
    assert checks(tmp_path / "anything.tflite") == {"record": None, "runs": True, "metadata": True, "parity": None}
    with pytest.raises(UsageError, match="must be in its slice folder"):
        verify(tmp_path / "anything.tflite", images=tmp_path)


def test_a_changed_file_fails_by_its_record(folder: Path) -> None:
    data = bytearray((folder / F16.file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / F16.file).write_bytes(data)
    assert "record        FAIL" in (text := cli("verify", folder / F16.file, code=9))
    assert "damaged or replaced" in text


@pytest.mark.slow
def test_another_slices_file_fails_by_its_scores(folder: Path, tmp_path: Path) -> None:
    """One whose record was forged: only what it computes gives it away."""
    child = bz.load(NAME)
    child.set_weights([w * (1.2 if w.ndim == 4 else 1) for w in child.get_weights()])
    (folder / F16.file).write_bytes(tflite.convert(child, F16))
    data = json.loads((folder / "exports.json").read_text())
    data["exports"][0] |= {"bytes": (folder / F16.file).stat().st_size, "sha256": sha256(folder / F16.file)}
    write_json(folder / "exports.json", sealed(data))
    found = checks(folder / F16.file)
    assert found == {"record": True, "runs": True, "metadata": None, "contract": None, "parity": False}
    assert json.loads(cli("verify", folder / F16.file, "--json", code=9).split("\nError")[0])["passed"] is False


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_text("hello")
    cli("verify", tmp_path / "a.tflite", code=4)
    cli("verify", tmp_path / "none.tflite", code=3)
    (tmp_path / "b.keras").write_text("hello")
    assert "only slice folders and .tflite and .onnx" in cli("verify", tmp_path / "b.keras", code=2)
    assert "name some with --images" in cli("verify", tmp_path / "a.tflite", "--with", "mediapipe", code=2)


def test_a_lone_file_says_what_was_not_compared(made: Path, tmp_path: Path) -> None:
    lone = Path(shutil.copy(made / "model.tflite", tmp_path / "lone.tflite"))
    assert checks(lone) == {"record": None, "runs": True, "metadata": True, "parity": None}
    lone.write_bytes(lone.read_bytes() + bytes(7000))  # hides the labels, which are at the end
    assert checks(lone)["metadata"] is False
    named = Path(shutil.copy(made / "model.tflite", tmp_path / "named.onnx"))
    assert checks(named)["runs"] is False


def test_a_description_of_other_labels_or_pixels_is_noticed(made: Path, tmp_path: Path) -> None:
    """model.tflite says of itself what it takes; slice.json cannot say otherwise."""
    folder = Path(shutil.copytree(made, tmp_path / "s"))
    path = folder / "slice.json"
    honest = path.read_text("utf-8")
    data = json.loads(honest)
    data["class_names"] = [*data["class_names"][1:], data["class_names"][0]]
    write_json(path, sealed(data))
    for command in (("export", folder, "--precision", "float16"), ("verify", folder / "model.tflite")):
        assert "class_names are not those of labels.txt" in cli(*command, code=4)
    data = json.loads(honest)
    data["preprocess"]["mean"] = [0, 0, 0]
    write_json(path, sealed(data))
    assert checks(folder / "model.tflite")["contract"] is False


def test_what_is_no_list_of_exports_is_said(made: Path) -> None:
    for wrong in ("onnx", 3, [None], ["onnx"]):
        with pytest.raises(UsageError, match=r"give bz\.Export objects"):
            export_slice(made, wrong)
    with pytest.raises(UsageError, match="whole number from 1 to 1024"):
        Export(batch=2.0)


def test_a_judge_of_another_name_is_refused(made: Path) -> None:
    with pytest.raises(UsageError, match="judge 'me' is not known; allowed: task-library, mediapipe"):
        verify(made / "model.tflite", judges=["me"])


def test_forged_options_are_refused(folder: Path) -> None:
    text = (folder / "exports.json").read_text().replace('"precision": "float16"', '"precision": "float8"')
    write_json(folder / "exports.json", sealed(json.loads(text)))
    with pytest.raises(IntegrityError, match="what cannot be"):
        verify(folder / F16.file)


def test_two_exports_into_one_folder_do_not_mix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = tflite.convert

    def convert(child, option, **rest):
        with pytest.raises(LocalIOError, match=f"{folder}: in use by process"):
            export_slice(folder, [Export(batch=2)])
        return honest(child, option, **rest)

    monkeypatch.setattr(tflite, "convert", convert)
    export_slice(folder, [Export(batch=3)])
    assert set(entries(folder)) == {"model-float16.tflite", "model-batch3.tflite"}


def test_what_a_killed_export_left_is_in_nobodys_way(folder: Path) -> None:
    (folder / ".bignas-tmp-x").mkdir()
    (folder / ".bignas-tmp-x" / "model-int8.tflite").write_bytes(b"half")
    assert bz.get(NAME, output=folder).path == folder
    export_slice(folder, [F16])
    assert not (folder / ".bignas-tmp-x").exists()


# other formats


@pytest.fixture(scope="module")
def formats(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats") / "slice"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGNAS_ZOO_CACHE", str(cache))
        wanted = [Export("onnx"), Export("onnx", layout="nchw", normalize_in_graph=True), Export("keras"),
                  Export("saved_model")]  # fmt: skip
        export_slice(NAME, wanted, output=folder)
    return folder


def test_onnx_keras_and_saved_model_are_proven_and_recorded(formats: Path) -> None:
    found = entries(formats)
    assert set(found) == {"model.onnx", "model-nchw-pixels.onnx", "model.keras", "saved_model"}
    for entry in found.values():
        assert entry["parity"]["max_abs"] <= 1e-4 * entry["parity"]["max_logit"]
        assert entry["parity"]["top1_agreement"] == 1
    assert found["model-nchw-pixels.onnx"]["input"]["shape"] == ["batch", 3, 20, 20]
    assert found["model-nchw-pixels.onnx"]["input"]["values"] == "pixels 0 to 255"
    assert found["model.keras"]["output"]["values"] == "logits"
    files = found["saved_model"]["files"]
    assert "saved_model/saved_model.pb" in files
    assert found["saved_model"]["bytes"] == sum((formats / name).stat().st_size for name in files)


def test_a_saved_model_is_kept_and_made_again_when_damaged(formats: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(formats, tmp_path / "slice"))
    option = Export("saved_model")
    assert export_slice(folder, [option])[0].cached
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"x")
    assert not export_slice(folder, [option])[0].cached
    assert export_slice(folder, [option])[0].cached
    assert bz.get(NAME, output=folder).path == folder  # still a folder of ours


def test_verify_reads_onnx_files_and_leaves_code_alone(formats: Path) -> None:
    good = {"record": True, "runs": True, "metadata": True, "contract": True, "parity": True}
    assert checks(formats / "model.onnx") == good
    assert checks(formats / "model-nchw-pixels.onnx") == good
    for name in ("model.keras", "saved_model"):
        with pytest.raises(UsageError, match="can run its code"):
            verify(formats / name)


@pytest.mark.slow
def test_verify_checks_every_file_of_a_folder(formats: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(formats, tmp_path / "slice"))
    report = verify(folder)
    assert report.passed
    found = {(check.file, check.name) for check in report.checks}
    assert {("slice.json", "files"), ("model.tflite", "parity"), ("model.onnx", "parity")} <= found
    assert {("model.keras", "record"), ("saved_model", "record")} <= found
    assert not {("model.keras", "runs"), ("saved_model", "runs")} & found  # loading them could run code

    data = bytearray((folder / "model.keras").read_bytes())
    data[100] ^= 1
    (folder / "model.keras").write_bytes(data)
    (folder / "model.onnx").unlink()
    (folder / "labels.txt").write_text("a")
    text = cli("verify", folder, code=9)
    failed = text[text.index("failed: ") :]
    assert all(f"{what}" in failed for what in ("files of slice.json", "record of model.onnx", "record of model.keras"))
    assert "saved_model" not in failed


@pytest.mark.slow
def test_int8_is_proven_on_real_images(folder: Path, shared_data: Path) -> None:
    both = ("--format", "tflite", "--format", "onnx", "--precision", "int8")
    text = cli("export", folder, *both, "--images", shared_data, "--json")
    for entry in json.loads(text[text.index("{") :])["exports"]:
        assert entry["accuracy"]["images"] == 9500
        assert entry["accuracy"]["loss"] <= 1.0
        assert entry["ranges"]["images"] == 1000
        assert len(entry["ranges"]["pixels_sha256"]) == 64
    assert checks(folder / "model-int8.tflite", images=shared_data)["parity"] is True


@pytest.mark.parametrize("option", [Export("keras"), Export("saved_model")], ids=lambda o: o.format)
def test_models_see_few_images_at_once(option: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The activations of all test images together would take gigabytes."""
    keras = pytest.importorskip("keras")
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    path = tmp_path / option.file
    if option.format == "keras":
        to_keras(model, path)
    else:
        to_saved_model(model, path)
    monkeypatch.setattr(proving, "PIXELS_AT_ONCE", 2 * 4 * 4)
    seen: list[int] = []
    whole = proving._in_parts
    monkeypatch.setattr(
        proving, "_in_parts", lambda run, images: whole(lambda p: (seen.append(len(p)), run(p))[1], images)
    )
    inputs = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype(np.float32)
    scores, _ = proving.run_export(option, path, inputs)
    assert seen == [2, 2, 1]
    kernel, bias = model.get_weights()
    logits = inputs.reshape(5, -1) @ kernel + bias
    np.testing.assert_allclose(scores, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("entries", "seen"),
    [
        ([{"file": "a.onnx", "bytes": 1, "sha256": "0"}] * 2, "a file stands twice in it"),
        ([{"file": "a.onnx", "bytes": 1, "sha256": "0", "parity": {"inputs": "a\u202eb"}}], "cannot be shown"),
    ],
)
def test_a_list_of_exports_sealed_anew_cannot_say_anything(
    tmp_path: Path, entries: list[dict[str, object]], seen: str
) -> None:
    data = store.sealed({"schema": slice_folder.EXPORTS_SCHEMA, "exports": entries})
    store.write_json(tmp_path / "exports.json", data)
    with pytest.raises(IntegrityError, match=seen):
        slice_folder.read_exports(tmp_path)
