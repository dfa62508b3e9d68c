"""Files that version 0.1.0 wrote are read: a family, a slice folder, a cache, and a repository of the Hub.

`recorded/0.1.0` was made by that version (commit 73d86b9) from the tiny space of these tests, with random weights; its
figures here were printed by it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from hub_repos import LFS_SUFFIXES, Blob, Repo
from hub_server import HubServer

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.runtime.runner import run_file

RECORDED = ROOT / "tests" / "recorded" / "0.1.0"
#: Names, MACs and parameters of the family's slices, as 0.1.0 listed them.
SLICES = {
    "tiny-smallest": (203_360, 15_761),
    "tiny-s": (401_584, 31_171),
    "tiny-m": (2_635_888, 75_953),
    "tiny-biggest": (3_549_160, 91_565),
}
#: Logits of 0.1.0's Keras child of tiny-smallest for `default_rng(7).normal(size=(2, 12, 12, 3))`.
LOGITS = (
    (0.254051, -0.167460, -0.034111, -0.047895, -0.018181),
    (-0.078355, -0.132466, -0.142497, 0.065597, -0.003865),
)


def outcome(*arguments: str) -> dict[str, object]:
    """Run a command that prints JSON; return it."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    data: dict[str, object] = json.loads(result.stdout)
    return data


def logits_of(folder: str | Path) -> object:
    child = bz.load(folder)
    return child(np.random.default_rng(7).normal(size=(2, 12, 12, 3)).astype(np.float32), training=False)


def test_a_recorded_family_is_read() -> None:
    family = bz.get_family(RECORDED / "family")
    assert {s.name: (s.macs, s.parameters) for s in family.slices} == SLICES
    assert family.find("s").top1 == 13.3333
    assert [s["name"] for s in outcome("list", "--family", str(RECORDED / "family"))["slices"]] == list(SLICES)  # type: ignore[attr-defined]


def test_a_slice_of_a_recorded_family_has_the_same_files(tmp_path: Path) -> None:
    result = bz.get("tiny-smallest", family=RECORDED / "family", output=tmp_path / "slice")
    for name in ("labels.txt", "model.safetensors"):
        assert (result.path / name).read_bytes() == (RECORDED / "slice" / name).read_bytes(), name
    # The converter wrote that file; what computes the same is written from the plan since then.
    images = np.random.default_rng(0).normal(0, 1, (4, 12, 12, 3)).astype(np.float32)
    ours, theirs = (run_file(folder / "model.tflite", images) for folder in (result.path, RECORDED / "slice"))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_recorded_slice_folder_is_read_checked_and_loaded(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RECORDED / "slice", tmp_path / "slice"))
    assert outcome("verify", str(folder))
    shown = outcome("show", str(folder))
    assert (shown["name"], shown["macs"], shown["parameters"]) == ("tiny-smallest", *SLICES["tiny-smallest"])
    np.testing.assert_allclose(logits_of(folder), LOGITS, atol=2e-6)


def test_a_recorded_cache_is_listed_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(RECORDED / "cache", tmp_path / "cache")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(tmp_path / "cache"))
    (entry,) = outcome("cache", "list")["entries"]  # type: ignore[misc,attr-defined]
    assert (entry["kind"], entry["name"], entry["bytes"], entry["files"]) == ("slice", "tiny-smallest", 171_204, 6)
    assert outcome("cache", "verify") == {"schema": "bignas-zoo/cache-verify/1", "entries": 1, "damaged": []}


def test_a_recorded_repository_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    place = RECORDED / "repository"
    blobs = {
        path.relative_to(place).as_posix(): Blob(path.read_bytes(), lfs=path.suffix in LFS_SUFFIXES)
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
    for blob in blobs.values():
        hub.learn(blob.data)
    repo = Repo("zoo/tiny-smallest", private=False, author="writer")
    repo.add("main", {**repo.at("main").files, **blobs}, "as version 0.1.0 pushed it", "writer")
    hub.repos[repo.id] = repo
    result = bz.get("hf://zoo/tiny-smallest", output=tmp_path / "slice")
    digests = {
        folder: hashlib.sha256((folder / "model.tflite").read_bytes()).hexdigest()
        for folder in (result.path, RECORDED / "slice")
    }
    assert len(set(digests.values())) == 1
    np.testing.assert_allclose(logits_of(result.path), LOGITS, atol=2e-6)
