"""Requests to stop: SIGTERM and Ctrl-C, honoured where nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bignas_zoo.errors import PreemptedError

AGAIN = "Run the same command again to go on."
TWICE = 2.0


class StopRequest:
    """Whether somebody asked the process to stop, and what that does at this moment.

    The first signal is a request, or an exception inside `at_once`. A second one does what it would have
    done without us, but not within `TWICE` seconds: launchers signal a process and then its group.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._at_once = False
        self._when = 0.0

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def error(self, where: str = "") -> BaseException:
        """Return what to raise: for SIGTERM an error with the exit code of a resumable run.

        Args:
            where: how far the run is, e.g. ``" after step 7 of 9"``.
        """
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt(f"interrupted{where}. {AGAIN}")
        return PreemptedError(f"stopped on request{where}. {AGAIN}")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal raise `error` inside this block: only around work that may be cut anywhere."""
        self._at_once = True
        try:
            self._raise_if_requested()
            yield
            self._raise_if_requested()  # a library swallowed it
        except Exception as error:
            if self.requested and not isinstance(error, PreemptedError):
                raise self.error() from error  # a library, inside a callback, made another error of it
            raise
        finally:
            self._at_once = False

    def _raise_if_requested(self) -> None:
        if self.requested:
            raise self.error()

    def _ask(self, number: int, frame: Any) -> None:
        if not self.requested:
            self.signal, self._when = number, time.monotonic()
            if self._at_once:
                raise self.error()
        elif time.monotonic() - self._when > TWICE:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and Ctrl-C into a request.

    Signals that whoever started us wants ignored (a script's background job ignores Ctrl-C) stay so; outside
    the main thread all are left to whoever runs us.
    """
    stop = StopRequest()
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                stop._before[number] = signal.signal(number, stop._ask)
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        for caught, before in stop._before.items():
            signal.signal(caught, before)
