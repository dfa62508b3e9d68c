"""docs/DEPLOY.md: its commands are commands, and make the files it names."""

from __future__ import annotations

import re
import shlex

import pytest
from conftest import ROOT

from bignas_zoo.cli.export import chosen_exports, export_command
from bignas_zoo.cli.get import get_command
from bignas_zoo.cli.main import COMMANDS

TEXT = (ROOT / "docs" / "DEPLOY.md").read_text("utf-8")
ROWS = re.findall(r"\| `bignas-zoo ((?:get|export) [^`]*)` \| `([^`]*)`", TEXT)


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 9


@pytest.mark.parametrize(("command", "file"), ROWS)
def test_a_command_makes_the_file_it_stands_beside(command: str, file: str) -> None:
    name, *arguments = shlex.split(command)
    chosen = {"get": get_command, "export": export_command}[name]
    given = chosen.make_context(name, arguments, resilient_parsing=False).params
    keys = ("io", "layout", "batch")
    options = {key: given[key] for key in keys if key in given}
    (export,) = chosen_exports(given["formats"], given["precisions"], given["normalize_in_graph"], **options)
    assert export.file == file


def test_every_command_in_it_exists() -> None:
    assert set(re.findall(r"bignas-zoo ([a-z]+)", TEXT)) <= set(COMMANDS)
