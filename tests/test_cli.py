"""The command line as a user meets it: output, exit codes, no tracebacks, quick starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import bignas_zoo as bz
from bignas_zoo.cli.main import COMMANDS, main

KEYS = ["name", "family", "macs", "parameters", "bytes", "resolution", "top1", "top1_images", "top1_source"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from bignas_zoo.cli.main import main; main()", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def fails(*arguments: str, code: int, says: str, cwd: Path | None = None) -> None:
    done = run(*arguments, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_json_has_the_promised_keys() -> None:
    data = json.loads(invoke("list", "--json"))
    assert list(data) == ["schema", "slices"]
    assert data["schema"] == "bignas-zoo/list/1"
    for row in data["slices"]:
        assert list(row)[: len(KEYS)] == KEYS
    paper = {r["name"]: r for r in data["slices"] if r["family"] == "bignas-imagenet"}
    assert [paper[f"bignas-{n}"]["top1"] for n in ("s", "m", "l", "xl")] == [76.5, 78.9, 79.6, 80.9]
    assert all("paper" in r["top1_source"] and r["weights"] is False for r in paper.values())


def test_list_table_names_every_slice_and_the_unit() -> None:
    text = invoke("list")
    for chosen in bz.list_slices():
        assert chosen.name in text
    assert "multiply-adds" in text


def test_show_json_has_the_same_keys_and_its_blocks_add_up() -> None:
    data = json.loads(invoke("show", "bignas-m", "--json"))
    assert list(data)[: len(KEYS) + 1] == ["schema", *KEYS]
    assert sum(block["macs"] for block in data["blocks"]) == data["macs"] == 417_556_960
    assert "stage7.layer1" in invoke("show", "bignas-m")


@pytest.mark.slow
def test_get_json_quiet_and_plain(tiny_family: Path, tmp_path: Path) -> None:
    data = json.loads(
        invoke("get", "--budget", "1GMACs", "--family", str(tiny_family), "--output", str(tmp_path / "a"), "--json")
    )
    assert list(data)[: len(KEYS) + 1] == ["schema", *KEYS]
    assert {"path", "files", "parity_max_abs"} <= data.keys()
    assert data["bytes"] == (tmp_path / "a" / "model.tflite").stat().st_size
    best = max(bz.list_slices(tiny_family), key=lambda s: s.holdout_top1)
    assert data["name"] == best.name
    quiet = invoke("get", data["name"], "--family", str(tiny_family), "--output", str(tmp_path / "b"), "--quiet")
    assert quiet == f"{tmp_path / 'b'}\n"
    plain = invoke("get", data["name"], "--family", str(tiny_family), "--output", str(tmp_path / "c"))
    for word in ("MACs", "parameters", "bytes", "top-1", "parity", "from the cache"):
        assert word in plain


def test_evaluate_prints_the_image_count(tiny_family: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    Image.new("RGB", (30, 24), (200, 10, 10)).save(tmp_path / "a" / "x.png")
    text = invoke("evaluate", "tiny-smallest", "--family", str(tiny_family), "--data", str(tmp_path))
    assert "on 1 images" in text


def test_bad_input_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    fails("get", "bignas-ss", code=3, says="Did you mean 'bignas-s'?")
    fails("show", "bignas-xxl", code=3, says="Did you mean 'bignas-xl'?")
    fails("list", "--family", "bignas-imagenette", code=3, says="Did you mean 'bignas-imagenet'?")
    fails("get", code=2, says="--budget 400MFLOPs")
    fails("get", "--budget", "0MFLOPs", code=2, says="above zero")
    fails("get", "--budget", "400 mflops", code=2, says="Write for example 400MFLOPs")
    fails("get", "--budget", "8ms@pixel-6", code=3, says="no latency table for device 'pixel-6'")
    fails("get", "bignas-s", code=3, says="never published")
    fails("frobnicate", code=2, says="No such command")
    fails("train", "nothing.yaml", "--data", str(tmp_path), code=3, says="nor a shipped recipe")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\nspace: bignas-cifar10\nlerning_rate: 1\n")
    fails("train", str(recipe), "--data", str(tmp_path), code=2, says="Did you mean 'learning_rate'?")
    fails(
        "train",
        "cifar10_cpu",
        "--data",
        str(tmp_path),
        "--output",
        str(tmp_path / "r"),
        code=7,
        says="no images found. Expected CLASS/",
    )
    fails("evaluate", "bignas-s", "--data", str(tmp_path), code=3, says="never published")


def test_a_folder_that_cannot_be_written_is_named(tiny_family: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(
        "get", "tiny-smallest", "--family", str(tiny_family), "--output", str(tmp_path / "file" / "out"),
        code=7, says="cannot be created",
    )  # fmt: skip


def test_a_closed_pipe_is_not_an_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from bignas_zoo.cli.main import main; main()' list --json | head -c 1",
        shell=True, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "{"
    assert done.stderr == ""


def test_completion_offers_slice_names() -> None:
    environment = {"_BIGNAS_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": "bignas-zoo show bignas-x", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "from bignas_zoo.cli.main import main; main(prog_name='bignas-zoo')"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "bignas-xl" in done.stdout


def modules(*arguments: str) -> set[str]:
    code = (
        "import sys; from bignas_zoo.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return set(done.stderr.split())


def test_a_cached_get_loads_neither_numpy_nor_tensorflow(tiny_family: Path, tmp_path: Path) -> None:
    arguments = ("get", "tiny-smallest", "--family", str(tiny_family), "--output", str(tmp_path / "a"))
    assert run(*arguments).returncode == 0
    assert modules(*arguments[:-1], str(tmp_path / "b")) & {"numpy", "keras", "tensorflow", "jinja2"} == set()


def test_a_pipe_closed_early_and_a_missing_stdout_are_no_errors() -> None:
    command = f"{sys.executable} -c 'from bignas_zoo.cli.main import main; main()'"
    for line in (f"({command} list; echo $? >&2) | true", f"{command} list --json >&-; echo $? >&2"):
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr.split() == ["0"], line


def test_help_keeps_its_examples_apart() -> None:
    assert "\n    bignas-zoo list\n" in invoke("--help")


def test_a_command_that_is_none_gets_the_nearest_name() -> None:
    done = CliRunner().invoke(main, ["serch"])
    assert done.exit_code == 2
    assert "No such command 'serch'. Did you mean 'search'?" in done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_where_it_is_said_to_be(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"Usage: main {name} ")


def test_every_public_name_is_there() -> None:
    import bignas_zoo

    for name in bignas_zoo.__all__:
        assert getattr(bignas_zoo, name).__module__.startswith("bignas_zoo."), name
    assert set(bignas_zoo.__all__) <= set(dir(bignas_zoo))
