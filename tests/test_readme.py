"""What README and docs promise, run as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import bignas_zoo as bz

README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: The documents that hold a table of the shipped slices.
TABLES = [README, ROOT / "docs" / "accuracy.md"]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def shown_commands(document: Path) -> list[str]:
    """Return what stands after `bignas-zoo` in the shell examples, continued lines joined, comments left out."""
    text = "\n".join(blocks(document, "bash")).replace("\\\n", " ")
    return re.findall(r"bignas-zoo (\w[^#\n]*)", re.sub(r'"bignas-zoo\[.*?\]"', "", text))


def test_the_two_commands_are_there_for_ci() -> None:
    for name in ("get", "test", "judges"):
        assert re.search(rf"<!-- command: {name} -->\n```bash\n[^\n]+\n```", README.read_text("utf-8")), name


def test_the_readme_names_every_common_command() -> None:
    commands = {line.split()[0] for line in shown_commands(README)}
    assert {"get", "list", "show", "evaluate", "export", "finetune", "search", "train"} <= commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_shown_option_exists(document: Path) -> None:
    from click.testing import CliRunner

    from bignas_zoo.cli.main import main

    for line in shown_commands(document):
        command, *words = line.split()
        help_of_it = CliRunner().invoke(main, [command, *(words[:1] if command == "cache" else []), "--help"])
        assert help_of_it.exit_code == 0, line
        for option in re.findall(r"(--[a-z-]+)", line):
            assert option in help_of_it.stdout, line


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks").glob("*.md"))], ids=lambda d: d.name
)
def test_linked_files_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^":]+)"', text)
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", TABLES, ids=lambda d: d.name)
def test_tables_say_what_the_family_says(document: Path) -> None:
    from click.testing import CliRunner

    from bignas_zoo.cli.main import main

    listed = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)["slices"]
    slices = {entry["name"]: entry for entry in listed if entry["weights"]}
    row = r"^\| `((?:bignas-cifar10|efficientnet)-\S+)` \| (.*) \|$"
    rows = re.findall(row, document.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == (8 if document == README else len(slices))
    for name, cells in rows:
        of = slices[name]
        expected = [f"{of['macs'] / 1e6:.2f}", f"{of['parameters']:,}", f"{of['bytes']:,} B", str(of["resolution"])]
        if of["family"] == "bignas-cifar10":
            expected += [f"{of['top1']:.2f} %", f"{of['holdout_top1']:.2f} %"]
        else:  # ours and its makers' figure: two sets of images, two columns
            published = f"{of['published']['top1']:.1f} %" if of["published"] else ""
            expected += [f"{of['top1']:.2f} ± {of['top1_standard_error']:.2f} %", published]
        assert [cell.strip() for cell in cells.split("|")] == expected, name


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = blocks(README, "python")
    run_example(example, tmp_path)
    assert (tmp_path / "classifier" / "model.tflite").is_file()
    assert (tmp_path / "mine.tflite").is_file()
    assert (tmp_path / "mine.onnx").is_file()


@pytest.mark.slow
def test_the_python_example_of_int8_runs(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "docs" / "export.md", "python")
    run_example(example, tmp_path)
    assert (tmp_path / "s-int8.tflite").is_file()


def run_example(example: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_example_on_a_card_runs(tmp_path: Path) -> None:
    result = bz.get(budget="400MFLOPs", output=tmp_path / "slice")
    card = (result.path / "README.md").read_text("utf-8")
    prepare, way, _ = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    example = prepare + way
    from PIL import Image

    Image.new("RGB", (50, 40), (90, 120, 200)).save(result.path / "photo.jpg")
    # The runtime alone: no TensorFlow, no package of ours.
    blocked = "import sys; sys.modules.update(tensorflow=None, keras=None, bignas_zoo=None)\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + example],
        cwd=result.path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    label = done.stdout.split()[0]
    assert label in (result.path / "labels.txt").read_text().split()
    shutil.rmtree(result.path)
