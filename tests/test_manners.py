"""What is expected of a command line: Ctrl-C, pipes, narrow terminals, colours, and --debug."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import tree
from test_disks import NAME, entry

import bignas_zoo as bz
from bignas_zoo.files import leftovers

COMMAND = "from bignas_zoo.cli.start import main; main()"
#: The same, which says when it answers a signal itself: what comes before is Python's.
READY = """
import os, signal
from bignas_zoo.cli.start import main
install = signal.signal
def installed(number, handler):
    install(number, handler)
    if number == {}:
        signal.signal = install
        os.write(1, b"ready\\n")
signal.signal = installed
main()
"""
MOMENTS = 12


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_debug_alone_shows_where_an_error_comes_from() -> None:
    plain, debug = run("show", "bignas-xxl"), run("--debug", "show", "bignas-xxl")
    assert plain.returncode == debug.returncode == 3
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert debug.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", ["cache list", "devices --json", "show bignas-xl --json"])
def test_a_reader_that_goes_away_is_no_error(arguments: str) -> None:
    line = f"({sys.executable} -c '{COMMAND}' {arguments}; echo $? >&2) | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "0\n"
    assert len(done.stdout.splitlines()) == 1


def in_terminal(code: str, *arguments: str, **environment: str) -> str:
    """Run in a terminal of its own and return what is on it."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(follower)
    output = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux's way to say that nobody writes any more
            break
        if not chunk:
            break
        output += chunk
    os.close(leader)
    assert process.wait(60) == 0, output
    return output.decode()


PROGRESS = """
import time
from bignas_zoo.cli.progress import image_progress
with image_progress("counting") as report:
    for i in range(3):
        report(i, 3)
        time.sleep(0.15)
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*[34][0-9][0-9;]*m")


def test_no_color_is_heard() -> None:
    assert COLOUR.search(in_terminal(PROGRESS))  # or else there is nothing to turn off
    text = in_terminal(PROGRESS, NO_COLOR="1")
    assert "counting" in text
    assert not COLOUR.search(text)
    assert "\x1b" not in in_terminal(COMMAND, "list")


def test_a_narrow_terminal() -> None:
    for arguments in (("cache", "prune", "--help"), ("show", "bignas-xl")):
        assert in_terminal(COMMAND, *arguments, COLUMNS="40")
    assert "bignas-cifar10-smallest" in in_terminal(COMMAND, "list", COLUMNS="20")


def test_names_are_never_cut_in_a_narrow_terminal() -> None:
    text = in_terminal(COMMAND, "list", COLUMNS="60", TERM="dumb")
    for chosen in bz.list_slices():
        assert chosen.name in text


def test_plain_ascii_where_nothing_else_is_spoken() -> None:
    for arguments in (("show", "bignas-xl"), ("list", "--json")):
        done = run(*arguments, LC_ALL="C", LANG="C", PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr


def started(place: Path, number: signal.Signals = signal.SIGINT) -> subprocess.Popen[str]:
    """Start a `get`, and return when it answers a signal."""
    process = subprocess.Popen(
        [sys.executable, "-c", READY.format(int(number)), "get", NAME, "-o", str(place / "out"), "--force"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place / "tmp")},
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


SAYS = {signal.SIGINT: (130, "Error: interrupted."), signal.SIGTERM: (143, "Error: stopped by SIGTERM.")}


def interrupted(place: Path, seconds: float, number: signal.Signals = signal.SIGINT) -> int:
    """Send Ctrl-C to a `get` some seconds after it has begun, and look at what it leaves; return its exit code."""
    process = started(place, number)
    time.sleep(seconds)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said, f"after {seconds} s"
    if process.returncode:
        assert (process.returncode, said.splitlines()[-1]) == SAYS[number], f"after {seconds} s: {said}"
    assert list(place.rglob(f"{leftovers.TEMPORARY}*")) == [], f"after {seconds} s"
    return process.returncode


def test_ctrl_c_at_any_moment_of_a_cached_get(slice_folder: Path, tmp_path: Path) -> None:
    entry(slice_folder)
    (tmp_path / "tmp").mkdir()
    process, start = started(tmp_path), time.monotonic()
    process.communicate(timeout=60)
    most = time.monotonic() - start
    assert process.returncode == 0
    old = {**tree(tmp_path / "out"), "labels.txt": b"older"}
    codes = []
    for i in range(MOMENTS):
        (tmp_path / "out" / "labels.txt").write_bytes(b"older")
        codes.append(interrupted(tmp_path, i / MOMENTS * most))  # the first one at once
        assert tree(tmp_path / "out") in (old, tree(slice_folder))
    assert 130 in codes


@pytest.mark.slow
@pytest.mark.parametrize("number", SAYS)
def test_a_signal_at_any_moment_of_a_first_get(number: signal.Signals, tmp_path: Path) -> None:
    """With TensorFlow, whose imports and callbacks make other errors of an interrupt, or none, or crash."""
    (tmp_path / "tmp").mkdir()
    for seconds in (0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        interrupted(tmp_path, seconds, number)
        if (tmp_path / "out").exists():
            assert (tmp_path / "out" / "slice.json").exists()


@pytest.mark.parametrize("number", SAYS)
def test_a_signal_after_the_last_word_changes_nothing(number: signal.Signals) -> None:
    """While Python unloads what was imported, which takes a second with TensorFlow."""
    code = f"import atexit, os; atexit.register(os.kill, os.getpid(), {int(number)}); {COMMAND}"
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.slow
def test_what_goes_on_says_so_when_it_is_stopped(tmp_path: Path) -> None:
    arguments = ["profile", "here", "--rounds", "2", "--workers", "1", "--output", str(tmp_path)]
    command = [sys.executable, "-c", "from bignas_zoo.cli.start import main; main()", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert any("are still to be made" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Error: interrupted. Run the same command again to go on."


STOPPED_WHILE_JAX_COMPUTES = """
import atexit, sys, time
import jax
import bignas_zoo.cli.main
from bignas_zoo.cli import start

atexit.register(time.sleep, 300)  # as JAX waits for the step that computes

def command():
    sys.stdout.write("said")
    sys.exit(75)

bignas_zoo.cli.main.main = command
start.main()
"""


def test_a_stopped_run_does_not_wait_for_jax() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_WHILE_JAX_COMPUTES], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (75, "said"), done.stderr
