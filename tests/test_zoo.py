"""From a budget to files, through Python: choice, export, cache, and what happens to damaged files."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

import bignas_zoo as bz
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError, NothingFitsError, UsageError
from bignas_zoo.files import store
from bignas_zoo.tasks import slice_cache
from bignas_zoo.zoo.registry import get_family

FILES = {"model.tflite", "labels.txt", "slice.json", "model.safetensors", "README.md"}


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.name.startswith(store.TEMPORARY)]


@pytest.fixture(scope="module")
def made(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGNAS_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        result = bz.get(budget="1GMACs", family=tiny_family, output=tmp_path_factory.mktemp("made") / "out")
    return result.path


def test_family_holds_measured_slices(tiny_family: Path) -> None:
    family = get_family(tiny_family)
    names = {s.name for s in family.slices}
    assert {"tiny-smallest", "tiny-biggest"} <= names
    assert family.find("smallest").spec == TINY.smallest
    assert [s.macs for s in family.slices] == sorted(s.macs for s in family.slices)
    assert all(s.top1_images == 30 and s.bytes and s.bytes > 0 for s in family.slices)


def test_get_writes_a_complete_folder(made: Path) -> None:
    assert {p.name for p in made.iterdir()} == FILES
    description = json.loads((made / "slice.json").read_text())
    for name, record in description["files"].items():
        data = (made / name).read_bytes()
        assert record == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert set(description["files"]) == FILES - {"slice.json"}
    assert (made / "labels.txt").read_text().split() == list("abcde")
    assert description["parity"]["max_abs"] <= 1e-4 * description["parity"]["max_logit"]
    assert description["name"] in (made / "README.md").read_text()
    assert leftovers(made.parent) == []


def test_the_tflite_file_computes_what_keras_computes(made: Path) -> None:
    # Judged here by the runtime and numpy alone, not by the package's own parity check.
    from ai_edge_litert.interpreter import Interpreter

    child = bz.load(made)
    interpreter = Interpreter(str(made / "model.tflite"))
    signature = interpreter.get_signature_runner("classify")
    images = np.random.default_rng(5).normal(size=(8, *child.input_shape[1:])).astype("f4")
    logits = np.asarray(child(images, training=False), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for image, row in zip(images, expected, strict=True):
        np.testing.assert_allclose(signature(image=image[None])["scores"][0], row, atol=1e-5)


def test_stored_statistics_are_those_of_a_fresh_calibration(tiny_family: Path) -> None:
    pixels = np.load(tiny_family.parent / "calibration.npy")
    for chosen in get_family(tiny_family).slices:
        stored = bz.load(chosen.name, family=tiny_family)
        fresh = bz.slice_and_calibrate(tiny_family, chosen.spec, pixels)
        x = np.random.default_rng(1).normal(size=(4, *stored.input_shape[1:])).astype("f4")
        expected = np.asarray(stored(x))
        np.testing.assert_allclose(fresh(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_load_by_name_and_by_folder_agree(tiny_family: Path, made: Path) -> None:
    name = json.loads((made / "slice.json").read_text())["name"]
    by_name, by_folder = bz.load(name, family=tiny_family), bz.load(made)
    x = np.random.default_rng(0).normal(size=(4, *by_name.input_shape[1:])).astype("f4")
    np.testing.assert_array_equal(by_name(x), by_folder(x))


def test_a_second_get_comes_from_the_cache(tiny_family: Path, tmp_path: Path) -> None:
    first = bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "a")
    second = bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "b")
    assert (first.cached, second.cached) == (False, True)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # An output that already holds exactly these files is left alone.
    stamp = (tmp_path / "a" / "model.tflite").stat().st_mtime_ns
    assert bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "a").cached
    assert (tmp_path / "a" / "model.tflite").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_a_damaged_cache_is_noticed_and_made_again(tiny_family: Path, tmp_path: Path) -> None:
    bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "a")
    (entry,) = (store.cache_root() / "slices").iterdir()
    assert slice_cache.verified(entry) is not None
    for name in sorted(FILES):
        whole = (entry / name).read_bytes()
        for damaged in (whole[:-1], whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]), b""):
            (entry / name).write_bytes(damaged)
            assert slice_cache.verified(entry) is None, name
        (entry / name).write_bytes(whole)
    (entry / "model.tflite").write_bytes(b"\0" * 100)
    said: list[str] = []
    result = bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "b", say=said.append)
    assert not result.cached
    assert "the cached copy of tiny-smallest is damaged and is made anew" in said[0]
    assert (tmp_path / "b" / "model.tflite").read_bytes() == (tmp_path / "a" / "model.tflite").read_bytes()


@pytest.mark.slow
def test_an_existing_output_is_never_overwritten_without_force(made: Path, tiny_family: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "precious.txt").write_text("mine")
    for force in (False, True):  # not a slice folder: not even --force replaces it
        with pytest.raises(LocalIOError, match="out"):
            bz.get("tiny-smallest", family=tiny_family, output=target, force=force)
    assert (target / "precious.txt").read_text() == "mine"
    older = tmp_path / "older"
    shutil.copytree(made, older)
    (older / "labels.txt").write_text("edited by hand")
    with pytest.raises(LocalIOError, match="--force"):
        bz.get("tiny-smallest", family=tiny_family, output=older)
    assert (older / "labels.txt").read_text() == "edited by hand"
    bz.get("tiny-smallest", family=tiny_family, output=older, force=True)
    assert json.loads((older / "slice.json").read_text())["name"] == "tiny-smallest"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["supernet.safetensors", "bn/tiny-smallest.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_family_files_are_found_before_use(tiny_family: Path, tmp_path: Path, kind: str, damage: str) -> None:
    copy = tmp_path / "family"
    shutil.copytree(tiny_family, copy)
    data = bytearray((copy / kind).read_bytes())
    if damage == "flip":
        data[-3] ^= 4
        (copy / kind).write_bytes(data)
    elif damage == "truncate":
        (copy / kind).write_bytes(data[:-3])
    else:
        (copy / kind).unlink()
    with pytest.raises(IntegrityError, match="sha256|missing") as caught:
        bz.get("tiny-smallest", family=copy, output=tmp_path / "out")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", sorted(FILES - {"slice.json"}))
def test_a_damaged_slice_folder_is_not_loaded(made: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "slice"
    shutil.copytree(made, copy)
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        bz.load(copy)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": "other/1"}', '{"schema": "bignas-zoo/slice/1"}', '"' * 3, "[" * 100_000]
)
def test_a_broken_slice_json_is_an_integrity_error(made: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "slice"
    shutil.copytree(made, copy)
    (copy / "slice.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"slice\.json"):
        bz.load(copy)


def test_get_needs_a_name_or_a_budget() -> None:
    with pytest.raises(UsageError, match="--budget"):
        bz.get()


def test_a_named_slice_is_checked_against_the_budget(tiny_family: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingFitsError, match="over 1KMACs"):
        bz.get("tiny-biggest", family=tiny_family, budget="1KMACs", output=tmp_path / "x")


def test_slices_without_weights_say_how_to_obtain_them(tmp_path: Path) -> None:
    for call in (lambda: bz.get("bignas-s", output=tmp_path / "x"), lambda: bz.load("bignas-s")):
        with pytest.raises(NotFoundError, match="Train the space"):
            call()


def test_slice_and_calibrate_checks_its_arguments(tiny_family: Path, tmp_path: Path) -> None:
    pixels = np.zeros((80, 20, 20, 3), np.uint8)
    with pytest.raises(UsageError, match="space 'bignas'"):
        bz.slice_and_calibrate(tiny_family, bz.get_space("bignas").smallest, pixels)
    with pytest.raises(UsageError, match=r"need numbers of shape \[n, 20, 20, 3\]"):
        bz.slice_and_calibrate(tiny_family, TINY.smallest, pixels[:, :10])
    with pytest.raises(UsageError, match="too few"):
        bz.slice_and_calibrate(tiny_family, TINY.smallest, pixels[:10])
    with pytest.raises(LocalIOError, match="no such folder"):
        bz.slice_and_calibrate(tiny_family, TINY.smallest, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LocalIOError, match="no images"):
        bz.slice_and_calibrate(tiny_family, TINY.smallest, tmp_path / "empty")


def test_any_point_of_the_space_can_be_cut(tiny_family: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (64, 20, 20, 3)).astype(np.uint8)
    spec = uniform_child(TINY, ("any",), 13)
    child = bz.slice_and_calibrate(tiny_family, spec, pixels)
    assert child.input_shape == (None, 13, 13, 3)
    assert child.count_params() == bz.parameters(spec)


def test_evaluate_counts_right_answers(tiny_family: Path, tmp_path: Path) -> None:
    from PIL import Image

    from bignas_zoo.models.preprocess import Preprocess

    family = get_family(tiny_family)
    pixels = np.random.default_rng(1).integers(0, 256, (12, 20, 20, 3)).astype(np.uint8)
    child = bz.load("tiny-biggest", family=tiny_family)
    predicted = np.asarray(child(Preprocess.from_json(family.preprocess).inputs(pixels, 20))).argmax(-1)
    right = 0
    for i, (image, label) in enumerate(zip(pixels, predicted, strict=True)):
        truth = int(label) if i % 3 else (int(label) + 1) % 5  # every third one labelled wrongly
        right += truth == label
        folder = tmp_path / "abcde"[truth]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    result = bz.evaluate("tiny-biggest", tmp_path, family=tiny_family)
    assert result["images"] == 12
    assert result["top1"] == pytest.approx(100 * right / 12)


@pytest.mark.slow
def test_an_unwritable_cache_does_not_stop_a_get(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(tmp_path / "file" / "cache"))
    told: list[str] = []
    result = bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "out", say=told.append)
    assert {p.name for p in result.path.iterdir()} == FILES
    assert any("not cached" in t for t in told)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "", ".hidden", "x" * 200, 7, None, "a\nb"])
def test_a_hostile_slice_name_cannot_choose_the_output(tiny_family: Path, tmp_path: Path, name: object) -> None:
    copy = tmp_path / "family"
    shutil.copytree(tiny_family, copy)
    data = json.loads((copy / "family.json").read_text())
    data["slices"][0]["name"] = name
    (copy / "family.json").write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match="is not a name"):
        get_family(copy)


@pytest.mark.slow
def test_a_cached_get_still_notices_a_damaged_installation(tiny_family: Path, tmp_path: Path) -> None:
    copy = tmp_path / "family"
    shutil.copytree(tiny_family, copy)
    bz.get("tiny-smallest", family=copy, output=tmp_path / "a")
    data = bytearray((copy / "supernet.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "supernet.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError, match="Reinstall"):
        bz.get("tiny-smallest", family=copy, output=tmp_path / "b")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("class_names",), []), (("class_names",), "abcde"), (("class_names",), ["a"] * 5), (("class_names",), [1] * 5),
        (("class_names",), ["a", "b", "c", "d", "e\nf"]), (("preprocess", "mean"), "x"), (("preprocess",), {}),
        (("preprocess", "std"), [1.0, 0.0, 1.0]), (("preprocess", "crop_size"), 10**9),
        (("preprocess", "crop_size"), 1.5),
        (("slices", 0, "top1"), -1), (("slices", 0, "top1"), True), (("slices", 0, "top1"), float("nan")),
        (("slices", 0, "bytes"), 10**40), (("space", "bn_epsilon"), -1.0), (("space", "classes"), 10**30),
    ],
)  # fmt: skip
def test_a_family_with_a_senseless_value_is_refused(
    tiny_family: Path, tmp_path: Path, where: tuple[str | int, ...], value: object
) -> None:
    copy = tmp_path / "family"
    shutil.copytree(tiny_family, copy)
    data = json.loads((copy / "family.json").read_text())
    parent = data
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    (copy / "family.json").write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match=r"family\.json"):
        get_family(copy)


@pytest.mark.parametrize("key", ["name", "preprocess", "class_names", "space", "child", "files", "schema"])
def test_a_slice_json_without_a_key_is_an_integrity_error(made: Path, tmp_path: Path, key: str) -> None:
    copy = tmp_path / "slice"
    shutil.copytree(made, copy)
    data = json.loads((copy / "slice.json").read_text())
    del data[key]
    (copy / "slice.json").write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match=r"slice\.json"):
        bz.evaluate(copy, tmp_path)
