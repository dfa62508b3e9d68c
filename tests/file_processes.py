"""A process for each test file: what its tests trace, compile and keep is given back when the file ends.

Frameworks keep programs and heaps that nothing can ask back (test_supernet.py kept 1.6 GB). The process is
forked from one that has collected the tests, so it has imported everything and has run nothing: no file starts by
importing TensorFlow, and no pool of threads is lost by the fork, since nobody has started one.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
from _pytest.runner import runtestprotocol

_ENDED_EARLY = "the process of this test's file ended before the test did (wait status {})"


class _FileProcess:
    """The process that runs the tests of one file, one after the other, as it is told."""

    def __init__(self, session: pytest.Session) -> None:
        ours, theirs = Pipe()
        gc.collect()
        _flush()  # or both would print it
        gc.freeze()  # the collector would write to each object, and each page would be copied
        with _a_fork_is_meant():
            self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _serve(session, theirs)
        theirs.close()
        self._connection = ours
        self.ended = False

    def run(self, item: pytest.Item, following: pytest.Item | None) -> list[pytest.TestReport]:
        """Return the reports of a test; what no test that follows needs is torn down."""
        try:
            self._connection.send((item.nodeid, following and following.nodeid))
            serialised = self._connection.recv()
        except (EOFError, OSError):
            return [_failed(item, _ENDED_EARLY.format(self.end()))]
        return [item.config.hook.pytest_report_from_serializable(config=item.config, data=one) for one in serialised]

    def end(self) -> int:
        """Have the process tear down what it has set up, once; return its wait status."""
        if self.ended:
            return 0
        self.ended = True
        self._connection.close()
        return os.waitpid(self._pid, 0)[1]


def _serve(session: pytest.Session, connection: Connection) -> None:
    """Run tests as told, and never return."""
    status = 1
    try:
        reporter = session.config.pluginmanager.get_plugin("workerinteractor")
        if reporter is not None:  # of pytest-xdist: two processes would write into one pipe
            session.config.pluginmanager.unregister(reporter)
        _answer({item.nodeid: item for item in session.items}, connection)
        session._setupstate.teardown_exact(None)
        status = 0
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _answer(items: dict[str, pytest.Item], connection: Connection) -> None:
    while True:
        try:
            name, following = connection.recv()
        except EOFError:
            return
        item = items[name]
        reports = runtestprotocol(item, nextitem=items.get(following), log=False)
        to_data = item.config.hook.pytest_report_to_serializable
        connection.send([to_data(config=item.config, report=report) for report in reports])


def _failed(item: pytest.Item, message: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", message, "call")


@contextmanager
def _a_fork_is_meant() -> Iterator[None]:
    """Silence warnings of a fork beside threads: those of the libraries wait, and hold nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_process: _FileProcess | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test in the process of its file, unless a debugger is to stop there."""
    global _process
    if item.config.getoption("usepdb") or not hasattr(os, "fork"):
        return None
    following = nextitem if nextitem is not None and nextitem.path == item.path else None
    _process = _process or _FileProcess(item.session)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _process.run(item, following):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if following is None or _process.ended:
        _process.end()
        _process = None
    return True


def pytest_sessionfinish() -> None:
    """End the process of a file that was stopped in its middle."""
    if _process is not None:
        _process.end()
