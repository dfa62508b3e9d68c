"""What scripts, benchmarks, examples and tests import of the package is there: they are not imported by any test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT
from test_imports import MODULES, TREES


def python_files() -> list[Path]:
    """Return the programs beside the shipped code."""
    files = [path for folder in ("benchmarks", "examples", "scripts", "tests") for path in (ROOT / folder).glob("*")]
    return sorted(path for path in files if path.suffix == ".py" or (path.is_file() and is_python_script(path)))


def is_python_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith(b"#!") and b"python" in path.read_bytes()[:40]


def names_of(module: str) -> set[str]:
    """Return what a module binds at its top level, under any condition."""
    names: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", python_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imported_names_of_ours_exist(path: Path) -> None:
    missing = [
        f"line {node.lineno}: {node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "bignas_zoo"
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES
        and alias.name != "__path__"
        and (node.module not in MODULES or alias.name not in names_of(str(node.module)))
    ]
    assert missing == []


def test_the_programs_are_found() -> None:
    names = {path.name for path in python_files()}
    assert {"pictures", "nightly_store", "fuzz", "train_step.py", "conftest.py"} <= names
