"""What the README promises, run as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_there_for_ci() -> None:
    for name in ("get", "test"):
        assert re.search(rf"<!-- command: {name} -->\n```bash\n[^\n]+\n```", README), name


def test_every_shown_option_exists() -> None:
    from click.testing import CliRunner

    from bignas_zoo.cli.main import main

    commands = re.findall(r"bignas-zoo (\w+)", "\n".join(blocks("bash")))
    assert {"get", "list", "show", "evaluate", "train"} <= set(commands)
    for command in set(commands):
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
    for line in "\n".join(blocks("bash")).splitlines():
        found = re.search(r"bignas-zoo (\w+)", line)
        if found:
            text = CliRunner().invoke(main, [found[1], "--help"]).stdout
            for option in re.findall(r"(--[a-z]+)", line.split("bignas-zoo", 1)[1]):
                assert option in text, line


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r'src="([^":]+)"', README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "classifier" / "model.tflite").is_file()
    assert (tmp_path / "mine.tflite").is_file()


@pytest.mark.slow
def test_the_example_on_a_card_runs(tmp_path: Path) -> None:
    import bignas_zoo as bz

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
