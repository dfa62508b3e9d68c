"""The command `search` from end to end: killed, resumed, with other settings, with nonsense; and `get --search`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.budget import Budget
from bignas_zoo.files import store
from bignas_zoo.tasks.search import SearchResult, outcome_of

BUDGETS = ("--budget", "0.5MMACs", "--budget", "60Kparams")
SETTINGS = (*BUDGETS, "--children", "8", "--seed", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of noise, as many as the family was made of: 80 to train on, 10 held out, 30 to test on."""
    root, generator = tmp_path_factory.mktemp("noise"), np.random.default_rng(1)
    for split, count in (("train", 18), ("test", 6)):
        for label in "abcde":
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(generator.integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(folder / f"{i:02}.png")
    return root


def bignas(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "searcher.py"), *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        timeout=900, check=False, env={**os.environ, "PYTHONPATH": str(here), **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done.returncode, done.stdout, done.stderr


def searched(family: Path, data: Path, output: Path, *more: str, **environment: str) -> tuple[int, str, str]:
    return bignas("search", family, "--data", data, "--output", output, *SETTINGS, *more, **environment)


@pytest.fixture(scope="module")
def whole(tiny_family: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with two workers, uninterrupted."""
    output = tmp_path_factory.mktemp("searches") / "whole"
    code, out, err = searched(tiny_family, data, output, "--workers", "2", "--json")
    assert code == 0, err
    (output / "stdout.json").write_text(out)
    return output


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "measured.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_search_makes_a_family_a_report_and_a_drawing(tiny_family: Path, whole: Path) -> None:
    report = json.loads((whole / "stdout.json").read_text())
    assert report["schema"] == "bignas-zoo/search/1"
    assert report == json.loads((whole / "search.json").read_text())
    before, after = bz.get_family(tiny_family), bz.get_family(whole / "family")
    assert after.weights is not None
    assert before.weights is not None
    assert after.weights.sha256 == before.weights.sha256
    measured = lines(whole)
    assert len(measured) == report["search"]["measured"] == len(before.slices) + 8
    assert [m["origin"] for m in measured[: len(before.slices)]] == ["corner"] * 2 + ["earlier"] * (
        len(before.slices) - 2
    )
    top1 = {json.dumps(m["spec"]): m["holdout_top1"] for m in measured}
    for text in BUDGETS[1::2]:
        budget = Budget.parse(text)
        chosen = next(s for s in after.slices if s.name == report["chosen"][text]["name"])
        assert not budget.violations(chosen.figures)
        fitting = [m for m in measured if not budget.violations(figures(before, m))]
        assert chosen.holdout_top1 == top1[json.dumps(chosen.spec.to_json())] == max(m["holdout_top1"] for m in fitting)
    for old in before.slices:  # measured anew: these weights have no images they were trained on
        accuracy = top1[json.dumps(old.spec.to_json())]
        assert any(
            s.macs <= old.macs and s.parameters <= old.parameters and (s.holdout_top1 or 0) >= accuracy
            for s in after.slices
        )
    assert (whole / "search.png").read_bytes()[:4] == b"\x89PNG"
    assert "coarse" in (whole / "search.svg").read_text()
    assert not list(whole.glob(".bignas-tmp-*"))


def figures(family: bz.Family, measured: dict[str, Any]) -> dict[str, float | None]:
    spec = bz.ChildSpec.from_json(measured["spec"], family.space)
    return {"macs": bz.macs(spec), "parameters": bz.parameters(spec)}


@pytest.mark.slow
def test_a_cluster_finds_the_same(tiny_family: Path, data: Path, whole: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra `search` is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        code, _, err = searched(tiny_family, data, tmp_path / "run", "--workers", cluster.scheduler_address)
    assert code == 0, err
    assert lines(tmp_path / "run") == lines(whole)
    front = (tmp_path / "run" / "family" / "front.json").read_bytes()
    assert front == (whole / "family" / "front.json").read_bytes()


@pytest.mark.slow
def test_killed_with_one_worker_and_resumed_it_is_the_same(
    tiny_family: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    code, _, _ = searched(tiny_family, data, output, "--workers", "1", KILL="7")
    assert code == -signal.SIGKILL
    assert lines(output) == lines(whole)[:7]
    with (output / "measured.jsonl").open("a") as file:
        file.write('{"spec": {"')
    code, _, err = searched(tiny_family, data, output, "--workers", "1", KILL="worker:2")
    assert code == 0, err
    assert "1 damaged line dropped" in err
    assert "7 children are measured already" in err
    assert (output / "measured.jsonl").read_bytes() == (whole / "measured.jsonl").read_bytes()
    files = sorted(p.relative_to(whole) for p in (whole / "family").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(output) for p in (output / "family").rglob("*") if p.is_file())
    for file in files:
        if file.name != "family.json":  # says how long it took
            assert (output / file).read_bytes() == (whole / file).read_bytes(), file

    # Other settings are refused, and so are other images, whose measurements these are not.
    code, _, err = searched(tiny_family, data, output, "--method", "random")
    assert code == 2
    assert "holds a search with method 'coarse-to-fine', not 'random'" in err
    other = tmp_path / "other"
    other.mkdir()
    for split in ("train", "test"):
        (other / split).symlink_to(data / split)
    (output / "measured.jsonl").write_text("".join(json.dumps({**m, "of": "0" * 16}) + "\n" for m in lines(whole)))
    code, _, err = searched(tiny_family, other, output)
    assert code == 4
    assert "children measured with other weights, images or another way of measuring" in err


@pytest.mark.slow
def test_get_searches_for_exactly_this_budget(tiny_family: Path, data: Path, tmp_path: Path) -> None:
    get = (
        "get", "--family", tiny_family, "--budget", "0.4MMACs", "--search", "--data", data, "--children", "8",
        "--workers", "1", "--output", "found",
    )  # fmt: skip
    code, out, err = bignas(*get, "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert found["macs"] <= 400_000
    assert found["name"].startswith("tiny-x")
    assert (tmp_path / "found" / "model.tflite").is_file()
    code, out, err = bignas(*get, "--force", cwd=tmp_path)
    assert code == 0, err
    assert "children are measured already" in err
    assert "cutting" not in err  # nothing new was measured, so the slice is the one in the cache
    assert "(from the cache)" in out


@pytest.mark.parametrize(
    ("budget", "left"), [("5MMACs,top1>=80", "5MMACs"), ("5MMACs,1MB", "5MMACs,1MB"), ("top1>=80", None)]
)
def test_get_checks_the_upper_limits_of_a_budget_searched_for(budget: str, left: str | None, tmp_path: Path) -> None:
    family = bz.get_family("bignas-cifar10")
    result = SearchResult(family, tmp_path, {budget: family.slices[0]}, {}, tmp_path)
    assert outcome_of(result, budget) == (family.slices[0], left)


def test_a_search_that_is_refused_leaves_nothing(tiny_family: Path, tmp_path: Path) -> None:
    code, _, err = bignas("search", str(tiny_family), "--data", "absent", "--output", "new", cwd=tmp_path)
    assert code == 7, err
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert bignas("search", str(tiny_family), "--data", "absent", "--output", "mine", cwd=tmp_path)[0] == 7
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("search",), 2, "Missing argument"),
        (("search", "nothing", "--data", "x"), 3, "family 'nothing': not known"),
        (("search", "bignas-imagenet", "--data", "x"), 3, "weights were never published"),
        (("search", "bignas-cifar10", "--data", "/nowhere"), 7, "/nowhere"),
        (("search", "bignas-cifar10", "--data", "x", "--budget", "5 bananas"), 2, "a term has no spaces"),
        (("search", "bignas-cifar10", "--data", "x", "--budget", ""), 2, "budget: is empty"),
        (("search", "bignas-cifar10", "--data", "x", "--budget", "1MACs"), 3, "below the smallest child"),
        (("search", "bignas-cifar10", "--data", "x", "--budget", "1ms@toaster"), 3, "toaster"),
        (("search", "bignas-cifar10", "--data", "x", "--front", "top1,beauty"), 2, "front: axes are"),
        (("search", "bignas-cifar10", "--data", "x", "--children", "7"), 2, "--children"),
        (("search", "bignas-cifar10", "--data", "x", "--children", "9" * 400), 2, "--children"),
        (("search", "bignas-cifar10", "--data", "x", "--workers", "0"), 2, "neither a number from 1 to 1024"),
        (("search", "bignas-cifar10", "--data", "x", "--workers", "²"), 2, "neither a number from 1 to 1024"),
        (("search", "bignas-cifar10", "--data", "x", "--method", "luck"), 2, "--method"),
        (("search", "bignas-cifar10", "--data", "x", "--seed", "-1"), 2, "--seed"),
        (("search", "bignas-cifar10", "--data", "x", "--in-place"), 2, "is part of the installation"),
        (("search", "bignas-cifar10", "--data", "x", "--device-table", "/nowhere.json"), 7, "/nowhere.json"),
        (("search", "bignas-cifar10", "--data", "x", "--output", "/dev/null"), 7, "is a file"),
        (("search", "bignas-cifar10", "--data", "x\x00y"), 2, "NUL character"),
        (("get", "--search", "--budget", "5MMACs"), 2, "--search needs --budget and --data"),
        (("get", "bignas-cifar10-s", "--search", "--budget", "5M", "--data", "x"), 2, "no slice's name"),
        (("get", "--budget", "5MMACs", "--data", "x"), 2, "--data belongs to --search"),
    ],
)
def test_nonsense_gets_an_error_and_an_exit_code(
    arguments: tuple[str, ...], code: int | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from bignas_zoo.cli.main import main

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, list(arguments))
    assert isinstance(done.exception, SystemExit), done.exception
    assert code is None or done.exit_code == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "internal error" not in done.stderr
    assert not list(tmp_path.glob("*/family"))


@pytest.mark.slow
def test_an_imported_family_is_searched_without_a_recipe(tiny_family: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "imported"
    shutil.copytree(tiny_family, folder)
    description = {k: v for k, v in store.read_json(folder / "family.json").items() if k != "digest"}
    description["training"] = {"imported": {"source": "tiny", "file_sha256": "0" * 64, "is_published_file": None}}
    store.write_json(folder / "family.json", store.sealed(description))
    output = tmp_path / "search"
    code, _, err = searched(folder, data, output, "--method", "evolution")
    assert code == 0, err
    found = bz.get_family(output / "family")
    assert found.space == bz.get_family(tiny_family).space
    assert all(slice_.top1 is not None for slice_ in found.slices)
    assert len(lines(output)) >= 8
