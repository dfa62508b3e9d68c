"""Each test file runs in a process of its own, and what happens there is reported as if it were here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FILE = """
import os
import pytest

@pytest.fixture(scope="module")
def shared():
    yield os.getpid()
    print("torn down in", os.getpid())

def test_passes(shared):
    assert shared == os.getpid() != os.getppid()

def test_fails(shared):
    assert shared == "this is said"

@pytest.mark.skip(reason="told so")
def test_is_skipped():
    pass

def test_ends_the_process():
    os._exit(3)

def test_after_that_passes(shared):
    assert shared == os.getpid()
"""


def test_reports_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(FILE)
    command = [sys.executable, "-m", "pytest", "-p", "file_processes", "-p", "no:cacheprovider", "-ra", "-v", "-s"]
    environment = {"PYTHONPATH": str(Path(__file__).parent), "PATH": ""}
    ran = subprocess.run([*command, "."], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed, 1 skipped" in ran.stdout.replace("2 failed, ", ""), ran.stdout
    assert "2 failed" in ran.stdout
    assert "this is said" in ran.stdout
    assert "told so" in ran.stdout
    assert "the process of this test's file ended before the test did (wait status 768)" in ran.stdout
    assert ran.stdout.count("torn down in") == 1  # by the second process: the first had no time to
