"""Children measured on a Dask cluster: a real scheduler with two worker processes on this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import measuring
import pytest
from conftest import TINY
from measuring import fatal, truth

from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.errors import UsageError
from bignas_zoo.runtime import dask_workers
from bignas_zoo.runtime.dask_workers import DaskWorkers

distributed = pytest.importorskip("distributed", reason="the extra `search` is not installed")

SPECS = list(dict.fromkeys(uniform_child(TINY, ("workers", i)) for i in range(12)))
TRUTH = [truth(s) for s in SPECS]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of the scheduler of such a cluster."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address


def test_answers_come_in_the_order_asked_for_and_the_work_is_shared(address: str, tmp_path: Path) -> None:
    with DaskWorkers(address, measuring.uneven, str(tmp_path)) as cluster:
        assert list(cluster(SPECS)) == TRUTH
        assert list(cluster([])) == []
        assert list(cluster(SPECS[:1])) == TRUTH[:1]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_workers_child_is_measured_again(address: str, tmp_path: Path) -> None:
    specs = [s for s in SPECS if not fatal(s)][:3] + [s for s in SPECS if fatal(s)][:1]
    with DaskWorkers(address, measuring.deadly, str(tmp_path), 1) as cluster:
        assert list(cluster(specs)) == [truth(s) for s in specs]
    assert [p.read_text() for p in tmp_path.iterdir()] == ["x"]


def test_an_error_of_ours_is_raised_as_it_is(address: str) -> None:
    with DaskWorkers(address, measuring.refusing) as cluster, pytest.raises(UsageError, match="no such images"):
        list(cluster(SPECS[:1]))


def test_where_no_scheduler_answers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "SECONDS", 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        place = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"no Dask scheduler at {place}"):
            DaskWorkers(place, measuring.plain)
