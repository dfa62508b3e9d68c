"""Workers that die, refuse and end; and results that are the same however many there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import measuring
import pytest
from conftest import TINY
from measuring import fatal, truth

from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.budget import Budget
from bignas_zoo.errors import BigNASError, UsageError
from bignas_zoo.runtime.workers import LocalWorkers
from bignas_zoo.search import rounds
from bignas_zoo.search.coarse_to_fine import CoarseToFine, default_grid
from bignas_zoo.search.costs import figures

SPECS = list(dict.fromkeys(uniform_child(TINY, ("workers", i)) for i in range(12)))
TRUTH = [truth(s) for s in SPECS]
FATAL = [s for s in SPECS if fatal(s)]


def test_answers_come_in_the_order_asked_for_and_the_work_is_shared(tmp_path: Path) -> None:
    with LocalWorkers(3, measuring.uneven, str(tmp_path)) as pool:
        assert list(pool(SPECS)) == TRUTH
        assert list(pool([])) == []
        assert list(pool(SPECS[:1])) == TRUTH[:1]
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().split()]
    assert sorted(map(float, lines)) == sorted([*TRUTH, TRUTH[0]])
    assert len(list(tmp_path.iterdir())) > 1


def test_a_killed_workers_child_is_measured_again(tmp_path: Path) -> None:
    specs = [FATAL[0], *(s for s in SPECS if s not in FATAL)]
    assert len(specs) > 2
    with LocalWorkers(2, measuring.deadly, str(tmp_path), 2) as pool:
        assert list(pool(specs)) == [truth(s) for s in specs]
        assert pool.restarts == 2


def test_a_worker_killed_while_it_waits_is_replaced(tmp_path: Path) -> None:
    with LocalWorkers(2, measuring.plain) as pool:
        assert list(pool(SPECS[:2])) == TRUTH[:2]
        os.kill(pool.pids[0], signal.SIGKILL)
        assert list(pool(SPECS)) == TRUTH


def test_a_process_that_has_worked_long_enough_is_renewed(tmp_path: Path) -> None:
    with LocalWorkers(2, measuring.uneven, str(tmp_path), renew_after=3) as pool:
        assert list(pool(SPECS)) == TRUTH
        assert pool.restarts == 0
    pieces = [len(file.read_text().split()) for file in tmp_path.iterdir()]  # a file a process
    assert sum(pieces) == len(SPECS)
    assert max(pieces) <= 3


def test_a_child_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    with LocalWorkers(1, measuring.deadly, str(tmp_path), 99) as pool, pytest.raises(BigNASError) as caught:
        list(pool(FATAL))
    assert str(caught.value) == (
        f"workers: 3 in turn died over the same task, {FATAL[0]}. Memory may be short: give fewer --workers."
    )


def test_an_error_of_ours_is_raised_as_it_is_and_another_in_one_line() -> None:
    with LocalWorkers(1, measuring.refusing) as pool, pytest.raises(UsageError, match="no such images"):
        list(pool(SPECS))
    with LocalWorkers(1, measuring.broken) as pool, pytest.raises(RuntimeError) as caught:
        list(pool(SPECS))
    assert str(caught.value) == "in a worker: ZeroDivisionError: over\nlines"
    assert "measuring.py" in str(caught.value.__cause__)


def test_answers_to_an_abandoned_call_are_ignored(tmp_path: Path) -> None:
    with LocalWorkers(2, measuring.uneven, str(tmp_path)) as pool:
        first = pool(SPECS)
        assert next(first) == TRUTH[0]
        first.close()
        assert list(pool(SPECS[::-1])) == TRUTH[::-1]


def test_the_same_search_with_one_worker_and_with_three(tmp_path: Path) -> None:
    budgets = (Budget.parse("0.5M"),)
    found = []
    for count in (0, 1, 3):
        method = CoarseToFine(TINY, default_grid(TINY, 10).members(TINY), budgets, figures, 0)
        if count == 0:
            found.append(rounds.search(method, rounds.each(truth), figures, children=30))
            continue
        folder = tmp_path / str(count)
        folder.mkdir()
        with LocalWorkers(count, measuring.uneven, str(folder)) as pool:
            found.append(rounds.search(method, pool, figures, children=30))
    assert found[0] == found[1] == found[2]


def test_no_worker_survives_the_pool() -> None:
    with LocalWorkers(2, measuring.plain) as pool:
        pids = pool.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(UsageError, match="workers: must be at least 1, got 0"):
        LocalWorkers(0, measuring.plain)


PARENT = """
import measuring
from conftest import TINY
from bignas_zoo.runtime.workers import LocalWorkers
if __name__ == "__main__":
    pool = LocalWorkers(1, measuring.slow, {folder!r})
    print(pool.pids[0], flush=True)
    list(pool([TINY.smallest, TINY.biggest]))
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(tmp_path)))
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert parent.stdout
    worker = int(parent.stdout.readline())
    wait_until(lambda: (tmp_path / "begun").exists())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not Path(f"/proc/{worker}").exists() or " Z " in Path(f"/proc/{worker}/stat").read_text())


def wait_until(true: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)
