"""The licence of weights: read, carried into every file made of them, inherited, and never guessed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.export.metadata import read_metadata
from bignas_zoo.export.properties import read_properties
from bignas_zoo.files import store
from bignas_zoo.files.say import silent
from bignas_zoo.hub_cards.licenses import hub_license
from bignas_zoo.measure import from_recipe
from bignas_zoo.recipes.recipe import find_recipe, read_recipe
from bignas_zoo.tasks import bundle, slice_files
from bignas_zoo.tasks import finetune as finetuning
from bignas_zoo.tasks import make_family as family_making
from bignas_zoo.tasks import search as searching
from bignas_zoo.tasks import train as training
from bignas_zoo.zoo import slice_folder as folders
from bignas_zoo.zoo.family import load_family
from bignas_zoo.zoo.license import license_of

RECORDED = ROOT / "tests" / "recorded" / "0.1.0"
TERMS, SOURCE = "CC BY-NC 4.0", "a paper's authors"


def told(folder: Path, **facts: str | None) -> Path:
    """Change what a family or slice folder says of itself; None takes a key away."""
    path = next(p for p in (folder / "family.json", folder / "slice.json") if p.is_file())
    kept = {k: v for k, v in {**store.read_json(path), **facts}.items() if v is not None and k != "digest"}
    store.write_json(path, store.sealed(kept))
    return folder


def copy_of(what: str, place: Path, **facts: str | None) -> Path:
    return told(Path(shutil.copytree(RECORDED / what, place / what)), **facts)


def shown(*arguments: str | Path) -> Any:
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def head_of(card: Path) -> Any:
    return yaml.safe_load(card.read_text("utf-8").split("---\n")[1])


@pytest.fixture(scope="module")
def unsaid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice folder like those older than the key."""
    return copy_of("slice", tmp_path_factory.mktemp("unsaid"), license=None)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice cut from a family of others."""
    place = tmp_path_factory.mktemp("theirs")
    family = copy_of("family", place, license=TERMS, source=SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGNAS_ZOO_CACHE", str(place / "cache"))
        return bz.get("tiny-smallest", family=family, output=place / "slice").path


def test_the_shipped_family_is_this_projects_own() -> None:
    family = bz.get_family("bignas-cifar10")
    assert (family.license, family.source) == ("Apache-2.0", "trained by this project, the BigNAS Zoo")
    assert {(s.license, s.source) for s in family.slices} == {(family.license, family.source)}
    assert all(s.preprocess == family.preprocess for s in family.slices)


def test_the_papers_models_have_no_weights_to_license() -> None:
    family = bz.get_family("bignas-imagenet")
    assert family.license == "unknown"
    assert "never published" in family.source
    assert not family.has_weights
    assert not any(s.has_weights for s in family.slices)


def test_a_family_that_does_not_say_is_unknown(tmp_path: Path) -> None:
    family = load_family(copy_of("family", tmp_path, license=None))
    assert (family.license, family.source) == ("unknown", "")
    (first, *_) = shown("list", "--family", tmp_path / "family")["slices"]
    assert (first["license"], first["source"], first["preprocess"]) == ("unknown", "", dict(family.preprocess))


def test_a_slice_may_be_under_another_licence_than_its_family(tmp_path: Path) -> None:
    folder = copy_of("family", tmp_path, license="MIT")
    data = store.read_json(folder / "family.json")
    data["slices"][0] |= {"license": "BSD-3-Clause", "source": "elsewhere"}
    store.write_json(folder / "family.json", store.sealed({k: v for k, v in data.items() if k != "digest"}))
    slices = {s.name: (s.license, s.source) for s in load_family(folder).slices}
    assert slices.pop(data["slices"][0]["name"]) == ("BSD-3-Clause", "elsewhere")
    assert set(slices.values()) == {("MIT", "")}


@pytest.mark.parametrize("license", ["a\nb", "a\u202eb", "x" * 201, "](x)", "<b>", " MIT", 5])
def test_a_licence_is_one_line_of_text(license: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not the name of a licence"):
        load_family(copy_of("family", tmp_path, license=license))
    if isinstance(license, str):
        with pytest.raises(UsageError, match="Give an SPDX name such as"):
            license_of(license)


def test_what_is_told_goes_before_what_is_inherited() -> None:
    assert license_of(None) == "unknown"
    with pytest.raises(UsageError, match="license: is empty"):
        license_of("", TERMS)
    assert license_of(None, TERMS) == TERMS
    assert license_of("MIT", TERMS) == "MIT"


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("Apache-2.0", ("apache-2.0", None)),
        ("CC BY-NC 4.0", ("cc-by-nc-4.0", None)),
        ("BSD-3-Clause", ("bsd-3-clause", None)),
        ("unknown", ("unknown", None)),
        ("Apple sample code", ("other", "Apple sample code")),
        ("MIT AND Apache-2.0", ("other", "MIT AND Apache-2.0")),
    ],
)
def test_the_hub_gets_its_own_names(license: str, expected: tuple[str, str | None]) -> None:
    assert hub_license(license) == expected


def test_an_old_slice_folder_is_unknown_wherever_it_is_shown(unsaid: Path) -> None:
    slice_, description = folders.describe(unsaid)
    assert (slice_.license, slice_.source) == ("unknown", "")
    assert slice_.preprocess == description["preprocess"]
    assert shown("show", unsaid)["license"] == "unknown"
    assert "licence: unknown" in CliRunner().invoke(main, ["show", str(unsaid)]).output
    assert slice_files.file_info(description).license == "unknown"  # what TFLite and ONNX files say


def test_an_old_slice_folder_is_pushed_as_unknown(unsaid: Path, stand_ins: None, tmp_path: Path) -> None:
    pushed = bundle.make(unsaid, "zoo/tiny", tmp_path)
    assert head_of(pushed.files["README.md"])["license"] == "unknown"
    assert "Licence of the weights: unknown; ask whoever made them" in pushed.files["README.md"].read_text("utf-8")


def test_the_familys_facts_are_in_every_file_of_a_slice(theirs: Path) -> None:
    description = store.read_json(theirs / "slice.json")
    assert (description["license"], description["source"]) == (TERMS, SOURCE)
    assert read_metadata((theirs / "model.tflite").read_bytes()).license == TERMS
    assert head_of(theirs / "README.md")["license"] == "cc-by-nc-4.0"
    card = (theirs / "README.md").read_text("utf-8")
    assert f"Source of the weights: {SOURCE}.\nLicence of the weights: {TERMS}.\n" in card
    assert "Apache" not in card
    data = shown("show", theirs)
    assert (data["license"], data["source"], data["preprocess"]["crop_size"]) == (TERMS, SOURCE, 20)


def test_an_onnx_file_has_the_licence(theirs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = Path(shutil.copytree(theirs, tmp_path / "slice"))
    (exported,) = bz.export_slice(folder, bz.Export("onnx"))
    assert read_properties(exported.path)["license"] == TERMS


def test_a_fine_tuned_slice_inherits_it(theirs: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(40):
            pixels = noise.integers(0, 256, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / label / f"{i}.png")
    result = bz.finetune(theirs, tmp_path / "pets", output=tmp_path / "tuned", freeze=True, epochs=1)
    assert (result.slice.license, result.slice.source) == (TERMS, SOURCE)
    assert read_metadata((result.path / "model.tflite").read_bytes()).license == TERMS
    assert result.to_json()["license"] == TERMS
    assert f"Licence of the weights: {TERMS}." in (result.path / "README.md").read_text("utf-8")


def test_a_run_inherits_it_from_the_family_it_starts_from(theirs: Path, tmp_path: Path) -> None:
    recipe = read_recipe(find_recipe("cifar10_cpu"))
    heard: list[str] = []
    for start, expected in (
        ("", "unknown"),
        ("bignas-cifar10", "Apache-2.0"),
        (str(theirs.parent / "family"), TERMS),
        ("gone", "unknown"),
    ):
        started = dataclasses.replace(recipe, start_from=start)
        assert from_recipe._inherited_license(started, tmp_path, heard.append) == expected
    assert len(heard) == 1
    assert "'gone'" in heard[0]
    assert from_recipe._source(recipe) == "trained by `bignas-zoo train`, recipe bignas-cifar10"


def test_a_family_of_a_run_is_under_the_licence_that_train_or_family_was_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(read_recipe(find_recipe("cifar10_cpu")), start_from="bignas-cifar10")
    images = SimpleNamespace(images=[0] * 512, holdout=[0], test=[0], calibration=[0] * 64)
    finished: list[Any] = []
    monkeypatch.setattr(from_recipe, "open_dataset", lambda *a: images)
    monkeypatch.setattr(from_recipe, "train_supernet", lambda *a: {})
    monkeypatch.setattr(from_recipe, "_finished", lambda *a: (recipe, {}))
    monkeypatch.setattr(from_recipe, "_finish", lambda *a: finished.append(a[3]))
    (tmp_path / "run").mkdir()
    for license in (None, "MIT"):
        from_recipe.train_family(recipe, tmp_path, tmp_path / "run", license=license, say=silent, report=print)
        from_recipe.make_family(tmp_path, tmp_path / "run", test_data=None, license=None, say=silent)
    from_recipe.make_family(tmp_path, tmp_path / "run", test_data=None, license="0BSD", say=silent)
    assert finished == ["Apache-2.0", "Apache-2.0", "MIT", "MIT", "0BSD"]


def test_a_family_made_without_a_word_is_unknown(tiny_family: Path) -> None:
    assert bz.get_family(tiny_family).license == "unknown"


@pytest.mark.parametrize(
    ("module", "function", "command"),
    [
        (training, "train", ["train", "cifar10_cpu", "--data", "d"]),
        (family_making, "make_family", ["family", "run", "--data", "d"]),
        (finetuning, "finetune", ["finetune", "bignas-cifar10-s", "--data", "d"]),
        (searching, "search_family", ["search", "bignas-cifar10", "--data", "d"]),
    ],
)
def test_the_commands_hand_it_on(
    module: Any, function: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def take(*_: Any, **options: Any) -> None:
        given.update(options)
        raise UsageError("seen.")

    monkeypatch.setattr(module, function, take)
    done = CliRunner().invoke(main, [*command, "--license", TERMS])
    assert (done.exit_code, given["license"]) == (2, TERMS), done.output
