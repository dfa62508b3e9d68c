"""A family of nets that were trained one by one: read, cut, exported and carded; whatever needs a supernet is refused.

The weights are those of the family that version 0.1.0 wrote, so what a slice computes is known from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from test_blocks_slice import damaged_copy
from test_recorded import LOGITS, RECORDED, SLICES

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.files import store
from bignas_zoo.recipes.recipe import find_recipe, read_recipe
from bignas_zoo.recipes.runs.start import starting_family
from bignas_zoo.zoo import slice_folder as folders
from bignas_zoo.zoo.family import NETS_SCHEMA, load_family

OWN = "net.safetensors"


def nets(place: Path, change: Callable[[dict[str, Any]], object] = lambda data: None) -> Path:
    """Copy the recorded family as one of nets with weights of their own, and change its description."""
    folder = Path(shutil.copytree(RECORDED / "family", place / "family"))
    (folder / "supernet.safetensors").rename(folder / OWN)
    data = {k: v for k, v in store.read_json(folder / "family.json").items() if k not in ("digest", "weights")}
    own = {"file": OWN, **store.record(folder / OWN)}
    data |= {"schema": NETS_SCHEMA, "space": None, "spaces": [data["space"]]}
    data["slices"] = [{**entry, "space": data["spaces"][0]["name"], "weights": own} for entry in data["slices"]]
    change(data)
    store.write_json(folder / "family.json", store.sealed(data))
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nets(tmp_path_factory.mktemp("nets"))


def test_its_slices_are_listed(family: Path) -> None:
    home = load_family(family)
    assert home.space is None
    assert home.has_weights
    assert {s.name: (s.macs, s.parameters) for s in home.slices} == SLICES


def test_a_slice_computes_what_the_supernets_child_computed(family: Path, tmp_path: Path) -> None:
    done = bz.get(budget="0.3MMACs", family=family, output=tmp_path / "slice")
    assert done.slice.name == "tiny-smallest"
    images = np.random.default_rng(7).normal(size=(2, 12, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(bz.load(done.path)(images, training=False), LOGITS, atol=2e-6)
    _, description = folders.describe(done.path)
    statistics = "bn/tiny-smallest.safetensors"
    digests = {name: store.sha256(family / name) for name in (OWN, statistics)}
    assert description["provenance"] == {"supernet_sha256": None, "weights": digests}
    assert description["training"] == {}


def test_its_weights_are_checked(family: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=OWN):
        bz.load("tiny-smallest", family=damaged_copy(family, tmp_path, OWN))


def test_what_needs_a_supernet_is_refused(family: Path, tmp_path: Path) -> None:
    spec = load_family(family).slices[0].spec
    assert spec is not None
    with pytest.raises(UsageError, match="is no supernet: its nets were trained one by one"):
        bz.slice_and_calibrate(family, spec, np.zeros((64, 20, 20, 3)))
    result = CliRunner().invoke(main, ["search", str(family), "--data", str(tmp_path), "--output", str(tmp_path / "s")])
    assert result.exit_code == 2, result.output
    assert "is no supernet" in result.output
    assert not (tmp_path / "s").exists()
    with pytest.raises(UsageError, match="start_from: family 'tiny' is no supernet"):
        starting_family(replace(read_recipe(find_recipe("cifar10_cpu")), start_from=str(family)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["slices"].append(d["slices"][0]), "two slices are called 'tiny-biggest'"),
        (lambda d: d["slices"].clear(), "it has no slices"),
        (lambda d: d["slices"][0].update(space="other"), "'other'"),
        (lambda d: d["slices"][0].pop("space"), "'space'"),
        (lambda d: d.update(class_names=d["class_names"][:-1]), "class_names must be 5 different"),
        (lambda d: d["slices"][0]["weights"].update(file="../net"), "leaves the family's folder"),
    ],
)
def test_a_description_that_cannot_be_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(IntegrityError, match=message):
        load_family(nets(tmp_path, change))
