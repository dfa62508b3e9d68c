"""A short run of every fuzz target, what once failed, and the proof that the judge sees what it should.

The nightly run is ``scripts/fuzz --inputs 1000000``; CI runs a minute of each.
"""

from __future__ import annotations

import subprocess
import sys
import time

import fuzz_targets
import fuzzing
import pytest
from conftest import ROOT


def test_what_is_kept_belongs_to_a_target() -> None:
    assert not fuzzing.CORPUS.exists() or {p.name for p in fuzzing.CORPUS.iterdir()} <= set(fuzz_targets.MAKERS)


@pytest.mark.parametrize("name", fuzz_targets.MAKERS)
def test_only_our_own_errors_in_bounded_time_and_memory(name: str) -> None:
    report = fuzzing.fuzz(fuzz_targets.target(name), 5_000, seconds=2)
    assert report.failures == []
    assert report.inputs >= 50
    assert report.accepted > 0


@pytest.mark.parametrize("name", fuzz_targets.MAKERS)
def test_what_once_failed_does_not_again(name: str) -> None:
    report = fuzzing.Report(name)
    for data in fuzzing.kept(name):
        report.judge(fuzz_targets.target(name), data)
    assert report.failures == []


def test_the_judge_sees_other_errors_time_and_memory() -> None:
    def run(data: bytes) -> None:
        if data == b"error":
            raise KeyError("x")
        if data == b"slow":
            end = time.thread_time() + 1.1
            while time.thread_time() < end:
                pass
        if data == b"large":
            bytearray(300 << 20)[::4096] = b"x" * (300 << 8)

    target, report = fuzzing.Target("t", (b"",), run, fuzzing.mutate_bytes), fuzzing.Report("t")
    for data in (b"good", b"error", b"slow", b"large", b"good"):
        report.judge(target, data)
    assert [data for data, _ in report.failures][:2] == [b"error", b"slow"]
    assert report.inputs == 5
    assert report.grown_bytes > 0 or report.failures[-1][0] == b"slow"  # the process may have been larger before


def test_mutations_are_many_and_repeatable() -> None:
    target = fuzz_targets.target("family")
    made = list(fuzzing.inputs(target, 300, 1))
    assert made == list(fuzzing.inputs(target, 300, 1))
    assert len(set(made)) > 250
    assert made != list(fuzzing.inputs(target, 300, 2))


@pytest.mark.slow
def test_the_nightly_script() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz"), "--inputs", "500", "--target", "budget"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("budget           500 inputs")
