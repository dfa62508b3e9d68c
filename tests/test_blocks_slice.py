"""A slice that is no child of a space but a list of blocks: read, listed, costed, shown, cut, exported, timed, carded.

Its blocks and weights are those of a child that version 0.1.0 wrote, so what it costs and computes is known from there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import TINY
from latency_tables import table_of
from test_recorded import LOGITS, RECORDED, SLICES

import bignas_zoo as bz
from bignas_zoo.architecture.network import BlockList
from bignas_zoo.architecture.plan import plan
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, NotFoundError, UsageError
from bignas_zoo.files import store
from bignas_zoo.latency import write_table
from bignas_zoo.zoo import slice_folder as folders
from bignas_zoo.zoo.family import load_family
from bignas_zoo.zoo.slice import Slice

NAME, OWN = "tiny-imported", "imported.safetensors"


def imported() -> BlockList:
    spec = load_family(RECORDED / "family").find("smallest").network
    return BlockList("imported", spec.resolution, spec.classes, plan(spec), spec.bn_epsilon)


def entry() -> dict[str, Any]:
    return {
        "name": NAME, "blocks": imported().to_json(), "top1": None, "top1_images": None,
        "top1_source": "not measured", "holdout_top1": None, "bytes": None, "license": "MIT", "source": "elsewhere",
        "weights": {"file": OWN, **store.record(RECORDED / "slice" / "model.safetensors")},
    }  # fmt: skip


def with_entry(place: Path, **changes: Any) -> Path:
    """Copy the recorded family, and put the network into it."""
    folder = Path(shutil.copytree(RECORDED / "family", place / "family"))
    shutil.copy(RECORDED / "slice" / "model.safetensors", folder / OWN)
    data = {k: v for k, v in store.read_json(folder / "family.json").items() if k != "digest"}
    data["slices"].append({**entry(), **changes})
    store.write_json(folder / "family.json", store.sealed(data))
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_entry(tmp_path_factory.mktemp("blocks"))


@pytest.fixture(scope="module")
def folder(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("blocks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGNAS_ZOO_CACHE", str(place / "cache"))
        return bz.get(NAME, family=family, output=place / "slice").path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "phone.json"
    write_table(path, table_of(TINY))
    return path


def damaged_copy(family: Path, place: Path, name: str) -> Path:
    """Copy a family's folder, and change the last bytes of one of its files."""
    damaged = Path(shutil.copytree(family, place / "family"))
    with (damaged / name).open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"abcd")
    return damaged


def run(*arguments: str | Path) -> Any:
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def test_it_is_listed_with_its_cost_and_latency(family: Path, table: Path) -> None:
    rows = {s["name"]: s for s in run("list", "--family", family, "--device", table, "--json")["slices"]}
    mine, child = rows[NAME], rows["tiny-smallest"]
    assert (mine["macs"], mine["parameters"]) == SLICES["tiny-smallest"]
    assert (mine["resolution"], mine["weights"], mine["license"]) == (child["resolution"], True, "MIT")
    assert mine["latency"] == child["latency"]
    assert NAME in run("list", "--family", family)


def test_its_folder_holds_the_blocks_and_computes_what_the_child_computed(folder: Path) -> None:
    slice_, description = folders.describe(folder)
    assert slice_.network == imported()
    assert slice_.spec is None
    assert description.keys().isdisjoint({"child", "space"})
    images = np.random.default_rng(7).normal(size=(2, 12, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(bz.load(folder)(images, training=False), LOGITS, atol=2e-6)


def test_its_tflite_file_is_exported_and_verified(folder: Path) -> None:
    report = run("verify", folder, "--json")
    assert report["passed"] is True
    assert store.read_json(folder / "slice.json")["parity"]["max_abs"] < 1e-4


def test_it_is_shown_and_drawn(folder: Path, tmp_path: Path) -> None:
    data = run("show", folder, "--plot", tmp_path / "blocks.svg", "--json")
    assert data["child"] is None
    assert [b["name"] for b in data["blocks"]] == [b.name for b in imported().blocks]
    assert sum(b["macs"] for b in data["blocks"]) == SLICES["tiny-smallest"][0]
    assert NAME in (tmp_path / "blocks.svg").read_text()


def test_it_is_timed_block_by_block(folder: Path, table: Path) -> None:
    mine = run("latency", folder, "--device", table, "--json")
    child = run("latency", RECORDED / "slice", "--device", table, "--json")
    assert mine["latency_ms"] == child["latency_ms"]


def test_its_card_says_whose_weights_they_are(folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    assert "with weights of its own (elsewhere), written\nby bignas-zoo" in card
    assert "supernet" not in card.split("## Citation")[0]
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"


def test_a_budget_finds_it(family: Path) -> None:
    from bignas_zoo.zoo.selection import pick

    home = load_family(with_entry(family.parent / "accurate", holdout_top1=99.0))
    assert pick(home, bz.Budget.parse("0.3MMACs")).name == NAME


def test_its_weights_are_checked(family: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=OWN):
        bz.load(NAME, family=damaged_copy(family, tmp_path, OWN))


def test_without_its_weights_there_is_nothing_to_cut(family: Path) -> None:
    home = load_family(family)
    slice_ = Slice(NAME, "tiny", None, None, None, "not measured", blocks=imported())
    assert not slice_.has_weights
    with pytest.raises(NotFoundError, match="it has no weights here"):
        home.weight_files(slice_)


def test_other_classes_than_the_familys_are_refused(tmp_path: Path) -> None:
    blocks = imported().to_json()
    blocks["classes"] = blocks["blocks"][-1]["cout"] = 7
    with pytest.raises(IntegrityError, match="has 7 classes, its family 5"):
        load_family(with_entry(tmp_path, blocks=blocks))


def test_a_slice_is_one_of_both() -> None:
    with pytest.raises(TypeError, match="one of them"):
        Slice(NAME, "tiny", None, None, None, "not measured")
    with pytest.raises(TypeError, match="one of them"):
        Slice(NAME, "tiny", TINY.smallest, None, None, "not measured", blocks=imported())


def test_fine_tuning_takes_children_only(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a list of blocks"):
        bz.finetune(folder, tmp_path, output=tmp_path / "out")
